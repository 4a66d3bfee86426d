//! Small graphs with known answers, and long ones that must not overflow the stack.

mod oracle;

use super::*;
use crate::control::CapabilityStatus;

/// Components of the longest chain: the number that the design promises.
const CHAIN: usize = 100_000;

/// `name: provides < requires ? optional`, lists separated by commas; up unless `!` comes first.
fn graph(lines: &[&str]) -> Vec<GraphNode> {
    lines.iter().map(|line| node(line)).collect()
}

fn node(line: &str) -> GraphNode {
    let list = |text: &str| {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    };
    let (name, rest) = line.split_once(':').unwrap();
    let (rest, optional) = rest.split_once('?').unwrap_or((rest, ""));
    let (provides, requires) = rest.split_once('<').unwrap_or((rest, ""));
    let (name, state, level) = match (name.strip_prefix('!'), name.strip_prefix('=')) {
        (Some(name), _) => (name, State::Inactive, CapabilityStatus::Down),
        (_, Some(name)) => (name, State::Done, CapabilityStatus::Up),
        _ => (name, State::Active, CapabilityStatus::Up),
    };
    GraphNode {
        name: name.into(),
        state,
        level,
        held: false,
        provides: list(provides),
        requires: list(requires),
        optional: list(optional),
    }
}

fn names(members: &[Member]) -> Vec<&str> {
    members.iter().map(|member| member.component.as_str()).collect()
}

#[test]
fn dependents_are_sorted_and_optional_ones_marked() {
    let nodes = graph(&["a: x", "c: < x", "b: ? x", "d: y"]);
    let analysis = Analysis::new(&nodes);
    let dependents = analysis.dependents("x").unwrap();
    let seen: Vec<_> = dependents.iter().map(|d| (d.component.as_str(), d.optional)).collect();
    assert_eq!(seen, [("b", true), ("c", false)]);
    assert_eq!(analysis.dependents("y").unwrap(), []);
}

#[test]
fn unknown_names_come_with_a_near_one() {
    let nodes = graph(&["network: net.up", "web: < net.up"]);
    let analysis = Analysis::new(&nodes);
    let unknown = analysis.dependents("net.pu").unwrap_err();
    assert_eq!(unknown.to_string(), "no capability is named \"net.pu\"");
    assert_eq!(unknown.near(), Some("net.up"));
    let unknown = analysis.removal("netwrok").unwrap_err();
    assert_eq!(unknown.to_string(), "no component is named \"netwrok\"");
    assert_eq!(unknown.near(), Some("network"));
    assert_eq!(analysis.path("web", "nothing-like-it").unwrap_err().near(), None);
}

#[test]
fn an_alternative_provider_keeps_a_capability_only_while_it_is_up() {
    let removal = |second: &str| {
        let nodes = graph(&["a: x, own", second, "user: u < x", "far: < u", "near: < own"]);
        Analysis::new(&nodes).removal("a").unwrap()
    };
    let kept = removal("b: x");
    assert_eq!(kept.kept, [Kept { capability: "x".into(), providers: vec!["b".into()] }]);
    assert_eq!(names(&kept.direct), ["near"]);
    assert_eq!(names(&kept.transitive), Vec::<&str>::new());
    let lost = removal("!b: x");
    assert_eq!(lost.kept, []);
    assert_eq!(names(&lost.direct), ["near", "user"]);
    assert_eq!(names(&lost.transitive), ["far"]);
    let withdrawn: Vec<_> = lost.withdrawn.iter().map(|w| w.capability.as_str()).collect();
    assert_eq!(withdrawn, ["x", "own", "u"]);
}

#[test]
fn both_of_two_providers_may_go_with_what_both_need() {
    let nodes = graph(&["base: b", "one: x < b", "two: x < b", "user: < x"]);
    let removal = Analysis::new(&nodes).removal("base").unwrap();
    assert_eq!(names(&removal.direct), ["one", "two"]);
    assert_eq!(names(&removal.transitive), ["user"]);
    assert_eq!(removal.kept, []);
}

#[test]
fn what_is_done_stays_done_and_what_is_optional_is_not_missed() {
    let nodes = graph(&["base: b", "=once: o < b", "after: < o", "free: ? b"]);
    let removal = Analysis::new(&nodes).removal("base").unwrap();
    assert_eq!((names(&removal.direct), names(&removal.transitive)), (vec![], vec![]));
    assert_eq!(names(&removal.done), ["once"]);
}

#[test]
fn a_cycle_names_those_on_it_and_blocks_those_that_need_it() {
    let nodes = graph(&["!a: a < b", "!b: b < a", "!c: c < a", "!m: < gone", "!n: < c", "ok: z"]);
    let analysis = Analysis::new(&nodes);
    let cycles = analysis.cycles();
    assert_eq!(cycles.len(), 1);
    assert_eq!(cycles[0].components, ["a", "b"]);
    let steps: Vec<_> =
        cycles[0].route.iter().map(|s| (&*s.component, &*s.capability, &*s.provider)).collect();
    assert_eq!(steps, [("a", "b", "b"), ("b", "a", "a")]);
    let never: Vec<_> = analysis.never().iter().map(|n| format!("{}: {}", n.component, n.reason)).collect();
    assert_eq!(
        never,
        [
            "a: on a dependency cycle",
            "b: on a dependency cycle",
            "c: requires a, whose providers can never start",
            "m: requires gone, which nobody provides",
            "n: requires c, whose providers can never start",
        ]
    );
    assert_eq!(names(&analysis.behind_cycles()), ["c", "n"]);
    let codes: Vec<_> = analysis.findings().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["cycle", "blocked", "unprovided", "blocked"]);
}

#[test]
fn a_ring_with_another_provider_is_no_cycle() {
    let nodes = graph(&["a: a < b", "b: b < a", "c: a"]);
    let analysis = Analysis::new(&nodes);
    assert_eq!(analysis.cycles(), []);
    assert_eq!(analysis.strongly_connected(), [["a", "b"]]);
    assert_eq!(analysis.layers(), [vec!["c"], vec!["b"], vec!["a"]]);
    assert_eq!(names(&analysis.order()), ["c", "b", "a"]);
}

#[test]
fn a_component_that_requires_itself_is_a_cycle_of_one() {
    let nodes = graph(&["!a: x < x", "b: y"]);
    let findings = Analysis::new(&nodes).findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].code, "self-dependency");
    assert_eq!(findings[0].message, "a requires x, which only it provides");
}

#[test]
fn notes_do_not_hide_errors() {
    let nodes = graph(&["a: x ? y, gone", "b: y < x", "!m: < nothing"]);
    let findings = Analysis::new(&nodes).findings();
    let seen: Vec<_> = findings.iter().map(|f| (f.severity, f.code)).collect();
    let expected = [
        (Severity::Error, "unprovided"),
        (Severity::Note, "optional-ignored"),
        (Severity::Note, "optional-unprovided"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn paths_are_shortest_and_say_what_is_optional() {
    let nodes = graph(&["a: a", "b: b < a", "c: c < b ? a", "d: < c"]);
    let analysis = Analysis::new(&nodes);
    let path = analysis.path("d", "a").unwrap().unwrap();
    let steps: Vec<_> = path.iter().map(|s| (&*s.component, &*s.provider, s.optional)).collect();
    assert_eq!(steps, [("d", "c", false), ("c", "a", true)]);
    assert_eq!(analysis.path("a", "d").unwrap(), None);
    assert_eq!(analysis.path("a", "a").unwrap(), None);
}

#[test]
fn metrics_count_and_the_critical_path_is_the_longest() {
    let nodes = graph(&["a: a", "b: b < a", "c: c < a, b", "d: < c ? gone", "e: < a"]);
    let metrics = Analysis::new(&nodes).metrics();
    assert_eq!((metrics.components, metrics.capabilities), (5, 4));
    assert_eq!((metrics.dependencies, metrics.optional_dependencies), (5, 1));
    assert!((metrics.average_dependencies - 1.0).abs() < f64::EPSILON);
    assert_eq!(metrics.critical_path, ["a", "b", "c", "d"]);
    assert_eq!((metrics.maximum_depth, metrics.strongly_connected_components), (3, 5));
    assert_eq!((metrics.cycles, metrics.never), (0, 0));
}

#[test]
fn what_is_not_waited_for_is_no_part_of_the_critical_path() {
    // c's optional b depends on c itself over d's optional e: c is where it is for z.
    let nodes = graph(&["z: z", "y: y < z", "c: c < y ? b", "b: b < d", "d: d ? e", "e: e < c"]);
    let analysis = Analysis::new(&nodes);
    assert_eq!(analysis.layers(), [vec!["d", "z"], vec!["b", "y"], vec!["c"], vec!["e"]]);
    assert_eq!(analysis.metrics().critical_path, ["z", "y", "c", "e"]);
}

#[test]
fn names_cannot_break_out_of_dot() {
    let nodes = graph(&["a\"];x\\: c\"d"]);
    let dot = Analysis::new(&nodes).dot();
    assert!(dot.contains(r#""component a\"];x\\" [label="a\"];x\\", shape=box"#), "{dot}");
    assert!(dot.contains(r#""component a\"];x\\" -> "capability c\"d";"#), "{dot}");
}

#[test]
fn a_chain_of_100_000_is_an_ordinary_input() {
    let line = |i: usize| match i {
        0 => "c0: p0".to_owned(),
        _ => format!("c{i}: p{i} < p{}", i - 1),
    };
    let nodes: Vec<_> = (0..CHAIN).map(|i| node(&line(i))).collect();
    let analysis = Analysis::new(&nodes);
    assert_eq!(analysis.layers().len(), CHAIN);
    assert_eq!(analysis.metrics().critical_path.len(), CHAIN);
    let last = format!("c{}", CHAIN - 1);
    assert_eq!(analysis.path(&last, "c0").unwrap().unwrap().len(), CHAIN - 1);
    let removal = analysis.removal("c0").unwrap();
    assert_eq!((removal.direct.len(), removal.transitive.len()), (1, CHAIN - 2));
    assert_eq!(analysis.findings(), []);
}

#[test]
fn a_ring_of_100_000_is_one_cycle() {
    let line = |i: usize| format!("!c{i}: p{i} < p{}", (i + 1) % CHAIN);
    let nodes: Vec<_> = (0..CHAIN).map(|i| node(&line(i))).collect();
    let cycles = Analysis::new(&nodes).cycles();
    assert_eq!(cycles.len(), 1);
    assert_eq!((cycles[0].components.len(), cycles[0].route.len()), (CHAIN, CHAIN));
}

#[test]
fn a_stuck_chain_of_100_000_below_a_cycle_is_found_in_one_pass() {
    let line = |i: usize| format!("!c{i}: p{i} < p{}", i.saturating_sub(1));
    let nodes: Vec<_> = (0..CHAIN).map(|i| node(&line(i))).collect();
    let analysis = Analysis::new(&nodes);
    assert_eq!(analysis.never().len(), CHAIN);
    assert_eq!(analysis.cycles()[0].components, ["c0"]);
    assert_eq!(analysis.behind_cycles().len(), CHAIN - 1);
}
