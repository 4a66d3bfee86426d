//! Every change of state, numbered, with its cause.
//!
//! A revision is never used twice and only grows, so a client that knows revision R can wait for
//! "something newer than R" and never miss or race anything. The ring is bounded; the oldest
//! records go first, and a reader can see that they went.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::mutation::{Mutation, broken};

/// Records kept. A boot of 300 components makes about 900; a record takes about 100 bytes, so
/// a full ring stays below a quarter of a megabyte, and with the longest texts below two.
pub const CAPACITY: usize = 2048;

/// The most that is kept of a text in a cause, in bytes: a path and a sentence. A command line or the
/// name of a capability may be as long as a component file, and is told over and over again.
const TEXT_LIMIT: usize = 512;

/// The state of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Not running: waits for its requirements, or stopped by a user.
    Inactive,
    /// Process created, exec not yet reported; a oneshot until it ends.
    Starting,
    /// Running, not yet ready.
    ReadyWait,
    /// Running and ready.
    Active,
    /// Running, failing its health checks.
    Degraded,
    /// Ended or could not be started, and not to be restarted at once.
    Failed,
    /// A oneshot that ended with 0.
    Done,
    /// Can never start because of a dependency cycle.
    Cycle,
    /// Restarted too often: waits before the next attempt.
    Backoff,
    /// On its way down.
    Stopping,
    /// Not declared. Only in journal records and waits.
    Removed,
}

impl State {
    /// All states, in the order of the engine's table.
    pub const ALL: [Self; 11] = [
        Self::Inactive,
        Self::Starting,
        Self::ReadyWait,
        Self::Active,
        Self::Degraded,
        Self::Failed,
        Self::Done,
        Self::Cycle,
        Self::Backoff,
        Self::Stopping,
        Self::Removed,
    ];

    /// The name in output and in `--state`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inactive => "INACTIVE",
            Self::Starting => "STARTING",
            Self::ReadyWait => "READY_WAIT",
            Self::Active => "ACTIVE",
            Self::Degraded => "DEGRADED",
            Self::Failed => "FAILED",
            Self::Done => "DONE",
            Self::Cycle => "CYCLE",
            Self::Backoff => "BACKOFF",
            Self::Stopping => "STOPPING",
            Self::Removed => "REMOVED",
        }
    }

    /// From its name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let states = Self::ALL;
        states.into_iter().find(|state| state.name().eq_ignore_ascii_case(name))
    }

    /// Whether a component in this state stays there until something from outside happens.
    pub fn is_resting(self) -> bool {
        !matches!(self, Self::Starting | Self::ReadyWait | Self::Stopping)
    }

    /// Whether a component in this state has a process.
    pub fn has_process(self) -> bool {
        matches!(self, Self::Starting | Self::ReadyWait | Self::Active | Self::Degraded | Self::Stopping)
    }

    /// Whether the capabilities of a component in this state are up.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Active | Self::Degraded | Self::Done)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(number) => {
                write!(f, "was killed by {}", crate::component::Signal(*number))
            }
        }
    }
}

/// How far a hot swap has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// The new process is being started.
    Started,
    /// It is prepared, and the one that serves is asked to give.
    Asked,
    /// It is prepared, and the one that serves is asked for its listeners: a canary begins.
    Lending,
    /// It serves new connections, and the old process those that it has.
    Canary {
        /// For how long, in milliseconds.
        probation_ms: u64,
    },
    /// It has served new connections for its time, and the old process is asked to give the rest.
    Completing,
    /// It fails as a canary: the old process is to accept again, once it is gone.
    Recalled {
        /// How it fails.
        reason: Rc<str>,
    },
    /// It has got everything.
    Moved {
        /// How many descriptors.
        descriptors: u32,
        /// The size of the state, in bytes.
        state_bytes: u64,
    },
    /// It serves.
    Committed {
        /// How long nobody did, in microseconds.
        gap_us: Option<u64>,
        /// The time for which the old process is kept, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probation_ms: Option<u64>,
    },
    /// It has served for its probation, and the old process is let go.
    Confirmed,
    /// The old process ended within the probation: there is no way back any more.
    Unreserved {
        /// How.
        reason: Rc<str>,
    },
    /// It fails within its probation: the old process is to serve again, once it is gone.
    Reverting {
        /// How it fails.
        reason: Rc<str>,
    },
    /// It does not take over.
    Failed {
        /// The step that was not completed.
        step: Rc<str>,
        /// Why.
        reason: Rc<str>,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("is started beside the one that serves"),
            Self::Asked => f.write_str("is prepared; the one that serves is asked to give"),
            Self::Lending => f.write_str("is prepared; the one that serves is asked for its listeners"),
            Self::Canary { probation_ms } => {
                let time = Duration::from_millis(*probation_ms);
                write!(f, "serves new connections; the old process keeps its own for {time:?}")
            }
            Self::Completing => {
                f.write_str("has served new connections; the old process is asked to give the rest")
            }
            Self::Recalled { reason } => {
                write!(f, "fails as a canary, and the old process is to accept again: {reason}")
            }
            Self::Moved { descriptors, state_bytes } => {
                let end = if *descriptors == 1 { "" } else { "s" };
                write!(f, "has got {descriptors} descriptor{end} and {state_bytes} bytes of state")
            }
            Self::Committed { gap_us, probation_ms } => {
                f.write_str("serves")?;
                if let Some(gap) = gap_us {
                    write!(f, ", after {:?} without", Duration::from_micros(*gap))?;
                }
                match probation_ms {
                    Some(ms) => write!(f, "; the old process is kept for {:?}", Duration::from_millis(*ms)),
                    None => Ok(()),
                }
            }
            Self::Confirmed => f.write_str("has served for its probation; the old process is let go"),
            Self::Unreserved { reason } => write!(f, "serves on without a way back: {reason}"),
            Self::Reverting { reason } => {
                write!(f, "fails on probation, and the old process takes over again: {reason}")
            }
            Self::Failed { step, reason } => write!(f, "does not take over (step {step:?}): {reason}"),
        }
    }
}

/// Processes that the kernel has killed for want of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutOfMemory {
    /// How many, since the last look.
    pub kills: u64,
    /// `memory.max` of the component's group, in bytes, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `memory.current` of the group just after the kill, in bytes, when it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// Where there was no room, if that was not the component's own limit: a group, by its path, or the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Rc<str>>,
    /// The last one that was killed, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim: Option<Victim>,
    /// The component's own process is among them, and not only what that has started.
    pub main: bool,
    /// Other components run in the group too, and whose process it was is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// A process that was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Its number.
    pub pid: i32,
    /// Its name (`/proc/PID/comm`), by its own word; what is not plain text is escaped.
    pub name: Rc<str>,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")?;
        let mut gap = ": ";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let written = write!(f, "{gap}{text}");
            gap = ", ";
            written
        };
        match (&self.scope, self.limit) {
            (Some(scope), _) => part(f, format_args!("no room in {scope}"))?,
            (None, Some(limit)) => part(f, format_args!("memory.max {}", Bytes(limit)))?,
            (None, None) => {}
        }
        if let Some(usage) = self.usage {
            part(f, format_args!("usage {}", Bytes(usage)))?;
        }
        let other = if self.main { "" } else { ", not its first process" };
        match &self.victim {
            Some(Victim { pid, name }) => part(f, format_args!("victim {pid} ({name}){other}"))?,
            None if self.main => part(f, format_args!("victim its first process"))?,
            None => part(f, format_args!("victim one that it has started"))?,
        }
        if self.kills > 1 {
            part(f, format_args!("{} processes killed", self.kills))?;
        }
        if self.shared {
            part(f, format_args!("in a group that it shares"))?;
        }
        Ok(())
    }
}

/// A number of bytes as people write it, exactly where that is short.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        let Some((shift, unit)) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{}", self.0);
        };
        if self.0.trailing_zeros() >= shift {
            return write!(f, "{}{unit}", self.0 >> shift);
        }
        write!(f, "{:.1}{unit}", self.0 as f64 / (1_u64 << shift) as f64)
    }
}

/// Why a component changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its file appeared or changed.
    Declared {
        /// File name below the configuration directory.
        file: Rc<str>,
    },
    /// Its file changed in a key that only a new process can follow.
    Redeclared {
        /// File name below the configuration directory.
        file: Rc<str>,
        /// The key.
        key: Rc<str>,
        /// Why it is restarted, when it declares that it hands over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restarted: Option<Rc<str>>,
    },
    /// Its limits were changed, and the process runs on without some of the new ones. The state
    /// stays as it was.
    LimitsNotSet {
        /// What failed, and why.
        reason: Rc<str>,
    },
    /// The kernel has held it up, so often since that was last written down. The state stays as it was.
    Strained {
        /// A limit, or a pressure.
        what: Rc<str>,
        /// Times.
        times: u64,
    },
    /// The next generation takes over without a stop. The state stays as it was.
    Handover {
        /// The next generation.
        generation: u64,
        /// How far it has come.
        progress: Progress,
    },
    /// Its file went away, or no longer declares it.
    Undeclared,
    /// Everything it waits for is up.
    RequirementsUp,
    /// A capability it requires is down.
    RequirementLost {
        /// The capability.
        capability: Rc<str>,
    },
    /// Exec succeeded.
    Executed,
    /// The process could not be brought to exec.
    NotExecuted {
        /// The step of the child's set-up that failed.
        step: Rc<str>,
        /// The error number of the operating system.
        errno: i32,
    },
    /// It asks for something that this version does not do; it is not run without it.
    Unsupported {
        /// The key of its file.
        what: Rc<str>,
    },
    /// It reported ready.
    Ready,
    /// A health probe passed after it had failed.
    Healthy,
    /// So many health probes in a row failed.
    Unhealthy {
        /// How many.
        failures: u32,
        /// Which probe, and how the last one failed.
        reason: Rc<str>,
    },
    /// It has a watchdog, and did not say in time that it is alive.
    WatchdogExpired {
        /// The time it had, in milliseconds.
        limit_ms: u64,
    },
    /// It said by its watchdog that it is broken.
    WatchdogTriggered,
    /// It announced its end, and its grace was over before it had ended.
    NotEnded,
    /// It took over from a process that was gone by then, and does not serve.
    NotServing {
        /// Why not.
        reason: Rc<str>,
    },
    /// It did not report ready in time.
    NotReady {
        /// The time it had, in milliseconds.
        limit_ms: u64,
        /// How its readiness command failed the last time, if it has one that was run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<Rc<str>>,
    },
    /// Its process ended.
    Ended(Exit),
    /// The kernel has killed a process of it for want of memory. Also written down where the state stays as it was.
    OutOfMemory(Rc<OutOfMemory>),
    /// The restart rule: at once, or after backing off.
    Restart,
    /// Too many restarts in the window.
    TooManyRestarts {
        /// Time until the next attempt, in seconds.
        pause_s: u64,
    },
    /// A client asked for it.
    Request {
        /// The command.
        verb: Rc<str>,
        /// User id of the client.
        uid: u32,
        /// Process id of the client.
        pid: i32,
        /// What the client called itself, by its own word; what is not plain text is escaped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comm: Option<Rc<str>>,
    },
    /// A dependency cycle went, or appeared among what it needs.
    Cycle,
    /// A dependency cycle that it is on appeared.
    CycleClosed {
        /// Names on it, a few of a long one.
        members: Rc<[Rc<str>]>,
        /// How many more are on it.
        more: u32,
        /// The file whose change closed it, when that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<Rc<str>>,
    },
    /// The whole machine, or the supervisor, goes down.
    Shutdown,
    /// The supervisor failed while it dealt with it, and what happened then is not known.
    Interrupted,
    /// The supervisor failed and took over from itself. Written down of the pseudo-component, whose
    /// state stays as it was.
    TookOver {
        /// What failed.
        failure: Rc<str>,
    },
    /// The supervisor failed and could not even keep what it knew. Written down like
    /// [`Cause::TookOver`].
    StateLost {
        /// Why it could not.
        reason: Rc<str>,
        /// Processes of components that were found running.
        found: usize,
    },
    /// Its process was found running after the supervisor had lost its state.
    Adopted,
}

impl Cause {
    /// Keep no more of a text than the journal has room for.
    pub(crate) fn shorten(&mut self) {
        match self {
            Self::RequirementLost { capability: text }
            | Self::Unsupported { what: text }
            | Self::NotExecuted { step: text, .. }
            | Self::Unhealthy { reason: text, .. }
            | Self::NotServing { reason: text }
            | Self::NotReady { last: Some(text), .. }
            | Self::LimitsNotSet { reason: text }
            | Self::TookOver { failure: text }
            | Self::StateLost { reason: text, .. } => shorten(text),
            // Others name components, files, keys, requests and clients: each has a limit of its own.
            _ => {}
        }
    }

    /// Whether it is written down although no state changes.
    pub fn is_remark(&self) -> bool {
        matches!(
            self,
            Self::LimitsNotSet { .. }
                | Self::Strained { .. }
                | Self::Handover { .. }
                | Self::TookOver { .. }
                | Self::StateLost { .. }
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared { file } => write!(f, "declared by {file}"),
            Self::Redeclared { file, key, restarted: None } => write!(f, "{key} changed in {file}"),
            Self::Redeclared { file, key, restarted: Some(why) } => {
                write!(f, "{key} changed in {file}; restarted without a hot swap: {why}")
            }
            Self::Strained { what, times: 1 } => write!(f, "{what} was reached"),
            Self::Strained { what, times } => write!(f, "{what} was reached {times} times"),
            Self::LimitsNotSet { reason } => write!(f, "the new limits do not hold: {reason}"),
            Self::Handover { generation, progress } => write!(f, "generation {generation} {progress}"),
            Self::Undeclared => f.write_str("no longer declared"),
            Self::RequirementsUp => f.write_str("requirements are up"),
            Self::RequirementLost { capability } => write!(f, "capability {capability} is down"),
            Self::Executed => f.write_str("executed"),
            Self::NotExecuted { step, errno } => {
                write!(f, "failed to {step}: {} (errno {errno})", errno_text(*errno))
            }
            Self::Unsupported { what } => write!(f, "{what} is not supported by this version"),
            Self::Ready => f.write_str("reported ready"),
            Self::Healthy => f.write_str("the health probe passed"),
            Self::Unhealthy { failures, reason } => f.write_str(&unhealthy_text(*failures, reason)),
            Self::WatchdogExpired { limit_ms } => {
                let limit = Duration::from_millis(*limit_ms);
                write!(f, "no sign of life (WATCHDOG=1) within {limit:?}")
            }
            Self::WatchdogTriggered => f.write_str("it triggered its watchdog"),
            Self::NotEnded => f.write_str("it announced its end and did not end within its grace"),
            Self::NotServing { reason } => write!(f, "nobody serves after the hot swap: {reason}"),
            Self::NotReady { limit_ms, last } => {
                let limit = Duration::from_millis(*limit_ms);
                write!(f, "not ready within {limit:?}")?;
                last.as_ref().map_or(Ok(()), |last| write!(f, "; the last answer was: {last}"))
            }
            Self::Ended(exit) => write!(f, "the process {exit}"),
            Self::OutOfMemory(what) => what.fmt(f),
            Self::Restart => f.write_str("restarted"),
            Self::TooManyRestarts { pause_s } => {
                write!(f, "restarted too often: next attempt in {pause_s} s")
            }
            Self::Request { verb, uid, pid, comm } => {
                write!(f, "{verb} requested by uid {uid}, pid {pid}")?;
                comm.as_ref().map_or(Ok(()), |comm| write!(f, " \"{comm}\""))
            }
            Self::Cycle => f.write_str("dependency cycle"),
            Self::CycleClosed { members, more, file } => {
                write!(f, "dependency cycle of {}", members.join(", "))?;
                if *more > 0 {
                    write!(f, " and {more} more")?;
                }
                file.as_ref().map_or(Ok(()), |file| write!(f, ", closed by {file}"))
            }
            Self::Shutdown => f.write_str("shutdown"),
            Self::Interrupted => f.write_str("interrupted by an internal error of the supervisor"),
            Self::TookOver { failure } => {
                write!(f, "the supervisor took over from itself after an internal error: {failure}")
            }
            Self::StateLost { reason, found } => write!(
                f,
                "the supervisor failed and lost its state ({reason}): of what it knew, {found} running processes \
                 are left"
            ),
            Self::Adopted => f.write_str("found running after the supervisor had lost its state"),
        }
    }
}

/// Leave so much of a text as is kept, and say that there was more.
fn shorten(text: &mut Rc<str>) {
    if text.len() > TEXT_LIMIT {
        let end = (0..=TEXT_LIMIT).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
        *text = format!("{}…", &text[..end]).into();
    }
}

/// "N health probes in a row failed: REASON".
pub(crate) fn unhealthy_text(failures: u32, reason: &str) -> String {
    match failures {
        1 => format!("a health probe failed: {reason}"),
        _ => format!("{failures} health probes in a row failed: {reason}"),
    }
}

/// Texts of the error numbers that a start commonly meets; the core has no C library to ask.
pub(crate) fn errno_text(errno: i32) -> &'static str {
    match errno {
        1 => "operation not permitted",
        2 => "no such file or directory",
        5 => "input/output error",
        7 => "argument list too long",
        8 => "not an executable format",
        11 => "resource temporarily unavailable",
        12 => "out of memory",
        13 => "permission denied",
        16 => "device or resource busy",
        17 => "it exists already",
        19 => "no such device",
        20 => "not a directory",
        21 => "is a directory",
        22 => "invalid argument",
        23 | 24 => "too many open files",
        26 => "text file busy",
        28 => "no space left on device",
        30 => "read-only file system",
        40 => "too many levels of symbolic links",
        61 => "no such entry",
        95 => "not supported by the kernel",
        99 => "the address cannot be used",
        101 => "the network cannot be reached",
        107 => "nobody is at the other end",
        110 => "no answer in time",
        125 => "cancelled",
        _ => "error of the operating system",
    }
}

/// One change of state, or a remark on one that stays as it is ([`Cause::is_remark`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Number of this change, from 1.
    pub revision: u64,
    /// Milliseconds on the engine's clock (monotonic; its origin is the boot).
    pub time_ms: u64,
    /// Whose state changed.
    pub component: Rc<str>,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// The record that led to this one: another component's change, or the one before of this
    /// component. `None` where the chain of causes begins: a request, a file, or a process that
    /// ended or fell ill by itself.
    pub after: Option<u64>,
}

/// The ring of records.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Journal {
    #[serde(deserialize_with = "legible")]
    ring: VecDeque<Record>,
    last: u64,
}

/// Records as far as this version can read them. Those up to one that it cannot read are left
/// out: the ring has no gaps.
fn legible<'d, D: Deserializer<'d>>(deserializer: D) -> Result<VecDeque<Record>, D::Error> {
    let mut ring = VecDeque::new();
    for value in Vec::<serde_json::Value>::deserialize(deserializer)? {
        match serde_json::from_value(value) {
            Ok(record) => ring.push_back(record),
            Err(_) => ring.clear(),
        }
    }
    Ok(ring)
}

impl Journal {
    /// The revision of the newest record; 0 when there is none.
    pub fn revision(&self) -> u64 {
        self.last
    }

    /// Records kept.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Add a record; its revision is the next number.
    pub(crate) fn push(&mut self, mut record: Record) -> u64 {
        if self.ring.len() == CAPACITY {
            self.ring.pop_front();
        }
        self.last += if broken(Mutation::SkipRevision) { 2 } else { 1 };
        record.revision = self.last;
        self.ring.push_back(record);
        self.last
    }

    /// The newest revision whose record is no longer kept; 0 when all are.
    pub fn dropped(&self) -> u64 {
        self.last - self.ring.len() as u64
    }

    /// The record of a revision, while it is kept.
    pub fn get(&self, revision: u64) -> Option<&Record> {
        let index = revision.checked_sub(self.dropped() + 1)?;
        self.ring.get(usize::try_from(index).ok()?)
    }

    /// The newest record of a component that is kept.
    pub fn newest_of(&self, component: &str) -> Option<&Record> {
        self.ring.iter().rev().find(|record| &*record.component == component)
    }

    /// Records with a revision greater than `since`, oldest first.
    pub fn since(&self, since: u64) -> impl Iterator<Item = &Record> {
        let skip = since.saturating_sub(self.dropped());
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.ring.iter().skip(skip)
    }

    /// After reading it back: the newest records in an unbroken row, as many as are kept.
    pub(crate) fn mend(&mut self) {
        let mut next = self.last;
        let good = self.ring.iter().rev().take_while(|record| {
            let follows = record.revision == next && next > 0;
            next = next.saturating_sub(1);
            follows
        });
        let kept = good.count().min(CAPACITY);
        self.ring.drain(..self.ring.len() - kept);
    }

    /// Let the records' names share the memory of `names`.
    pub(crate) fn share_names<'n>(&mut self, shared: impl Fn(&str) -> Option<&'n Rc<str>>) {
        for record in &mut self.ring {
            if let Some(name) = shared(&record.component) {
                record.component = Rc::clone(name);
            }
        }
    }

    /// Whether `component` entered `state` after revision `since`.
    pub fn entered(&self, component: &str, state: State, since: u64) -> Option<u64> {
        let entered = |r: &&Record| r.to == state && r.from != state && &*r.component == component;
        self.since(since).find(entered).map(|r| r.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(component: &str, to: State) -> Record {
        Record {
            revision: 0,
            time_ms: 0,
            component: component.into(),
            from: State::Inactive,
            to,
            cause: Cause::Restart,
            after: None,
        }
    }

    #[test]
    fn the_ring_is_bounded_and_revisions_go_on() {
        let mut journal = Journal::default();
        for _ in 0..CAPACITY + 10 {
            journal.push(record("a", State::Active));
        }
        assert_eq!(journal.revision(), CAPACITY as u64 + 10);
        assert_eq!(journal.since(0).count(), CAPACITY);
        assert_eq!(journal.since(0).next().map(|r| r.revision), Some(11));
        assert_eq!(journal.since(journal.revision()).count(), 0);
        assert_eq!(journal.since(u64::MAX).count(), 0);
        assert_eq!(journal.since(journal.revision() - 3).count(), 3);
        assert_eq!(journal.dropped(), 10);
        for (revision, kept) in [(0, None), (10, None), (11, Some(11)), (2058, Some(2058)), (2059, None)] {
            assert_eq!(journal.get(revision).map(|r| r.revision), kept, "{revision}");
        }
    }

    #[test]
    fn entered_looks_only_at_newer_records() {
        let mut journal = Journal::default();
        let first = journal.push(record("a", State::Active));
        assert_eq!(journal.entered("a", State::Active, 0), Some(first));
        assert_eq!(journal.entered("a", State::Active, first), None);
        let second = journal.push(record("a", State::Active));
        assert_eq!(journal.entered("a", State::Active, first), Some(second));
    }

    #[test]
    fn state_names_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
            assert_eq!(State::from_name(&state.name().to_lowercase()), Some(state));
        }
        assert_eq!(State::from_name("RUNNING"), None);
    }
}
