//! The numbers of nodes and capabilities, for a graph that is to be made again elsewhere.
//!
//! The edges follow from the declarations, nearly everything else from the edges; the numbers do
//! not, and they decide the order of whatever the edges leave open. A graph made with the same
//! numbers goes on exactly like the one before.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::{Cap, CapId, Graph, Level, Node, NodeId};

/// See the module documentation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Places {
    /// Numbers that no node has, the next one to be given last.
    free: Vec<NodeId>,
    /// Names by number; `None` where there is none.
    caps: Vec<Option<Rc<str>>>,
    /// Numbers that no capability has, the next one to be given last.
    free_caps: Vec<CapId>,
    /// Nodes that have hope. Until the next edit a ring of alternative providers may keep the hope
    /// that it had when somebody else gave it; that belongs to going on exactly like before.
    hopeful: Vec<NodeId>,
    /// Edits so far, by which clients tell pages of one graph from those of another.
    edits: u64,
}

/// A node as its owner knows it.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) id: NodeId,
    pub(crate) provides: Vec<String>,
    pub(crate) requires: Vec<String>,
    pub(crate) optional: Vec<String>,
    pub(crate) level: Level,
    pub(crate) may_rise: bool,
}

impl Graph {
    /// The numbers in use and the order in which free ones are given out.
    pub(crate) fn places(&self) -> Places {
        let mut caps: Vec<Option<Rc<str>>> = vec![None; self.caps.len()];
        for (name, id) in &self.cap_ids {
            caps[id.index()] = Some(Rc::clone(name));
        }
        let nodes = self.nodes.iter().enumerate();
        let hopeful = nodes.filter(|(_, node)| node.live && node.hope).map(|(index, _)| NodeId(index as u32));
        let hopeful = hopeful.collect();
        let (free, free_caps) = (self.free.clone(), self.free_caps.clone());
        Places { free, caps, free_caps, hopeful, edits: self.edits }
    }

    /// Make a graph anew, with everything derived and nothing touched. Returns the nodes in a
    /// cycle too. An error says which number cannot be.
    pub(crate) fn restore(places: Places, placed: Vec<Placed>) -> Result<(Self, Vec<NodeId>), String> {
        let size = placed.len() + places.free.len();
        let mut graph = Self::default();
        graph.nodes.resize_with(size, Node::dead);
        graph.restore_caps(places.caps, &places.free_caps);
        for node in placed {
            let Some(slot) = graph.nodes.get(node.id.index()) else {
                return Err(format!("node {} is beyond the {size} that there are", node.id.index()));
            };
            if slot.live {
                return Err(format!("two nodes have the number {}", node.id.index()));
            }
            graph.nodes[node.id.index()] = Node {
                live: true,
                provides: graph.intern_all(&node.provides),
                requires: graph.intern_all(&node.requires),
                optional: graph.optional_edges(&node.optional),
                level: node.level,
                may_rise: node.may_rise,
                ..Node::dead()
            };
        }
        graph.restore_free(&places.free);
        let in_cycle = graph.settle();
        let hopeful: std::collections::HashSet<_> = places.hopeful.into_iter().collect();
        graph.set_hope(|id| hopeful.contains(&id));
        graph.touched.clear();
        graph.edits = places.edits;
        Ok((graph, in_cycle))
    }

    fn restore_caps(&mut self, names: Vec<Option<Rc<str>>>, free: &[CapId]) {
        for (index, name) in names.into_iter().enumerate() {
            self.caps.push(Cap::new(name.clone().unwrap_or_else(|| "".into())));
            self.cap_ids.extend(name.map(|name| (name, CapId(index as u32))));
        }
        let used: std::collections::HashSet<CapId> = self.cap_ids.values().copied().collect();
        let all = || (0..self.caps.len()).map(|index| CapId(index as u32));
        self.free_caps = exactly(free, all().filter(|id| !used.contains(id)));
    }

    fn restore_free(&mut self, free: &[NodeId]) {
        let all = (0..self.nodes.len()).map(|index| NodeId(index as u32));
        let dead = all.filter(|id| !self.nodes[id.index()].live);
        self.free = exactly(free, dead);
    }
}

impl Node {
    /// What is in a place that nobody has.
    pub(super) fn dead() -> Self {
        Self {
            live: false,
            edited: true,
            provides: Vec::new(),
            requires: Vec::new(),
            optional: Vec::new(),
            level: Level::Down,
            may_rise: false,
            hope: false,
            in_cycle: false,
            unmet: 0,
            hopeless: 0,
            waits: 0,
            layer: 0,
            rank: 0,
            wide_rank: 0,
        }
    }
}

/// The free numbers in the order given, whatever that order leaves out or names in excess.
fn exactly<T: Copy + Ord>(order: &[T], free: impl Iterator<Item = T>) -> Vec<T> {
    let mut left: std::collections::BTreeSet<T> = free.collect();
    let mut listed: Vec<T> = order.iter().copied().filter(|id| left.remove(id)).collect();
    listed.splice(0..0, left);
    listed
}
