//! Every choice of a run, drawn from its seed: a swarm of seeds covers the corners, because each
//! leaves some faults out and overdoes others.
//!
//! An option is one row of the table below: its name, what it means and how it is drawn. All are
//! numbers, so that they can be printed, compared and read back at a glance.

use std::fmt;

use serde::Serialize;

use super::Random;

/// How an option is drawn.
enum Draw {
    /// Any number of a range, both ends included.
    Between(u64, u64),
    /// In so many of a hundred seeds a number of the range, otherwise 0.
    Sometimes(u64, u64, u64),
    /// A power of two up to this exponent: small values as often as large ones.
    Power(u64),
}

impl Draw {
    fn draw(&self, random: &mut Random) -> u64 {
        match *self {
            Self::Between(low, high) => low + random.below(high - low + 1),
            Self::Sometimes(chance, low, high) => {
                let number = low + random.below(high - low + 1);
                if random.percent(chance) { number } else { 0 }
            }
            Self::Power(most) => 1 << random.below(most + 1),
        }
    }
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident = $draw:expr;)+) => {
        /// See the module documentation. Percentages are named by what they are of; durations end
        /// in their unit and are upper limits unless they say otherwise.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        pub struct Options {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Options {
            /// The options of a seed.
            pub fn draw(random: &mut Random) -> Self {
                use Draw::{Between, Power, Sometimes};
                Self { $($name: $draw.draw(random),)+ }
            }

            /// The same without anything that goes wrong by itself, and short times for what goes well.
            pub fn calm(random: &mut Random) -> Self {
                let drawn = Self::draw(random);
                Self { $($name: 0,)+ }.with_times_of(&drawn)
            }

            /// The same by number.
            pub fn of(seed: u64) -> Self {
                Self::draw(&mut Random::new(seed))
            }

            /// All of them by name.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

options! {
    /// Components declared at the start.
    components = Between(2, 30);
    /// Capabilities to choose from; fewer mean more alternative providers and more cycles.
    capabilities = Between(2, 26);
    /// Requirements of a component, at most.
    requirements = Between(0, 3);
    /// 1 if a component may require what those after it provide, so that cycles appear.
    cycles = Sometimes(30, 1, 1);
    /// Percent of components that provide a second capability.
    second_provisions = Sometimes(50, 5, 60);
    /// Percent of components that are oneshots.
    oneshots = Between(0, 40);
    /// Percent of services that report ready.
    readiness = Between(0, 60);
    /// Time that a service has to become ready.
    readiness_timeout_s = Between(1, 30);
    /// Percent of services that are probed.
    probed = Between(0, 60);
    /// Longest start grace of those that are probed, in seconds.
    start_grace_s = Sometimes(50, 1, 120);
    /// Percent of services that declare a way of handing over.
    handoffs = Sometimes(50, 5, 60);
    /// Percent of services that have a watchdog.
    watched = Between(0, 40);
    /// Percent of services that can hand over.
    handovers = Sometimes(60, 10, 90);
    /// Longest probation of those that hand over, in seconds.
    probation_s = Sometimes(60, 1, 80);
    /// Percent of those that do so as canaries, where there is a probation, unless a client says otherwise.
    canaries = Sometimes(70, 20, 95);
    /// Percent of canaries that say within their time, or soon after it, that they fail, while faults last.
    canary_failures = Sometimes(70, 10, 80);
    /// Percent of processes that give everything at once only.
    whole = Sometimes(40, 1, 60);
    /// Restarts allowed in the window before backing off.
    restart_max = Between(1, 6);
    /// The window.
    restart_window_s = Between(5, 60);
    /// Time between SIGTERM and SIGKILL.
    grace_ms = Between(50, 10_000);

    /// Percent of starts that fail before exec, while faults last.
    exec_failures = Sometimes(60, 1, 30);
    /// Percent of starts that ask for what the performer cannot do, while faults last.
    unsupported = Sometimes(20, 1, 10);
    /// Percent of services that never report ready, while faults last.
    silent = Sometimes(60, 1, 30);
    /// Percent of processes that do not hear SIGTERM.
    deaf = Sometimes(60, 1, 40);
    /// Percent of kills that take longer than the engine's patience, while faults last.
    stuck = Sometimes(20, 1, 20);
    /// Percent of oneshots that end with an error, while faults last.
    oneshot_failures = Sometimes(60, 1, 40);
    /// Percent of probes that fail, while faults last.
    probe_failures = Sometimes(70, 1, 90);
    /// Percent of probes that never end by themselves, while faults last.
    probe_hangs = Sometimes(40, 1, 30);
    /// Percent of changes of limits that fail, while faults last.
    limit_failures = Sometimes(40, 1, 60);
    /// Percent of processes that cannot be frozen, or thawed, each time, while faults last.
    freeze_failures = Sometimes(40, 1, 40);
    /// Percent of the steps of a hot swap that go wrong, while faults last.
    handover_failures = Sometimes(70, 1, 40);
    /// Percent of processes that could hand over and never say so, as programs that know nothing of it.
    mute = Sometimes(50, 1, 60);
    /// Percent of those that listen for a signal instead.
    listening = Sometimes(50, 1, 60);
    /// Percent of processes that could hand over and for whose component descriptors are held from then on.
    holdings = Sometimes(50, 1, 60);
    /// Percent of signs of life that are the last of a process, while faults last.
    silences = Sometimes(50, 1, 20);
    /// Percent of ticks that come late, while faults last.
    late_ticks = Sometimes(40, 1, 50);
    /// How late.
    tick_delay_ms = Power(17);

    /// Time from creation to exec.
    exec_ms = Between(1, 20);
    /// Time from creation to ready.
    ready_ms = Power(12);
    /// Time that a oneshot runs.
    oneshot_ms = Power(12);
    /// Time that a step of a hot swap takes.
    handover_ms = Power(13);
    /// Time from SIGTERM to the end.
    stop_ms = Power(12);
    /// Time from SIGKILL to the end.
    kill_ms = Between(1, 50);
    /// Time that a probe takes, while faults last.
    probe_ms = Power(13);

    /// Faults and requests in the safety phase.
    faults = Between(0, 100);
    /// Time between two of them.
    fault_pause_ms = Power(15);
    /// How often a process dies, against the weights that follow.
    kill_weight = Sometimes(80, 1, 10);
    /// How often a process that was just started dies.
    early_kill_weight = Sometimes(40, 1, 6);
    /// How often several processes die at once.
    massacre_weight = Sometimes(30, 1, 2);
    /// How often the kernel kills a process for want of memory.
    starve_weight = Sometimes(30, 1, 4);
    /// How often a process says something about itself.
    notify_weight = Sometimes(50, 1, 10);
    /// How often a process asks for more time than it has.
    extend_weight = Sometimes(40, 1, 8);
    /// How often the log of a component grows.
    log_weight = Sometimes(40, 1, 4);
    /// How often a client asks for a change.
    change_weight = Sometimes(80, 1, 10);
    /// How often a client asks for the upgrade of what can hand over.
    upgrade_weight = Sometimes(50, 1, 8);
    /// How often a client freezes a component, or thaws it.
    freeze_weight = Sometimes(50, 1, 8);
    /// How often a client asks a question.
    question_weight = Sometimes(50, 1, 4);
    /// How often a client waits for something.
    wait_weight = Sometimes(50, 1, 6);
    /// How often a client that waits goes away.
    leave_weight = Sometimes(40, 1, 4);
    /// How often files change.
    files_weight = Sometimes(80, 1, 8);
    /// How often everything is derived anew.
    resolve_weight = Sometimes(30, 1, 2);
    /// Files that change at once.
    batch = Power(3);
    /// Percent of file changes that remove a file.
    removals = Between(0, 50);
    /// Percent of file changes that leave a file unusable.
    broken_files = Sometimes(40, 1, 40);
    /// Percent of file changes to a second file that declares the same name.
    duplicates = Sometimes(40, 1, 40);
    /// Percent of file changes that extend the kernel's capabilities, or take that back.
    kernel_files = Sometimes(30, 1, 20);
    /// Percent of changing clients that are not allowed to.
    strangers = Sometimes(50, 1, 50);
    /// Percent of components that lie in a slice.
    sliced = Sometimes(60, 5, 80);
    /// Percent of file changes that are of a slice.
    slice_files = Sometimes(60, 5, 60);
    /// Percent of components that keep checkpoints.
    checkpoints = Sometimes(60, 20, 95);
    /// Percent of those services that start warm.
    warm = Sometimes(50, 10, 80);
    /// Percent of components that were carried over from another kernel.
    carried = Sometimes(20, 5, 60);
    /// Percent of checkpoints that fail, and of processes that cannot be made from one, while faults last.
    checkpoint_failures = Sometimes(60, 1, 50);
    /// Percent of processes that are never made from one, while faults last.
    restore_hangs = Sometimes(30, 1, 30);
    /// Time that a checkpoint takes, and what is made from one.
    checkpoint_ms = Power(16);
    /// How often a client asks for a checkpoint, or for what can be done with one.
    checkpoint_weight = Sometimes(50, 1, 10);
    /// How often a client has a process moved.
    move_weight = Sometimes(50, 1, 6);
    /// Percent of shutdowns that are to execute another kernel.
    jumps = Sometimes(40, 20, 100);
    /// 1 if everything is shut down while faults go on, and nothing is expected to come up before.
    halt_early = Sometimes(20, 1, 1);
}

impl Options {
    /// Every process does what it is to do, each in a time of its own.
    fn with_times_of(self, drawn: &Self) -> Self {
        Self {
            capabilities: 1,
            exec_ms: drawn.exec_ms,
            ready_ms: drawn.ready_ms.min(500),
            handover_ms: drawn.handover_ms.min(500),
            stop_ms: drawn.stop_ms.min(500),
            kill_ms: drawn.kill_ms,
            probe_ms: drawn.probe_ms.min(500),
            checkpoint_ms: drawn.checkpoint_ms.min(500),
            ..self
        }
    }
}

impl fmt::Display for Options {
    /// One line: `components=7 capabilities=12 …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.list().into_iter().enumerate() {
            let gap = if number == 0 { "" } else { " " };
            write!(f, "{gap}{name}={value}")?;
        }
        Ok(())
    }
}
