//! What `readiness` and `upgrade` answer.

use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::component::Strategy;
use crate::journal::State;

/// Components in one page of `readiness`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessPage {
    /// Sorted by name.
    pub components: Vec<ComponentReadiness>,
    /// Cursor of the next page.
    pub next: Option<String>,
    /// Journal revision.
    pub revision: u64,
}

/// How a component says that it is ready, and whether it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentReadiness {
    /// Name.
    pub name: Rc<str>,
    /// State.
    pub state: State,
    /// `none` (ready once executed), `exit` (a oneshot), `file`, `command`, `signal` or `notify`.
    pub method: String,
    /// The file, the command or the signal.
    pub what: Option<String>,
    /// Time from exec to ready; a oneshot and a component without a method have no limit.
    pub timeout_ms: Option<u64>,
    /// Time between two runs of the command.
    pub interval_ms: Option<u64>,
    /// Whether it is ready.
    pub readiness: Readiness,
    /// How long it has been ready, or has been waited for since it was executed.
    pub for_ms: Option<u64>,
}

/// Whether a component is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It is up.
    Ready,
    /// It runs and has not said so yet.
    Waiting,
    /// It does not run, or is on its way down.
    Down,
}

/// Ways of an upgrade, from the one that keeps least to the one that keeps most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeLevel {
    /// Stopped and started.
    Restart,
    /// A new process takes the descriptors of the old one over.
    FdPassing,
    /// The process itself goes on.
    Checkpoint,
}

impl fmt::Display for UpgradeLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Restart => "restart",
            Self::FdPassing => "fd-passing",
            Self::Checkpoint => "checkpoint",
        })
    }
}

/// A way of an upgrade that was declared and not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The way.
    pub level: UpgradeLevel,
    /// The way itself was gone, but not so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Why not.
    pub reason: String,
}

/// How descriptors are passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeForm {
    /// The old process gives them to the new one, by the protocol.
    #[default]
    Protocol,
    /// The supervisor holds them for both, which serve side by side until the old one has ended.
    Listeners,
    /// The old process is asked for them by a signal (SIGUSR1), and both serve side by side until it has ended.
    Signal,
}

/// A component was upgraded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The component.
    pub component: Rc<str>,
    /// The way that was taken.
    pub level: UpgradeLevel,
    /// By passing descriptors: in which form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<UpgradeForm>,
    /// How much the new process took over at once.
    #[serde(default)]
    pub strategy: Strategy,
    /// Ways above it that were declared, the highest first.
    pub passed_over: Vec<PassedOver>,
    /// By a restart the time between its capabilities going down and coming up again; by passing
    /// descriptors the time from the question to the old process until the new one served, while
    /// nobody did. In microseconds; `None` when it was not up.
    pub gap_us: Option<u64>,
    /// Starts of the component so far.
    pub generation: u64,
    /// Descriptors that were passed.
    pub descriptors: Option<u32>,
    /// Size of the state that was passed, in bytes.
    pub state_bytes: Option<u64>,
    /// The probation that the new process was on, alone or as a canary, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation_ms: Option<u64>,
    /// Journal revision at that time.
    pub revision: u64,
}
