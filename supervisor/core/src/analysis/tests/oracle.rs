//! Drawn graphs against petgraph, and against rules applied over and over until nothing changes.
//!
//! The oracles know nothing of capability numbers, ranks or counts: they read the declarations as
//! the rules say, at whatever cost.

use std::collections::BTreeMap;

use petgraph::algo::{dijkstra, kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use proptest::prelude::*;

use super::*;
use crate::control::CapabilityStatus;

/// Capabilities of a drawn graph. Few, so that they meet.
const CAPABILITIES: u8 = 9;

/// Numbers of capabilities provided, required and optional, and how the component is.
type Drawn = (Vec<u8>, Vec<u8>, Vec<u8>, usize);

/// Components of a drawn graph, at most.
const COMPONENTS: usize = 16;

fn caps(numbers: &[u8]) -> Vec<String> {
    let distinct: BTreeSet<_> = numbers.iter().collect();
    distinct.into_iter().map(|number| format!("cap.{number}")).collect()
}

/// Any graph: alternative providers, rings, what nobody provides, what is up and what is not.
fn any_graph() -> impl Strategy<Value = Vec<GraphNode>> {
    let some = |most| prop::collection::vec(0..CAPABILITIES, 0..most);
    let node = (some(3), some(4), some(3), 0..4_usize);
    prop::collection::vec(node, 1..COMPONENTS).prop_map(|drawn| {
        let node = |(number, (provides, requires, optional, how)): (usize, Drawn)| {
            named(number, caps(&provides), caps(&requires), caps(&optional), how)
        };
        drawn.into_iter().enumerate().map(node).collect()
    })
}

/// One provider for each capability: dependencies are edges from component to component.
fn plain_graph() -> impl Strategy<Value = Vec<GraphNode>> {
    let some = |most| prop::collection::vec(0..COMPONENTS as u8, 0..most);
    prop::collection::vec((some(3), some(2)), 1..COMPONENTS).prop_map(|drawn| {
        let node = |(number, (requires, optional)): (usize, (Vec<u8>, Vec<u8>))| {
            named(number, caps(&[number as u8]), caps(&requires), caps(&optional), 0)
        };
        drawn.into_iter().enumerate().map(node).collect()
    })
}

fn named(
    number: usize,
    provides: Vec<String>,
    requires: Vec<String>,
    optional: Vec<String>,
    how: usize,
) -> GraphNode {
    let (state, level) = [
        (State::Active, CapabilityStatus::Up),
        (State::Inactive, CapabilityStatus::Down),
        (State::Done, CapabilityStatus::Up),
        (State::Degraded, CapabilityStatus::Degraded),
    ][how];
    GraphNode {
        name: format!("c{number:02}").into(),
        state,
        level,
        held: false,
        provides,
        requires,
        optional,
    }
}

fn providers<'a>(nodes: &'a [GraphNode], cap: &'a String) -> impl Iterator<Item = usize> + 'a {
    nodes.iter().enumerate().filter(move |(_, node)| node.provides.contains(cap)).map(|(index, _)| index)
}

/// What can start: again and again, each whose requirements come from those that can.
fn naive_starters(nodes: &[GraphNode]) -> Vec<bool> {
    let mut starts = vec![false; nodes.len()];
    loop {
        let met = |cap: &String| providers(nodes, cap).any(|provider| starts[provider]);
        let more: Vec<bool> = nodes.iter().map(|node| node.requires.iter().all(met)).collect();
        if more == starts {
            return starts;
        }
        starts = more;
    }
}

/// Components and, after them, capabilities; an edge for each dependency among those that `takes`
/// part, optional or not.
fn with_capabilities(nodes: &[GraphNode], takes: &[bool]) -> (DiGraph<(), ()>, BTreeMap<String, NodeIndex>) {
    let mut graph = DiGraph::new();
    let vertices: Vec<_> = nodes.iter().map(|_| graph.add_node(())).collect();
    let mut cap_of = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate().filter(|(index, _)| takes[*index]) {
        let mut vertex = |graph: &mut DiGraph<(), ()>, cap: &String| {
            *cap_of.entry(cap.clone()).or_insert_with(|| graph.add_node(()))
        };
        for cap in node.requires.iter().chain(&node.optional) {
            let cap = vertex(&mut graph, cap);
            graph.add_edge(vertices[index], cap, ());
        }
        for cap in &node.provides {
            let cap = vertex(&mut graph, cap);
            graph.add_edge(cap, vertices[index], ());
        }
    }
    (graph, cap_of)
}

/// Layers in rounds: in each, all start whose demands were met in the rounds before. An optional
/// capability is a demand if somebody can give it who does not depend on the component itself.
fn naive_layers(nodes: &[GraphNode]) -> Vec<Option<u32>> {
    let starts = naive_starters(nodes);
    let (graph, cap_of) = with_capabilities(nodes, &starts);
    let sets = kosaraju_scc(&graph);
    let set_of = |vertex: NodeIndex| sets.iter().position(|set| set.contains(&vertex));
    let demands = |index: usize| -> Vec<&String> {
        let awaited = nodes[index].optional.iter().filter(|cap| {
            providers(nodes, cap).any(|provider| starts[provider])
                && set_of(cap_of[*cap]) != set_of(NodeIndex::new(index))
        });
        nodes[index].requires.iter().chain(awaited).collect()
    };
    let mut layers = vec![None; nodes.len()];
    for round in 0..nodes.len() as u32 {
        let before = layers.clone();
        for index in (0..nodes.len()).filter(|index| starts[*index] && before[*index].is_none()) {
            let met = |cap: &&String| providers(nodes, cap).any(|provider| before[provider].is_some());
            if demands(index).iter().all(met) {
                layers[index] = Some(round);
            }
        }
    }
    layers
}

/// What goes with a component: again and again, each that requires what was up and no longer is.
fn naive_removal(
    nodes: &[GraphNode],
    removed: usize,
) -> (BTreeSet<usize>, BTreeSet<usize>, BTreeSet<String>) {
    let up = |index: &usize| nodes[*index].level > CapabilityStatus::Down;
    let all: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.provides).collect();
    let withdrawn = |gone: &BTreeSet<usize>| -> BTreeSet<String> {
        let lost = all.iter().filter(|cap| {
            let up: Vec<_> = providers(nodes, cap).filter(up).collect();
            !up.is_empty() && up.iter().all(|provider| gone.contains(provider))
        });
        lost.map(|cap| (*cap).clone()).collect()
    };
    let losing = |lost: &BTreeSet<String>, done: bool| -> BTreeSet<usize> {
        let all = (0..nodes.len()).filter(|index| *index != removed);
        all.filter(|index| nodes[*index].requires.iter().any(|cap| lost.contains(cap)))
            .filter(|index| (nodes[*index].state == State::Done) == done)
            .collect()
    };
    let mut gone = BTreeSet::from([removed]);
    loop {
        let mut more = losing(&withdrawn(&gone), false);
        more.insert(removed);
        if more == gone {
            break;
        }
        gone = more;
    }
    let lost = withdrawn(&gone);
    let done = losing(&lost, true);
    gone.remove(&removed);
    (gone, done, lost)
}

fn name_of(nodes: &[GraphNode], index: usize) -> String {
    nodes[index].name.to_string()
}

fn sorted(members: &[Member]) -> Vec<String> {
    members.iter().map(|member| member.component.clone()).collect()
}

/// Edges from whoever depends to whoever provides; weight 1 each, for distances.
fn component_edges(nodes: &[GraphNode]) -> DiGraph<(), ()> {
    let mut graph = DiGraph::new();
    let vertices: Vec<_> = nodes.iter().map(|_| graph.add_node(())).collect();
    for (index, node) in nodes.iter().enumerate() {
        for cap in node.requires.iter().chain(&node.optional) {
            for provider in providers(nodes, cap) {
                graph.update_edge(vertices[index], vertices[provider], ());
            }
        }
    }
    graph
}

/// The steps of a way are declared, join, and say what is optional.
fn check_steps(nodes: &[GraphNode], steps: &[Step]) -> Result<(), TestCaseError> {
    let node = |name: &str| nodes.iter().find(|node| &*node.name == name).expect("a component");
    for step in steps {
        let from = node(&step.component);
        prop_assert_eq!(step.optional, !from.requires.contains(&step.capability));
        prop_assert!(from.requires.contains(&step.capability) || from.optional.contains(&step.capability));
        prop_assert!(node(&step.provider).provides.contains(&step.capability));
    }
    prop_assert!(steps.windows(2).all(|pair| pair[0].provider == pair[1].component));
    Ok(())
}

proptest! {
    /// Layers are the rounds in which everything would start if each took equally long.
    #[test]
    fn layers_are_rounds_of_starts(nodes in any_graph()) {
        let analysis = Analysis::new(&nodes);
        prop_assert_eq!(&analysis.layers, &naive_layers(&nodes));
        let never: Vec<_> = analysis.never().into_iter().map(|never| never.component).collect();
        let starts = naive_starters(&nodes);
        let stuck = (0..nodes.len()).filter(|index| !starts[*index]);
        prop_assert_eq!(never, stuck.map(|index| name_of(&nodes, index)).collect::<Vec<_>>());
    }

    /// With one provider each, a layer is the length of the longest way down, and the critical
    /// path is a way as long as the longest of all.
    #[test]
    fn layers_are_the_longest_ways(nodes in plain_graph()) {
        let starts = naive_starters(&nodes);
        let mut oracle = component_edges(&nodes);
        // What never starts is in no way, and no optional dependency closes a ring.
        oracle.retain_edges(|graph, edge| {
            let (from, to) = graph.edge_endpoints(edge).expect("an edge");
            starts[from.index()] && starts[to.index()]
        });
        let sets = kosaraju_scc(&oracle);
        oracle.retain_edges(|graph, edge| {
            let (from, to) = graph.edge_endpoints(edge).expect("an edge");
            let required = nodes[from.index()].requires.contains(&nodes[to.index()].provides[0]);
            required || !sets.iter().any(|set| set.contains(&from) && set.contains(&to))
        });
        let mut longest = vec![0_u32; nodes.len()];
        for vertex in toposort(&oracle, None).expect("no ring").into_iter().rev() {
            let below = oracle.edges(vertex).map(|edge| longest[edge.target().index()] + 1);
            longest[vertex.index()] = below.max().unwrap_or(0);
        }
        let analysis = Analysis::new(&nodes);
        for (index, length) in longest.iter().enumerate() {
            prop_assert_eq!(analysis.layers[index], starts[index].then_some(*length));
        }
        let critical = analysis.metrics().critical_path;
        let most = (0..nodes.len()).filter(|index| starts[*index]).map(|index| longest[index] as usize + 1);
        prop_assert_eq!(critical.len(), most.max().unwrap_or(0));
        let index_of = |name: &String| nodes.iter().position(|node| *node.name == **name).expect("a component");
        for pair in critical.windows(2) {
            let (lower, upper) = (NodeIndex::new(index_of(&pair[0])), NodeIndex::new(index_of(&pair[1])));
            prop_assert!(oracle.contains_edge(upper, lower), "{} waits for {}", pair[1], pair[0]);
        }
    }

    /// Direct dependents are those that name the capability.
    #[test]
    fn dependents_are_those_that_name_it(nodes in any_graph(), number in 0..CAPABILITIES) {
        let cap = format!("cap.{number}");
        let named = nodes.iter().any(|node| {
            node.provides.contains(&cap) || node.requires.contains(&cap) || node.optional.contains(&cap)
        });
        let found = Analysis::new(&nodes).dependents(&cap);
        prop_assert_eq!(found.is_ok(), named);
        let expected = nodes.iter().filter_map(|node| {
            let required = node.requires.contains(&cap);
            let depends = required || node.optional.contains(&cap);
            depends.then(|| (node.name.to_string(), node.state, !required))
        });
        let found = found.unwrap_or_default().into_iter().map(|d| (d.component, d.state, d.optional));
        prop_assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    /// A way is there exactly if petgraph finds one, and none is shorter.
    #[test]
    fn paths_are_as_short_as_any(nodes in any_graph(), ends in any::<[prop::sample::Index; 2]>()) {
        let [from, to] = ends.map(|end| end.index(nodes.len()));
        let oracle = component_edges(&nodes);
        // At least one step: from what `from` depends on.
        let first = oracle.neighbors(NodeIndex::new(from));
        let rest = first.filter_map(|next| dijkstra(&oracle, next, Some(NodeIndex::new(to)), |_| 1_usize)
            .get(&NodeIndex::new(to)).copied());
        let shortest = rest.min().map(|rest| rest + 1);
        let (from, to) = (name_of(&nodes, from), name_of(&nodes, to));
        let path = Analysis::new(&nodes).path(&from, &to).expect("both are known");
        prop_assert_eq!(path.as_ref().map(Vec::len), shortest);
        if let Some(steps) = path {
            check_steps(&nodes, &steps)?;
            prop_assert_eq!((&steps[0].component, &steps[steps.len() - 1].provider), (&from, &to));
        }
    }

    /// What a removal takes along is what the rules take when they are applied until nothing
    /// changes.
    #[test]
    fn a_removal_takes_what_the_rules_take(nodes in any_graph(), index in any::<prop::sample::Index>()) {
        let removed = index.index(nodes.len());
        let found = Analysis::new(&nodes).removal(&name_of(&nodes, removed)).expect("it is known");
        let (gone, done, lost) = naive_removal(&nodes, removed);
        let mut all: Vec<_> = sorted(&found.direct);
        all.extend(sorted(&found.transitive));
        all.sort_unstable();
        prop_assert_eq!(all, gone.iter().map(|index| name_of(&nodes, *index)).collect::<Vec<_>>());
        prop_assert_eq!(sorted(&found.done), done.iter().map(|i| name_of(&nodes, *i)).collect::<Vec<_>>());
        let withdrawn: BTreeSet<_> = found.withdrawn.iter().map(|w| w.capability.clone()).collect();
        prop_assert_eq!(&withdrawn, &lost);
        let up = |index: &usize| nodes[*index].level > CapabilityStatus::Down;
        // Direct is what requires something that only the removed component gives.
        for member in &found.direct {
            let node = nodes.iter().find(|node| *node.name == *member.component).expect("a component");
            let only = |cap: &String| providers(&nodes, cap).filter(up).eq([removed]);
            prop_assert!(node.requires.iter().any(only), "{} directly", member.component);
        }
        for kept in &found.kept {
            let left = providers(&nodes, &kept.capability).filter(up);
            let left = left.filter(|index| !gone.contains(index) && *index != removed);
            prop_assert_eq!(&kept.providers, &left.map(|i| name_of(&nodes, i)).collect::<Vec<_>>());
            prop_assert!(!kept.providers.is_empty() && !lost.contains(&kept.capability));
        }
    }

    /// Cycles are petgraph's strongly connected sets among what never starts, over what keeps it
    /// from starting; each comes with a shortest loop.
    #[test]
    fn cycles_are_rings_of_what_never_starts(nodes in any_graph()) {
        let starts = naive_starters(&nodes);
        let blocks = |cap: &String| {
            let mut providers = providers(&nodes, cap).peekable();
            providers.peek().is_some() && providers.all(|provider| !starts[provider])
        };
        let mut oracle = DiGraph::<(), ()>::new();
        let vertices: Vec<_> = nodes.iter().map(|_| oracle.add_node(())).collect();
        for (index, node) in nodes.iter().enumerate().filter(|(index, _)| !starts[*index]) {
            for cap in node.requires.iter().filter(|cap| blocks(cap)) {
                for provider in providers(&nodes, cap) {
                    oracle.update_edge(vertices[index], vertices[provider], ());
                }
            }
        }
        let ring = |set: &Vec<NodeIndex>| set.len() > 1 || oracle.contains_edge(set[0], set[0]);
        let expected: BTreeSet<Vec<String>> = kosaraju_scc(&oracle)
            .into_iter()
            .filter(ring)
            .map(|set| {
                let names: BTreeSet<_> = set.into_iter().map(|v| name_of(&nodes, v.index())).collect();
                names.into_iter().collect()
            })
            .collect();
        let cycles = Analysis::new(&nodes).cycles();
        let found: BTreeSet<Vec<String>> = cycles.iter().map(|cycle| cycle.components.clone()).collect();
        prop_assert_eq!(found, expected);
        for cycle in &cycles {
            check_steps(&nodes, &cycle.route)?;
            let first = nodes.iter().position(|node| *node.name == *cycle.components[0]).expect("a component");
            let vertex = vertices[first];
            let around = oracle.neighbors(vertex).filter_map(|next| {
                dijkstra(&oracle, next, Some(vertex), |_| 1_usize).get(&vertex).copied()
            });
            prop_assert_eq!(Some(cycle.route.len()), around.min().map(|rest| rest + 1));
        }
    }
}
