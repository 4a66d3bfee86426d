//! What `events` and `why` answer.
//!
//! Records carry the time of a monotonic clock, so that a step of the wall clock neither reorders
//! nor moves them against each other. When that clock began is said at the time of the answer.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::journal::{Record, State};

/// Journal records in one page of `events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventsPage {
    /// Oldest first.
    pub records: Vec<Record>,
    /// Records that were asked for and are no longer kept. They are older than those here.
    pub lost: u64,
    /// Ask again with this revision for more; `None` when this was all.
    pub next: Option<u64>,
    /// Journal revision.
    pub revision: u64,
    /// Unix time of the zero of [`Record::time_ms`], in milliseconds.
    pub origin_ms: i64,
}

/// One page of the chain of causes that ends with a component's newest change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyPage {
    /// The component.
    pub component: Rc<str>,
    /// Its state now.
    pub state: State,
    /// What `status` says about that state.
    pub detail: Option<String>,
    /// Newest first; each is the consequence of the one after it.
    pub records: Vec<Record>,
    /// Ask again with this revision for the rest of the chain.
    pub next: Option<u64>,
    /// The chain goes on with this revision, whose record is no longer kept.
    pub lost: Option<u64>,
    /// Journal revision.
    pub revision: u64,
    /// Unix time of the zero of [`Record::time_ms`], in milliseconds.
    pub origin_ms: i64,
}
