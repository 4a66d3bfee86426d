//! The part of `[resources]` that a process has from its start: limits of its own, and how the kernel schedules it.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys::{Word, nearest};
use super::reader::Reader;
use super::values::{Problem, list, meaning, size, text, whole_integer};
use crate::diagnostic::rules;

/// The section.
const S: &str = "resources";

/// The highest processor that Linux can have (`NR_CPUS` of its largest builds), less one.
pub(super) const CPU_MAX: u16 = 8191;

/// Priorities of the real-time policies (sched(7)).
const PRIORITIES: std::ops::RangeInclusive<u8> = 1..=99;

/// Levels within a class of input and output (ioprio_set(2)); less is sooner.
const LEVELS: std::ops::RangeInclusive<u8> = 0..=7;

/// The level of who does not say: what the kernel gives to a nice value of 0.
const LEVEL: u8 = 4;

/// See the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessLimits {
    /// Limits by setrlimit(2), each resource once.
    pub rlimits: Vec<Rlimit>,
    /// -20 to 19; less gets more of the processor.
    pub nice: Option<i8>,
    /// The policy of its threads.
    pub scheduling: Option<Scheduling>,
    /// The class of what it reads and writes.
    pub io_class: Option<IoClass>,
    /// Processors that it may run on, in order; empty for all.
    pub cpu_affinity: Vec<u16>,
    /// -1000 to 1000; more is killed sooner when memory is short.
    pub oom_score_adjust: Option<i16>,
}

impl ProcessLimits {
    /// The first key in which two differ.
    pub(super) fn differing(&self, other: &Self) -> Option<&'static str> {
        let differs = [
            (self.rlimits != other.rlimits, "resources.rlimits"),
            (self.nice != other.nice, "resources.nice"),
            (self.scheduling != other.scheduling, "resources.scheduling"),
            (self.io_class != other.io_class, "resources.io_class"),
            (self.cpu_affinity != other.cpu_affinity, "resources.cpu_affinity"),
            (self.oom_score_adjust != other.oom_score_adjust, "resources.oom_score_adjust"),
        ];
        differs.into_iter().find(|(differs, _)| *differs).map(|(_, key)| key)
    }
}

/// A limit of setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Of what.
    pub resource: RlimitResource,
    /// What holds; `None` is no limit. In the unit of the kernel: bytes, seconds or a count.
    pub soft: Option<u64>,
    /// Up to where the process may raise that.
    pub hard: Option<u64>,
}

macro_rules! resources {
    ($($(#[$about:meta])* $name:ident = $number:literal $word:literal,)*) => {
        /// A resource of setrlimit(2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum RlimitResource {
            $($(#[$about])* $name,)*
        }

        impl RlimitResource {
            /// Its number on Linux, on all processors that this runs on.
            pub fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// Its name in a component file.
            pub fn name(self) -> &'static str {
                <Self as Word>::name(self)
            }
        }

        impl Word for RlimitResource {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$name)),*];
        }
    };
}

resources! {
    /// Processor time, in seconds.
    Cpu = 0 "cpu",
    /// Size of files that it writes, in bytes.
    Fsize = 1 "fsize",
    /// Size of its data, in bytes.
    Data = 2 "data",
    /// Size of its stack, in bytes.
    Stack = 3 "stack",
    /// Size of a core dump, in bytes.
    Core = 4 "core",
    /// Without effect on Linux.
    Rss = 5 "rss",
    /// Processes and threads of its user.
    Nproc = 6 "nproc",
    /// Open descriptors.
    Nofile = 7 "nofile",
    /// Memory that it locks, in bytes.
    Memlock = 8 "memlock",
    /// Its address space, in bytes.
    As = 9 "as",
    /// Without effect on Linux.
    Locks = 10 "locks",
    /// Signals that wait for processes of its user.
    Sigpending = 11 "sigpending",
    /// Bytes in message queues of its user.
    Msgqueue = 12 "msgqueue",
    /// 20 less the lowest nice value that it may take.
    Nice = 13 "nice",
    /// The highest real-time priority that it may take.
    Rtprio = 14 "rtprio",
    /// Microseconds of the processor that a real-time thread may take without waiting.
    Rttime = 15 "rttime",
}

/// How the kernel schedules a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// By which policy.
    pub policy: SchedulingPolicy,
    /// 1 to 99 for the real-time policies, else 0.
    pub priority: u8,
}

/// A policy of sched(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulingPolicy {
    /// `SCHED_OTHER`.
    Other,
    /// `SCHED_BATCH`.
    Batch,
    /// `SCHED_IDLE`.
    Idle,
    /// `SCHED_FIFO`.
    Fifo,
    /// `SCHED_RR`.
    Rr,
}

impl Word for SchedulingPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("other", Self::Other),
        ("batch", Self::Batch),
        ("idle", Self::Idle),
        ("fifo", Self::Fifo),
        ("rr", Self::Rr),
    ];
}

/// How soon the kernel reads and writes for a process (ioprio_set(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoClass {
    /// Before and after whom.
    pub class: IoClassKind,
    /// 0 to 7 within the class; less is sooner. 0 for the class `idle`, which has none.
    pub level: u8,
}

/// A class of ioprio_set(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoClassKind {
    /// Before all others.
    Realtime,
    /// The usual one.
    BestEffort,
    /// When nobody else does.
    Idle,
}

impl Word for IoClassKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("best-effort", Self::BestEffort), ("realtime", Self::Realtime), ("idle", Self::Idle)];
}

/// The part of the section.
pub(super) fn process_limits(r: &mut Reader<'_>) -> ProcessLimits {
    let found = ProcessLimits {
        rlimits: r.get(S, "rlimits", rlimits).unwrap_or_default(),
        nice: r.integer(S, "nice").and_then(|nice| i8::try_from(nice).ok()),
        scheduling: r.get(S, "scheduling", scheduling),
        io_class: r.get(S, "io_class", io_class),
        cpu_affinity: r.get(S, "cpu_affinity", cpus).unwrap_or_default(),
        oom_score_adjust: r.integer(S, "oom_score_adjust").and_then(|score| i16::try_from(score).ok()),
    };
    let limits_files = found.rlimits.iter().any(|limit| limit.resource == RlimitResource::Nofile);
    if limits_files && r.has(S, "files_max") {
        let message = "`rlimits.nofile` and `files_max` are the same limit";
        let help = Some("keep `files_max`: it changes on what runs, too".to_owned());
        r.report(&rules::TWO_FILE_LIMITS, S, "rlimits", message, help);
    }
    found
}

/// A table of limits.
fn rlimits(value: &DeValue<'_>) -> Result<Vec<Rlimit>, Problem> {
    let DeValue::Table(table) = value else {
        return Err(Problem::wrong_type("a table of limits", value)
            .help("for example { core = 0, nproc = \"64:128\" }"));
    };
    let one = |(name, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let unknown = |name: &str| format!("names an unknown limit {name:?}");
        let name: &std::borrow::Cow<'_, str> = name.get_ref();
        let resource = meaning::<RlimitResource>(name, unknown)?;
        let (soft, hard) = rlimit(value.get_ref()).map_err(|problem| problem.at(value.span()))?;
        Ok(Rlimit { resource, soft, hard })
    };
    let mut found = table.iter().map(one).collect::<Result<Vec<_>, Problem>>()?;
    found.sort_by_key(|limit| limit.resource);
    Ok(found)
}

/// A number for both, or `"SOFT:HARD"`, each of which may be `infinity`.
fn rlimit(value: &DeValue<'_>) -> Result<(Option<u64>, Option<u64>), Problem> {
    let problem = |given: &str| {
        Problem::new(&rules::NO_RLIMIT, format!("has a limit that is none: {given:?}"))
            .help("write a number, or a text \"SOFT:HARD\"; each is a number with or without K, M, G, T, or \"infinity\"")
    };
    if let DeValue::Integer(given) = value {
        let both =
            whole_integer(given).filter(|limit| *limit >= 0).and_then(|limit| u64::try_from(limit).ok());
        return both.map(|both| (Some(both), Some(both))).ok_or_else(|| problem(given.as_str()));
    }
    let given = text(value)?;
    let (soft, hard) = given.split_once(':').unwrap_or((&given, &given));
    let part = |text: &str| match text.trim() {
        "infinity" | "unlimited" => Some(None),
        other => size(other).map(Some),
    };
    match (part(soft), part(hard)) {
        (Some(soft), Some(hard)) if soft.unwrap_or(u64::MAX) <= hard.unwrap_or(u64::MAX) => Ok((soft, hard)),
        _ => Err(problem(&given)),
    }
}

/// `"POLICY"`, or `"POLICY:PRIORITY"` for the real-time ones.
fn scheduling(value: &DeValue<'_>) -> Result<Scheduling, Problem> {
    let given = text(value)?;
    let (name, priority) = given.split_once(':').map_or((&*given, None), |(name, rest)| (name, Some(rest)));
    let policy = SchedulingPolicy::WORDS.iter().find(|(word, _)| *word == name).map(|(_, policy)| *policy);
    let is_real_time = matches!(policy, Some(SchedulingPolicy::Fifo | SchedulingPolicy::Rr));
    let priority = priority.map(|text| text.parse::<u8>().ok().filter(|n| PRIORITIES.contains(n)));
    let found = match (policy, priority) {
        (Some(policy), Some(Some(priority))) if is_real_time => Some(Scheduling { policy, priority }),
        (Some(policy), None) if !is_real_time => Some(Scheduling { policy, priority: 0 }),
        _ => None,
    };
    found.ok_or_else(|| {
        let near =
            nearest(name, SchedulingPolicy::WORDS.iter().map(|(word, _)| *word)).filter(|near| *near != name);
        Problem::new(&rules::NO_SCHEDULING, format!("is no scheduling policy: {given:?}")).help(match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => "write other, batch, idle, fifo:PRIORITY or rr:PRIORITY, with a priority from 1 to 99"
                .to_owned(),
        })
    })
}

/// `"CLASS"` or `"CLASS:LEVEL"`.
fn io_class(value: &DeValue<'_>) -> Result<IoClass, Problem> {
    let given = text(value)?;
    let (name, level) = given.split_once(':').map_or((&*given, None), |(name, rest)| (name, Some(rest)));
    let class = IoClassKind::WORDS.iter().find(|(word, _)| *word == name).map(|(_, class)| *class);
    let level = level.map(|text| text.parse::<u8>().ok().filter(|n| LEVELS.contains(n)));
    let found = match (class, level) {
        (Some(IoClassKind::Idle), None) => Some(IoClass { class: IoClassKind::Idle, level: 0 }),
        (None, _) | (Some(IoClassKind::Idle), Some(_)) => None,
        (Some(class), level) => level.unwrap_or(Some(LEVEL)).map(|level| IoClass { class, level }),
    };
    found.ok_or_else(|| {
        Problem::new(&rules::NO_IO_CLASS, format!("is no class of input and output: {given:?}"))
            .help("write idle, best-effort:LEVEL or realtime:LEVEL, with a level from 0 to 7")
    })
}

/// Numbers, and ranges of them.
fn cpus(value: &DeValue<'_>) -> Result<Vec<u16>, Problem> {
    let mut found = Vec::new();
    for part in list(value)? {
        let (first, last) = part.split_once('-').unwrap_or((&part, &part));
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|cpu| *cpu <= CPU_MAX);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => found.extend(first..=last),
            _ => {
                let problem =
                    Problem::new(&rules::NO_CPUS, format!("names processors that are none: {part:?}"));
                return Err(problem.help(format!("write numbers and ranges, as \"0-3, 8\", up to {CPU_MAX}")));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
