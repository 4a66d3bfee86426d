//! Shortest ways along dependencies.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;

use super::{Analysis, Unknown};
use crate::graph::{CapId, NodeId};

/// One dependency on a way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Who needs.
    pub component: String,
    /// What it needs.
    pub capability: String,
    /// Who provides that.
    pub provider: String,
    /// It waits for the capability, but runs without it.
    pub optional: bool,
}

impl Analysis<'_> {
    /// A shortest way on which `from` depends on `to`; `None` if it does not. A component does
    /// not depend on itself but on a ring.
    pub fn path(&self, from: &str, to: &str) -> Result<Option<Vec<Step>>, Unknown> {
        let (from, to) = (self.component(from)?, self.component(to)?);
        let needs = |id: NodeId| {
            let optional = self.node(id).optional.iter();
            let optional = optional.filter_map(|name| self.graph.cap(name));
            self.graph.required(id).iter().copied().chain(optional).collect()
        };
        Ok(self.route(from, to, &needs, &|_| true))
    }

    /// A shortest way of at least one step from `from` to `to`, over what `needs` gives and
    /// providers that `admits` lets through. Each component and each capability is looked at once.
    pub(super) fn route(
        &self,
        from: NodeId,
        to: NodeId,
        needs: &dyn Fn(NodeId) -> Vec<CapId>,
        admits: &dyn Fn(NodeId) -> bool,
    ) -> Option<Vec<Step>> {
        let mut came: HashMap<NodeId, (NodeId, CapId)> = HashMap::new();
        let mut seen = HashSet::new();
        let mut queue = VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            for cap in needs(id).into_iter().filter(|cap| seen.insert(*cap)) {
                for provider in self.graph.providers(cap).iter().filter(|p| admits(**p)) {
                    if came.contains_key(provider) {
                        continue;
                    }
                    came.insert(*provider, (id, cap));
                    if *provider == to {
                        return Some(self.steps(from, to, &came));
                    }
                    queue.push_back(*provider);
                }
            }
        }
        None
    }

    /// The way that a search has come.
    fn steps(&self, from: NodeId, to: NodeId, came: &HashMap<NodeId, (NodeId, CapId)>) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = to;
        while let Some((before, cap)) = came.get(&at) {
            steps.push(Step {
                component: self.name(*before).to_owned(),
                capability: self.cap_name(*cap),
                provider: self.name(at).to_owned(),
                optional: !self.graph.required(*before).contains(cap),
            });
            at = *before;
            if at == from {
                break;
            }
        }
        steps.reverse();
        steps
    }
}
