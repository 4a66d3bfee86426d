//! Ways out: each tried with the restriction that closes it, and without.
//!
//! All are declared at once with their restriction, and judged; then all without. An attempt counts as done when the
//! program says so *and* it shows outside, where only that tells: a host name that is changed inside of a namespace is no
//! escape. And it counts as tried only if the program ran: a component that was not started proves nothing.

use super::{REACTION, component};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// One way out.
struct Escape {
    /// Of `test-escape`.
    attempt: &'static str,
    /// Of `test-escape`; `PID` stands for a process of another component, `MODULE` for the file of a module.
    target: &'static str,
    /// What closes it.
    restriction: &'static str,
    /// What is declared in both cases.
    always: &'static str,
    /// Holds in the guest when it was really done; empty where the program's word is enough.
    outside: &'static str,
    /// Takes back what it did.
    undo: &'static str,
}

const NOTHING: Escape =
    Escape { attempt: "", target: "", restriction: "", always: "", outside: "", undo: "" };

const BY_NAMESPACES: [Escape; 7] = [
    Escape {
        attempt: "signal",
        target: "PID:0",
        restriction: "[isolation]\nnamespaces = [\"pid\"]",
        ..NOTHING
    },
    Escape { attempt: "trace", target: "PID", restriction: "[isolation]\nnamespaces = [\"pid\"]", ..NOTHING },
    Escape {
        attempt: "set-hostname",
        target: "escaped",
        restriction: "[isolation]\nnamespaces = [\"uts\"]",
        outside: "[ \"$(hostname)\" = escaped ]",
        undo: "hostname guest",
        ..NOTHING
    },
    Escape {
        attempt: "mount",
        target: "/mnt",
        restriction: "[isolation]\nnamespaces = [\"mount\"]\nprivate_tmp = false",
        outside: "grep -q ' /mnt .*escaped' /proc/1/mountinfo",
        undo: "umount /mnt",
        ..NOTHING
    },
    Escape {
        attempt: "connect",
        target: "8080",
        restriction: "[isolation]\nnamespaces = [\"net\"]",
        ..NOTHING
    },
    Escape {
        attempt: "lift-limit",
        target: "pids.max",
        restriction: "[isolation]\nnamespaces = [\"cgroup\", \"mount\"]",
        always: "[resources]\npids_max = 10",
        ..NOTHING
    },
    Escape {
        attempt: "see-memory",
        target: "4711",
        restriction: "[isolation]\nnamespaces = [\"ipc\"]",
        undo: "ipcrm -M 4711",
        ..NOTHING
    },
];

pub async fn escapes_by_namespaces(vm: &Vm) -> Result<(), Failure> {
    vm.succeed(&["test-escape", "--attempt", "share-memory", "--target", "4711"], REACTION).await?;
    try_all(vm, &BY_NAMESPACES).await
}

/// Each is refused, and each is done without its restriction.
async fn try_all(vm: &Vm, escapes: &[Escape]) -> Result<(), Failure> {
    let pid = vm.status().await?.component("test-isolated-service")?.running_pid()?;
    vm.step("each is refused", attempt(vm, escapes, pid, true)).await?;
    vm.step("each is done without its restriction", attempt(vm, escapes, pid, false)).await?;
    for escape in escapes.iter().filter(|escape| !escape.undo.is_empty()) {
        vm.sh(escape.undo).await?;
    }
    Ok(())
}

async fn attempt(vm: &Vm, escapes: &[Escape], pid: i32, restricted: bool) -> Result<(), Failure> {
    let before = vm.status().await?.revision;
    let module = vm.sh("find /lib/modules -name dummy.ko").await?;
    let word = if restricted { "held" } else { "free" };
    let name = |number: usize| format!("{word}-{number}");
    for (number, escape) in escapes.iter().enumerate() {
        let target = escape.target.replace("PID", &pid.to_string()).replace("MODULE", module.trim());
        let restriction = if restricted { escape.restriction } else { "" };
        let more = format!("type = \"oneshot\"\n{}\n{restriction}\n", escape.always);
        let arguments = ["--attempt", escape.attempt, "--target", &target];
        let file = component(&name(number), "/usr/local/bin/test-escape", &arguments, &more);
        vm.declare(&format!("{}.toml", name(number)), &file).await?;
    }
    for (number, escape) in escapes.iter().enumerate() {
        let said = tried(vm, &name(number), before).await?;
        let mut done = said.contains(": done");
        if done && !escape.outside.is_empty() {
            // It may take a moment until it shows. What does not come is waited for until the program is over.
            vm.wait_state(&name(number), "DONE", Some(before), REACTION).await?;
            done = if restricted {
                vm.run(&["/bin/sh", "-c", escape.outside], REACTION).await?.success()
            } else {
                vm.until(escape.attempt, escape.outside, REACTION).await.is_ok()
            };
        }
        let Escape { attempt, target, restriction, .. } = escape;
        check!(
            done != restricted,
            "{attempt} {target}: {} ({}): {}",
            if done { "done in spite of its restriction" } else { "refused without its restriction" },
            restriction.replace('\n', " "),
            said.trim()
        );
    }
    for number in 0..escapes.len() {
        vm.undeclare(&format!("{}.toml", name(number))).await?;
    }
    for number in 0..escapes.len() {
        vm.wait_state(&name(number), "REMOVED", Some(before), REACTION).await?;
    }
    Ok(())
}

/// What the program said once it was over.
async fn tried(vm: &Vm, name: &str, since: u64) -> Result<String, Failure> {
    let limit = vm.limit(2 * REACTION).as_secs().to_string();
    let log = format!("/run/graph/{name}.log");
    let script = format!("until grep -q 'done$\\|test-escape: failed' {log}; do sleep 0.02; done; cat {log}");
    let output = vm.run(&["timeout", &limit, "/bin/sh", "-c", &script], 4 * REACTION).await?;
    if output.success() {
        return Ok(output.text());
    }
    let journal = vm.graphctl(&["events", "--since", &since.to_string()]).await?;
    let own: Vec<_> = journal.lines().filter(|line| line.contains(name)).collect();
    Err(Failure::supervisor(format!("{name} did not try: {}", own.join("; "))))
}

/// Nobody in particular.
const NOBODY: &str = "[security]\nuser = \"nobody\"";

const BY_PRIVILEGES: [Escape; 11] = [
    Escape { attempt: "be-root", restriction: NOBODY, ..NOTHING },
    Escape { attempt: "trace", target: "PID", restriction: NOBODY, ..NOTHING },
    Escape { attempt: "signal", target: "PID:0", restriction: NOBODY, ..NOTHING },
    Escape { attempt: "signal", target: "1:0", restriction: NOBODY, ..NOTHING },
    Escape {
        attempt: "join-group",
        target: "/sys/fs/cgroup/graph/test-isolated-service",
        restriction: NOBODY,
        ..NOTHING
    },
    Escape { attempt: "read", target: "/etc/shadow", restriction: NOBODY, ..NOTHING },
    Escape { attempt: "raw-socket", restriction: "[security]\ncapabilities = [\"CAP_KILL\"]", ..NOTHING },
    Escape {
        attempt: "load-module",
        target: "MODULE",
        restriction: "[security]\ncapabilities = [\"CAP_NET_RAW\"]",
        outside: "grep -q '^dummy ' /proc/modules",
        undo: "rmmod dummy",
        ..NOTHING
    },
    Escape { attempt: "set-clock", restriction: "[security]\ncapabilities = []", ..NOTHING },
    Escape { attempt: "unshare", restriction: "[security]\ncapabilities = [\"CAP_NET_RAW\"]", ..NOTHING },
    Escape {
        attempt: "be-root-by",
        target: "/usr/local/bin/test-escape-as-root",
        always: NOBODY,
        restriction: "no_new_privs = true",
        ..NOTHING
    },
];

pub async fn escapes_by_privileges(vm: &Vm) -> Result<(), Failure> {
    vm.sh("cd /usr/local/bin; cp test-escape test-escape-as-root; chmod 4755 test-escape-as-root").await?;
    try_all(vm, &BY_PRIVILEGES).await
}

const BY_FILES: [Escape; 5] = [
    Escape {
        attempt: "write",
        target: "/etc/escaped",
        restriction: "[isolation]\nnamespaces = [\"mount\"]\nread_only = [\"/etc\"]",
        undo: "rm /etc/escaped",
        ..NOTHING
    },
    Escape {
        attempt: "read",
        target: "/etc/shadow",
        restriction: "[isolation]\nnamespaces = [\"mount\"]\ninaccessible = [\"/etc/shadow\"]",
        ..NOTHING
    },
    Escape {
        attempt: "join-group",
        target: "/sys/fs/cgroup/graph/test-isolated-service",
        restriction: "[isolation]\nnamespaces = [\"mount\"]\nread_only = [\"/sys/fs/cgroup\"]",
        ..NOTHING
    },
    Escape {
        attempt: "write",
        target: "/tmp/escaped",
        restriction: "[isolation]\nnamespaces = [\"mount\"]",
        outside: "[ -e /tmp/escaped ]",
        undo: "rm /tmp/escaped",
        ..NOTHING
    },
    Escape {
        attempt: "leave-root",
        target: "/etc/graph.d/escaped",
        restriction: "[isolation]\nnamespaces = [\"mount\"]\nroot = \"/srv/jail\"",
        undo: "rm /etc/graph.d/escaped",
        ..NOTHING
    },
];

pub async fn escapes_from_the_file_system(vm: &Vm) -> Result<(), Failure> {
    // Another name than a component file's: nobody takes it for one.
    vm.sh("mkdir -p /srv/jail/usr/local/bin /srv/jail/tmp /srv/jail/proc; cp /usr/local/bin/test-escape /srv/jail/usr/local/bin; \
           touch /etc/graph.d/escaped")
        .await?;
    try_all(vm, &BY_FILES).await
}

const BY_FILTERS: [Escape; 3] = [
    Escape { attempt: "unshare", restriction: "[security]\nseccomp = [\"~unshare\"]", ..NOTHING },
    Escape { attempt: "set-clock", restriction: "[security]\nseccomp = [\"~@clock\"]", ..NOTHING },
    Escape {
        attempt: "load-module",
        target: "MODULE",
        restriction: "[security]\nseccomp = [\"~@module\"]",
        outside: "grep -q '^dummy ' /proc/modules",
        undo: "rmmod dummy",
        ..NOTHING
    },
];

pub async fn escapes_by_forbidden_system_calls(vm: &Vm) -> Result<(), Failure> {
    try_all(vm, &BY_FILTERS).await
}

const BY_LANDLOCK: [Escape; 2] = [
    Escape {
        attempt: "read",
        target: "/etc/shadow",
        restriction: "[security]\nlandlock_read = [\"/usr\"]",
        ..NOTHING
    },
    Escape {
        attempt: "write",
        target: "/etc/escaped",
        restriction: "[security]\nlandlock_write = [\"/run\"]",
        undo: "rm /etc/escaped",
        ..NOTHING
    },
];

pub async fn escapes_by_landlock(vm: &Vm) -> Result<(), Failure> {
    if !vm.run(&["test-escape", "--attempt", "know-landlock"], REACTION).await?.success() {
        return Err(Failure::skip("this kernel has no Landlock"));
    }
    try_all(vm, &BY_LANDLOCK).await
}
