//! States of components, and ends of processes.

use std::fmt;

use serde::{Deserialize, Serialize};

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
