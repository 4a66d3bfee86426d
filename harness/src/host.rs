//! The machine that the harness runs on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use yakiros_reports::event::Host;

use crate::options;

/// For reports.
pub fn describe() -> Host {
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Host {
        os: name.unwrap_or("Linux").trim_matches('"').to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        cpus,
        memory_mb: meminfo("MemTotal:"),
    }
}

/// Memory that guests can take without driving the host into its swap.
pub fn available_memory_mb() -> u64 {
    meminfo("MemAvailable:")
}

/// For how long the threads of a process have been on a processor so far, or have waited for one: what it would have taken
/// on a host that does nothing else. Nothing when it is gone, or the kernel does not count it.
pub fn processor_demand(pid: u32) -> Option<Duration> {
    let mut demand = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // One that has just ended is missing; it was a worker of QEMU's, not a processor of the guest.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        let mut words = text.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(on_it)), Some(Ok(waited))) = (words.next(), words.next()) else { return None };
        demand += Duration::from_nanos(on_it.saturating_add(waited));
    }
    (!demand.is_zero()).then_some(demand)
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib: u64 =
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0);
    kib / 1024
}

/// The commit of the workspace, if it is a git checkout.
pub fn git_commit() -> Option<String> {
    let output =
        Command::new("git").args(["rev-parse", "HEAD"]).current_dir(options::workspace()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_takes_time() {
        let own = std::process::id();
        let start = std::time::Instant::now();
        while processor_demand(own).is_none_or(|taken| taken < Duration::from_millis(20)) {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", processor_demand(own));
        }
        assert_eq!(processor_demand(u32::MAX), None);
    }
}
