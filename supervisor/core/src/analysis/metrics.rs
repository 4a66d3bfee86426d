//! Numbers about a graph, and the chain that decides how long a start takes at least.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Analysis;
use crate::graph::{CapId, NodeId};

/// Numbers about a graph. The built-in component `kernel` counts as one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Components.
    pub components: usize,
    /// Capabilities that anyone provides, requires or waits for.
    pub capabilities: usize,
    /// Required capabilities, summed over all components.
    pub dependencies: usize,
    /// Optional capabilities, summed over all components.
    pub optional_dependencies: usize,
    /// Required capabilities of a component on average.
    pub average_dependencies: f64,
    /// Most dependencies one after the other, from a component down to one that waits for nothing.
    pub maximum_depth: usize,
    /// Strongly connected sets; as many as components if nothing depends on itself.
    pub strongly_connected_components: usize,
    /// Dependency cycles that keep components from starting.
    pub cycles: usize,
    /// Components that can never start.
    pub never: usize,
    /// The longest chain of components of which each waits for the one before it.
    pub critical_path: Vec<String>,
}

/// A component's part in the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub component: String,
    /// Its activation layer; none if it can never start.
    pub layer: Option<u32>,
    /// Capabilities it requires.
    pub requires: usize,
    /// Capabilities it provides.
    pub provides: usize,
    /// Components that require one of these.
    pub dependents: usize,
}

impl Analysis<'_> {
    /// Numbers about the graph.
    pub fn metrics(&self) -> Metrics {
        let components = self.nodes.len();
        let dependencies = self.ids.iter().map(|id| self.graph.required(*id).len()).sum();
        let critical_path = self.critical_path();
        Metrics {
            components,
            capabilities: self.graph.caps().count(),
            dependencies,
            optional_dependencies: self.nodes.iter().map(|node| node.optional.len()).sum(),
            average_dependencies: dependencies as f64 / components.max(1) as f64,
            maximum_depth: critical_path.len().saturating_sub(1),
            strongly_connected_components: self.graph.required_components().len(),
            cycles: self.stuck_sets().len(),
            never: self.layers.iter().filter(|layer| layer.is_none()).count(),
            critical_path,
        }
    }

    /// Each component's part, sorted by name.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = BTreeMap::new();
        for (node, id) in self.nodes.iter().zip(&self.ids) {
            let mut dependents: Vec<_> =
                self.graph.provided(*id).iter().flat_map(|cap| self.graph.requirers(*cap)).collect();
            dependents.sort_unstable();
            dependents.dedup();
            let part = Part {
                component: node.name.to_string(),
                layer: self.layers[id.index()],
                requires: self.graph.required(*id).len(),
                provides: self.graph.provided(*id).len(),
                dependents: dependents.len(),
            };
            parts.insert(&*node.name, part);
        }
        parts.into_values().collect()
    }

    /// From the first to start to the last; by name where several are as long.
    fn critical_path(&self) -> Vec<String> {
        let mut top: Option<(u32, NodeId)> = None;
        for id in &self.ids {
            if let Some(layer) = self.layers[id.index()] {
                let better = |(best, other): (u32, NodeId)| {
                    layer > best || (layer == best && self.name(*id) < self.name(other))
                };
                if top.is_none_or(better) {
                    top = Some((layer, *id));
                }
            }
        }
        let mut path = Vec::new();
        let mut next = top;
        while let Some((layer, id)) = next {
            path.push(self.name(id).to_owned());
            next = layer.checked_sub(1).and_then(|below| Some((below, self.decider(id, below)?)));
        }
        path.reverse();
        path
    }

    /// The component of the layer below on which a component waits longest: the earliest provider
    /// of a capability that nobody gives earlier.
    fn decider(&self, id: NodeId, below: u32) -> Option<NodeId> {
        let earliest = |cap: CapId| {
            let providers = self.graph.providers(cap).iter().copied();
            let placed = providers.filter_map(|p| Some((self.layers[p.index()]?, self.name(p), p)));
            placed.min()
        };
        let optional = self.graph.optional(id).filter(|cap| !self.ignored.contains(&(id, *cap)));
        let caps = self.graph.required(id).iter().copied().chain(optional);
        let deciders = caps.filter_map(earliest).filter(|(layer, ..)| *layer == below);
        deciders.min().map(|(_, _, provider)| provider)
    }
}
