//! Why a component changed its state, as data and as a sentence.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CheckpointStep, Exit, OutOfMemory, Progress};

/// The most that is kept of a text in a cause, in bytes: a path and a sentence. A command line or the
/// name of a capability may be as long as a component file, and is told over and over again.
const TEXT_LIMIT: usize = 512;

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
    /// It is kept from running, all of it, as was asked for. The state stays as it was.
    Frozen,
    /// It was to be kept from running, and could not be: it runs. The state stays as it was.
    NotFrozen {
        /// Why not.
        reason: Rc<str>,
    },
    /// It was to run again, and could not be made to. The state stays as it was.
    NotThawed {
        /// Why not.
        reason: Rc<str>,
    },
    /// A checkpoint of it was made, or could not be. The state stays as it was.
    Checkpoint(CheckpointStep),
    /// Its process was made from a checkpoint.
    Restored {
        /// Which.
        id: Rc<str>,
        /// How long that took, in microseconds.
        took_us: u64,
    },
    /// Its process could not be made from a checkpoint. Also written down where the state stays as it was, and it is
    /// started anew.
    NotRestored {
        /// Why not.
        reason: Rc<str>,
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
            | Self::NotFrozen { reason: text }
            | Self::NotThawed { reason: text }
            | Self::NotRestored { reason: text }
            | Self::Checkpoint(CheckpointStep::Failed { reason: text })
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
                | Self::Frozen
                | Self::NotFrozen { .. }
                | Self::NotThawed { .. }
                | Self::Checkpoint(_)
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
            Self::Frozen => f.write_str("frozen"),
            Self::NotFrozen { reason } => write!(f, "not frozen: {reason}"),
            Self::NotThawed { reason } => write!(f, "not thawed: {reason}"),
            Self::Checkpoint(step) => step.fmt(f),
            Self::Restored { id, took_us } => {
                write!(f, "made from checkpoint {id} in {:?}", Duration::from_micros(*took_us))
            }
            Self::NotRestored { reason } => write!(f, "not made from a checkpoint: {reason}"),
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
