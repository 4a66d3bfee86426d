//! What a start is likely to be followed by.

use std::rc::Rc;

use super::{Engine, RunId};
use crate::component::Component;
use crate::graph::NodeId;
use crate::journal::State;

impl Engine {
    /// Components that start as soon as the one of this run is up, for nothing else is missing. Only the first `most`
    /// that depend on it are looked at.
    pub fn followers(&self, run: RunId, most: usize) -> Vec<Rc<Component>> {
        let Some(id) = self.runs.get(&run).filter(|_| self.halting.is_none()) else {
            return Vec::new();
        };
        let requirers = |cap| self.graph.requirers(cap).iter().copied();
        let provided = self.graph.provided(*id).iter().copied();
        let dependents = provided.flat_map(|cap| requirers(cap).chain(self.graph.waiters(cap)));
        dependents.take(most).filter_map(|dependent| self.follower(*id, dependent)).collect()
    }

    /// The component of `dependent`, if only `id` keeps it from starting.
    fn follower(&self, id: NodeId, dependent: NodeId) -> Option<Rc<Component>> {
        let unit = self.unit(dependent)?;
        let wanted = unit.state == State::Inactive && !unit.held && !unit.doomed;
        let provided = self.graph.provided(id);
        let mut lacking = self.graph.missing(dependent).chain(self.graph.awaited(dependent));
        (wanted && !self.graph.in_cycle(dependent) && lacking.all(|cap| provided.contains(&cap)))
            .then(|| Rc::clone(&unit.component))
    }
}
