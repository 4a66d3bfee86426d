//! Control groups: there, with what is declared, and gone when they should be.

use super::{GROUPS, REACTION, component, group_number, hog};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// What the keys of `[resources]` are written to.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

pub async fn cgroup_availability(vm: &Vm) -> Result<(), Failure> {
    // CGROUP2_SUPER_MAGIC.
    let kind = vm.sh("stat -f -c %t /sys/fs/cgroup").await?;
    check!(kind.trim() == "63677270", "/sys/fs/cgroup is a file system of the kind {}", kind.trim());
    for place in ["/sys/fs/cgroup", GROUPS] {
        let passed_on = vm.read(&format!("{place}/cgroup.subtree_control")).await?;
        for controller in CONTROLLERS {
            check!(
                passed_on.split_whitespace().any(|one| one == controller),
                "{place} passes on {passed_on:?} and not {controller}"
            );
        }
    }
    for component in &vm.status().await?.components {
        let Some(pid) = component.pid else { continue };
        let group = vm.read(&format!("/proc/{pid}/cgroup")).await?;
        let own = format!("0::/graph/{}", component.name);
        check!(group.trim() == own, "{} is in {}, not in {own}", component.name, group.trim());
        let kind = vm.read(&format!("{GROUPS}/{}/cgroup.type", component.name)).await?;
        check!(kind.trim() == "domain", "the group of {} is {}", component.name, kind.trim());
    }
    Ok(())
}

pub async fn isolated_service_cgroups(vm: &Vm) -> Result<(), Failure> {
    let expected = [("memory.max", "33554432"), ("cpu.max", "50000 100000"), ("pids.max", "16")];
    for (file, expected) in expected {
        let value = vm.read(&format!("{GROUPS}/test-isolated-service/{file}")).await?;
        check!(value.trim() == expected, "{file} is {}, not {expected}", value.trim());
        let other = vm.read(&format!("{GROUPS}/neighbour/{file}")).await?;
        check!(other.starts_with("max"), "{file} of a component without limits is {}", other.trim());
    }
    Ok(())
}

pub async fn cgroup_cleanup(vm: &Vm) -> Result<(), Failure> {
    vm.declare("guest.toml", &component("guest", "/usr/local/bin/test-idle", &[], "")).await?;
    vm.wait_state("guest", "ACTIVE", None, REACTION).await?;
    let group = format!("{GROUPS}/guest");
    vm.sh(&format!("mkdir -p {group}/a/b {group}/c")).await?;
    vm.graphctl(&["stop", "guest"]).await?;
    vm.undeclare("guest.toml").await?;
    vm.wait_state("guest", "REMOVED", None, REACTION).await?;
    vm.wait_gone(&group, REACTION).await?;
    let left = vm.sh(&format!("ls -d {GROUPS}/*/")).await?;
    check!(!left.contains("guest"), "of the groups there are {left}");
    Ok(())
}

/// Leaves its children unreaped, and lives on.
const ZOMBIES: &str = r#"
[component]
name = "zombies"
binary = "/bin/sh"
args = ["-c", "(for i in 1 2 3 4 5; do sleep 0.01 & done; exec sleep 10000)"]
"#;

/// Ends by nothing but SIGKILL, as do its children.
const STUBBORN: &str = r#"
[component]
name = "stubborn"
binary = "/bin/sh"
args = ["-c", "trap '' TERM INT HUP; for i in 1 2 3 4 5; do sleep 10000 & done; while :; do wait; done"]

[hotswap]
shutdown_grace = 0.3
"#;

pub async fn groups_with_zombies_and_the_stubborn(vm: &Vm) -> Result<(), Failure> {
    for (name, file) in [("zombies", ZOMBIES), ("stubborn", STUBBORN)] {
        vm.declare(&format!("{name}.toml"), file).await?;
        vm.wait_state(name, "ACTIVE", None, REACTION).await?;
    }
    let dead = "[ $(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l) -ge 5 ]";
    vm.until("five zombies that nobody reaps", dead, REACTION).await?;
    let children = format!("[ $(wc -l < {GROUPS}/stubborn/cgroup.procs) -ge 6 ]");
    vm.until("five children that ignore SIGTERM", &children, REACTION).await?;
    for name in ["zombies", "stubborn"] {
        vm.undeclare(&format!("{name}.toml")).await?;
        vm.wait_state(name, "REMOVED", None, REACTION).await?;
        vm.wait_gone(&format!("{GROUPS}/{name}"), REACTION).await?;
    }
    Ok(())
}

pub async fn limits_change_while_used(vm: &Vm) -> Result<(), Failure> {
    let limits = |pids: u64| format!("[resources]\npids_max = {pids}\nmemory_max = \"64M\"");
    vm.declare("bomb.toml", &hog("bomb", "processes", &limits(10))).await?;
    vm.wait_state("bomb", "ACTIVE", None, REACTION).await?;
    for held_at in [10, 30] {
        vm.declare("bomb.toml", &hog("bomb", "processes", &limits(held_at))).await?;
        let full = format!("[ $(cat {GROUPS}/bomb/pids.current) -eq {held_at} ]");
        vm.until(&format!("a fork bomb is held at {held_at} processes"), &full, 2 * REACTION).await?;
    }
    // Below what there is: those that are there stay, and no more come.
    vm.declare("bomb.toml", &hog("bomb", "processes", &limits(5))).await?;
    let set = format!("[ $(cat {GROUPS}/bomb/pids.max) = 5 ]");
    vm.until("a limit below what there is", &set, REACTION).await?;
    let count = group_number(vm, "bomb", "pids.current", None).await?;
    check!(count <= 30, "with a limit of 5 there are {count} processes, and there were 30");
    vm.graphctl(&["stop", "bomb"]).await?;
    let left = group_number(vm, "bomb", "pids.current", None).await?;
    check!(left == 0, "after its stop the bomb has {left} processes");
    Ok(())
}

/// Makes groups in its own, limits one, and lives in it.
const NESTING: &str = r#"
[component]
name = "nesting"
binary = "/bin/sh"
args = ["-c", """
set -e
own=/sys/fs/cgroup/graph/nesting
mkdir $own/leader $own/worker
echo 0 > $own/leader/cgroup.procs
echo +pids > $own/cgroup.subtree_control
echo 8 > $own/worker/pids.max
sh -c 'echo 0 > /sys/fs/cgroup/graph/nesting/worker/cgroup.procs; exec /usr/local/bin/test-hog --kind processes' &
touch /run/nested
exec sleep 10000
"""]

[lifecycle]
readiness_file = "/run/nested"

[resources]
pids_max = 40
"#;

/// Hands a controller down to a group that it makes and lives in, which cannot be made twice.
const DELEGATING: &str = r#"
[component]
name = "delegating"
binary = "/bin/sh"
args = ["-c", """
set -e
own=/sys/fs/cgroup/graph/delegating
mkdir $own/leader
echo 0 > $own/leader/cgroup.procs
echo +memory > $own/cgroup.subtree_control
exec sleep 10000
"""]
"#;

pub async fn nested_groups_are_the_components(vm: &Vm) -> Result<(), Failure> {
    vm.declare("nesting.toml", NESTING).await?;
    vm.wait_state("nesting", "ACTIVE", None, 2 * REACTION).await?;
    let full = format!("[ $(cat {GROUPS}/nesting/worker/pids.current) -eq 8 ]");
    vm.until("the inner limit holds", &full, 2 * REACTION).await?;
    let outer = group_number(vm, "nesting", "pids.current", None).await?;
    check!((9..=40).contains(&outer), "the outer group has {outer} processes");
    vm.undeclare("nesting.toml").await?;
    vm.wait_state("nesting", "REMOVED", None, REACTION).await?;
    vm.wait_gone(&format!("{GROUPS}/nesting"), REACTION).await?;
    // One that hands controllers down takes no process: it is made anew for each start.
    vm.declare("delegating.toml", DELEGATING).await?;
    let delegates = format!(
        "[ \"$(cat {GROUPS}/delegating/cgroup.subtree_control)\" = memory ] && \
         [ $(wc -l < {GROUPS}/delegating/leader/cgroup.procs) -eq 1 ]"
    );
    vm.until("a controller is handed down", &delegates, 2 * REACTION).await?;
    let first = vm.status().await?.component("delegating")?.running_pid()?;
    vm.graphctl_within(&["restart", "delegating"], REACTION).await?;
    vm.until("a controller is handed down again", &delegates, 2 * REACTION).await?;
    let after = vm.status().await?;
    let after = after.component("delegating")?;
    check!(
        after.pid.is_some_and(|pid| pid != first) && after.state == "ACTIVE" && after.restarts == 0,
        "after its restart it is {after:?}"
    );
    vm.undeclare("delegating.toml").await?;
    vm.wait_state("delegating", "REMOVED", None, REACTION).await?;
    vm.wait_gone(&format!("{GROUPS}/delegating"), REACTION).await
}
