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
    compile(&component(more), KERNEL).expect("steps")
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
        compile(&component(&format!("[security]\ngroups = [{many}]")), KERNEL).expect_err("too many");
    assert_eq!(refused.1, libc::E2BIG);
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
    let refused = compile(&component, Kernel { last_capability: 37 }).expect_err("unknown");
    assert_eq!(refused, ("give it CAP_BPF, which this kernel does not have".to_owned(), libc::EINVAL));
}

#[test]
fn limits_and_scheduling_are_the_kernels_numbers() {
    let found = ops("[resources]\nrlimits = { core = 0, nproc = \"64:infinity\" }\nscheduling = \"rr:10\"\n\
         io_class = \"best-effort:7\"\ncpu_affinity = [0, 1, 65]\noom_score_adjust = -5");
    let limit =
        |resource, rlim_cur, rlim_max| Op::Limit { resource, limit: libc::rlimit { rlim_cur, rlim_max } };
    let expected = [
        limit(4, 0, 0),
        limit(6, 64, libc::RLIM_INFINITY),
        Op::Write { path: c"/proc/self/oom_score_adj".into(), text: b"-5".to_vec() },
        Op::Affinity(vec![3, 2]),
        Op::IoPriority(2 << 13 | 7),
        Op::Schedule { policy: libc::SCHED_RR, priority: 10 },
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
        ("bring the interface lo up", false),
        ("give up new privileges", false),
    ];
    assert_eq!(marked, expected);
}
