//! Steps of a hot swap.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
