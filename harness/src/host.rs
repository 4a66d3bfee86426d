//! The machine that the harness runs on.

use std::fs;
use std::process::Command;

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
