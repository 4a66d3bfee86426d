//! Limits that were reached and nothing was killed for: the kernel held a component up, and said so. It is counted and told,
//! and nothing follows.
//!
//! A component can be held up a hundred times in a second, so it is told of each kind at most every [`PAUSE`], with how
//! often it was since.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Engine, RunId};
use crate::control::Strain;
use crate::journal::Cause;

/// Time between two records of one kind: the journal has room for two thousand of all components.
const PAUSE: Duration = Duration::from_secs(10);

/// For how long `status` says it in words.
const RECENT: Duration = Duration::from_secs(60);

/// One kind of a component.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Held {
    /// Times since the component was declared.
    total: u64,
    /// Of these, those that no record tells of yet.
    untold: u64,
    /// When the last record was written.
    told: Option<Duration>,
    /// When it was last so.
    last: Duration,
}

/// What a component was held up by, by its kind. There are as many as a file can declare, and one for its log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Strains(BTreeMap<Rc<str>, Held>);

impl Strains {
    /// For the machine-readable status.
    pub(super) fn list(&self) -> Vec<Strain> {
        self.0.iter().map(|(what, held)| Strain { what: Rc::clone(what), times: held.total }).collect()
    }

    /// What `status` says of the last minute.
    pub(super) fn complaint(&self, now: Duration) -> Option<String> {
        let recent = self.0.iter().filter(|(_, held)| now.saturating_sub(held.last) < RECENT);
        let text =
            |(what, held): (&Rc<str>, &Held)| Cause::Strained { what: Rc::clone(what), times: held.total };
        recent.map(|one| text(one).to_string()).reduce(|one, other| format!("{one}; {other}"))
    }
}

impl Engine {
    /// The kernel has held a process up.
    pub(super) fn take_strain(&mut self, run: RunId, strain: Strain) {
        let Strain { what, times } = strain;
        let now = self.now;
        let owner = self.runs.get(&run).or_else(|| self.seconds.get(&run)).copied();
        let Some((id, unit)) = owner.and_then(|id| Some((id, self.unit_mut(id)?))) else { return };
        let held = unit.strains.0.entry(Rc::clone(&what)).or_default();
        held.total = held.total.saturating_add(times);
        held.untold = held.untold.saturating_add(times);
        held.last = now;
        if held.told.is_some_and(|told| now.saturating_sub(told) < PAUSE) {
            return;
        }
        held.told = Some(now);
        let times = std::mem::take(&mut held.untold);
        self.remark(id, Cause::Strained { what, times }, None);
    }
}
