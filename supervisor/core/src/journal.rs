//! Every change of state, numbered, with its cause.
//!
//! A revision is never used twice and only grows, so a client that knows revision R can wait for
//! "something newer than R" and never miss or race anything. The ring is bounded; the oldest
//! records go first, and a reader can see that they went.

mod cause;
mod checkpoint;
mod memory;
mod progress;
mod state;

pub use self::cause::Cause;
pub(crate) use self::cause::{errno_text, unhealthy_text};
pub use self::checkpoint::CheckpointStep;
pub use self::memory::{Bytes, OutOfMemory, Victim};
pub use self::progress::Progress;
pub use self::state::{Exit, State};

use std::collections::VecDeque;
use std::rc::Rc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::mutation::{Mutation, broken};

/// Records kept. A boot of 300 components makes about 900; a record takes about 100 bytes, so
/// a full ring stays below a quarter of a megabyte, and with the longest texts below two.
pub const CAPACITY: usize = 2048;

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
