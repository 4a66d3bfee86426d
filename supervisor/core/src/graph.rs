//! The capability graph: who provides what, who waits for whom, who can never start.
//!
//! Guarantees:
//! * A capability going up or down touches only those that depend on it ([`Graph::set_level`] is
//!   linear in the edges concerned); nothing recurses.
//! * A capability is up while at least one of its providers is.
//! * A node is *in a cycle* exactly if it could not start even if every capability that nobody
//!   provides were up. So alternative providers break a cycle, and a missing one is none.
//! * A node waits for an optional capability only while a provider may still come up, and never
//!   for one that itself depends on the node.
//!
//! Edits ([`Graph::insert`], [`Graph::replace`], [`Graph::remove`]) take effect with the next
//! [`Graph::settle`], which derives everything anew in one linear pass per batch of edits.

mod analysis;
pub(crate) mod places;
pub(crate) mod scc;

use std::collections::HashMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::mutation::{Mutation, broken};

/// A component's place in the graph. Ids of removed nodes are used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(u32);

impl NodeId {
    /// Position for tables indexed by node.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An interned capability name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CapId(u32);

impl CapId {
    /// Position for tables indexed by capability.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node grants to those that need its capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Down,
    /// Its capabilities, not in full health. Counts as up.
    Degraded,
    /// Its capabilities.
    Up,
}

/// The layer of a node that can never start.
pub const NO_LAYER: u32 = u32::MAX;

#[derive(Debug)]
struct Cap {
    name: Rc<str>,
    providers: Vec<NodeId>,
    requirers: Vec<NodeId>,
    /// Nodes for which the capability is optional.
    waiters: Vec<NodeId>,
    /// Providers that grant it.
    up: u32,
    /// Providers that grant it or may still come up by themselves.
    hoped: u32,
}

#[derive(Clone, Copy, Debug)]
struct OptionalEdge {
    cap: CapId,
    /// The capability depends on the node itself: waiting for it would never end.
    ignored: bool,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "five independent facts about one node")]
struct Node {
    live: bool,
    /// Edited since the last [`Graph::settle`]: the lists of capabilities still have its edges as
    /// they were, so it takes no part in anything before that.
    edited: bool,
    provides: Vec<CapId>,
    requires: Vec<CapId>,
    optional: Vec<OptionalEdge>,
    level: Level,
    /// The owner's word that the node may start by itself.
    may_rise: bool,
    /// What `hoped` of its capabilities counts.
    hope: bool,
    in_cycle: bool,
    /// Required capabilities that are not up.
    unmet: u32,
    /// Required capabilities that nobody may bring up.
    hopeless: u32,
    /// Optional capabilities that are not up but may come.
    waits: u32,
    layer: u32,
    /// Number of its strongly connected set over required capabilities, dependencies first.
    rank: u32,
    /// The same over optional capabilities too.
    wide_rank: u32,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    cap_ids: HashMap<Rc<str>, CapId, foldhash::fast::RandomState>,
    caps: Vec<Cap>,
    free_caps: Vec<CapId>,
    /// Nodes whose requirements may have become met or unmet since the last look.
    touched: Vec<NodeId>,
    edits: u64,
}

impl Graph {
    /// Add a node. It grants nothing and may rise.
    pub fn insert(&mut self, provides: &[String], requires: &[String], optional: &[String]) -> NodeId {
        self.edits += 1;
        let node = Node {
            live: true,
            provides: self.intern_all(provides),
            requires: self.intern_all(requires),
            optional: self.optional_edges(optional),
            may_rise: true,
            ..Node::dead()
        };
        if let Some(id) = self.free.pop() {
            self.nodes[id.index()] = node;
            return id;
        }
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Change what a node provides and needs; its level stays.
    pub fn replace(&mut self, id: NodeId, provides: &[String], requires: &[String], optional: &[String]) {
        self.edits += 1;
        let provides = self.intern_all(provides);
        let requires = self.intern_all(requires);
        let optional = self.optional_edges(optional);
        let node = &mut self.nodes[id.index()];
        node.edited = true;
        node.provides = provides;
        node.requires = requires;
        node.optional = optional;
    }

    /// Take a node out. Its id may be given to another node at once.
    pub fn remove(&mut self, id: NodeId) {
        self.edits += 1;
        let node = &mut self.nodes[id.index()];
        node.live = false;
        node.edited = true;
        node.provides.clear();
        node.requires.clear();
        node.optional.clear();
        node.level = Level::Down;
        self.free.push(id);
    }

    /// Set what a node grants. Those whose requirements change are in [`Graph::take_touched`].
    pub fn set_level(&mut self, id: NodeId, level: Level) {
        let node = &mut self.nodes[id.index()];
        let before = node.level;
        node.level = level;
        if node.edited {
            return;
        }
        match (before > Level::Down, level > Level::Down) {
            (false, true) => {
                self.refresh_hope(id);
                self.grant(id);
            }
            (true, false) => {
                self.withdraw(id);
                self.refresh_hope(id);
            }
            _ => {}
        }
    }

    /// Say whether a node may start by itself once its requirements are up (not stopped by a
    /// user, not failed for good).
    pub fn set_may_rise(&mut self, id: NodeId, may_rise: bool) {
        self.nodes[id.index()].may_rise = may_rise;
        self.refresh_hope(id);
    }

    /// The nodes whose requirements may have changed since the last call.
    pub fn take_touched(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.touched)
    }

    /// Whether all required capabilities are up. Never so in a cycle.
    pub fn requirements_up(&self, id: NodeId) -> bool {
        let node = &self.nodes[id.index()];
        node.unmet == 0 && !node.in_cycle
    }

    /// Whether the node may start: requirements up and no optional capability still to come.
    pub fn may_start(&self, id: NodeId) -> bool {
        self.requirements_up(id) && self.nodes[id.index()].waits == 0
    }

    /// Whether the node is up or may come up without anyone's help.
    pub fn has_hope(&self, id: NodeId) -> bool {
        self.nodes[id.index()].hope
    }

    /// Whether a dependency cycle keeps the node from ever starting.
    pub fn in_cycle(&self, id: NodeId) -> bool {
        self.nodes[id.index()].in_cycle
    }

    /// Activation layer: one more than the lowest layer in which everything it waits for can be
    /// up; [`NO_LAYER`] in a cycle.
    pub fn layer(&self, id: NodeId) -> u32 {
        self.nodes[id.index()].layer
    }

    /// Place in an order in which what requires something comes after what provides it. Nodes on
    /// one cycle, and on one ring that alternative providers make, share a place.
    pub fn rank(&self, id: NodeId) -> u32 {
        self.nodes[id.index()].rank
    }

    /// The same order where optional capabilities count too.
    pub fn wide_rank(&self, id: NodeId) -> u32 {
        self.nodes[id.index()].wide_rank
    }

    /// What the node grants now.
    pub fn level(&self, id: NodeId) -> Level {
        self.nodes[id.index()].level
    }

    /// Look a capability up by name.
    pub fn cap(&self, name: &str) -> Option<CapId> {
        self.cap_ids.get(name).copied()
    }

    /// A capability's name.
    pub fn cap_name(&self, cap: CapId) -> &str {
        &self.caps[cap.index()].name
    }

    /// Every capability that someone provides, requires or waits for, unordered.
    pub fn caps(&self) -> impl Iterator<Item = CapId> {
        self.cap_ids.values().copied()
    }

    /// Whether a capability is up, and how well: the best of its providers.
    pub fn cap_level(&self, cap: CapId) -> Level {
        let providers = &self.caps[cap.index()].providers;
        let levels = providers.iter().map(|p| self.nodes[p.index()].level);
        levels.max().unwrap_or(Level::Down)
    }

    /// Declared providers.
    pub fn providers(&self, cap: CapId) -> &[NodeId] {
        &self.caps[cap.index()].providers
    }

    /// Nodes that require the capability.
    pub fn requirers(&self, cap: CapId) -> &[NodeId] {
        &self.caps[cap.index()].requirers
    }

    /// What the node provides.
    pub fn provided(&self, id: NodeId) -> &[CapId] {
        &self.nodes[id.index()].provides
    }

    /// What the node requires.
    pub fn required(&self, id: NodeId) -> &[CapId] {
        &self.nodes[id.index()].requires
    }

    /// Capabilities the node waits for when they are declared.
    pub fn optional(&self, id: NodeId) -> impl Iterator<Item = CapId> {
        self.nodes[id.index()].optional.iter().map(|edge| edge.cap)
    }

    /// How often a node was inserted, replaced or removed.
    pub fn edits(&self) -> u64 {
        self.edits
    }

    /// Required capabilities that are not up.
    pub fn missing(&self, id: NodeId) -> impl Iterator<Item = CapId> {
        let requires = self.nodes[id.index()].requires.iter().copied();
        requires.filter(|cap| self.caps[cap.index()].up == 0)
    }

    /// Optional capabilities that the node waits for now.
    pub fn awaited(&self, id: NodeId) -> impl Iterator<Item = CapId> {
        self.nodes[id.index()].awaited(&self.caps)
    }

    /// Nodes for which the capability is optional and worth waiting for.
    pub fn waiters(&self, cap: CapId) -> impl Iterator<Item = NodeId> {
        let waiters = self.caps[cap.index()].waiters.iter().copied();
        waiters.filter(move |waiter| !self.ignores(*waiter, cap))
    }

    /// The strongly connected sets of required capabilities: each a cycle, or several that meet.
    pub fn cycles(&self) -> Vec<Vec<NodeId>> {
        self.required_components()
            .into_iter()
            .filter(|set| set.len() > 1 || self.requires_itself(set[0]))
            .collect()
    }

    fn requires_itself(&self, id: NodeId) -> bool {
        let node = &self.nodes[id.index()];
        node.requires.iter().any(|cap| node.provides.contains(cap))
    }

    /// Whether an optional capability is not waited for because it depends on the node itself.
    pub fn ignores(&self, id: NodeId, cap: CapId) -> bool {
        let edges = &self.nodes[id.index()].optional;
        edges.iter().any(|edge| edge.cap == cap && edge.ignored)
    }

    fn intern_all(&mut self, names: &[String]) -> Vec<CapId> {
        let mut ids: Vec<_> = names.iter().map(|name| self.intern(name)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn optional_edges(&mut self, names: &[String]) -> Vec<OptionalEdge> {
        let caps = self.intern_all(names).into_iter();
        caps.map(|cap| OptionalEdge { cap, ignored: false }).collect()
    }

    fn intern(&mut self, name: &str) -> CapId {
        if let Some(id) = self.cap_ids.get(name) {
            return *id;
        }
        let name: Rc<str> = name.into();
        let cap = Cap::new(Rc::clone(&name));
        let id = if let Some(id) = self.free_caps.pop() {
            self.caps[id.index()] = cap;
            id
        } else {
            self.caps.push(cap);
            CapId(self.caps.len() as u32 - 1)
        };
        self.cap_ids.insert(name, id);
        id
    }

    fn grant(&mut self, id: NodeId) {
        let provided = std::mem::take(&mut self.nodes[id.index()].provides);
        for cap in &provided {
            let cap_id = *cap;
            let cap = &mut self.caps[cap.index()];
            cap.up += 1;
            if cap.up > 1 {
                continue;
            }
            for requirer in &cap.requirers {
                let node = &mut self.nodes[requirer.index()];
                if node.edited {
                    continue;
                }
                node.unmet -= 1;
                if node.unmet == 0 && !broken(Mutation::ForgetGranted) {
                    self.touched.push(*requirer);
                }
            }
            self.count_waits(cap_id, false);
        }
        self.nodes[id.index()].provides = provided;
    }

    fn withdraw(&mut self, id: NodeId) {
        let provided = std::mem::take(&mut self.nodes[id.index()].provides);
        for cap in &provided {
            let cap_id = *cap;
            let cap = &mut self.caps[cap.index()];
            cap.up -= 1;
            if cap.up > 0 {
                continue;
            }
            for requirer in &cap.requirers {
                let node = &mut self.nodes[requirer.index()];
                if node.edited {
                    continue;
                }
                node.unmet += 1;
                if node.unmet == 1 {
                    self.touched.push(*requirer);
                }
            }
            self.count_waits(cap_id, true);
        }
        self.nodes[id.index()].provides = provided;
    }

    /// One more or one less capability to wait for, for each that finds `cap` optional.
    fn count_waits(&mut self, cap: CapId, more: bool) {
        for waiter in &self.caps[cap.index()].waiters {
            let node = &mut self.nodes[waiter.index()];
            if node.edited || node.optional.iter().any(|e| e.cap == cap && e.ignored) {
                continue;
            }
            if more {
                node.waits += 1;
            } else {
                node.waits -= 1;
            }
            if node.waits == 0 {
                self.touched.push(*waiter);
            }
        }
    }

    /// Bring a node's hope up to date, and that of all that hang on it.
    fn refresh_hope(&mut self, id: NodeId) {
        let mut queue = vec![id];
        while let Some(id) = queue.pop() {
            let node = &mut self.nodes[id.index()];
            let hope = node.hopes();
            if node.edited || node.hope == hope {
                continue;
            }
            node.hope = hope;
            let provided = std::mem::take(&mut node.provides);
            for cap in &provided {
                self.change_hoped(*cap, hope, &mut queue);
            }
            self.nodes[id.index()].provides = provided;
        }
    }

    fn change_hoped(&mut self, cap_id: CapId, more: bool, queue: &mut Vec<NodeId>) {
        let cap = &mut self.caps[cap_id.index()];
        if more {
            cap.hoped += 1;
        } else {
            cap.hoped -= 1;
        }
        // Only the first hope and the loss of the last one change anything for others.
        if cap.hoped != u32::from(more) {
            return;
        }
        for requirer in &cap.requirers {
            let node = &mut self.nodes[requirer.index()];
            if node.edited {
                continue;
            }
            if more {
                node.hopeless -= 1;
            } else {
                node.hopeless += 1;
            }
            queue.push(*requirer);
        }
        if cap.up == 0 {
            self.count_waits(cap_id, more);
        }
    }
}

impl Cap {
    fn new(name: Rc<str>) -> Self {
        Self { name, providers: Vec::new(), requirers: Vec::new(), waiters: Vec::new(), up: 0, hoped: 0 }
    }

    fn is_awaited(&self) -> bool {
        self.up == 0 && self.hoped > 0
    }
}

impl Node {
    /// Optional capabilities that it waits for now.
    fn awaited(&self, caps: &[Cap]) -> impl Iterator<Item = CapId> {
        let edges = self.optional.iter();
        edges.filter(|edge| !edge.ignored && caps[edge.cap.index()].is_awaited()).map(|edge| edge.cap)
    }

    fn hopes(&self) -> bool {
        self.level > Level::Down || (self.live && self.may_rise && !self.in_cycle && self.hopeless == 0)
    }
}

#[cfg(test)]
mod tests;
