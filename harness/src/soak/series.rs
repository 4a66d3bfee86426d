//! What is looked at over time, and how much of a rise matters.
//!
//! A leak is lost with something that happens: a restart, an upgrade. So the least slope that matters is so much for each
//! cycle, a cycle being whatever starts a process or ends one. A quarter of what is promised to be found: a KiB for each
//! restart.

use super::history::Boot;

/// How a series is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// It may rise by so much for each cycle.
    PerCycle(f64),
    /// The same of what should not fall.
    PerCycleFalling(f64),
    /// It may rise by so much in an hour.
    PerHour(f64),
    /// It is only shown, and why.
    Shown(&'static str),
}

/// One series.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// As the guest calls it.
    pub name: &'static str,
    /// Of its values.
    pub unit: &'static str,
    /// How it is judged.
    pub rule: Rule,
}

/// Bytes of process 1 for each cycle that matter, in KiB: a quarter of the least leak that has to be found.
const PID1_KIB: f64 = 0.25;
/// Memory of the whole machine, in which much else moves.
const GUEST_KIB: f64 = 4.0;
/// One thing for each so many cycles: what is lost with one kind of event out of ten is lost more often.
const THING: f64 = 1.0 / 50.0;
/// The kernel keeps inodes and names of what was there for as long as nobody wants the memory.
const CACHED: &str = "the kernel's cache of names: it is given back when memory is wanted";
/// Of logs so much is kept, and no more.
const KEPT: &str = "logs grow to what is kept of them";

const fn of(name: &'static str, unit: &'static str, rule: Rule) -> Watched {
    Watched { name, unit, rule }
}

/// All of them, in the order of reports.
pub const WATCHED: [Watched; 43] = [
    of("pid1_anonymous_kib", "KiB", Rule::PerCycle(PID1_KIB)),
    of("pid1_resident_kib", "KiB", Rule::PerCycle(PID1_KIB)),
    of("pid1_share_kib", "KiB", Rule::Shown("its share of pages depends on who else has them")),
    of("pid1_data_kib", "KiB", Rule::PerCycle(PID1_KIB)),
    of("pid1_page_tables_kib", "KiB", Rule::PerCycle(PID1_KIB)),
    of("pid1_threads", "count", Rule::PerCycle(THING)),
    of("pid1_descriptors", "count", Rule::PerCycle(THING)),
    of("pid1_sockets", "count", Rule::PerCycle(THING)),
    of("pid1_pipes", "count", Rule::PerCycle(THING)),
    of("pid1_pidfds", "count", Rule::PerCycle(THING)),
    of("pid1_timers", "count", Rule::PerCycle(THING)),
    of("pid1_polls", "count", Rule::PerCycle(THING)),
    of("pid1_watches", "count", Rule::PerCycle(THING)),
    of("pid1_memory_files", "count", Rule::PerCycle(THING)),
    of("pid1_processor", "ms/min", Rule::PerHour(PROCESSOR)),
    of("processes", "count", Rule::PerCycle(THING)),
    of("threads", "count", Rule::PerCycle(THING)),
    of("zombies", "count", Rule::PerCycle(THING)),
    of("cgroups", "count", Rule::PerCycle(THING)),
    of("cgroups_dying", "count", Rule::PerCycle(THING)),
    of("mounts", "count", Rule::PerCycle(THING)),
    of("sockets", "count", Rule::PerCycle(THING)),
    of("sockets_tcp", "count", Rule::PerCycle(THING)),
    of("files", "count", Rule::PerCycle(THING)),
    of("inodes", "count", Rule::Shown(CACHED)),
    of("state_files", "count", Rule::PerCycle(THING)),
    of("state_kib", "KiB", Rule::Shown(KEPT)),
    of("guest_available_kib", "KiB", Rule::PerCycleFalling(GUEST_KIB)),
    of("guest_anonymous_kib", "KiB", Rule::PerCycle(GUEST_KIB)),
    of("guest_shared_kib", "KiB", Rule::Shown(KEPT)),
    of("guest_slab_kib", "KiB", Rule::Shown(CACHED)),
    of("guest_slab_kept_kib", "KiB", Rule::PerCycle(GUEST_KIB)),
    of("guest_kernel_stacks_kib", "KiB", Rule::PerCycle(GUEST_KIB)),
    of("guest_page_tables_kib", "KiB", Rule::PerCycle(GUEST_KIB)),
    of("guest_percpu_kib", "KiB", Rule::PerCycle(GUEST_KIB)),
    of("guest_vmalloc_kib", "KiB", Rule::PerCycle(GUEST_KIB)),
    of("load_longest_us", "us", Rule::Shown("a single moment on a host that others use")),
    of("took_restart", "ms", Rule::Shown(TOOK)),
    of("took_kill", "ms", Rule::Shown(TOOK)),
    of("took_upgrade", "ms", Rule::Shown(TOOK)),
    of("took_reload", "ms", Rule::Shown(TOOK)),
    of("took_declare", "ms", Rule::Shown(TOOK)),
    of("took_move", "ms", Rule::Shown(TOOK)),
];

/// Milliseconds in a minute that process 1 takes more of its processor in each hour: a hundredth of a processor in ten.
const PROCESSOR: f64 = 60.0;
const TOOK: &str = "the host decides how quick it is";
/// Events that neither start nor end a process.
const IDLE_KINDS: [&str; 3] = ["reload", "query", "checkpoint"];

/// A series of a boot: hours, and values.
pub fn series(boot: &Boot, name: &str) -> (Vec<f64>, Vec<f64>) {
    let hours = |t: Vec<f64>| t.into_iter().map(|seconds| seconds / 3600.0).collect();
    if let Some(kind) = name.strip_prefix("took_") {
        let of_kind = boot.events.iter().filter(|event| event.kind == kind && event.failed.is_none());
        return of_kind.map(|event| (event.t as f64 / 3.6e6, event.us as f64 / 1e3)).unzip();
    }
    if name == "pid1_processor" {
        let (t, used) = boot.series("pid1_processor_us");
        let pairs = t.windows(2).zip(used.windows(2)).filter(|(t, _)| t[1] > t[0]);
        let rates =
            pairs.map(|(t, used)| (t[1] / 3600.0, (used[1] - used[0]) / 1e3 / ((t[1] - t[0]) / 60.0)));
        return rates.unzip();
    }
    let (t, values) = boot.series(name);
    (hours(t), values)
}

/// How many cycles there are in an hour.
pub fn cycles_per_hour(boot: &Boot) -> f64 {
    let cycles = boot.events.iter().filter(|event| !IDLE_KINDS.contains(&event.kind.as_str())).count();
    let (first, last) = (boot.samples.first().map_or(0, |one| one.t), boot.passed_ms());
    cycles as f64 / (last.saturating_sub(first).max(1) as f64 / 3.6e6)
}

impl Rule {
    /// The least slope that matters in an hour; the values are to be turned round where it is negative.
    pub fn least_per_hour(self, cycles_per_hour: f64) -> Option<f64> {
        match self {
            Self::PerCycle(least) | Self::PerCycleFalling(least) => Some(least * cycles_per_hour),
            Self::PerHour(least) => Some(least),
            Self::Shown(_) => None,
        }
    }

    /// 1 where a rise is bad, -1 where a fall is.
    pub fn sign(self) -> f64 {
        if matches!(self, Self::PerCycleFalling(_)) { -1.0 } else { 1.0 }
    }
}
