//! The graph against petgraph, and the incremental counts against a derivation from nothing.

use std::collections::BTreeSet;

use petgraph::graph::DiGraph;
use proptest::prelude::*;

use super::*;

/// A declaration: numbers of capabilities provided, required and optional.
type Declared = (Vec<u8>, Vec<u8>, Vec<u8>);

fn names(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| format!("cap.{number}")).collect()
}

fn build(declared: &[Declared]) -> (Graph, Vec<NodeId>) {
    let mut graph = Graph::default();
    let insert = |(provides, requires, optional): &Declared| {
        graph.insert(&names(provides), &names(requires), &names(optional))
    };
    let ids = declared.iter().map(insert).collect();
    graph.settle();
    (graph, ids)
}

fn declarations(caps: u8) -> impl Strategy<Value = Vec<Declared>> {
    let some = move |most| prop::collection::vec(0..caps, 0..most);
    prop::collection::vec((some(3), some(4), some(3)), 1..20)
}

/// What the graph says about each node, for comparison.
fn facts(graph: &Graph, ids: &[NodeId]) -> Vec<(bool, bool, bool, bool, u32)> {
    let fact = |id: &NodeId| {
        (
            graph.requirements_up(*id),
            graph.may_start(*id),
            graph.has_hope(*id),
            graph.in_cycle(*id),
            graph.layer(*id),
        )
    };
    ids.iter().map(fact).collect()
}

proptest! {
    /// Whatever goes up and down, the counts are those of a graph made anew in that state.
    /// (Hope is left out: among alternative providers that need each other, losing it step by
    /// step may keep a ring alive that a fresh look would not begin.)
    #[test]
    fn incremental_is_as_good_as_new(
        declared in declarations(12),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 0..40),
    ) {
        let (mut graph, ids) = build(&declared);
        for (index, level) in flips {
            let level = [Level::Down, Level::Degraded, Level::Up][usize::from(level)];
            graph.set_level(*index.get(&ids), level);
        }
        let (mut anew, same) = build(&declared);
        for (id, own) in ids.iter().zip(&same) {
            let node = &mut anew.nodes[own.index()];
            node.level = graph.level(*id);
        }
        anew.settle();
        let (left, right) = (facts(&graph, &ids), facts(&anew, &same));
        for (left, right) in left.into_iter().zip(right) {
            prop_assert_eq!(left.0, right.0, "requirements");
            prop_assert_eq!(left.3, right.3, "cycle");
            prop_assert_eq!(left.4, right.4, "layer");
        }
    }

    /// From nothing, those have hope that are up, or may rise and require nothing of which no provider has hope.
    #[test]
    fn hope_is_what_can_be_reached(
        declared in declarations(6),
        held in prop::collection::vec(any::<bool>(), 20),
        up in prop::collection::vec(any::<bool>(), 20),
        mostly_free in any::<bool>(),
    ) {
        let (mut graph, ids) = build(&declared);
        for ((id, held), up) in ids.iter().zip(held).zip(up) {
            let node = &mut graph.nodes[id.index()];
            node.may_rise = mostly_free || !held;
            node.level = if up && held { Level::Up } else { Level::Down };
        }
        graph.settle();
        let mut hopeful: BTreeSet<NodeId> = BTreeSet::new();
        loop {
            let reached = |cap: &CapId| graph.providers(*cap).iter().any(|p| hopeful.contains(p));
            let has_hope = |id: &&NodeId| {
                let node = &graph.nodes[id.index()];
                let may = node.may_rise && !node.in_cycle && graph.required(**id).iter().all(reached);
                node.level > Level::Down || may
            };
            let found: BTreeSet<NodeId> = ids.iter().filter(has_hope).copied().collect();
            if found == hopeful {
                break;
            }
            hopeful = found;
        }
        for id in &ids {
            prop_assert_eq!(graph.has_hope(*id), hopeful.contains(id), "{:?}", id);
        }
    }

    /// With one provider for each capability, cycles are petgraph's strongly connected
    /// components, and in a cycle is what reaches one.
    #[test]
    fn cycles_are_those_of_petgraph(
        requires in prop::collection::vec(prop::collection::vec(0..16_u8, 0..3), 1..16),
    ) {
        let declared: Vec<Declared> = requires
            .iter()
            .enumerate()
            .map(|(number, requires)| (vec![number as u8], requires.clone(), Vec::new()))
            .collect();
        let (graph, ids) = build(&declared);
        let mut oracle = DiGraph::<(), ()>::new();
        let vertices: Vec<_> = ids.iter().map(|_| oracle.add_node(())).collect();
        for (number, requires) in requires.iter().enumerate() {
            for cap in requires.iter().filter(|cap| usize::from(**cap) < vertices.len()) {
                oracle.add_edge(vertices[number], vertices[usize::from(*cap)], ());
            }
        }
        let cyclic = |set: &Vec<petgraph::graph::NodeIndex>| {
            set.len() > 1 || oracle.contains_edge(set[0], set[0])
        };
        let expected: BTreeSet<BTreeSet<usize>> = petgraph::algo::kosaraju_scc(&oracle)
            .into_iter()
            .filter(cyclic)
            .map(|set| set.into_iter().map(petgraph::graph::NodeIndex::index).collect())
            .collect();
        let found: BTreeSet<BTreeSet<usize>> = graph
            .cycles()
            .into_iter()
            .map(|set| set.into_iter().map(NodeId::index).collect())
            .collect();
        prop_assert_eq!(&found, &expected);
        for (id, vertex) in ids.iter().zip(&vertices) {
            let mut reached = petgraph::visit::Dfs::new(&oracle, *vertex);
            let mut stuck = false;
            while let Some(next) = reached.next(&oracle) {
                stuck |= expected.iter().any(|set| set.contains(&next.index()));
            }
            prop_assert_eq!(graph.in_cycle(*id), stuck);
        }
    }

    /// What is above another in the layers may need it; what needs it is above it.
    #[test]
    fn layers_are_an_order(declared in declarations(40)) {
        let (graph, ids) = build(&declared);
        for id in &ids {
            for cap in graph.required(*id) {
                let providers = graph.providers(*cap);
                let rises = |p: &&NodeId| !graph.in_cycle(**p);
                let lowest = providers.iter().filter(rises).map(|p| graph.layer(*p)).min();
                if let Some(lowest) = lowest
                    && !graph.in_cycle(*id)
                {
                    prop_assert!(graph.layer(*id) > lowest);
                }
            }
        }
    }

    /// Starting whatever may start until nothing may reaches everything that is not in a cycle,
    /// when every capability has a provider: no optional capability blocks for ever.
    #[test]
    fn nothing_waits_for_ever(mut declared in declarations(12)) {
        declared.push(((0..12).collect(), Vec::new(), Vec::new()));
        let (mut graph, ids) = build(&declared);
        loop {
            let idle = |id: &&NodeId| graph.level(**id) == Level::Down && graph.may_start(**id);
            let Some(next) = ids.iter().find(idle).copied() else { break };
            graph.set_level(next, Level::Up);
        }
        for id in ids {
            prop_assert!(graph.level(id) == Level::Up);
        }
    }
}

#[test]
fn a_chain_of_a_hundred_thousand_needs_no_stack() {
    let mut graph = Graph::default();
    let mut last = None;
    for number in 0..100_000 {
        let requires = if number == 0 { Vec::new() } else { vec![format!("cap.{}", number - 1)] };
        last = Some(graph.insert(&[format!("cap.{number}")], &requires, &[]));
    }
    graph.settle();
    let last = last.expect("a node");
    assert_eq!(graph.layer(last), 99_999);
    assert!(graph.has_hope(last));
    assert_eq!(graph.cycles().len(), 0);
}

#[test]
fn an_unused_capability_is_forgotten() {
    let mut graph = Graph::default();
    let id = graph.insert(&["a".to_owned()], &[], &[]);
    graph.settle();
    graph.remove(id);
    graph.settle();
    assert_eq!(graph.caps().count(), 0);
    graph.insert(&["b".to_owned()], &[], &[]);
    graph.settle();
    assert_eq!(graph.caps.len(), 1, "the place is used again");
}

#[test]
fn the_same_edits_give_the_same_ids() {
    let names = |from: usize| (from..from + 40).map(|n| format!("cap.{n}")).collect::<Vec<_>>();
    let order = || {
        let mut graph = Graph::default();
        let first = graph.insert(&names(0), &[], &[]);
        graph.settle();
        graph.remove(first);
        graph.settle();
        let second = graph.insert(&names(100), &[], &[]);
        graph.settle();
        graph.provided(second).iter().map(|cap| graph.cap_name(*cap).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(order(), order());
}

/// Within one batch of edits, the lists still have the edges of what was edited.
#[test]
fn what_was_edited_takes_no_part_before_it_is_settled() {
    let name = |name: &str| vec![name.to_owned()];
    let mut graph = Graph::default();
    let ring = graph.insert(&name("a"), &[], &name("b"));
    let other = graph.insert(&name("b"), &name("a"), &[]);
    graph.settle();
    graph.replace(ring, &[], &[], &[]);
    graph.remove(ring);
    graph.set_may_rise(other, false);
    let anew = graph.insert(&name("b"), &[], &[]);
    graph.set_level(other, Level::Up);
    graph.set_level(other, Level::Down);
    graph.settle();
    assert!(graph.may_start(anew) && !graph.has_hope(other));
}
