//! Two components that declare one control group.

use super::{REACTION, idle};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

const SIGKILL: i32 = 9;
const GROUP: &str = "/sys/fs/cgroup/graph/pool";

/// Its process can only be killed, and has a child in another session: what a group of its own would be emptied of.
const LEFT: &str = r#"
[component]
name = "left"
binary = "/bin/sh"
args = ["-c", "setsid sleep 10000 & exec /usr/local/bin/test-stubborn"]

[resources]
cgroup = "pool"
memory_max = "64M"

[hotswap]
shutdown_grace = 0.3
"#;

pub async fn components_share_a_group(vm: &Vm) -> Result<(), Failure> {
    vm.declare("left.toml", LEFT).await?;
    vm.wait_state("left", "ACTIVE", None, REACTION).await?;
    let right = idle("right", "[resources]\ncgroup = \"pool\"\npids_max = 20");
    vm.declare("right.toml", &right).await?;
    vm.wait_state("right", "ACTIVE", None, REACTION).await?;
    let right = vm.status().await?.component("right")?.running_pid()?;
    vm.step("lint says so", lint_says_so(vm)).await?;
    vm.step("the limits of both hold for both", limits_hold(vm)).await?;
    vm.step("one is killed", async {
        let before = vm.status().await?;
        vm.signal(before.component("left")?.running_pid()?, SIGKILL).await?;
        vm.wait_state("left", "ACTIVE", Some(before.revision), REACTION).await?;
        unmoved(vm, right).await?;
        limits_hold(vm).await
    })
    .await?;
    vm.step("one is stopped and has to be killed", async {
        let left = vm.status().await?.component("left")?.running_pid()?;
        vm.graphctl(&["stop", "left"]).await?;
        check!(!vm.exists(left).await?, "left is stopped, and its process {left} is still there");
        unmoved(vm, right).await?;
        vm.graphctl(&["start", "left"]).await?;
        limits_hold(vm).await
    })
    .await?;
    vm.step("one is no longer declared, then none", undeclared(vm, right)).await
}

async fn lint_says_so(vm: &Vm) -> Result<(), Failure> {
    let said = vm.graphctl(&["lint"]).await?;
    let named = said.contains("warning[Y0404]") && said.contains("left") && said.contains("right");
    check!(named, "lint does not name the two that share a group: {said}");
    let strict = vm.run(&["graphctl", "lint", "--strict"], REACTION).await?;
    check!(!strict.success(), "lint --strict accepts what it warns of: {}", strict.text());
    Ok(())
}

/// Both processes are in the group, which has what either declares.
async fn limits_hold(vm: &Vm) -> Result<(), Failure> {
    let status = vm.status().await?;
    let members = vm.read(&format!("{GROUP}/cgroup.procs")).await?;
    for name in ["left", "right"] {
        let pid = status.component(name)?.running_pid()?.to_string();
        check!(
            members.lines().any(|member| member == pid),
            "{name}, {pid}, is not in the group: {members:?}"
        );
    }
    for (file, value) in [("memory.max", "67108864"), ("pids.max", "20")] {
        let is = vm.read(&format!("{GROUP}/{file}")).await?;
        check!(is.trim() == value, "in the shared group {file} is {is:?} and not {value}");
    }
    Ok(())
}

async fn unmoved(vm: &Vm, pid: i32) -> Result<(), Failure> {
    let status = vm.status().await?;
    let right = status.component("right")?;
    check!(
        right.pid == Some(pid) && right.state == "ACTIVE" && right.restarts == 0,
        "of what shares the group with left process {pid} has become {right:?}"
    );
    Ok(())
}

async fn undeclared(vm: &Vm, right: i32) -> Result<(), Failure> {
    let left = vm.status().await?.component("left")?.running_pid()?;
    vm.undeclare("left.toml").await?;
    vm.wait_state("left", "REMOVED", None, REACTION).await?;
    check!(!vm.exists(left).await?, "left is removed, and its process {left} is still there");
    unmoved(vm, right).await?;
    // With the last of them goes the group, and with that what the first one left behind.
    check!(vm.sh("pgrep -fx 'sleep 10000' || true").await?.lines().count() > 0, "nothing was left behind");
    vm.undeclare("right.toml").await?;
    vm.wait_state("right", "REMOVED", None, REACTION).await?;
    vm.wait_gone(GROUP, REACTION).await
}
