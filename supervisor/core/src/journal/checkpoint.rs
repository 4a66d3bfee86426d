//! What becomes of checkpoints.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{After, Written};

/// What became of a component's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointStep {
    /// It is made.
    Made {
        /// Its name among those of the component.
        id: Rc<str>,
        /// The size of its images.
        bytes: u64,
        /// How long the processes stood still for it, in microseconds.
        frozen_us: Option<u64>,
        /// What becomes of them now.
        after: After,
    },
    /// It could not be made: everything runs on.
    Failed {
        /// Why not.
        reason: Rc<str>,
    },
    /// What it had left held goes on.
    Continued {
        /// Nobody has said so within the time.
        by_itself: bool,
    },
    /// The process was made again from it, and goes on.
    Moved {
        /// Which.
        id: Rc<str>,
        /// How long that took, in microseconds.
        took_us: u64,
        /// For how long nobody served, in microseconds.
        gap_us: u64,
    },
}

impl CheckpointStep {
    /// One was made.
    pub(crate) fn made(written: &Written, after: After) -> Self {
        let Written { id, bytes, frozen_us, .. } = written;
        Self::Made { id: Rc::clone(id), bytes: *bytes, frozen_us: *frozen_us, after }
    }
}

impl fmt::Display for CheckpointStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { id, bytes, frozen_us, after } => {
                write!(f, "checkpoint {id} is made, of {bytes} bytes")?;
                if let Some(frozen) = frozen_us {
                    write!(f, "; everything stood still for {:?}", Duration::from_micros(*frozen))?;
                }
                f.write_str(match after {
                    After::Run => "",
                    After::Hold => "; it is held",
                    After::End => "; it is ended, and made again from that",
                })
            }
            Self::Failed { reason } => write!(f, "no checkpoint could be made: {reason}"),
            Self::Continued { by_itself: false } => f.write_str("goes on after its checkpoint"),
            Self::Continued { by_itself: true } => {
                f.write_str("goes on by itself after its checkpoint: nobody has said that it may in time")
            }
            Self::Moved { id, took_us, gap_us } => write!(
                f,
                "goes on from checkpoint {id}, made again in {:?}, after {:?} without",
                Duration::from_micros(*took_us),
                Duration::from_micros(*gap_us)
            ),
        }
    }
}
