//! The whole life of services, beyond what a first look shows: a file for each kind of promise.

mod clock;
mod flood;
mod groups;
mod internal_errors;
mod limits;
mod out_of_memory;
mod probes;
mod readiness;
mod reexecution;
mod requirements;
mod restarts;
mod waits;

use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::Vm;

use clock::clock_steps;
use flood::flood_of_a_hundred_components;
use groups::components_share_a_group;
use internal_errors::{internal_error_is_survived, internal_errors_end_in_a_shell, lost_state_is_made_anew};
use limits::{limits_change_live, memory_limits_at_a_start};
use out_of_memory::{kills_are_told_at_once, kills_for_want_of_memory_are_named};
use probes::two_hundred_probed_services;
use readiness::{readiness_methods, readiness_timeouts};
use reexecution::re_execution_under_load;
use requirements::{provider_fail_over, requirement_lost_and_regained};
use restarts::{flapping_service_backs_off, killed_group_runs_again};
use waits::journal_waits;

/// For a component to start, be stopped or be noticed.
const REACTION: Duration = Duration::from_secs(5);
/// For hundreds of processes on an emulated processor, or for a pause of 30 s.
const LONG_BUDGET: Duration = Duration::from_secs(120);

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 19] = [
    scenario!(
        readiness_methods,
        "each method holds a component and its dependents back until it reports, and a stale file is no report"
    ),
    scenario!(
        readiness_timeouts,
        "by each method, what does not report in time is FAILED with the limit named, and its process is gone"
    ),
    scenario!(flapping_service_backs_off,
        "what keeps falling over gets growing pauses; a healthy window or a user's start wipes the slate",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        killed_group_runs_again,
        "what a killed service leaves behind is ended with its control group, and the service runs again"
    ),
    scenario!(
        provider_fail_over,
        "while one of two providers is up, those that need them run on in the same processes"
    ),
    scenario!(
        requirement_lost_and_regained,
        "dependents are ended one after the other, come back by themselves, and a oneshot stays DONE"
    ),
    scenario!(journal_waits, "a hundred waits for one change are all answered, and a change that is over counts",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(two_hundred_probed_services,
        "two hundred services with a native probe each second are healthy, and the one that falls ill is found",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(flood_of_a_hundred_components,
        "while a hundred components write at full speed the supervisor answers, and does not grow",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(re_execution_under_load,
        "while clients ask a service, process 1 executes itself again 20 times and no question is lost",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(internal_error_is_survived,
        "after an internal error of process 1 every process runs on, and the journal names the error",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(lost_state_is_made_anew,
        "after one that leaves no state, what runs and is declared is taken as it is, and everything else is ended",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(internal_errors_end_in_a_shell,
        "after the fourth within a minute a shell is on the console, services run on, and SIGTERM powers off",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(clock_steps,
        "while the wall clock is set a day forward and back, pauses, probes and waits are neither early nor late",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(
        limits_change_live,
        "changed limits hold for the process that runs, and one that cannot be written is named"
    ),
    scenario!(
        components_share_a_group,
        "two components in one group share its limits, neither one's end is the other's, and lint says so"
    ),
    scenario!(
        memory_limits_at_a_start,
        "a start with less memory is not burdened with what the last run left, nor without limits where another runs"
    ),
    scenario!(kills_for_want_of_memory_are_named,
        "a kill by the kernel is told with limit, usage and victim, counted once, and followed by what on_oom says",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(kills_are_told_at_once,
        "from the kernel's kill for want of memory to the journal it takes milliseconds",
        start: Start::Clone, budget: LONG_BUDGET),
];

/// A record of the journal.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    time_ms: u64,
    component: String,
    to: String,
    cause: serde_json::Value,
}

impl Record {
    /// Whether the kernel killed for want of memory.
    fn is_kill(&self) -> bool {
        self.cause.get("out-of-memory").is_some()
    }
}

/// The journal after a revision.
async fn journal(vm: &Vm, since: u64) -> Result<Vec<Record>, Failure> {
    let text = vm.graphctl(&["events", "--since", &since.to_string(), "--json"]).await?;
    let read = |line| {
        serde_json::from_str(line)
            .map_err(|error| Failure::supervisor(format!("graphctl events --json printed {error}: {line}")))
    };
    text.lines().map(read).collect()
}

/// A service that does nothing, with more of its file.
fn idle(name: &str, more: &str) -> String {
    format!("[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-idle\"\n{more}\n")
}
