//! `[resources]`: the control group of a component and its limits.
//!
//! A limit that is given here is one of the kernel's own (`Documentation/admin-guide/cgroup-v2.rst`), by the name that the
//! kernel gives it, with `_` in place of the dot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys::Word;
use super::process::{ProcessLimits, process_limits};
use super::reader::Reader;
use super::slice;
use super::values::{
    Problem, arguments, bytes, bytes_or_none, cgroup_path, size, text, truth, with_unit, word, words,
};
use crate::diagnostic::rules;

const S: &str = "resources";

/// The most devices whose limits one component may declare: more than a machine has whole disks.
pub(super) const DEVICES_LIMIT: usize = 64;

/// The highest number of a processor or of a node of memory: a list is told to the kernel, which has at most 8,192 of
/// either, in one short line.
const NUMBER_MAX: u32 = 8191;

/// The longest path of a device, in bytes: the kernel takes less than a page in one write.
const DEVICE_LIMIT: usize = 1024;

/// `[resources]`. `None` everywhere means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative path below the supervisor's cgroup, or the slice's; the name when absent.
    pub cgroup: Option<String>,
    /// The name of the slice that it lies in.
    pub slice: Option<String>,
    /// The group is given to the component's user, and has these controllers besides those that every group has.
    pub delegate: Option<Vec<Controller>>,
    /// `memory.max`, bytes.
    pub memory_max: Option<u64>,
    /// `memory.high`, bytes.
    pub memory_high: Option<u64>,
    /// `memory.swap.max`, bytes; 0 for no swap at all.
    pub memory_swap_max: Option<u64>,
    /// `memory.oom.group`: the kernel ends all processes of the group together.
    pub memory_oom_group: bool,
    /// What follows when the kernel kills one of its processes for want of memory.
    pub on_oom: OnOom,
    /// `cpu.weight`, 1 to 10000.
    pub cpu_weight: Option<u16>,
    /// `io.weight`, 1 to 10000.
    pub io_weight: Option<u16>,
    /// `io.max`, for each device.
    pub io_max: Vec<IoMax>,
    /// `cpu.max`: quota (`None` is `max`) and period, microseconds.
    pub cpu_max: Option<CpuMax>,
    /// `cpuset.cpus`: numbers of processors.
    pub cpuset: Option<String>,
    /// `cpuset.mems`: numbers of nodes of memory.
    pub cpuset_mems: Option<String>,
    /// `pids.max`.
    pub pids_max: Option<u64>,
    /// When waiting for a processor, for memory and for a disk is told.
    pub pressure: [Option<Pressure>; 3],
    /// `RLIMIT_NOFILE`.
    pub files_max: Option<u64>,
    /// What a process has from its start; does not change on what runs.
    pub process: ProcessLimits,
}

impl Resources {
    /// What is declared for the files of a control group, as the kernel takes it; of a file with a line for each device,
    /// with the device behind its name.
    pub fn declared_limits(&self) -> BTreeMap<String, String> {
        let files = self.limit_files().into_iter();
        let files = files.filter_map(|(file, value, _)| Some((file.to_owned(), value?)));
        let devices = self.io_max.iter().map(|max| (format!("io.max {}", max.device), max.limits()));
        files.chain(devices).collect()
    }

    /// Each file of a control group with one value: what is declared for it, as the kernel takes it, and what the kernel
    /// begins with.
    pub fn limit_files(&self) -> [(&'static str, Option<String>, &'static str); 10] {
        let text = |value: Option<u64>| value.map(|value| value.to_string());
        let cpu_max = self.cpu_max.map(|max| {
            let quota = text(max.quota).unwrap_or_else(|| "max".to_owned());
            format!("{quota} {}", max.period)
        });
        [
            ("memory.max", text(self.memory_max), "max"),
            ("memory.high", text(self.memory_high), "max"),
            ("memory.swap.max", text(self.memory_swap_max), "max"),
            ("memory.oom.group", self.memory_oom_group.then(|| "1".to_owned()), "0"),
            ("cpu.weight", text(self.cpu_weight.map(u64::from)), "100"),
            ("io.weight", text(self.io_weight.map(u64::from)), "default 100"),
            ("cpu.max", cpu_max, "max 100000"),
            // A write of nothing is none: the end of the line is what empties it.
            ("cpuset.cpus", self.cpuset.clone(), "\n"),
            ("cpuset.mems", self.cpuset_mems.clone(), "\n"),
            ("pids.max", text(self.pids_max), "max"),
        ]
    }
}

/// A controller of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// Shares of processors.
    Cpu,
    /// Which processors and nodes of memory there are.
    Cpuset,
    /// What is read from and written to disks.
    Io,
    /// Memory.
    Memory,
    /// Numbers of processes.
    Pids,
}

impl Controller {
    /// What the kernel calls it.
    pub fn name(self) -> &'static str {
        <Self as Word>::name(self)
    }
}

impl Word for Controller {
    const WHAT: &'static str = "controller";

    const WORDS: &'static [(&'static str, Self)] = &[
        ("cpu", Self::Cpu),
        ("cpuset", Self::Cpuset),
        ("io", Self::Io),
        ("memory", Self::Memory),
        ("pids", Self::Pids),
    ];
}

/// Whether a group is given away, and with which controllers.
fn controllers(value: &DeValue<'_>) -> Result<Option<Vec<Controller>>, Problem> {
    match value {
        DeValue::Boolean(given) => Ok(given.then(Vec::new)),
        several => words(several).map(Some),
    }
}

/// What follows when the kernel kills a process for want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOom {
    /// The component has failed: it is stopped, and started again by the restart rule.
    #[default]
    Restart,
    /// The component has failed and stays so until it is asked for.
    Stop,
    /// It is told, and nothing follows but what follows the end of the component's own process.
    Continue,
}

impl Word for OnOom {
    const WORDS: &'static [(&'static str, Self)] =
        &[("restart", Self::Restart), ("stop", Self::Stop), ("continue", Self::Continue)];
}

/// How long tasks may wait before it is told, as a trigger of the kernel (`Documentation/accounting/psi.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// All tasks at once have to wait, not only some.
    pub full: bool,
    /// For so long in all, in microseconds.
    pub stall_us: u64,
    /// Within a time of this length, in microseconds.
    pub window_us: u64,
}

impl Pressure {
    /// The files that triggers are written to, in the order of [`Resources::pressure`].
    pub const FILES: [&'static str; 3] = ["cpu.pressure", "memory.pressure", "io.pressure"];

    /// As the kernel takes it.
    pub fn trigger(&self) -> String {
        let Self { stall_us, window_us, .. } = self;
        format!("{} {stall_us} {window_us}", self.kind())
    }

    fn kind(&self) -> &'static str {
        if self.full { "full" } else { "some" }
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |microseconds| std::time::Duration::from_micros(microseconds);
        write!(f, "{} {:?} {:?}", self.kind(), time(self.stall_us), time(self.window_us))
    }
}

/// `cpu.max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuMax {
    /// Microseconds of CPU per period; `None` is unlimited.
    pub quota: Option<u64>,
    /// Length of the period in microseconds.
    pub period: u64,
}

/// `io.max` of one device. `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoMax {
    /// `MAJOR:MINOR`, or the path of a whole disk below `/dev`.
    pub device: String,
    /// Bytes read in a second.
    pub rbps: Option<u64>,
    /// Bytes written in a second.
    pub wbps: Option<u64>,
    /// Reads in a second.
    pub riops: Option<u64>,
    /// Writes in a second.
    pub wiops: Option<u64>,
}

impl IoMax {
    /// The limits without the device, as the kernel takes them: all four, for what is left out stays as it was.
    pub fn limits(&self) -> String {
        let fields = [self.rbps, self.wbps, self.riops, self.wiops];
        let mut line = String::new();
        for (name, value) in IO_LIMITS.iter().zip(fields) {
            let gap = if line.is_empty() { "" } else { " " };
            let _infallible = match value {
                Some(value) => write!(line, "{gap}{name}={value}"),
                None => write!(line, "{gap}{name}=max"),
            };
        }
        line
    }

    fn set(&mut self, name: &str, value: u64) {
        let value = Some(value);
        match name {
            "rbps" => self.rbps = value,
            "wbps" => self.wbps = value,
            "riops" => self.riops = value,
            _ => self.wiops = value,
        }
    }
}

impl fmt::Display for IoMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.device, self.limits())
    }
}

/// The names of the kernel's limits of a device: bytes, then requests in a second.
pub(super) const IO_LIMITS: [&str; 4] = ["rbps", "wbps", "riops", "wiops"];

pub(super) fn resources(r: &mut Reader<'_>) -> Resources {
    let weight = |r: &mut Reader<'_>, key| r.number(S, key).and_then(|n| u16::try_from(n).ok());
    let found = Resources {
        cgroup: r.get(S, "cgroup", cgroup_path),
        slice: r.get(S, "slice", slice::path),
        delegate: r.get(S, "delegate", controllers).flatten(),
        memory_max: r.get(S, "memory_max", bytes),
        memory_high: r.get(S, "memory_high", bytes),
        memory_swap_max: r.get(S, "memory_swap_max", bytes_or_none),
        memory_oom_group: r.get(S, "memory_oom_group", truth).unwrap_or(false),
        on_oom: r.get(S, "on_oom", word::<OnOom>).unwrap_or_default(),
        cpu_weight: weight(r, "cpu_weight"),
        io_weight: weight(r, "io_weight"),
        io_max: r.get(S, "io_max", io_max).unwrap_or_default(),
        cpu_max: r.get(S, "cpu_max", cpu_max),
        cpuset: r.get(S, "cpuset", numbers),
        cpuset_mems: r.get(S, "cpuset_mems", numbers),
        pids_max: r.number(S, "pids_max"),
        pressure: ["cpu_pressure", "memory_pressure", "io_pressure"].map(|key| r.get(S, key, pressure)),
        files_max: r.number(S, "files_max"),
        process: process_limits(r),
    };
    if let (Some(high), Some(max)) = (found.memory_high, found.memory_max)
        && high > max
    {
        let message = "`memory_high` is above `memory_max` and would never act";
        r.report(&rules::MEMORY_HIGH, S, "memory_high", message, None);
    }
    found
}

/// `"quota period"` or `"max period"` in microseconds.
fn cpu_max(value: &DeValue<'_>) -> Result<CpuMax, Problem> {
    /// What the kernel takes when the period is left out.
    const DEFAULT_PERIOD: u64 = 100_000;
    let given = text(value)?;
    let mut words = given.split_whitespace();
    let quota = match words.next() {
        Some("max") => Some(None),
        Some(word) => word.parse().ok().filter(|q| *q >= 1000).map(Some),
        None => None,
    };
    let period = match words.next() {
        Some(word) => word.parse().ok().filter(|p| (1000..=1_000_000).contains(p)),
        None => Some(DEFAULT_PERIOD),
    };
    match (quota, period, words.next()) {
        (Some(quota), Some(period), None) => Ok(CpuMax { quota, period }),
        _ => Err(Problem::new(&rules::NO_CPU_LIMIT, format!("is no processor limit: {given:?}")).help(
            "write \"QUOTA PERIOD\" in microseconds, each at least 1000, \
                 for example \"50000 100000\" for half a processor",
        )),
    }
}

/// `"some STALL WINDOW"` or `"full STALL WINDOW"`.
fn pressure(value: &DeValue<'_>) -> Result<Pressure, Problem> {
    /// The windows that the kernel takes, in microseconds (`WINDOW_MIN_US` and `WINDOW_MAX_US` in
    /// `kernel/sched/psi.c`).
    const WINDOWS: std::ops::RangeInclusive<u64> = 500_000..=10_000_000;
    let given = text(value)?;
    let mut words = given.split_whitespace();
    let full = match words.next() {
        Some("some") => Some(false),
        Some("full") => Some(true),
        _ => None,
    };
    let mut time = || words.next().and_then(with_unit).map(|seconds| (seconds * 1e6) as u64);
    let (stall, window) =
        (time().filter(|stall| *stall > 0), time().filter(|window| WINDOWS.contains(window)));
    match (full, stall.zip(window), words.next()) {
        (Some(full), Some((stall_us, window_us)), None) if stall_us <= window_us => {
            Ok(Pressure { full, stall_us, window_us })
        }
        _ => Err(Problem::new(&rules::NO_PRESSURE, format!("is no pressure: {given:?}")).help(
            "write \"some STALL WINDOW\" or \"full STALL WINDOW\", WINDOW from 500ms to 10s and STALL not above it, for \
             example \"some 150ms 1s\"",
        )),
    }
}

/// An array of `"DEVICE NAME=LIMIT …"`.
fn io_max(value: &DeValue<'_>) -> Result<Vec<IoMax>, Problem> {
    let lines = arguments(value)?;
    if lines.len() > DEVICES_LIMIT {
        let message = format!("names {} devices", lines.len());
        return Err(Problem::new(&rules::NO_IO_LIMIT, message).help(format!("at most {DEVICES_LIMIT}")));
    }
    let mut found: Vec<IoMax> = Vec::new();
    for line in &lines {
        let limit = io_limit(line).ok_or_else(|| {
            Problem::new(&rules::NO_IO_LIMIT, format!("has no limit of a device in {line:?}")).help(
                "write \"DEVICE LIMIT…\", DEVICE as \"8:0\" or \"/dev/sda\" and each LIMIT one of rbps=BYTES, wbps=BYTES, \
                 riops=COUNT and wiops=COUNT in a second, for example \"/dev/sda wbps=10M wiops=500\"",
            )
        })?;
        if found.iter().any(|other| other.device == limit.device) {
            let message = format!("names {} twice", limit.device);
            return Err(
                Problem::new(&rules::NO_IO_LIMIT, message).help("write all limits of a device in one text")
            );
        }
        found.push(limit);
    }
    Ok(found)
}

fn io_limit(line: &str) -> Option<IoMax> {
    let mut words = line.split_whitespace();
    let device = words.next().filter(|device| is_device(device))?;
    let mut found = IoMax { device: device.to_owned(), ..IoMax::default() };
    let mut seen = Vec::new();
    for word in words {
        let (name, value) = word.split_once('=')?;
        if !IO_LIMITS.contains(&name) || seen.contains(&name) {
            return None;
        }
        seen.push(name);
        if value != "max" {
            found.set(name, rate(name, value)?);
        }
    }
    (!seen.is_empty()).then_some(found)
}

/// A number of bytes or of requests.
fn rate(name: &str, value: &str) -> Option<u64> {
    let rate = if name.ends_with("bps") { size(value) } else { value.parse().ok() };
    rate.filter(|rate| *rate > 0)
}

/// Whether it is `MAJOR:MINOR`, or a path below `/dev` without a way out of it.
fn is_device(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.parse::<u32>().is_ok() && !text.starts_with('+');
    let numbers = text.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
    let path = text.strip_prefix("/dev/").is_some_and(|rest| {
        rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && rest.len() < DEVICE_LIMIT
    });
    numbers || path
}

/// A list of numbers and ranges, as `"0-3,8"`; in the form in which the kernel shows it.
fn numbers(value: &DeValue<'_>) -> Result<String, Problem> {
    let given = text(value)?;
    listed(&given).map(|numbers| ranges(&numbers)).ok_or_else(|| {
        Problem::new(&rules::NO_NUMBERS, format!("is no list of numbers: {given:?}"))
            .help(format!("write numbers and ranges up to {NUMBER_MAX}, for example \"0-3,8\""))
    })
}

fn listed(text: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| plain && *number <= NUMBER_MAX)
    };
    let mut found = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        found.extend(first..=last);
    }
    Some(found)
}

fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut rest = numbers.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| *next == last + 1) {
            last = next;
        }
        let gap = if text.is_empty() { "" } else { "," };
        let _infallible =
            if first == last { write!(text, "{gap}{first}") } else { write!(text, "{gap}{first}-{last}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_as_the_kernel_shows_them() {
        for (given, kept) in [("0", "0"), ("3,1,2 , 0", "0-3"), ("8, 0-1,1-3", "0-3,8"), ("5-5", "5")] {
            assert_eq!(listed(given).map(|numbers| ranges(&numbers)).as_deref(), Some(kept), "{given}");
        }
        for bad in ["", ",", "1-", "3-1", "8192", "+1", "0-8192"] {
            assert_eq!(listed(bad), None, "{bad}");
        }
    }
}
