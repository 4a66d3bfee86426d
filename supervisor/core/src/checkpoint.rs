//! Checkpoints as the engine knows them: what follows one, what became of it, and what a process is made from.
//!
//! The images themselves, their store and CRIU are the performer's business.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// What becomes of the processes once they are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// They run on.
    #[default]
    Run,
    /// They stay where they are, until they are told to go on: nothing that they do from now on would be in the
    /// checkpoint.
    Hold,
    /// They are ended; others will be made from the checkpoint.
    End,
}

/// A checkpoint that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its name among those of its component.
    pub id: Rc<str>,
    /// The size of its images, in bytes.
    pub bytes: u64,
    /// Pages of memory in its last round.
    pub pages: Option<u64>,
    /// How long the processes stood still for it, in microseconds.
    pub frozen_us: Option<u64>,
    /// How long it took in all, in microseconds.
    pub took_us: u64,
}

/// What a process is made from, in place of its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The checkpoint, by its name among those of the component; the newest without.
    pub id: Option<Rc<str>>,
}

/// Processes were made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// From this checkpoint.
    pub id: Rc<str>,
    /// How long that took, in microseconds.
    pub took_us: u64,
}
