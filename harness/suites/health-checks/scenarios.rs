//! Health probes of every kind: what is ill is marked, what stays ill is restarted.

mod detection;
mod execution;
mod overhead;

use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;
use crate::scenario;
use crate::scenario::{Scenario, Start};
use crate::vm::Vm;

use detection::{failure_thresholds, health_failure_detection, health_recovery, multiple_health_types};
use execution::{health_check_configuration, health_check_execution};
use overhead::health_monitoring_overhead;

/// For a probe that is due within a second to be sent, to be answered, and to take its effect.
const REACTION: Duration = Duration::from_secs(10);

/// Many probes one after the other, and two spans of time that are measured.
const LONG_BUDGET: Duration = Duration::from_secs(90);

/// All scenarios of the suite.
pub const SCENARIOS: [Scenario; 7] = [
    scenario!(
        health_check_configuration,
        "declared probes show in status, wrong ones are refused, and a changed interval restarts nothing"
    ),
    scenario!(
        health_check_execution,
        "a command runs at its interval, alone, in the cgroup of its component"
    ),
    scenario!(
        health_failure_detection,
        "what is ill becomes DEGRADED in time with the reason named, and what stays ill is restarted"
    ),
    scenario!(health_recovery, "what is well again becomes ACTIVE, in the same process"),
    scenario!(multiple_health_types, "each kind of probe finds the ill and the well",
        start: Start::Clone, budget: LONG_BUDGET),
    scenario!(failure_thresholds, "fewer failures in a row than the threshold change nothing"),
    scenario!(health_monitoring_overhead, "twenty services that are probed each second cost under 1 % of a processor",
        start: Start::Clone, budget: LONG_BUDGET),
];

/// What `graphctl status --json` says about health.
#[derive(Debug, Clone, Deserialize)]
struct Entry {
    name: String,
    state: String,
    pid: Option<i32>,
    restarts: u64,
    health: String,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    components: Vec<Entry>,
}

async fn all(vm: &Vm) -> Result<Vec<Entry>, Failure> {
    let text = vm.graphctl(&["status", "--json"]).await?;
    let page: Page = serde_json::from_str(&text)
        .map_err(|error| Failure::supervisor(format!("graphctl status --json printed no status: {error}")))?;
    Ok(page.components)
}

async fn one(vm: &Vm, name: &str) -> Result<Entry, Failure> {
    let found = all(vm).await?.into_iter().find(|component| component.name == name);
    found.ok_or_else(|| Failure::supervisor(format!("graphctl status does not list {name}")))
}

/// Makes a component of the suite's machine ill, or well again.
async fn make_ill(vm: &Vm, name: &str) -> Result<(), Failure> {
    vm.write(&format!("/run/{name}.ill"), "").await
}

async fn make_well(vm: &Vm, name: &str) -> Result<(), Failure> {
    vm.sh(&format!("rm /run/{name}.ill")).await.map(drop)
}

/// Waits until a file has so many lines; `what` says whose they are.
async fn wait_lines(vm: &Vm, file: &str, count: usize, what: &str) -> Result<(), Failure> {
    let seconds = vm.limit(REACTION).as_secs();
    let script = format!(
        "n=0; until [ -e {file} ] && [ $(wc -l < {file}) -ge {count} ]; do \
         n=$((n+1)); [ $n -le {seconds}0 ] || exit 1; sleep 0.1; done"
    );
    let waited = vm.run(&["/bin/sh", "-c", &script], REACTION * 2).await?;
    if waited.success() {
        return Ok(());
    }
    Err(Failure::supervisor(format!("{what} did not run {count} times within {seconds} s")))
}

/// An idle service with lines of `[lifecycle]`.
fn idle(name: &str, lifecycle: &str) -> String {
    format!(
        "[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-idle\"\n\
         [requires]\ncapabilities = [\"network.configured\"]\n[lifecycle]\n{lifecycle}\n"
    )
}
