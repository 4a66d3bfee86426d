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

/// Tarjan's algorithm over vertices `0..count`; `successor(v, n)` is the n-th of `v`.
pub(crate) fn number_components(count: usize, successor: impl Fn(usize, usize) -> Option<usize>) -> Vec<u32> {
    let mut order = vec![UNSEEN; count];
    let mut low = vec![0_u32; count];
    let mut component = vec![UNSEEN; count];
    let mut open: Vec<usize> = Vec::new();
    let mut calls: Vec<(usize, usize)> = Vec::new();
    let mut visited = 0;
    let mut components = 0;
    for root in 0..count {
        if order[root] != UNSEEN {
            continue;
        }
        calls.push((root, 0));
        while let Some((vertex, nth)) = calls.pop() {
            if nth == 0 {
                order[vertex] = visited;
                low[vertex] = visited;
                visited += 1;
                open.push(vertex);
            }
            if let Some(next) = successor(vertex, nth) {
                calls.push((vertex, nth + 1));
                if order[next] == UNSEEN {
                    calls.push((next, 0));
                } else if component[next] == UNSEEN {
                    low[vertex] = low[vertex].min(order[next]);
                }
                continue;
            }
            if low[vertex] == order[vertex] {
                while let Some(member) = open.pop() {
                    component[member] = components;
                    if member == vertex {
                        break;
                    }
                }
                components += 1;
            }
            if let Some((parent, _)) = calls.last() {
                low[*parent] = low[*parent].min(low[vertex]);
            }
        }
    }
    component
}
