//! The accounts of one control group: `Documentation/admin-guide/cgroup-v2.rst` names the files.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// What a group uses. What its controllers do not count is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processor time so far, in microseconds.
    pub cpu_usec: Option<u64>,
    /// Memory now.
    pub memory_bytes: Option<u64>,
    /// The most that it may have; none for no limit.
    pub memory_max: Option<u64>,
    /// Read from disks so far.
    pub io_read_bytes: Option<u64>,
    /// Written to disks so far.
    pub io_write_bytes: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// The most that there may be; none for no limit.
    pub pids_max: Option<u64>,
    /// Percent of the last ten seconds in which some of its tasks waited for a processor.
    pub pressure_cpu: Option<f64>,
    /// The same for memory.
    pub pressure_memory: Option<f64>,
    /// The same for a disk.
    pub pressure_io: Option<f64>,
}

impl Usage {
    /// Read it.
    pub fn read(group: &Path) -> Self {
        let text = |file: &str| fs::read_to_string(group.join(file)).ok();
        let number = |file: &str| text(file)?.trim().parse().ok();
        let pressure = |file: &str| some_avg10(&text(file)?);
        let io = text("io.stat");
        let io = |name: &str| io.as_deref().map(|text| sum(text, name));
        Self {
            cpu_usec: text("cpu.stat").and_then(|text| value(&text, "usage_usec")),
            memory_bytes: number("memory.current"),
            memory_max: number("memory.max"),
            io_read_bytes: io("rbytes"),
            io_write_bytes: io("wbytes"),
            pids: number("pids.current"),
            pids_max: number("pids.max"),
            pressure_cpu: pressure("cpu.pressure"),
            pressure_memory: pressure("memory.pressure"),
            pressure_io: pressure("io.pressure"),
        }
    }

    /// The highest of its pressures.
    pub fn worst_pressure(&self) -> Option<f64> {
        let all = [self.pressure_cpu, self.pressure_memory, self.pressure_io];
        all.into_iter().flatten().max_by(f64::total_cmp)
    }
}

/// The value of a key, one on each line.
fn value(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

/// The values of a key, one for each device, together.
fn sum(text: &str, key: &str) -> u64 {
    let fields = text.split_whitespace().filter_map(|field| field.split_once('='));
    fields.filter(|(name, _)| *name == key).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_as_far_as_they_are_there() {
        let group = tempfile::tempdir().expect("temporary directory");
        assert_eq!(Usage::read(group.path()), Usage::default());
        let files = [
            ("cpu.stat", "usage_usec 1234\nuser_usec 1000\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "20\n"),
            ("memory.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=9.00\n"),
            ("io.pressure", "full avg10=9.00\n"),
        ];
        for (file, text) in files {
            fs::write(group.path().join(file), text).expect("file");
        }
        let usage = Usage::read(group.path());
        let expected = Usage {
            cpu_usec: Some(1234),
            memory_bytes: Some(4096),
            io_read_bytes: Some(15),
            io_write_bytes: Some(21),
            pids: Some(3),
            pids_max: Some(20),
            pressure_memory: Some(1.5),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
        assert_eq!(usage.worst_pressure(), Some(1.5));
    }
}
