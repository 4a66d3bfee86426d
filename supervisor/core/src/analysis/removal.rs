//! What would go down now if a component went away.
//!
//! The rules are the engine's: a capability is withdrawn when the last of its providers that is
//! up goes down; what requires it is stopped, but a oneshot that is DONE stays DONE; an optional
//! capability is not missed.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::{Analysis, Member, Unknown};
use crate::control::CapabilityStatus;
use crate::graph::{CapId, NodeId};
use crate::journal::State;

/// What the removal of a component takes along. All lists but `withdrawn` are sorted by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// The component.
    pub component: String,
    /// Its state.
    pub state: State,
    /// Capabilities that go down, in the order in which they do.
    pub withdrawn: Vec<Withdrawn>,
    /// Capabilities that lose a provider and stay up.
    pub kept: Vec<Kept>,
    /// Components that require what the component itself gives.
    pub direct: Vec<Member>,
    /// Components that require what those give, and so on.
    pub transitive: Vec<Member>,
    /// Oneshots that require something withdrawn, and stay DONE.
    pub done: Vec<Member>,
}

/// A capability that goes down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Withdrawn {
    /// Its name.
    pub capability: String,
    /// The last provider that is up, and goes.
    pub provider: String,
}

/// A capability that another provider still gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name.
    pub capability: String,
    /// Who still gives it.
    pub providers: Vec<String>,
}

/// A removal on its way through the graph.
struct Spread {
    /// Providers that are up and do not go, for each capability.
    left: HashMap<CapId, usize>,
    withdrawn: Vec<(CapId, NodeId)>,
    /// In the order in which they are reached; the removed component first.
    gone: Vec<NodeId>,
    seen: HashSet<NodeId>,
    done: Vec<NodeId>,
}

impl Analysis<'_> {
    /// What would go down now if `name` went away.
    pub fn removal(&self, name: &str) -> Result<Removal, Unknown> {
        let removed = self.component(name)?;
        let mut spread = Spread {
            left: HashMap::new(),
            withdrawn: Vec::new(),
            gone: vec![removed],
            seen: HashSet::from([removed]),
            done: Vec::new(),
        };
        let mut at = 0;
        let mut direct_end = 1;
        while let Some(id) = spread.gone.get(at).copied() {
            self.lose(id, &mut spread);
            if at == 0 {
                direct_end = spread.gone.len();
            }
            at += 1;
        }
        Ok(Removal {
            component: name.to_owned(),
            state: self.node(removed).state,
            withdrawn: self.withdrawn(&spread),
            kept: self.kept(&spread),
            direct: self.members(&spread.gone[1..direct_end]),
            transitive: self.members(&spread.gone[direct_end..]),
            done: self.members(&spread.done),
        })
    }

    /// One component goes: its capabilities lose a provider, and may go down.
    fn lose(&self, id: NodeId, spread: &mut Spread) {
        if !self.is_up(id) {
            return;
        }
        for cap in self.graph.provided(id) {
            let providers = self.graph.providers(*cap).iter();
            let left =
                spread.left.entry(*cap).or_insert_with(|| providers.filter(|p| self.is_up(**p)).count());
            *left -= 1;
            if *left > 0 {
                continue;
            }
            spread.withdrawn.push((*cap, id));
            for requirer in self.graph.requirers(*cap) {
                if !spread.seen.insert(*requirer) {
                    continue;
                }
                if self.node(*requirer).state == State::Done {
                    spread.done.push(*requirer);
                } else {
                    spread.gone.push(*requirer);
                }
            }
        }
    }

    fn is_up(&self, id: NodeId) -> bool {
        self.node(id).level > CapabilityStatus::Down
    }

    fn withdrawn(&self, spread: &Spread) -> Vec<Withdrawn> {
        let withdrawn = spread.withdrawn.iter();
        withdrawn
            .map(|(cap, provider)| Withdrawn {
                capability: self.cap_name(*cap),
                provider: self.name(*provider).to_owned(),
            })
            .collect()
    }

    fn kept(&self, spread: &Spread) -> Vec<Kept> {
        let gone: HashSet<_> = spread.gone.iter().collect();
        let kept = spread.left.iter().filter(|(_, left)| **left > 0);
        let mut kept: Vec<_> = kept
            .map(|(cap, _)| {
                let providers = self.graph.providers(*cap).iter();
                let providers = providers.filter(|p| self.is_up(**p) && !gone.contains(p));
                let mut providers: Vec<_> = providers.map(|p| self.name(*p).to_owned()).collect();
                providers.sort_unstable();
                Kept { capability: self.cap_name(*cap), providers }
            })
            .collect();
        kept.sort_by(|a, b| a.capability.cmp(&b.capability));
        kept
    }

    fn members(&self, ids: &[NodeId]) -> Vec<Member> {
        let mut members: Vec<_> = ids.iter().map(|id| self.member(*id)).collect();
        members.sort_by(|a, b| a.component.cmp(&b.component));
        members
    }
}
