//! Upgrades that drop nothing, judged by the history of a load that runs meanwhile.

mod canary;
mod crash_points;
mod crowds;
mod daemon;
mod disturbed;
mod failures;
pub mod held;
mod host;
mod sockets;
mod swaps;
mod versions;

use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::Vm;

use canary::canary_upgrade;
use crash_points::{
    crash_points_of_the_new_version, crash_points_of_the_old_version, crash_points_of_the_supervisor,
};
use crowds::{a_hundred_upgrades_of_a_thousand_connections, a_large_state, thousands_of_idle_connections};
use daemon::haproxy_is_swapped_under_wrk;
use disturbed::{
    descriptors_run_out_in_the_middle, memory_runs_out_in_the_middle, re_execution_in_the_middle,
    supervisor_paused_in_the_middle,
};
use failures::{failed_upgrades_leave_the_old_version, faults_of_the_new_version, faults_of_the_old_version};
use host::clients_from_outside;
use sockets::{every_kind_of_socket, half_closed_connections, half_sent_requests};
use swaps::{
    echo_server_connectivity, echo_server_hotswap_support, persistent_connection_upgrade,
    state_moves_with_the_service, upgrade_statistics, zero_downtime,
};

/// For a component to start, and for an upgrade that has nothing to wait for.
const REACTION: Duration = Duration::from_secs(10);
/// Hundreds of connections on an emulated processor, and limits that have to run out.
const LONG_BUDGET: Duration = Duration::from_secs(120);

/// A hundred upgrades, thousands of connections.
const CROWD_BUDGET: Duration = Duration::from_secs(400);

/// The component that most of this is about.
const ECHO: &str = "test-echo-server";
/// Where it listens.
const ECHO_ADDRESS: &str = "127.0.0.1:8080";
/// The same as `test-load` takes it.
const ECHO_TARGET: &str = "tcp:127.0.0.1:8080";

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 25] = [
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
    scenario!(zero_downtime, "hundreds of connections at full load lose nothing in upgrades in a row, and wait no longer \
         than their gaps", start: Start::Clone, budget: CROWD_BUDGET),
    scenario!(
        state_moves_with_the_service,
        "what a service remembers is there after an upgrade, on the same connection"
    ),
    scenario!(failed_upgrades_leave_the_old_version,
        "a new version that cannot start, ends, or hangs leaves the old one serving, and its clients see nothing",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(faults_of_the_new_version,
        "a new version that dies, hangs or talks nonsense at any step leaves the old one serving, and its clients see \
         nothing", start: Start::Clone, budget: LONG_BUDGET),
    scenario!(faults_of_the_old_version,
        "an old version that ignores the request, talks nonsense, gives what is wrong or dies is served on or succeeded",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(a_hundred_upgrades_of_a_thousand_connections,
        "a thousand connections at full load lose nothing in a hundred upgrades in a row",
        start: Start::Clone, budget: CROWD_BUDGET),
    scenario!(every_kind_of_socket, "TCP, UDP, and unix sockets of both kinds move under load",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(half_sent_requests, "requests of which one half was sent before an upgrade are answered after it",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(half_closed_connections, "connections that their clients have closed one way get all of their replies",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(thousands_of_idle_connections, "ten thousand connections move at once, and each is answered after it",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(a_large_state, "256 MiB of state arrive as they were", start: Start::Clone, budget: LONG_BUDGET),
    scenario!(clients_from_outside, "clients on another machine, over its network, lose nothing in upgrades in a row",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(haproxy_is_swapped_under_wrk, "a daemon that knows nothing of hot swaps is upgraded again and again, and no request fails",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(re_execution_in_the_middle, "process 1 executes itself again while an upgrade waits, which then goes on",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(supervisor_paused_in_the_middle,
        "process 1 does nothing for two seconds while an upgrade waits for it, which then goes on",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(memory_runs_out_in_the_middle,
        "a new version that takes all memory of its group, or of the machine, leaves the old one serving",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(descriptors_run_out_in_the_middle,
        "a version that has too few descriptors, to take or to give, leaves the old one serving",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(canary_upgrade, "a new version serves new connections only, then all or none: clients of the old version see \
         nothing", start: Start::Clone, budget: LONG_BUDGET),
    scenario!(crash_points_of_the_old_version, "the old version dies or pauses at each step: one serves, or is restarted",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(crash_points_of_the_new_version, "the new version dies or pauses at each step: one serves",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(crash_points_of_the_supervisor,
        "the supervisor executes itself again or pauses at each step: the new version serves",
        start: Start::Clone, budget: LONG_BUDGET),
];

/// What `graphctl upgrade --json` says, as far as it is used here.
#[derive(Debug, Clone, Deserialize)]
struct Upgraded {
    level: String,
    /// How the descriptors went, where it was not by the protocol of hot swaps.
    #[serde(default)]
    form: Option<String>,
    strategy: String,
    gap_us: Option<u64>,
    generation: Option<u64>,
    descriptors: Option<u64>,
    state_bytes: Option<u64>,
    #[serde(default)]
    steps: Vec<Progress>,
}

/// A record of the journal about it.
#[derive(Debug, Clone, Deserialize)]
struct Progress {
    time_ms: u64,
}

impl Upgraded {
    /// For how long nobody served, in microseconds. Only where nobody had served before none is told.
    fn gap(&self) -> Result<f64, Failure> {
        let gap =
            self.gap_us.ok_or_else(|| Failure::supervisor(format!("an upgrade tells no gap: {self:?}")));
        gap.map(|gap| gap as f64)
    }

    /// From its first record to its last, in nanoseconds of the guest's monotonic clock.
    fn window(&self) -> (u64, u64) {
        const MS: u64 = 1_000_000;
        let time = |step: Option<&Progress>| step.map_or(0, |step| step.time_ms);
        // Times are cut to whole milliseconds.
        (time(self.steps.first()) * MS, (time(self.steps.last()) + 1) * MS)
    }
}

async fn upgrade(vm: &Vm, name: &str) -> Result<Upgraded, Failure> {
    upgrade_within(vm, name, REACTION).await
}

async fn upgrade_within(vm: &Vm, name: &str, limit: Duration) -> Result<Upgraded, Failure> {
    let text = vm.graphctl_within(&["upgrade", name, "--json"], limit).await?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::supervisor(format!("graphctl upgrade --json printed {text}: {error}")))
}

/// Wait until a command of the shell succeeds, for what has no other sign.
async fn until(vm: &Vm, condition: &str) -> Result<(), Failure> {
    let script = format!("until {condition}; do sleep 0.05; done");
    vm.succeed(&["/bin/sh", "-euc", &script], REACTION * 3).await.map(drop)
}

async fn pid_of(vm: &Vm, name: &str) -> Result<i32, Failure> {
    vm.status().await?.component(name)?.running_pid()
}
