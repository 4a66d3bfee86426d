//! The event stream of a run, schema version 1.
//!
//! `events.jsonl` holds one [`Record`] per line. What the format guarantees:
//!
//! - **Append only, line by line.** A line is written by one `write(2)`, so a killed harness leaves at most one torn
//!   line, the last one; everything before it can be read ([`read_log`]).
//! - **Readable across versions.** New fields and new events may appear within schema version 1; a reader ignores fields
//!   it does not know and keeps events it does not know as [`Event::Unknown`]. Fields are never renamed or retyped.
//! - **Bounded.** A line is never longer than [`MAX_LINE_BYTES`]; what is too long is cut and marked as cut.
//!
//! All durations are milliseconds as floating-point numbers ([`ms`]); all sizes say their unit in their name.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod goals;
mod reader;
mod tolerant;
mod writer;

pub use goals::{Bars, Criterion, Direction, Evidence, Goals, Part, ProfileGoal, Statistic, Target};
pub use reader::{Log, Problem, read_log, read_log_from};
pub use writer::EventWriter;

/// The version that every record carries. It changes only when a reader of the old version would misunderstand a line.
pub const SCHEMA_VERSION: u32 = 1;

/// Longest line in bytes, its newline included. A console excerpt or a plan of thousands of scenarios fits; a runaway
/// string does not fill the disk.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// A duration in milliseconds, to the microsecond: the unit of every duration in the stream.
pub fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A name for a run that sorts by time and is unique on one machine: `20261121-143052-7f3a`.
pub fn new_run_id() -> String {
    use std::hash::{BuildHasher, Hasher};
    // `RandomState` is seeded by the operating system; that is random enough to tell two runs of one second apart.
    let suffix = std::hash::RandomState::new().build_hasher().finish() & 0xffff;
    format!("{}-{suffix:04x}", chrono::Utc::now().format("%Y%m%d-%H%M%S"))
}

/// One line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Version of the schema, [`SCHEMA_VERSION`].
    pub schema: u32,
    /// Position in the stream, from 0, without gaps.
    pub seq: u64,
    /// Microseconds since the run started, by a monotonic clock.
    pub t_us: u64,
    /// Wall clock of the host: RFC 3339, UTC, microseconds.
    pub wall: String,
    /// What happened.
    #[serde(with = "tolerant")]
    #[schemars(with = "Event")]
    pub event: Event,
}

/// A fact about the run. In JSON an object with one key, the name of the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first event of a run.
    RunStarted(RunStarted),
    /// Something that was booted or put into the guest.
    Artifact(Artifact),
    /// What is going to run, in order.
    Plan(Plan),
    /// What the run is judged by beside its scenarios.
    Goals(Goals),
    /// A machine was booted, or taken from a saved one, and its agent answers.
    MachineReady(MachineReady),
    /// A copy-on-write clone of a machine answered its first command.
    CloneReady(CloneReady),
    /// An attempt at a scenario begins.
    ScenarioStarted(ScenarioStarted),
    /// A step of a scenario ended.
    Step(Step),
    /// A number that was measured.
    Metric(Metric),
    /// A number that was looked at again and again while time went by.
    Series(Series),
    /// Something happened to a party in the middle of an upgrade, and this one serves.
    CrashPoint(CrashPoint),
    /// What there was in the guest before a scenario and after it.
    Ledger(Ledger),
    /// The console showed a panic, an oops, a hung task or the like.
    ConsoleFinding(ConsoleFinding),
    /// A message of the harness about itself.
    Log(LogMessage),
    /// An attempt at a scenario ended.
    ScenarioFinished(ScenarioFinished),
    /// The last event of a run.
    RunFinished(RunFinished),
    /// An event of a later version, kept as it is.
    #[serde(skip)]
    Unknown(UnknownEvent),
}

/// An event that this version does not know.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownEvent {
    /// Its name in the stream.
    pub name: String,
    /// Its body, unread.
    pub body: serde_json::Value,
}

/// The names of all events of this version, in the order of [`Event`].
pub const EVENT_NAMES: [&str; 16] = [
    "run_started",
    "artifact",
    "plan",
    "goals",
    "machine_ready",
    "clone_ready",
    "scenario_started",
    "step",
    "metric",
    "series",
    "crash_point",
    "ledger",
    "console_finding",
    "log",
    "scenario_finished",
    "run_finished",
];

/// Where, when and with what a run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunStarted {
    /// Unique name of the run, see [`new_run_id`].
    pub run_id: String,
    /// Version of YakirOS.
    pub version: String,
    /// The command line that started the run, the program first.
    #[serde(default)]
    pub command_line: Vec<String>,
    /// The commit that was built, when it is known.
    pub git_commit: Option<String>,
    /// Seed of everything random in the run; nothing when nothing in it was drawn by chance.
    #[serde(default)]
    pub seed: Option<u64>,
    /// The machine that runs the harness.
    #[serde(default)]
    pub host: Host,
    /// How the guests are accelerated; null when the run ended before that was known.
    pub acceleration: Option<Acceleration>,
    /// What `qemu-system-x86_64 --version` says; null when the run ended before that was known.
    pub qemu_version: Option<String>,
}

/// The machine that runs the harness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Operating system, as its release file names it: `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// Kernel release, `uname -r`.
    pub kernel: String,
    /// Processors that the harness may use.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
}

/// How the guests are accelerated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Acceleration {
    /// QEMU's name for it: `kvm` or `tcg`.
    pub kind: String,
    /// Why this one: `chosen by --accel`, `/dev/kvm boots a kernel`, `/dev/kvm hangs`.
    pub reason: String,
}

/// Something that was booted or put into the guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// What it is: `alpine-kernel`, `guest-initramfs`.
    pub name: String,
    /// Its version, or an empty string for what was built here.
    pub version: String,
    /// SHA-256 of its content, in lower-case hexadecimal.
    pub sha256: String,
    /// Where it came from: a package, a file that the user named, `built here`.
    pub origin: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// What is going to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The scenarios in the order in which they are listed, which need not be the order in which they run.
    pub scenarios: Vec<PlannedScenario>,
    /// Scenarios that the profile leaves out of what would run otherwise.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// A scenario that is not run, by design.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Its suite.
    pub suite: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One scenario of a [`Plan`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedScenario {
    /// Its suite, for example `basic` or `hot-swap`.
    pub suite: String,
    /// Its name, unique in the suite.
    pub name: String,
    /// The machine it runs on.
    pub machine: String,
}

/// A machine whose agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MachineReady {
    /// Name of the machine: one for each distinct kernel, image, memory and processor count.
    pub machine: String,
    /// The guest's operating system, when its release file says: `Alpine Linux v3.23`.
    pub os: Option<String>,
    /// The guest's kernel, `uname -r`.
    pub kernel_release: String,
    /// Booted, or taken from an earlier save.
    pub how: MachineOrigin,
    /// Start of QEMU to the start of the init under test; 0 for a saved machine.
    pub boot_ms: f64,
    /// Start of QEMU to the agent's first answer with the init under test ready.
    pub ready_ms: f64,
    /// Guest memory in MiB.
    pub memory_mb: u64,
    /// Guest processors.
    pub cpus: u32,
}

/// Where a machine came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineOrigin {
    /// It was booted in this run.
    Cold,
    /// It was restored from a machine saved earlier.
    Saved,
}

/// A clone that answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloneReady {
    /// The machine it is a clone of.
    pub machine: String,
    /// Start of QEMU to the answer to the first command.
    pub ms: f64,
}

/// An attempt at a scenario begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioStarted {
    /// The suite.
    pub suite: String,
    /// The scenario.
    pub name: String,
    /// The machine it runs on.
    pub machine: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// From a clone or from a cold boot.
    pub start: StartKind,
}

/// How a scenario's guest came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// A copy-on-write clone of a warm machine.
    Clone,
    /// A boot of its own.
    Cold,
}

/// A step of a scenario ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The suite.
    pub suite: String,
    /// The scenario.
    pub scenario: String,
    /// What the step does, in words.
    pub name: String,
    /// Start of the attempt to the start of the step.
    pub t_ms: f64,
    /// How long the step took.
    pub duration_ms: f64,
    /// How it ended.
    pub outcome: Outcome,
}

/// A number that was measured, of a scenario or of the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// The suite; null for the whole run.
    pub suite: Option<String>,
    /// The scenario; null for the whole suite or run.
    pub scenario: Option<String>,
    /// What was measured: `restart_latency`.
    pub name: String,
    /// Unit of value and samples: `ms`, `bytes`, `count`.
    pub unit: String,
    /// The value; the median where there are samples. Must be finite.
    pub value: f64,
    /// The single measurements, in order, when there are several.
    pub samples: Option<Vec<f64>>,
}

/// A number over time: what a long run watches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// The suite; null for the whole run.
    pub suite: Option<String>,
    /// The scenario; null for the whole suite or run.
    pub scenario: Option<String>,
    /// What was looked at: `pid1_memory`.
    pub name: String,
    /// Unit of the values.
    pub unit: String,
    /// When, in seconds since the first look. As many as there are values.
    pub t_s: Vec<f64>,
    /// What was seen. Must be finite.
    pub values: Vec<f64>,
}

/// What came of a fault at a step of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CrashPoint {
    /// The suite.
    pub suite: String,
    /// The scenario.
    pub scenario: String,
    /// The step that it was held at: `prepare`, `move`, `ready`, `commit`, `leave`.
    pub step: String,
    /// What happened to whom: `old dies`, `supervisor re-executes`.
    pub fault: String,
    /// Who served then: `new serves`, `old serves`, or `restarted` where who served died with its connections.
    pub outcome: String,
}

/// What there was in the guest before a scenario and after it: the conservation ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ledger {
    /// The suite.
    pub suite: String,
    /// The scenario.
    pub scenario: String,
    /// Why it was not taken: `the machine ended`; null when it was.
    pub not_taken: Option<String>,
    /// What was counted.
    pub rows: Vec<LedgerRow>,
    /// What was created or lost and belongs to nobody, each in one line that names it. Empty when the ledger balances.
    pub findings: Vec<String>,
    /// How often was looked until it balanced, or until the time for it was over.
    pub looks: u32,
    /// What one look took, in milliseconds: the median.
    pub look_ms: f64,
}

/// One kind of thing in a [`Ledger`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerRow {
    /// What was counted: `processes`, `descriptors of process 1`.
    pub what: String,
    /// Before the scenario.
    pub before: u64,
    /// After it, at rest.
    pub after: u64,
    /// How many are too many or too few, because nobody owns or owned them.
    pub unowned: u64,
}

/// The console showed that the guest is in trouble.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleFinding {
    /// The suite; null outside of a scenario (while a machine boots).
    pub suite: Option<String>,
    /// The scenario; null outside of a scenario.
    pub scenario: Option<String>,
    /// The class: `panic`, `oops`, `hung_task`, …
    pub class: String,
    /// One line that names the trouble.
    pub title: String,
    /// The console lines around it.
    #[serde(default)]
    pub excerpt: Vec<String>,
}

/// A message of the harness about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogMessage {
    /// How much it matters.
    pub level: Level,
    /// The message, without a newline at its end.
    pub message: String,
}

/// How much a log message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be, and the run goes on.
    Warn,
    /// What a reader of the log wants to know.
    Info,
    /// Details for whoever searches for a fault.
    Debug,
}

/// An attempt at a scenario ended. The last attempt decides; a pass after a failed attempt counts as flaky.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioFinished {
    /// The suite.
    pub suite: String,
    /// The scenario.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Start of the attempt to its end, guest included.
    pub duration_ms: f64,
    /// Why it did not pass, in one sentence.
    pub reason: Option<String>,
    /// Who is to blame.
    pub culprit: Option<Culprit>,
    /// Folder with everything that is known about a failure, relative to the run's folder.
    pub capsule: Option<String>,
    /// The command that runs this scenario again under the same conditions.
    pub reproduce: Option<String>,
    /// For how long the guest's QEMU was on a processor of the host, or waited for one; null when it had ended before that
    /// could be seen.
    #[serde(default)]
    pub host_cpu_ms: Option<f64>,
}

/// The last event of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunFinished {
    /// How many scenarios ended in which way.
    pub counts: Counts,
    /// Start of the run to its end.
    pub duration_ms: f64,
    /// Exit code of the run: 1 also where a bar of the plan was missed. That of the command, unless events were lost.
    pub exit_code: i32,
    /// True when the user (or a signal) ended the run early.
    #[serde(default)]
    pub interrupted: bool,
}

/// How a scenario or a step ended. Only [`Outcome::Passed`] is green.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it should.
    Passed,
    /// What is under test did not do what it should.
    Failed,
    /// It failed and then passed without a change.
    Flaky,
    /// It did not run; the reason says why.
    Skipped,
    /// It says nothing about what is under test: the harness, the emulator or the host failed.
    InfraFailed,
}

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Culprit {
    /// The init under test.
    Supervisor,
    /// A service that it runs.
    Component,
    /// The guest's kernel.
    GuestKernel,
    /// QEMU.
    Vmm,
    /// The machine that runs the harness: memory, disk, network.
    Host,
    /// The harness itself.
    Harness,
    /// A limit of time was reached and nothing else is known.
    Budget,
}

/// How many scenarios ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Number of [`Outcome::Passed`].
    pub passed: u32,
    /// Number of [`Outcome::Failed`].
    pub failed: u32,
    /// Number of [`Outcome::Flaky`].
    pub flaky: u32,
    /// Number of [`Outcome::Skipped`].
    pub skipped: u32,
    /// Number of [`Outcome::InfraFailed`].
    pub infra_failed: u32,
}

impl Event {
    /// The name in the stream, one of [`EVENT_NAMES`] or that of an unknown event.
    pub fn name(&self) -> &str {
        match self {
            Self::RunStarted(_) => "run_started",
            Self::Artifact(_) => "artifact",
            Self::Plan(_) => "plan",
            Self::Goals(_) => "goals",
            Self::MachineReady(_) => "machine_ready",
            Self::CloneReady(_) => "clone_ready",
            Self::ScenarioStarted(_) => "scenario_started",
            Self::Step(_) => "step",
            Self::Metric(_) => "metric",
            Self::Series(_) => "series",
            Self::CrashPoint(_) => "crash_point",
            Self::Ledger(_) => "ledger",
            Self::ConsoleFinding(_) => "console_finding",
            Self::Log(_) => "log",
            Self::ScenarioFinished(_) => "scenario_finished",
            Self::RunFinished(_) => "run_finished",
            Self::Unknown(unknown) => &unknown.name,
        }
    }

    /// A message of the harness about itself.
    pub fn log(level: Level, message: impl Into<String>) -> Self {
        Self::Log(LogMessage { level, message: message.into() })
    }
}

impl Outcome {
    /// All outcomes, in the order of a table's columns.
    pub const ALL: [Self; 5] = [Self::Passed, Self::Failed, Self::Flaky, Self::Skipped, Self::InfraFailed];

    /// The name in the stream.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Flaky => "flaky",
            Self::Skipped => "skipped",
            Self::InfraFailed => "infra_failed",
        }
    }
}

impl Culprit {
    /// The name in the stream.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Component => "component",
            Self::GuestKernel => "guest_kernel",
            Self::Vmm => "vmm",
            Self::Host => "host",
            Self::Harness => "harness",
            Self::Budget => "budget",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Counts {
    /// Counts one more scenario that ended with `outcome`.
    pub fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed => &mut self.failed,
            Outcome::Flaky => &mut self.flaky,
            Outcome::Skipped => &mut self.skipped,
            Outcome::InfraFailed => &mut self.infra_failed,
        };
        *count = count.saturating_add(1);
    }

    /// The number of scenarios that ended with `outcome`.
    pub fn get(&self, outcome: Outcome) -> u32 {
        match outcome {
            Outcome::Passed => self.passed,
            Outcome::Failed => self.failed,
            Outcome::Flaky => self.flaky,
            Outcome::Skipped => self.skipped,
            Outcome::InfraFailed => self.infra_failed,
        }
    }

    /// The number of all scenarios.
    pub fn total(&self) -> u32 {
        Outcome::ALL.iter().fold(0, |sum, &outcome| sum.saturating_add(self.get(outcome)))
    }
}

impl FromIterator<Outcome> for Counts {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            counts.add(outcome);
        }
        counts
    }
}

#[cfg(test)]
mod tests;
