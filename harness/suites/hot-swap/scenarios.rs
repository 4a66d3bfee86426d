//! Upgrades that drop nothing, judged by the history of a load that runs meanwhile.

mod failures;
mod load;
mod swaps;

use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::Vm;

use failures::{failed_upgrades_leave_the_old_version, re_execution_in_the_middle};
use swaps::{
    echo_server_connectivity, echo_server_hotswap_support, persistent_connection_upgrade,
    state_moves_with_the_service, upgrade_statistics, zero_downtime,
};

/// For a component to start, and for an upgrade that has nothing to wait for.
const REACTION: Duration = Duration::from_secs(10);
/// Hundreds of connections on an emulated processor, and limits that have to run out.
const LONG_BUDGET: Duration = Duration::from_secs(120);

/// The component that most of this is about.
const ECHO: &str = "test-echo-server";
/// Where it listens.
const ECHO_ADDRESS: &str = "127.0.0.1:8080";

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 8] = [
    scenario!(
        echo_server_hotswap_support,
        "a service that declares it has a channel for all of its life, and an upgrade moves it"
    ),
    scenario!(echo_server_connectivity, "the port answers before and after an upgrade, from another process"),
    scenario!(
        persistent_connection_upgrade,
        "a stream stays open through upgrades and gets its echoes, each once and in order"
    ),
    scenario!(
        upgrade_statistics,
        "an upgrade tells its way, its gap, its descriptors, its state and its steps, and they are true"
    ),
    scenario!(zero_downtime, "hundreds of connections at full load lose nothing in ten upgrades in a row",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        state_moves_with_the_service,
        "what a service remembers is there after an upgrade, on the same connection"
    ),
    scenario!(failed_upgrades_leave_the_old_version,
        "a new version that cannot start, ends, or hangs leaves the old one serving, and its clients see nothing",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(re_execution_in_the_middle, "process 1 executes itself again while an upgrade waits, which then goes on",
        start: Start::Clone, budget: LONG_BUDGET),
];

/// What `graphctl upgrade --json` says, as far as it is used here.
#[derive(Debug, Clone, Deserialize)]
struct Upgraded {
    level: String,
    gap_us: Option<u64>,
    generation: Option<u64>,
    descriptors: Option<u64>,
    state_bytes: Option<u64>,
    #[serde(default)]
    steps: Vec<serde_json::Value>,
}

async fn upgrade(vm: &Vm, name: &str) -> Result<Upgraded, Failure> {
    let text = vm.graphctl_within(&["upgrade", name, "--json"], REACTION).await?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::supervisor(format!("graphctl upgrade --json printed {text}: {error}")))
}

async fn pid_of(vm: &Vm, name: &str) -> Result<i32, Failure> {
    vm.status().await?.component(name)?.running_pid()
}
