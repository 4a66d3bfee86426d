//! What `slices` answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Slices in one page of `slices`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlicesPage {
    /// Journal revision.
    pub revision: u64,
    /// In the order of their groups: one comes before those that lie in it.
    pub slices: Vec<SliceStatus>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// A slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceStatus {
    /// Its name, with those that it lies in.
    pub name: String,
    /// The path of its group, below the supervisor's.
    pub cgroup: String,
    /// The file that declares it.
    pub file: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The declared limits, by the files of the group; those of devices have the device behind.
    pub limits: BTreeMap<String, String>,
    /// Components that lie in it, or in a slice in it.
    pub components: u64,
    /// Those of them with a process.
    pub running: u64,
    /// Why the declared limits do not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
