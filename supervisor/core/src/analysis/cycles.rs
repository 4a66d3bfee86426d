//! Dependency cycles that keep components from starting, and strongly connected sets.
//!
//! A cycle here is a set of components that need each other and can never start. A ring that an
//! alternative provider breaks is a strongly connected set, but no cycle.

use std::collections::HashSet;

use serde::Serialize;

use super::{Analysis, Member, Step};
use crate::graph::scc::number_components;
use crate::graph::{CapId, NodeId};

/// Components that can never start because each needs another of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cycle {
    /// All that are on it, sorted by name.
    pub components: Vec<String>,
    /// A shortest loop through the first of them, closed.
    pub route: Vec<Step>,
}

impl Analysis<'_> {
    /// All cycles, sorted by their first component.
    pub fn cycles(&self) -> Vec<Cycle> {
        let mut cycles: Vec<_> = self.stuck_sets().into_iter().map(|set| self.cycle(set)).collect();
        cycles.sort_by(|a, b| a.components.cmp(&b.components));
        cycles
    }

    /// Components that a cycle keeps from starting though they are not on it, sorted by name.
    pub fn behind_cycles(&self) -> Vec<Member> {
        let mut seen: HashSet<NodeId> = self.stuck_sets().into_iter().flatten().collect();
        let mut open: Vec<NodeId> = seen.iter().copied().collect();
        let mut behind = Vec::new();
        while let Some(id) = open.pop() {
            for cap in self.graph.provided(id) {
                let requirers = self.graph.requirers(*cap).iter().copied();
                for requirer in requirers.filter(|id| !self.starts(*id)) {
                    if self.blocking(requirer).contains(cap) && seen.insert(requirer) {
                        behind.push(self.member(requirer));
                        open.push(requirer);
                    }
                }
            }
        }
        behind.sort_by(|a, b| a.component.cmp(&b.component));
        behind
    }

    /// Sets of components that depend on each other over required capabilities, alternative
    /// providers or not; those of a single component only if it requires itself. Each is sorted,
    /// and so are they.
    pub fn strongly_connected(&self) -> Vec<Vec<String>> {
        let names = |set: Vec<NodeId>| self.sorted_names(&set);
        let mut sets: Vec<_> = self.graph.cycles().into_iter().map(names).collect();
        sets.sort_unstable();
        sets
    }

    fn cycle(&self, mut set: Vec<NodeId>) -> Cycle {
        set.sort_unstable_by_key(|id| self.name(*id));
        let members: HashSet<_> = set.iter().copied().collect();
        let needs = |id| self.blocking(id);
        let route =
            set.first().and_then(|first| self.route(*first, *first, &needs, &|id| members.contains(&id)));
        Cycle { components: self.sorted_names(&set), route: route.unwrap_or_default() }
    }

    fn sorted_names(&self, set: &[NodeId]) -> Vec<String> {
        let mut names: Vec<_> = set.iter().map(|id| self.name(*id).to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The strongly connected sets among what can never start, over the capabilities that keep it
    /// from starting.
    pub(super) fn stuck_sets(&self) -> Vec<Vec<NodeId>> {
        let blocking: Vec<Vec<CapId>> = self
            .ids
            .iter()
            .map(|id| if self.starts(*id) { Vec::new() } else { self.blocking(*id) })
            .collect();
        if blocking.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        // Capabilities are vertices after the components, so that the edges stay as many as the
        // declarations.
        let first_cap = self.ids.len();
        let mut providers: Vec<&[NodeId]> = Vec::new();
        for cap in self.graph.caps() {
            providers.resize(providers.len().max(cap.index() + 1), &[]);
            providers[cap.index()] = self.graph.providers(cap);
        }
        let successor = |vertex: usize, nth: usize| {
            if vertex >= first_cap {
                return providers[vertex - first_cap].get(nth).map(|provider| provider.index());
            }
            blocking[vertex].get(nth).map(|cap| first_cap + cap.index())
        };
        let numbers = number_components(first_cap + providers.len(), successor);
        let mut sets: Vec<Vec<NodeId>> = Vec::new();
        sets.resize_with(numbers.len(), Vec::new);
        for id in self.ids.iter().filter(|id| !self.starts(**id)) {
            sets[numbers[id.index()] as usize].push(*id);
        }
        let needs_itself = |id: &NodeId| {
            let provided = self.graph.provided(*id);
            blocking[id.index()].iter().any(|cap| provided.contains(cap))
        };
        sets.retain(|set| set.len() > 1 || set.first().is_some_and(needs_itself));
        sets
    }
}
