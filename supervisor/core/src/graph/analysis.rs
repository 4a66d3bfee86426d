//! Derives everything the graph knows from its edges: cycles, layers, unmet counts, hope.
//!
//! All passes are one scheme, [`Graph::rise`]: nodes whose demands are satisfied rise in rounds,
//! and raise what they provide. It is linear in nodes and edges and does not recurse.

use super::{CapId, Graph, Level, NO_LAYER, Node, NodeId, OptionalEdge};

/// What a pass of [`Graph::rise`] demands.
struct Rule<A, D, W> {
    /// May this node rise at all?
    admits: A,
    /// Must this required capability rise before the node?
    demands: D,
    /// Must this optional capability rise before the node?
    awaits: W,
}

impl Graph {
    /// Derive everything anew after edits. Returns the nodes that got into a cycle or out of one;
    /// nodes whose requirements changed are in [`Graph::take_touched`].
    pub fn settle(&mut self) -> Vec<NodeId> {
        self.rebuild_edges();
        let rounds = self.find_rounds();
        let moved = self.find_cycles(&rounds);
        self.assign_ranks();
        self.assign_layers(rounds);
        self.count_unmet();
        self.find_hope();
        moved
    }

    fn live(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.live);
        nodes.map(|(index, node)| (NodeId(index as u32), node))
    }

    fn live_mut(nodes: &mut [Node]) -> impl Iterator<Item = (NodeId, &mut Node)> {
        let nodes = nodes.iter_mut().enumerate().filter(|(_, node)| node.live);
        nodes.map(|(index, node)| (NodeId(index as u32), node))
    }

    fn rebuild_edges(&mut self) {
        for cap in &mut self.caps {
            cap.providers.clear();
            cap.requirers.clear();
            cap.waiters.clear();
            cap.up = 0;
            cap.hoped = 0;
        }
        for (id, node) in Self::live_mut(&mut self.nodes) {
            node.edited = false;
            for cap in &node.provides {
                let cap = &mut self.caps[cap.index()];
                cap.providers.push(id);
                cap.up += u32::from(node.level > Level::Down);
            }
            for cap in &node.requires {
                self.caps[cap.index()].requirers.push(id);
            }
            for edge in &node.optional {
                self.caps[edge.cap.index()].waiters.push(id);
            }
        }
        self.forget_unused_caps();
    }

    /// Free the places of capabilities that nothing names any more, in order: the same edits give
    /// the same ids.
    fn forget_unused_caps(&mut self) {
        for (index, cap) in self.caps.iter_mut().enumerate() {
            let used = !(cap.providers.is_empty() && cap.requirers.is_empty() && cap.waiters.is_empty());
            let id = CapId(index as u32);
            if !used && self.cap_ids.get(&cap.name) == Some(&id) {
                self.cap_ids.remove(&cap.name);
                self.free_caps.push(id);
            }
        }
    }

    /// The rounds in which nodes would rise if what nobody provides were no obstacle and nobody
    /// waited for an optional capability.
    fn find_rounds(&self) -> Vec<u32> {
        self.rise(&Rule {
            admits: |_: &Node| true,
            demands: |_: &Node, cap: CapId| !self.caps[cap.index()].providers.is_empty(),
            awaits: |_: &OptionalEdge| false,
        })
    }

    fn find_cycles(&mut self, rounds: &[u32]) -> Vec<NodeId> {
        let mut moved = Vec::new();
        for (id, node) in Self::live_mut(&mut self.nodes) {
            let in_cycle = rounds[id.index()] == NO_LAYER;
            if node.in_cycle != in_cycle {
                node.in_cycle = in_cycle;
                moved.push(id);
            }
        }
        moved
    }

    /// Number the strongly connected sets, dependencies first (the order in which Tarjan's
    /// algorithm finishes them), without and with optional capabilities. An optional capability
    /// within the node's own set depends on the node itself, and is not waited for.
    fn assign_ranks(&mut self) {
        let narrow = self.component_numbers(false);
        let wide = self.has_optional().then(|| self.component_numbers(true));
        let wide = wide.as_ref().unwrap_or(&narrow);
        let first_cap = self.nodes.len();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.rank = narrow[index];
            node.wide_rank = wide[index];
            for edge in &mut node.optional {
                edge.ignored = wide[index] == wide[first_cap + edge.cap.index()];
            }
        }
    }

    fn has_optional(&self) -> bool {
        self.nodes.iter().any(|node| !node.optional.is_empty())
    }

    /// Layers are the rounds that led to the cycles; where somebody waits for optional
    /// capabilities, they are found anew with these.
    fn assign_layers(&mut self, mut rounds: Vec<u32>) {
        if self.has_optional() {
            let can_rise = |cap: CapId| {
                let providers = &self.caps[cap.index()].providers;
                providers.iter().any(|p| !self.nodes[p.index()].in_cycle)
            };
            rounds = self.rise(&Rule {
                admits: |node: &Node| !node.in_cycle,
                demands: |_: &Node, cap: CapId| !self.caps[cap.index()].providers.is_empty(),
                awaits: |edge: &OptionalEdge| !edge.ignored && can_rise(edge.cap),
            });
        }
        for (id, node) in Self::live_mut(&mut self.nodes) {
            node.layer = rounds[id.index()];
        }
    }

    fn count_unmet(&mut self) {
        for (id, node) in Self::live_mut(&mut self.nodes) {
            let down = |cap: &&CapId| self.caps[cap.index()].up == 0;
            let unmet = node.requires.iter().filter(down).count() as u32;
            if (node.unmet == 0) != (unmet == 0) {
                self.touched.push(id);
            }
            node.unmet = unmet;
        }
    }

    fn find_hope(&mut self) {
        if self.nothing_is_in_the_way() {
            return self.set_hope(|_| true);
        }
        let rounds = self.rise(&Rule {
            admits: |node: &Node| node.level > Level::Down || (node.may_rise && !node.in_cycle),
            demands: |node: &Node, _: CapId| node.level == Level::Down,
            awaits: |_: &OptionalEdge| false,
        });
        self.set_hope(|id| rounds[id.index()] != NO_LAYER);
    }

    /// Whether every node may rise, and what each requires has a provider. Then all have hope: in the order of the rounds
    /// that found no cycle each finds what it requires. Ordinary systems are like that, and are spared a pass.
    fn nothing_is_in_the_way(&self) -> bool {
        let is_open = |node: &Node| !node.in_cycle && (node.may_rise || node.level > Level::Down);
        self.live().all(|(_, node)| is_open(node))
            && self.caps.iter().all(|cap| cap.requirers.is_empty() || !cap.providers.is_empty())
    }

    /// Take over who has hope, and count what follows from it.
    pub(super) fn set_hope(&mut self, has_hope: impl Fn(NodeId) -> bool) {
        for cap in &mut self.caps {
            cap.hoped = 0;
        }
        for (id, node) in Self::live_mut(&mut self.nodes) {
            node.hope = has_hope(id);
            for cap in &node.provides {
                self.caps[cap.index()].hoped += u32::from(node.hope);
            }
        }
        for (id, node) in Self::live_mut(&mut self.nodes) {
            let hopeless = |cap: &&CapId| self.caps[cap.index()].hoped == 0;
            node.hopeless = node.requires.iter().filter(hopeless).count() as u32;
            let waits = node.awaited(&self.caps).count() as u32;
            if (node.waits == 0) != (waits == 0) {
                self.touched.push(id);
            }
            node.waits = waits;
        }
    }

    /// The round in which each node rises; [`NO_LAYER`] for those that never do.
    fn rise<A, D, W>(&self, rule: &Rule<A, D, W>) -> Vec<u32>
    where
        A: Fn(&Node) -> bool,
        D: Fn(&Node, CapId) -> bool,
        W: Fn(&OptionalEdge) -> bool,
    {
        let mut round_of = vec![NO_LAYER; self.nodes.len()];
        let mut needs = vec![0_u32; self.nodes.len()];
        let mut risen = vec![false; self.caps.len()];
        let (mut front, mut next) = (Vec::new(), Vec::new());
        for (id, node) in self.live() {
            let required = node.requires.iter();
            let required = required.filter(|cap| (rule.demands)(node, **cap)).count();
            let optional = node.optional.iter().filter(|e| (rule.awaits)(e)).count();
            needs[id.index()] = (required + optional) as u32;
            if needs[id.index()] == 0 && (rule.admits)(node) {
                front.push(id);
            }
        }
        let mut round = 0;
        while !front.is_empty() {
            for id in front.drain(..) {
                round_of[id.index()] = round;
                for cap in &self.nodes[id.index()].provides {
                    if !std::mem::replace(&mut risen[cap.index()], true) {
                        self.raise(*cap, rule, &mut needs, &mut next);
                    }
                }
            }
            std::mem::swap(&mut front, &mut next);
            round += 1;
        }
        round_of
    }

    /// A capability has risen: those that demanded it need one less.
    fn raise<A, D, W>(&self, cap: CapId, rule: &Rule<A, D, W>, needs: &mut [u32], next: &mut Vec<NodeId>)
    where
        A: Fn(&Node) -> bool,
        D: Fn(&Node, CapId) -> bool,
        W: Fn(&OptionalEdge) -> bool,
    {
        let Some(entry) = self.caps.get(cap.index()) else {
            return;
        };
        let requirers = entry.requirers.iter();
        let requirers = requirers.filter(|r| (rule.demands)(&self.nodes[r.index()], cap));
        let waiters = entry.waiters.iter().filter(|w| {
            let mut edges = self.nodes[w.index()].optional.iter();
            edges.any(|edge| edge.cap == cap && (rule.awaits)(edge))
        });
        for id in requirers.chain(waiters) {
            needs[id.index()] -= 1;
            if needs[id.index()] == 0 && (rule.admits)(&self.nodes[id.index()]) {
                next.push(*id);
            }
        }
    }
}
