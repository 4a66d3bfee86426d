//! A kernel that lacks a controller: what needs it does not run without, and everything else does.

use super::hogs::untouched;
use super::{GROUPS, REACTION, component, hog};
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The component of the suite's machine that asks for `memory_max`, among others.
const LIMITED: &str = "test-isolated-service";
/// What its state says: the limit, its key, the controller, the likely cause and what helps.
const REASON: [&str; 4] = [
    "memory.max",
    "resources.memory_max",
    "the controller memory is not in /sys/fs/cgroup/graph/test-isolated-service/cgroup.controllers",
    "it is disabled by the kernel argument cgroup_disable=memory; boot without that, or take the key away",
];

pub async fn missing_controller(vm: &Vm) -> Result<(), Failure> {
    let there = vm.read("/sys/fs/cgroup/cgroup.controllers").await?;
    if there.split_whitespace().any(|one| one == "memory") {
        return Err(Failure::skip("this kernel has the memory controller in spite of cgroup_disable=memory"));
    }
    vm.step("what needs it does not run, and says why", refused(vm)).await?;
    vm.step("what does not need it runs", others_run(vm)).await?;
    vm.step("without the key it is started", async {
        let file = component(LIMITED, "/usr/local/bin/test-idle", &[], "[resources]\npids_max = 16");
        vm.declare(&format!("{LIMITED}.toml"), &file).await?;
        vm.wait_state(LIMITED, "ACTIVE", None, 2 * REACTION).await?;
        vm.graphctl(&["inspect", LIMITED]).await.map(drop)
    })
    .await?;
    vm.step("a limit that comes to what runs is refused by name, and it runs on", limit_comes(vm)).await
}

async fn refused(vm: &Vm) -> Result<(), Failure> {
    vm.wait_state(LIMITED, "FAILED", None, 2 * REACTION).await?;
    let status = vm.status().await?;
    let limited = status.component(LIMITED)?;
    check!(limited.pid.is_none(), "without the memory controller {LIMITED} runs: {limited:?}");
    let inspected = vm.run(&["graphctl", "inspect", LIMITED], REACTION).await?;
    check!(!inspected.success(), "inspect has nothing to say against it: {}", inspected.text());
    let why = vm.graphctl(&["why", LIMITED]).await?;
    let journal = vm.graphctl(&["events"]).await?;
    let texts = [
        ("status", limited.detail.clone().unwrap_or_default()),
        ("inspect", inspected.error_text()),
        ("why", why),
        ("events", journal),
    ];
    for (command, text) in texts {
        for part in REASON {
            check!(text.contains(part), "{command} does not say {part:?}: {text}");
        }
    }
    Ok(())
}

async fn others_run(vm: &Vm) -> Result<(), Failure> {
    let network = vm.status().await?.component("network")?.clone();
    check!(network.state == "DONE", "network asks for no limit: {network:?}");
    untouched(vm).await?;
    // The limits that the kernel has still hold.
    vm.declare("bomb.toml", &hog("bomb", "processes", "[resources]\npids_max = 10")).await?;
    vm.wait_state("bomb", "ACTIVE", None, REACTION).await?;
    let full = format!("[ $(cat {GROUPS}/bomb/pids.current) -eq 10 ]");
    vm.until("a fork bomb is held", &full, 2 * REACTION).await?;
    vm.graphctl(&["stop", "bomb"]).await.map(drop)
}

async fn limit_comes(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    let pid = before.component("neighbour")?.running_pid()?;
    let file = vm.read("/etc/graph.d/neighbour.toml").await?;
    vm.declare("neighbour.toml", &format!("{file}\n[resources]\nmemory_high = \"64M\"\n")).await?;
    let since = before.revision.to_string();
    let told = format!(
        "graphctl events --since {since} | grep neighbour | grep -q 'memory.high for resources.memory_high: the controller memory is not in'"
    );
    vm.until("a limit that cannot be set is told", &told, REACTION).await?;
    let status = vm.status().await?;
    let neighbour = status.component("neighbour")?;
    check!(
        neighbour.pid == Some(pid) && neighbour.state == "ACTIVE",
        "for a limit that cannot be set the neighbour is {neighbour:?}"
    );
    Ok(())
}
