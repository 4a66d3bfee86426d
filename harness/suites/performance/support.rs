//! What all of this suite reads.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::REACTION;
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The memory of a process, in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now, with its program, which lies in memory anyway.
    pub resident: f64,
    /// The most that ever was.
    pub peak: f64,
    /// What no file has: its heap, its stacks, and what it has written to of its data.
    pub anonymous: f64,
}

/// Of process 1, or of another.
pub async fn memory(vm: &Vm, pid: i32) -> Result<Memory, Failure> {
    let text = vm.read(&format!("/proc/{pid}/status")).await?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()
    };
    match (field("VmRSS"), field("VmHWM"), field("RssAnon")) {
        (Some(resident), Some(peak), Some(anonymous)) => Ok(Memory { resident, peak, anonymous }),
        _ => Err(Failure::harness(format!("the kernel says of process {pid}: {text}"))),
    }
}

/// The numbers of a text with one in each line.
pub fn numbers(text: &str) -> Vec<f64> {
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// What a graphctl command that succeeds prints in JSON.
pub async fn json<T: DeserializeOwned>(vm: &Vm, arguments: &[&str], time: Duration) -> Result<T, Failure> {
    let text = vm.graphctl_within(&[arguments, &["--json"]].concat(), time).await?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::supervisor(format!("graphctl {arguments:?} printed {text}: {error}")))
}

/// A change of state, as `graphctl events --json` tells it.
#[derive(Debug, Deserialize)]
pub struct Change {
    /// On the supervisor's clock.
    pub time_ms: u64,
    pub component: String,
    pub from: String,
    pub to: String,
}

/// The changes since a revision.
pub async fn changes(vm: &Vm, since: u64) -> Result<Vec<Change>, Failure> {
    let text = vm.graphctl_within(&["events", "--since", &since.to_string(), "--json"], REACTION).await?;
    let read = |line: &str| {
        // A line about something else has other keys.
        let change: Option<Change> = serde_json::from_str(line).ok();
        change.filter(|change| change.from != change.to)
    };
    Ok(text.lines().filter_map(read).collect())
}

/// Nanoseconds that process 1 was on a processor since the boot.
pub async fn own_time(vm: &Vm) -> Result<f64, Failure> {
    let text = vm.sh("cut -d' ' -f1 /proc/1/schedstat").await?;
    text.trim().parse().map_err(|_| Failure::harness(format!("/proc/1/schedstat says {text}")))
}

/// Every component of the machine does its work; those in the circle wait for each other.
pub async fn all_work(vm: &Vm) -> Result<(), Failure> {
    for component in vm.status().await?.components {
        let is_right = match component.name.as_str() {
            "network" | "storage" | "files" => component.state == "DONE",
            "test-cycle-a" | "test-cycle-b" => component.state == "CYCLE",
            _ => component.state == "ACTIVE" && component.restarts == 0,
        };
        check!(is_right, "{component:?}");
    }
    Ok(())
}

/// A service that does nothing, with these lines more.
pub fn idle(name: &str, more: &str) -> (String, String) {
    let content = format!("[component]\nname = \"{name}\"\nbinary = \"/usr/local/bin/test-idle\"\n{more}");
    (format!("{name}.toml"), content)
}
