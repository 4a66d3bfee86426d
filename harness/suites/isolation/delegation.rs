//! A control group that is given to a component: a supervisor in it, of an ordinary user, has components of its own.

use super::{GROUPS, REACTION, group_number, hog};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The inner supervisor's directory.
const HOME: &str = "/run/nest";

/// What all that the inner supervisor starts may have together.
const PROCESSES: u64 = 40;

/// A supervisor in a group that is given to its user, which is nobody.
fn nest() -> String {
    format!(
        r#"
[component]
name = "nest"
binary = "/sbin/graph-resolver"
args = ["--config-dir", "{HOME}/graph.d", "--control-socket", "{HOME}/sock", "--state-dir", "{HOME}/state",
        "--cgroup-root", "{GROUPS}/nest", "--log", "stderr"]

[lifecycle]
readiness_check = "GRAPHCTL_SOCKET={HOME}/sock graphctl status"
readiness_interval = "100ms"

[security]
user = 65534

[resources]
delegate = ["memory", "pids"]
memory_max = "96M"
pids_max = {PROCESSES}
"#
    )
}

/// Ways to have more than there is, each one that nothing but the want of a right is in the way of. Processes cannot be
/// moved to the group above, which hands controllers down; to that of the machine they can.
const ATTEMPTS: [&str; 5] = [
    "echo max > /sys/fs/cgroup/graph/nest/memory.max",
    "echo max > /sys/fs/cgroup/graph/nest/pids.max",
    "echo max > /sys/fs/cgroup/graph/nest/cgroup.max.descendants",
    "echo 0 > /sys/fs/cgroup/cgroup.procs",
    "mkdir /sys/fs/cgroup/graph/more",
];

/// Tries all of them, and ends with the number of the first that succeeds.
fn greedy() -> String {
    let attempts = (1..).zip(ATTEMPTS).map(|(number, attempt)| format!("({attempt}) && exit {number}\n"));
    let attempts: String = attempts.collect();
    format!(
        r#"
[component]
name = "greedy"
binary = "/bin/sh"
type = "oneshot"
args = ["-c", """
{attempts}
exit 0
"""]
"#
    )
}

pub async fn nested_delegation(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("mkdir -p {HOME}/graph.d {HOME}/state && chown -R 65534:65534 {HOME}")).await?;
    vm.declare("nest.toml", &nest()).await?;
    vm.wait_state("nest", "ACTIVE", None, 2 * REACTION).await?;
    let first = vm.status().await?.component("nest")?.running_pid()?;
    given_is_the_group_and_no_limit(vm).await?;
    lower_limits_hold(vm).await?;
    none_is_lifted(vm).await?;
    let status = vm.status().await?;
    let nest = status.component("nest")?;
    check!(
        nest.pid == Some(first) && nest.state == "ACTIVE" && nest.restarts == 0,
        "for what happened inside of it the inner supervisor is {nest:?}"
    );
    let told = vm.graphctl(&["events", "nest"]).await?;
    check!(!told.contains("out of memory"), "what is limited inside is told of the component: {told}");
    vm.undeclare("nest.toml").await?;
    vm.wait_state("nest", "REMOVED", None, 4 * REACTION).await?;
    vm.wait_gone(&format!("{GROUPS}/nest"), REACTION).await?;
    vm.sh(&format!("rm -r {HOME}")).await?;
    Ok(())
}

/// The directory and the files that processes and controllers are moved by are nobody's now; limits are root's.
async fn given_is_the_group_and_no_limit(vm: &Vm) -> Result<(), Failure> {
    let owners = [
        (".", "65534"),
        ("cgroup.procs", "65534"),
        ("cgroup.threads", "65534"),
        ("cgroup.subtree_control", "65534"),
        ("memory.max", "0"),
        ("pids.max", "0"),
        ("cgroup.freeze", "0"),
        ("cgroup.max.descendants", "0"),
        ("memory.oom.group", "0"),
    ];
    for (file, expected) in owners {
        let owner = vm.sh(&format!("stat -c %u {GROUPS}/nest/{file}")).await?;
        check!(owner.trim() == expected, "{file} of the group is {}'s, not {expected}'s", owner.trim());
    }
    // The supervisor itself has left it for one inside: a group with processes hands nothing down.
    let members = vm.read(&format!("{GROUPS}/nest/cgroup.procs")).await?;
    let handed_down = vm.read(&format!("{GROUPS}/nest/cgroup.subtree_control")).await?;
    let both = ["memory", "pids"].iter().all(|one| handed_down.split_whitespace().any(|other| other == *one));
    check!(
        members.trim().is_empty() && both,
        "processes in the group itself are {members:?}, and controllers that it hands down {handed_down:?}"
    );
    Ok(())
}

/// An inner limit below the outer one holds, and is the inner supervisor's business.
async fn lower_limits_hold(vm: &Vm) -> Result<(), Failure> {
    let limits = "[resources]\npids_max = 8\n";
    inner(vm, "bomb", &hog("bomb", "processes", limits)).await?;
    let full = format!("[ $(cat {GROUPS}/nest/graph/bomb/pids.current) -eq 8 ]");
    vm.until("an inner fork bomb is held at the inner limit", &full, 4 * REACTION).await?;
    let limits = "[resources]\nmemory_max = \"16M\"\non_oom = \"stop\"\n";
    inner(vm, "glutton", &hog("glutton", "memory", limits)).await?;
    let told = format!("GRAPHCTL_SOCKET={HOME}/sock graphctl status glutton | grep -q FAILED");
    vm.until("an inner glutton is ended at the inner limit", &told, 4 * REACTION).await?;
    let kills = group_number(vm, "nest/graph/glutton", "memory.events", Some("oom_kill")).await?;
    check!(kills >= 1, "the kernel has ended {kills} processes of the inner glutton");
    Ok(())
}

/// One above it does not, and nothing inside can change the outer one.
async fn none_is_lifted(vm: &Vm) -> Result<(), Failure> {
    inner(vm, "bomb", &hog("bomb", "processes", "[resources]\npids_max = 1000\n")).await?;
    let full = format!("[ $(cat {GROUPS}/nest/pids.current) -eq {PROCESSES} ]");
    vm.until("an inner fork bomb is held at the outer limit", &full, 4 * REACTION).await?;
    let own = group_number(vm, "nest/graph/bomb", "pids.max", None).await?;
    check!(own == 1000, "the inner limit is {own}");
    vm.sh(&format!("rm {HOME}/graph.d/bomb.toml")).await?;
    let room = format!("[ $(cat {GROUPS}/nest/pids.current) -lt 10 ]");
    vm.until("the inner fork bomb is gone", &room, 4 * REACTION).await?;
    inner(vm, "greedy", &greedy()).await?;
    let done =
        format!("GRAPHCTL_SOCKET={HOME}/sock graphctl status greedy | grep -q -e DONE -e FAILED -e BACKOFF");
    vm.until("one has tried to lift the outer limits", &done, 2 * REACTION).await?;
    let status = vm
        .sh(&format!("GRAPHCTL_SOCKET={HOME}/sock graphctl status greedy; cat {HOME}/state/greedy.log"))
        .await?;
    check!(status.contains("DONE"), "an inner component could have more than its supervisor: {status}");
    let limit = group_number(vm, "nest", "pids.max", None).await?;
    check!(limit == PROCESSES, "the outer limit is {limit}");
    all_are_lifted_by_root(vm).await
}

/// What failed inside did so for want of a right: who has it succeeds. The component is not used any more after this.
async fn all_are_lifted_by_root(vm: &Vm) -> Result<(), Failure> {
    for attempt in ATTEMPTS {
        vm.sh(&format!("({attempt})")).await?;
    }
    vm.sh(&format!("rmdir {GROUPS}/more")).await?;
    Ok(())
}

/// Declare a component to the inner supervisor.
async fn inner(vm: &Vm, name: &str, file: &str) -> Result<(), Failure> {
    // Beside it first: nothing half-written is read.
    let path = format!("{HOME}/{name}.toml");
    vm.write(&path, file).await?;
    vm.sh(&format!("mv {path} {HOME}/graph.d/{name}.toml")).await?;
    Ok(())
}
