//! Forms of output: DOT and JSON.

use std::collections::BTreeMap;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::dot::{self, Digraph};
use super::{COMPONENTS, REACTION, json_with, service};

/// Capabilities in the suite's graph.
const CAPABILITIES: usize = 17;
/// Edges from providers, to those that require, and to those that find it optional.
const EDGES: (usize, usize, usize) = (17, 14, 2);
/// A legal name that would break out of a string, were it not escaped.
const ODD: &str = r#"odd"];\->{name}"#;

/// Commands whose JSON is read, each with a key that it must have.
const JSON: [(&[&str], &str); 12] = [
    (&["status"], "components"),
    (&["caps"], "capabilities"),
    (&["pending"], "pending"),
    (&["tree", "test-web"], "tree"),
    (&["rdeps", "system.log"], "dependents"),
    (&["simulate", "remove", "network"], "withdrawn"),
    (&["dot"], "dot"),
    (&["order"], "order"),
    (&["layers"], "layers"),
    (&["path", "test-web", "network"], "path"),
    (&["scc"], "sets"),
    (&["analyze"], "critical_path"),
];

pub async fn output_formats(vm: &Vm) -> Result<(), Failure> {
    let graph = picture(vm).await?;
    vm.step("the picture shows the graph", async { whole(&graph) }).await?;
    vm.step("colours are states", colours(vm)).await?;
    vm.step("no name breaks the picture", odd_name(vm)).await?;
    for (arguments, key) in JSON {
        let value = json_with(vm, 0, arguments).await?;
        check!(value.get(key).is_some(), "`graphctl {} --json` has no {key}: {value}", arguments.join(" "));
    }
    Ok(())
}

async fn picture(vm: &Vm) -> Result<Digraph, Failure> {
    let text = vm.graphctl(&["dot"]).await?;
    check!(!text.contains('\u{1b}'), "there are terminal colours in the picture");
    dot::read(&text)
        .map_err(|error| Failure::supervisor(format!("`graphctl dot` is no DOT: {error}\n{text}")))
}

fn whole(graph: &Digraph) -> Result<(), Failure> {
    let shaped = |shape: &str| {
        graph.nodes.values().filter(|node| node.get("shape").is_some_and(|s| s == shape)).count()
    };
    let shapes = (shaped("box"), shaped("ellipse"));
    check!(shapes == (COMPONENTS, CAPABILITIES), "there are {shapes:?} boxes and ellipses");
    let mut kinds = BTreeMap::new();
    for (from, to, attributes) in &graph.edges {
        let shape = |id: &String| graph.nodes[id].get("shape").map_or("", String::as_str);
        let dashed = attributes.get("style").is_some_and(|style| style == "dashed");
        *kinds.entry((shape(from), shape(to), dashed)).or_insert(0) += 1;
    }
    let expected = [
        (("box", "ellipse", false), EDGES.0),
        (("ellipse", "box", false), EDGES.1),
        (("ellipse", "box", true), EDGES.2),
    ];
    check!(kinds == BTreeMap::from(expected), "the edges are {kinds:?}");
    for (from, to) in
        [("logger-b", "system.log"), ("network.configured", "test-web"), ("test.metrics", "test-cache")]
    {
        let labelled = |id: &String, label: &str| graph.nodes[id].get("label").is_some_and(|l| l == label);
        let there = graph.edges.iter().any(|edge| labelled(&edge.0, from) && labelled(&edge.1, to));
        check!(there, "there is no edge from {from} to {to}");
    }
    Ok(())
}

fn colour(graph: &Digraph, label: &str, attribute: &str) -> Option<String> {
    let mut nodes = graph.nodes.values();
    let node = nodes.find(|node| node.get("label").is_some_and(|l| l == label))?;
    node.get(attribute).cloned()
}

async fn colours(vm: &Vm) -> Result<(), Failure> {
    vm.graphctl_within(&["stop", "test-cache"], REACTION).await?;
    vm.wait_state("test-web", "INACTIVE", None, REACTION).await?;
    vm.wait_settled(REACTION).await?;
    let graph = picture(vm).await?;
    let expected = [
        ("test-database", "fillcolor", "palegreen"),
        ("storage", "fillcolor", "palegreen"),
        ("test-cache", "fillcolor", "lightgrey"),
        ("test-web", "fillcolor", "lightgrey"),
        ("test.cache", "color", "firebrick"),
        ("system.log", "color", "forestgreen"),
    ];
    for (label, attribute, right) in expected {
        let seen = colour(&graph, label, attribute);
        check!(seen.as_deref() == Some(right), "{label} is {seen:?}, not {right}");
    }
    vm.graphctl_within(&["start", "test-cache"], REACTION).await.map(drop)
}

async fn odd_name(vm: &Vm) -> Result<(), Failure> {
    vm.declare("odd.toml", &service("odd", &[ODD], &[])).await?;
    vm.wait_state("odd", "ACTIVE", None, REACTION).await?;
    let graph = picture(vm).await?;
    check!(colour(&graph, ODD, "shape").as_deref() == Some("ellipse"), "there is no capability {ODD:?}");
    check!(graph.nodes.len() == COMPONENTS + CAPABILITIES + 2, "there are {} nodes", graph.nodes.len());
    Ok(())
}
