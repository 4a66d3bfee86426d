//! What a machine goes through in a year, in minutes: nothing of it may cost more than what it hits.

mod cycles;
mod failures;
mod network;
mod virtual_time;
mod wants;

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::Vm;

use cycles::{restarts_across_the_matrix, restarts_of_one_component};
use failures::failures_of_every_kind_at_once;
use network::{loss_and_delay_under_upgrades, network_goes_and_comes};
use virtual_time::{a_virtual_day, the_same_seed_gives_the_same_journal};
use wants::{clock_steps_with_everything_active, full_file_systems, no_memory_left, no_processes_left};

/// For one component to do what it is told, on an emulated processor.
const REACTION: Duration = Duration::from_secs(20);
/// For everything that fell to run again.
const RECOVERY: Duration = Duration::from_secs(60);
const LONG_BUDGET: Duration = Duration::from_secs(180);
/// For a thousand cycles and more.
const LONGEST_BUDGET: Duration = Duration::from_secs(1500);
/// For ten thousand restarts.
const MATRIX_BUDGET: Duration = Duration::from_secs(3600);
/// For a day under a clock that skips idle time.
const DAY_BUDGET: Duration = Duration::from_secs(3600);

/// What runs on in the machine, and its port if it has one.
const SERVICES: [&str; 8] = [
    "test-echo-server",
    "test-web-server",
    "test-database",
    "test-stateful-service",
    "test-isolated-service",
    "test-health-demo",
    "test-networking",
    "test-monitor",
];
/// Where the echo server is.
const ECHO: &str = "tcp:127.0.0.1:8080";

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 11] = [
    scenario!(restarts_of_one_component,
        "a thousand restarts of one component, of which the last are as quick as the first",
        start: Start::Clone, budget: LONGEST_BUDGET),
    scenario!(restarts_across_the_matrix,
        "thousands of restarts of everything, with what depends on it, of which the last are as quick as the first",
        start: Start::Clone, budget: MATRIX_BUDGET),
    scenario!(failures_of_every_kind_at_once,
        "components that fail in every way at once are told apart, and cost nobody else anything",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(network_goes_and_comes,
        "the network goes down again and again; who held it up brings it back, and clients go on",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(loss_and_delay_under_upgrades,
        "packets are lost and late while a service is upgraded, and no client notices more than that",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(full_file_systems,
        "with no room for logs, state and files the supervisor answers and says so, and with room again everything runs",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(no_memory_left,
        "one that takes all memory of the machine is ended for it, and everything else runs on",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(no_processes_left,
        "while no process can be started the supervisor answers and says so, and then starts what was to run",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(clock_steps_with_everything_active,
        "the wall clock is set to and fro, and nothing falls ill or is restarted",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(a_virtual_day,
        "a day by the guest's clock: restarts, upgrades, moves and floods without end, and nothing grows or is lost",
        start: Start::Clone, budget: DAY_BUDGET),
    scenario!(the_same_seed_gives_the_same_journal,
        "under a clock that counts instructions the same seed gives the same journal, to the byte",
        start: Start::Clone, budget: LONG_BUDGET),
];

/// Everything of the machine runs and is well, after however many restarts.
async fn converges(vm: &Vm, after: &str) -> Result<(), Failure> {
    for name in SERVICES {
        vm.wait_state(name, "ACTIVE", None, RECOVERY).await?;
    }
    let well = "! graphctl status --json | grep -q '\"health\":\"failing\"'";
    vm.until("all are well again", well, RECOVERY).await?;
    vm.wait_settled(RECOVERY).await?;
    for component in vm.status().await?.components {
        let fell = matches!(component.state.as_str(), "FAILED" | "BACKOFF" | "DEGRADED");
        check!(!fell, "after {after}: {component:?}");
    }
    Ok(())
}
