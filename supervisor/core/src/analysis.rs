//! What can be told from a whole graph: cycles, layers, ways, what a removal takes along.
//!
//! Guarantees:
//! * Everything is derived from the supervisor's answer to one question, [`GraphNode`]s, on the
//!   side of whoever asked: PID 1 does no work for it.
//! * Nothing recurses, so 100,000 components in one chain are an ordinary input. Time grows with
//!   the pairs of a provider and a requirer of the same capability: linear in the declarations as
//!   long as few components provide what many require.
//! * The same graph gives the same answer: everything is sorted.
//!
//! [`Analysis::new`] reads the graph once; each question is a method. Questions about shape
//! ([`Analysis::layers`], [`Analysis::cycles`], …) look at what is declared; only
//! [`Analysis::removal`] looks at what is up.

mod cycles;
mod dot;
mod findings;
mod metrics;
mod removal;
mod routes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::component::keys::nearest;
use crate::control::GraphNode;
use crate::graph::{CapId, Graph, NodeId};
use crate::journal::State;

pub use cycles::Cycle;
pub use findings::{Finding, Severity};
pub use metrics::{Metrics, Part};
pub use removal::{Kept, Removal, Withdrawn};
pub use routes::Step;

/// A graph that can be asked.
pub struct Analysis<'a> {
    nodes: &'a [GraphNode],
    graph: Graph,
    /// By position in `nodes`, which is also [`NodeId::index`].
    ids: Vec<NodeId>,
    by_name: HashMap<&'a str, NodeId>,
    /// The activation layer; `None` for what can never start.
    layers: Vec<Option<u32>>,
    /// Optional capabilities that a component that can start does not wait for, since they depend
    /// on it.
    ignored: HashSet<(NodeId, CapId)>,
}

/// A name that nothing in the graph has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    kind: &'static str,
    name: String,
    near: Option<String>,
}

impl Unknown {
    /// The name that was probably meant.
    pub fn near(&self) -> Option<&str> {
        self.near.as_deref()
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} is named {:?}", self.kind, self.name)
    }
}

impl std::error::Error for Unknown {}

/// A component and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its name.
    pub component: String,
    /// Its state.
    pub state: State,
}

/// A component that depends on a capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependent {
    /// Its name.
    pub component: String,
    /// Its state.
    pub state: State,
    /// It waits for the capability, but runs without it.
    pub optional: bool,
}

/// A component that can never start as things are declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Never {
    /// Its name.
    pub component: String,
    /// Why.
    pub reason: Reason,
}

/// Why a component can never start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is on a dependency cycle.
    Cycle,
    /// Nobody provides this capability.
    Unprovided(String),
    /// Only components that can never start provide this capability.
    Blocked(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle => f.write_str("on a dependency cycle"),
            Self::Unprovided(cap) => write!(f, "requires {cap}, which nobody provides"),
            Self::Blocked(cap) => write!(f, "requires {cap}, whose providers can never start"),
        }
    }
}

impl<'a> Analysis<'a> {
    /// Read a graph: all pages of the supervisor's answer.
    pub fn new(nodes: &'a [GraphNode]) -> Self {
        let mut graph = Graph::default();
        let insert = |node: &GraphNode| graph.insert(&node.provides, &node.requires, &node.optional);
        let ids: Vec<_> = nodes.iter().map(insert).collect();
        graph.settle();
        let by_name = nodes.iter().zip(&ids).map(|(node, id)| (&*node.name, *id)).collect();
        let (layers, ignored) = layers(nodes, (&graph, &ids), &starters(&graph, &ids));
        Self { nodes, graph, ids, by_name, layers, ignored }
    }

    /// What depends on a capability directly, sorted by name.
    pub fn dependents(&self, capability: &str) -> Result<Vec<Dependent>, Unknown> {
        let cap = self.capability(capability)?;
        let requirers: BTreeSet<_> = self.graph.requirers(cap).iter().map(|id| self.name(*id)).collect();
        let dependent = |name: &&str, optional| {
            let state = self.by_name.get(name).map_or(State::Removed, |id| self.node(*id).state);
            Dependent { component: (*name).to_owned(), state, optional }
        };
        let mut dependents: Vec<_> = requirers.iter().map(|name| dependent(name, false)).collect();
        let waiters = self.nodes.iter().filter(|node| node.optional.iter().any(|c| c == capability));
        let waiters = waiters.map(|node| &*node.name).filter(|name| !requirers.contains(name));
        dependents.extend(waiters.map(|name| dependent(&name, true)));
        dependents.sort_by(|a, b| a.component.cmp(&b.component));
        Ok(dependents)
    }

    /// Components by activation layer: those of a layer can start once all layers before it are
    /// up. What can never start is in none.
    pub fn layers(&self) -> Vec<Vec<&'a str>> {
        let mut layers: Vec<Vec<&str>> = Vec::new();
        for (node, layer) in self.nodes.iter().zip(&self.layers) {
            if let Some(layer) = layer {
                let layer = *layer as usize;
                layers.resize_with(layers.len().max(layer + 1), Vec::new);
                layers[layer].push(&node.name);
            }
        }
        for layer in &mut layers {
            layer.sort_unstable();
        }
        layers
    }

    /// Components in an order in which they can start: by layer, then by name.
    pub fn order(&self) -> Vec<Member> {
        let names = self.layers().into_iter().flatten();
        names.filter_map(|name| self.by_name.get(name)).map(|id| self.member(*id)).collect()
    }

    /// What can never start, and why, sorted by name.
    pub fn never(&self) -> Vec<Never> {
        let on_cycle: HashSet<NodeId> = self.stuck_sets().into_iter().flatten().collect();
        let stuck = self.ids.iter().filter(|id| !self.starts(**id));
        let mut never: Vec<_> = stuck
            .map(|id| Never {
                component: self.name(*id).to_owned(),
                reason: if on_cycle.contains(id) { Reason::Cycle } else { self.reason(*id) },
            })
            .collect();
        never.sort_by(|a, b| a.component.cmp(&b.component));
        never
    }

    fn reason(&self, id: NodeId) -> Reason {
        let mut required = self.graph.required(id).iter();
        let unprovided = required.find(|cap| self.graph.providers(**cap).is_empty());
        if let Some(cap) = unprovided {
            return Reason::Unprovided(self.cap_name(*cap));
        }
        let blocking = self.blocking(id);
        Reason::Blocked(blocking.first().map_or_else(String::new, |cap| self.cap_name(*cap)))
    }

    /// Required capabilities that only components provide that can never start.
    fn blocking(&self, id: NodeId) -> Vec<CapId> {
        let blocks = |cap: &CapId| {
            let providers = self.graph.providers(*cap);
            !providers.is_empty() && !providers.iter().any(|provider| self.starts(*provider))
        };
        self.graph.required(id).iter().copied().filter(blocks).collect()
    }

    /// A component by name.
    fn component(&self, name: &str) -> Result<NodeId, Unknown> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let near = nearest(name, self.by_name.keys().copied()).map(str::to_owned);
            Unknown { kind: "component", name: name.to_owned(), near }
        })
    }

    /// A capability by name.
    fn capability(&self, name: &str) -> Result<CapId, Unknown> {
        self.graph.cap(name).ok_or_else(|| {
            let known = self.graph.caps().map(|cap| self.graph.cap_name(cap));
            let near = nearest(name, known).map(str::to_owned);
            Unknown { kind: "capability", name: name.to_owned(), near }
        })
    }

    fn starts(&self, id: NodeId) -> bool {
        self.layers[id.index()].is_some()
    }

    fn node(&self, id: NodeId) -> &'a GraphNode {
        &self.nodes[id.index()]
    }

    fn member(&self, id: NodeId) -> Member {
        Member { component: self.name(id).to_owned(), state: self.node(id).state }
    }

    fn name(&self, id: NodeId) -> &'a str {
        &self.nodes[id.index()].name
    }

    fn cap_name(&self, cap: CapId) -> String {
        self.graph.cap_name(cap).to_owned()
    }

    /// All capabilities by name.
    fn capabilities(&self) -> Vec<(&str, CapId)> {
        let mut all: Vec<_> = self.graph.caps().map(|cap| (self.graph.cap_name(cap), cap)).collect();
        all.sort_unstable();
        all
    }
}

/// Which nodes can start: all they require comes from those that can.
fn starters(graph: &Graph, ids: &[NodeId]) -> Vec<bool> {
    let mut needs: Vec<usize> = ids.iter().map(|id| graph.required(*id).len()).collect();
    let mut open: Vec<NodeId> = ids.iter().copied().filter(|id| needs[id.index()] == 0).collect();
    let mut risen = HashSet::new();
    let mut starts = vec![false; ids.len()];
    while let Some(id) = open.pop() {
        starts[id.index()] = true;
        for cap in graph.provided(id).iter().filter(|cap| risen.insert(**cap)) {
            for requirer in graph.requirers(*cap) {
                needs[requirer.index()] -= 1;
                if needs[requirer.index()] == 0 {
                    open.push(*requirer);
                }
            }
        }
    }
    starts
}

/// Layers in the graph of those that can start: nobody waits for an optional capability that only
/// others provide. With them the optional capabilities that are ignored there, by the ids of `whole`.
fn layers(
    nodes: &[GraphNode],
    (whole, own_ids): (&Graph, &[NodeId]),
    starts: &[bool],
) -> (Vec<Option<u32>>, HashSet<(NodeId, CapId)>) {
    let mut graph = Graph::default();
    let insert = |(node, starts): (&GraphNode, &bool)| {
        starts.then(|| graph.insert(&node.provides, &node.requires, &node.optional))
    };
    let ids: Vec<_> = nodes.iter().zip(starts).map(insert).collect();
    graph.settle();
    let mut ignored = HashSet::new();
    for (own, id) in own_ids.iter().zip(&ids).filter_map(|(own, id)| Some((*own, (*id)?))) {
        let caps = graph.optional(id).filter(|cap| graph.ignores(id, *cap));
        ignored.extend(caps.filter_map(|cap| Some((own, whole.cap(graph.cap_name(cap))?))));
    }
    (ids.into_iter().map(|id| id.map(|id| graph.layer(id))).collect(), ignored)
}
