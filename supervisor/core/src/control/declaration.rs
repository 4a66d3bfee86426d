//! What `declaration` answers.

use serde::{Deserialize, Serialize};

use super::Freezer;
use crate::component::Component;
use crate::journal::State;

/// A component as its file declares it now, and the process that runs for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// What is declared.
    pub component: Component,
    /// State.
    pub state: State,
    /// Process id while there is a process that has executed, as the supervisor sees it.
    pub pid: Option<i32>,
    /// The key for which that process has to be started anew to be what is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated: Option<String>,
    /// Number of its start, from 1; 0 before the first.
    pub generation: u64,
    /// Whether that process is kept from running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freezer: Option<Freezer>,
}
