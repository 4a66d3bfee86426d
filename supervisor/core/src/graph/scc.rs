//! Strongly connected sets by Tarjan's algorithm with a stack of its own: a chain of 100,000
//! components must not overflow the thread's.
//!
//! Capabilities are vertices too (component → capability → provider), so the work is linear in
//! the declarations even where many components provide what many require.

use super::{Graph, NodeId};

/// Not yet visited.
const UNSEEN: u32 = u32::MAX;

impl Graph {
    /// The number of the strongly connected set of each vertex: nodes first, then capabilities.
    pub(super) fn component_numbers(&self, with_optional: bool) -> Vec<u32> {
        let nodes = self.nodes.len();
        let successor = |vertex: usize, nth: usize| -> Option<usize> {
            if vertex >= nodes {
                let providers = &self.caps[vertex - nodes].providers;
                return providers.get(nth).map(|p| p.index());
            }
            let node = &self.nodes[vertex];
            let optional = |nth: usize| node.optional.get(nth).map(|edge| edge.cap);
            let cap = node
                .requires
                .get(nth)
                .copied()
                .or_else(|| with_optional.then(|| optional(nth - node.requires.len())).flatten());
            cap.map(|cap| nodes + cap.index())
        };
        number_components(nodes + self.caps.len(), successor)
    }

    /// Strongly connected sets over required capabilities, as lists of nodes, each sorted.
    pub(crate) fn required_components(&self) -> Vec<Vec<NodeId>> {
        let numbers = self.component_numbers(false);
        let mut sets: Vec<Vec<NodeId>> = Vec::new();
        let mut place_of = vec![UNSEEN; numbers.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            if !node.live {
                continue;
            }
            let place = &mut place_of[numbers[index] as usize];
            if *place == UNSEEN {
                *place = sets.len() as u32;
                sets.push(Vec::new());
            }
            sets[*place as usize].push(NodeId(index as u32));
        }
        sets
    }
}

/// What is known of a vertex.
#[derive(Clone, Copy)]
struct Visit {
    /// When it was reached.
    order: u32,
    /// The earliest that is reached from it and still open.
    low: u32,
    /// Its set, once that is complete.
    component: u32,
}

/// Tarjan's algorithm over vertices `0..count`; `successor(v, n)` is the n-th of `v`.
pub(crate) fn number_components(count: usize, successor: impl Fn(usize, usize) -> Option<usize>) -> Vec<u32> {
    let mut visits = vec![Visit { order: UNSEEN, low: 0, component: UNSEEN }; count];
    let mut open: Vec<u32> = Vec::new();
    // Vertices on the way down, and which successor is next.
    let mut calls: Vec<(u32, u32)> = Vec::new();
    let mut reached = 0;
    let mut components = 0;
    for root in 0..count {
        if visits[root].order == UNSEEN {
            calls.push((root as u32, 0));
        }
        while let Some((vertex, nth)) = calls.last_mut() {
            let (at, number) = (*vertex as usize, *nth as usize);
            if number == 0 {
                visits[at] = Visit { order: reached, low: reached, component: UNSEEN };
                reached += 1;
                open.push(*vertex);
            }
            if let Some(next) = successor(at, number) {
                *nth += 1;
                let seen = visits[next];
                if seen.order == UNSEEN {
                    calls.push((next as u32, 0));
                } else if seen.component == UNSEEN {
                    visits[at].low = visits[at].low.min(seen.order);
                }
                continue;
            }
            calls.pop();
            let low = visits[at].low;
            if low == visits[at].order {
                while let Some(member) = open.pop() {
                    visits[member as usize].component = components;
                    if member as usize == at {
                        break;
                    }
                }
                components += 1;
            }
            if let Some((parent, _)) = calls.last() {
                let parent = &mut visits[*parent as usize];
                parent.low = parent.low.min(low);
            }
        }
    }
    visits.into_iter().map(|visit| visit.component).collect()
}
