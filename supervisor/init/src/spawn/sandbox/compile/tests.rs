use yakiros_core::component::{Component, parse};

use super::super::op::GROUPS_LIMIT;
use super::*;

const KERNEL: Kernel = Kernel { last_capability: 40 };

fn component(more: &str) -> Component {
    let text = format!("[component]\nname = \"a\"\nbinary = \"/bin/true\"\n{more}\n");
    let parsed = parse(&text);
    parsed.component.unwrap_or_else(|| panic!("{text}\n{:#?}", parsed.diagnostics))
}

/// The steps of a component with these lines.
fn steps(more: &str) -> Steps {
    compile(&component(more), &[], KERNEL).expect("steps")
}

fn ops(more: &str) -> Vec<Op> {
    steps(more).into_iter().map(|step| step.op).collect()
}

#[test]
fn who_asks_for_nothing_does_nothing() {
    assert_eq!(steps(""), []);
    assert_eq!(
        steps("[isolation]\nnamespaces = [\"pid\", \"ipc\"]\n[environment]\nvariables = [\"A=1\"]"),
        []
    );
}

#[test]
fn names_are_found_before_anything_is_changed_and_the_user_goes_last() {
    let found =
        ops("[security]\nuser = \"web\"\ngroup = \"www\"\ngroups = [\"audio\", 7]\n[resources]\nnice = 5");
    let expected = [
        Op::FindUser(c"web".into()),
        Op::FindGroup(c"www".into()),
        Op::FindOtherGroup(c"audio".into()),
        Op::OtherGroup(7),
        Op::Nice(5),
        Op::SetGroups,
        Op::SetGroup,
        Op::SetUser,
    ];
    assert_eq!(found, expected);
    assert_eq!(ops("[security]\ngroups = [3]"), [Op::OtherGroup(3), Op::SetGroups]);
    let many = vec!["1"; GROUPS_LIMIT + 1].join(", ");
    let refused =
        compile(&component(&format!("[security]\ngroups = [{many}]")), &[], KERNEL).expect_err("too many");
    assert_eq!(refused.1, libc::E2BIG);
}

#[test]
fn a_group_is_given_away_while_the_right_to_is_there() {
    let given = [PathBuf::from("/c/graph/a"), PathBuf::from("/c/graph/a/cgroup.procs")];
    let component = component("[security]\nuser = 33\n[resources]\ndelegate = true");
    let steps = compile(&component, &given, KERNEL).expect("steps");
    assert_eq!(&*steps[1].name, "give /c/graph/a to its user");
    let ops: Vec<_> = steps.into_iter().map(|step| step.op).collect();
    let expected = [
        Op::User(33),
        Op::Own(c"/c/graph/a".into()),
        Op::Own(c"/c/graph/a/cgroup.procs".into()),
        Op::SetGroups,
        Op::SetGroup,
        Op::SetUser,
    ];
    assert_eq!(ops, expected);
}

#[test]
fn capabilities_are_given_back_after_the_change_of_user_and_taken_after_that() {
    const RAW: u64 = 1 << 13;
    let all = (1 << 41) - 1;
    let found =
        ops("[security]\nuser = 33\ncapabilities = [\"NET_RAW\"]\nambient_capabilities = [\"NET_RAW\"]\n\
         securebits = [\"noroot\", \"noroot-locked\"]\nno_new_privs = true");
    let expected = [
        Op::User(33),
        Op::Forbid(all & !RAW),
        Op::KeepCapabilities,
        Op::SetGroups,
        Op::SetGroup,
        Op::SetUser,
        Op::Capabilities { keep: all, inheritable: RAW },
        Op::Ambient(RAW),
        Op::SecureBits(3),
        Op::Capabilities { keep: RAW, inheritable: RAW },
        Op::NoNewPrivileges,
    ];
    assert_eq!(found, expected);
    let none = ops("[security]\ncapabilities = []");
    assert_eq!(none, [Op::Forbid(all), Op::Capabilities { keep: 0, inheritable: 0 }]);
}

#[test]
fn a_capability_that_the_kernel_does_not_have_is_named() {
    let component = component("[security]\ncapabilities = [\"CAP_BPF\", \"CAP_CHOWN\"]");
    let refused = compile(&component, &[], Kernel { last_capability: 37 }).expect_err("unknown");
    assert_eq!(refused, ("give it CAP_BPF, which this kernel does not have".to_owned(), libc::EINVAL));
}

#[test]
fn limits_and_scheduling_are_the_kernels_numbers() {
    let found = ops("[resources]\nrlimits = { core = 0, nproc = \"64:infinity\" }\nscheduling = \"rr:10\"\n\
         io_class = \"best-effort:7\"\nfiles_max = 9\ncpu_affinity = [0, 1, 65]\noom_score_adjust = -5");
    let limit =
        |resource, rlim_cur, rlim_max| Op::Limit { resource, limit: libc::rlimit { rlim_cur, rlim_max } };
    let expected = [
        Op::Write { path: c"/proc/self/oom_score_adj".into(), text: b"-5".to_vec() },
        Op::Affinity(vec![3, 2]),
        Op::IoPriority(2 << 13 | 7),
        Op::Schedule { policy: libc::SCHED_RR, priority: 10 },
        limit(7, 9, 9),
        limit(4, 0, 0),
        limit(6, 64, libc::RLIM_INFINITY),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_optional_is_marked_and_nothing_else() {
    let steps = steps(
        "[isolation]\nnamespaces = [\"uts\", \"net\"]\nhostname = \"web\"\n\
         [security]\noptional = [\"hostname\"]\nno_new_privs = true",
    );
    let marked: Vec<_> = steps.iter().map(|step| (&*step.name, step.optional)).collect();
    let expected = [
        ("set the host name to \"web\"", true),
        ("take a network namespace of its own", false),
        ("bring the interface lo up", false),
        ("give up new privileges", false),
    ];
    assert_eq!(marked, expected);
}

/// The names of steps, in order.
fn names(more: &str) -> Vec<String> {
    steps(more).iter().map(|step| step.name.to_string()).collect()
}

#[test]
fn what_comes_from_outside_is_opened_before_anything_is_mounted_and_parts_come_after_the_whole() {
    let found = names(
        "[isolation]\nnamespaces = [\"mount\", \"pid\", \"cgroup\"]\nroot = \"/srv\"\nread_only = [\"/\", \"/usr\"]\n\
         tmpfs = [\"/var:size=1M\"]\nbinds = [\"/data:/var/data\"]\ninaccessible = [\"/etc/keys\"]\n\
         secrets = { key = \"/etc/key\" }",
    );
    let expected = [
        "take a cgroup namespace of its own",
        "make mounts private",
        "open /data",
        "open /etc/key",
        "open /dev/null",
        "make /srv the root directory",
        "make the directory of secrets",
        "make /usr read-only",
        "mount proc at /proc",
        "mount tmpfs at /tmp",
        "mount tmpfs at /var",
        "make the directory /var/data",
        "bind /data to /var/data",
        "make /etc/keys inaccessible",
        "mount tmpfs at /run/secrets",
        "copy /etc/key to /run/secrets/key",
        "make /run/secrets read-only",
        "leave the old root directory",
    ];
    assert_eq!(found, expected);
}

#[test]
fn too_much_from_outside_is_refused() {
    let binds: Vec<_> = (0..64).map(|number| format!("\"/a:/b{number}\"")).collect();
    let more = format!("[isolation]\nnamespaces = [\"mount\"]\nbinds = [{}]", binds.join(", "));
    assert_eq!(compile(&component(&more), &[], KERNEL).expect_err("too many").1, libc::E2BIG);
}

/// The last step of a component with this filter.
fn filter(more: &str) -> Op {
    ops(&format!("[security]\n{more}")).pop().expect("a filter")
}

#[test]
fn a_filter_is_the_last_step_and_kept_with_its_declaration() {
    let component =
        component("[isolation]\nnamespaces = [\"pid\"]\ninit = true\n[security]\nseccomp = [\"@service\"]");
    let compiled = || compile(&component, &[], KERNEL).expect("steps");
    let (first, second) = (compiled(), compiled());
    let names: Vec<_> = first.iter().map(|step| &*step.name).collect();
    let expected = [
        "give up new privileges",
        "begin as the first process of the namespace",
        "install the filter of system calls",
    ];
    assert_eq!(names, expected);
    match (&first[2].op, &second[2].op) {
        (Op::Filter(first), Op::Filter(second)) => assert!(std::rc::Rc::ptr_eq(first, second)),
        other => panic!("{other:?}"),
    }
    assert_ne!(filter("seccomp = [\"read\"]"), filter("seccomp = [\"~read\"]"));
    assert_ne!(filter("seccomp = [\"read\"]"), filter("seccomp = [\"read\"]\nseccomp_action = \"kill\""));
}

#[test]
fn landlock_forbids_what_it_names_and_lets_the_program_itself_begin() {
    let found = names("[security]\nlandlock_write = [\"/data\"]\nlandlock_execute = [\"/usr\"]");
    let expected = [
        "begin a Landlock ruleset",
        "allow writing below /data by Landlock",
        "allow executing below /usr by Landlock",
        "allow executing /bin/true by Landlock",
        "restrict it by Landlock",
    ];
    assert_eq!(found, expected);
    assert_eq!(names("[security]\nlandlock_write = [\"/data\"]").len(), 3);
}

#[test]
fn the_clocks_of_a_time_namespace_are_set_before_it_is_entered() {
    let found = ops("[isolation]\nnamespaces = [\"time\"]\ntime_offsets = { boottime = -5 }");
    let expected = [
        Op::Unshare(libc::CLONE_NEWTIME),
        Op::Write {
            path: c"/proc/self/timens_offsets".into(),
            text: b"monotonic 0 0\nboottime -5 0\n".to_vec(),
        },
        Op::EnterTime,
    ];
    assert_eq!(found, expected);
}
