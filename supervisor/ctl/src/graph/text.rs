//! Answers about the graph, for people.

use std::fmt::Write as _;

use yakiros_core::analysis::{
    Cycle, Dependent, Finding, Member, Metrics, Never, Part, Removal, Severity, Step,
};
use yakiros_core::control::RejectedFile;

use crate::tables::{Cell, draw};

/// `rdeps`.
pub fn dependents(capability: &str, dependents: &[Dependent]) -> String {
    let mut text = format!("Components that depend on {capability}:\n");
    for dependent in dependents {
        let optional = if dependent.optional { ", optional" } else { "" };
        let _ = writeln!(text, "  → {} ({}){optional}", dependent.component, dependent.state);
    }
    let _ = writeln!(text, "Total: {}", count(dependents.len(), "component"));
    text
}

/// `simulate remove`.
pub fn removal(removal: &Removal) -> String {
    let mut text = format!("Without {} ({}):\nWithdrawn capabilities:\n", removal.component, removal.state);
    for lost in &removal.withdrawn {
        let _ = writeln!(text, "  - {} (from {})", lost.capability, lost.provider);
    }
    text.push_str("Kept by another provider:\n");
    for kept in &removal.kept {
        let _ = writeln!(text, "  + {} (from {})", kept.capability, kept.providers.join(", "));
    }
    let lists = [
        ("Directly affected", &removal.direct),
        ("Transitively affected", &removal.transitive),
        ("Stay DONE", &removal.done),
    ];
    for (title, list) in lists {
        let _ = write!(text, "{title}:\n{}", members(list));
    }
    let (direct, transitive) = (removal.direct.len(), removal.transitive.len());
    let _ = writeln!(
        text,
        "Total: {} withdrawn, {} affected ({direct} directly, {transitive} transitively)",
        many(removal.withdrawn.len(), "capability", "capabilities"),
        count(direct + transitive, "component"),
    );
    text
}

/// `check-cycles`.
pub fn cycles(cycles: &[Cycle], blocked: &[Member], verbose: bool) -> String {
    if cycles.is_empty() {
        return "No dependency cycles\n".to_owned();
    }
    let mut text = String::new();
    for (number, cycle) in cycles.iter().enumerate() {
        let _ = writeln!(text, "Cycle {}: {}", number + 1, chain(&cycle.route));
        if verbose {
            text.push_str(&steps(&cycle.route));
        }
        let shown = |name: &&String| cycle.route.iter().all(|step| step.component != **name);
        let others: Vec<_> = cycle.components.iter().filter(shown).map(String::as_str).collect();
        if !others.is_empty() {
            let _ = writeln!(text, "  also on it: {}", others.join(", "));
        }
    }
    if verbose && !blocked.is_empty() {
        let _ = write!(text, "Kept from starting by them:\n{}", members(blocked));
    }
    let on = cycles.iter().map(|cycle| cycle.components.len()).sum();
    let (total, on) = (count(cycles.len(), "cycle"), count(on, "component"));
    let _ = writeln!(text, "Total: {total}, {on} on a cycle, {} kept from starting by it", blocked.len());
    text
}

/// `check`, `validate`.
pub fn findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Note => "note",
        };
        let _ = writeln!(text, "{severity}[{}]: {}", finding.code, finding.message);
    }
    text
}

/// Files that are not used.
pub fn rejected(files: &[RejectedFile]) -> String {
    let mut text = String::new();
    for file in files {
        for finding in file.diagnostics.iter().filter(|finding| finding.is_error()) {
            let _ = writeln!(text, "error[rejected-file]: {}", finding.compact(&file.file));
        }
    }
    text
}

/// `order`.
pub fn order(order: &[Member], never: &[Never]) -> String {
    let mut text = String::new();
    let width = order.len().to_string().len();
    for (place, member) in order.iter().enumerate() {
        let _ = writeln!(text, "{:>width$}. {} ({})", place + 1, member.component, member.state);
    }
    let _ = writeln!(text, "{}Total: {}", never_lines(never), count(order.len(), "component"));
    text
}

/// `layers`.
pub fn layers(layers: &[Vec<&str>], never: &[Never]) -> String {
    let mut text = String::new();
    for (number, layer) in layers.iter().enumerate() {
        let _ = writeln!(text, "Layer {number}: {}", layer.join(", "));
    }
    let _ = writeln!(text, "{}Total: {}", never_lines(never), count(layers.len(), "layer"));
    text
}

fn never_lines(never: &[Never]) -> String {
    let mut text = String::new();
    for never in never {
        let _ = writeln!(text, "Never: {} ({})", never.component, never.reason);
    }
    text
}

/// `path`.
pub fn path(path: &[Step]) -> String {
    let total = count(path.len(), "step");
    format!("{}\n{}Total: {total}\n", chain(path), steps(path))
}

/// `scc`.
pub fn sets(sets: &[Vec<String>], total: usize) -> String {
    let mut text = String::new();
    for (number, set) in sets.iter().enumerate() {
        let _ = writeln!(text, "Set {}: {}", number + 1, set.join(", "));
    }
    let rings = sets.len();
    let _ = writeln!(
        text,
        "Total: {}, {rings} of components that depend on each other",
        count(total, "strongly connected component")
    );
    text
}

/// `analyze`.
pub fn metrics(metrics: &Metrics) -> String {
    let lines = [
        ("Components", metrics.components.to_string()),
        ("Capabilities", metrics.capabilities.to_string()),
        ("Total dependencies", metrics.dependencies.to_string()),
        ("Optional dependencies", metrics.optional_dependencies.to_string()),
        ("Average dependencies", format!("{:.2}", metrics.average_dependencies)),
        ("Maximum depth", metrics.maximum_depth.to_string()),
        ("Strongly connected components", metrics.strongly_connected_components.to_string()),
        ("Dependency cycles", metrics.cycles.to_string()),
        ("Can never start", metrics.never.to_string()),
        ("Critical path", metrics.critical_path.join(" → ")),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

/// `analyze --detailed`.
pub fn parts(parts: &[Part]) -> String {
    let row = |part: &Part| {
        vec![
            Cell::plain(&part.component),
            Cell::plain(part.layer.map_or_else(|| "never".to_owned(), |layer| layer.to_string())),
            Cell::plain(part.requires.to_string()),
            Cell::plain(part.provides.to_string()),
            Cell::plain(part.dependents.to_string()),
        ]
    };
    let rows: Vec<_> = parts.iter().map(row).collect();
    let header = ["COMPONENT", "LAYER", "REQUIRES", "PROVIDES", "DEPENDENTS"];
    format!("\n{}", draw(&header, &rows))
}

/// The components on a way.
fn chain(steps: &[Step]) -> String {
    let first = steps.first().map(|step| step.component.as_str());
    let rest = steps.iter().map(|step| step.provider.as_str());
    first.into_iter().chain(rest).collect::<Vec<_>>().join(" → ")
}

fn steps(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let verb = if step.optional { "would use" } else { "requires" };
        let _ = writeln!(text, "  {} {verb} {} from {}", step.component, step.capability, step.provider);
    }
    text
}

fn members(members: &[Member]) -> String {
    let mut text = String::new();
    for member in members {
        let _ = writeln!(text, "  → {} ({})", member.component, member.state);
    }
    text
}

fn count(number: usize, noun: &str) -> String {
    many(number, noun, &format!("{noun}s"))
}

fn many(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use yakiros_core::analysis::Analysis;
    use yakiros_core::control::{CapabilityStatus, GraphNode};
    use yakiros_core::journal::State;

    use super::*;

    fn node(name: &str, state: State, provides: &[&str], requires: &[&str]) -> GraphNode {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let level = if state.is_up() { CapabilityStatus::Up } else { CapabilityStatus::Down };
        let (provides, requires) = (owned(provides), owned(requires));
        GraphNode { name: name.into(), state, level, held: false, provides, requires, optional: Vec::new() }
    }

    fn example() -> Vec<GraphNode> {
        vec![
            node("base", State::Done, &["base.a", "base.b"], &[]),
            node("other", State::Active, &["base.b"], &[]),
            node("ring-1", State::Cycle, &["ring.1"], &["ring.2"]),
            node("ring-2", State::Cycle, &["ring.2"], &["ring.1"]),
            node("ring-3", State::Cycle, &[], &["ring.2"]),
            node("top", State::Active, &[], &["web"]),
            node("web", State::Active, &["web"], &["base.a", "base.b"]),
        ]
    }

    #[test]
    fn dependents_are_listed_and_counted() {
        let nodes = example();
        let text = dependents("base.a", &Analysis::new(&nodes).dependents("base.a").unwrap());
        assert_eq!(text, "Components that depend on base.a:\n  → web (ACTIVE)\nTotal: 1 component\n");
    }

    #[test]
    fn a_removal_says_what_goes_and_what_stays() {
        let nodes = example();
        let text = removal(&Analysis::new(&nodes).removal("base").unwrap());
        let expected = "Without base (DONE):\n\
            Withdrawn capabilities:\n  - base.a (from base)\n  - web (from web)\n\
            Kept by another provider:\n  + base.b (from other)\n\
            Directly affected:\n  → web (ACTIVE)\n\
            Transitively affected:\n  → top (ACTIVE)\n\
            Stay DONE:\n\
            Total: 2 capabilities withdrawn, 2 components affected (1 directly, 1 transitively)\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn cycles_are_chains_by_name() {
        let nodes = example();
        let analysis = Analysis::new(&nodes);
        let (found, blocked) = (analysis.cycles(), analysis.behind_cycles());
        let total = "Total: 1 cycle, 2 components on a cycle, 1 kept from starting by it\n";
        let short = format!("Cycle 1: ring-1 → ring-2 → ring-1\n{total}");
        assert_eq!(cycles(&found, &blocked, false), short);
        let long = format!(
            "Cycle 1: ring-1 → ring-2 → ring-1\n  ring-1 requires ring.2 from ring-2\n  \
             ring-2 requires ring.1 from ring-1\nKept from starting by them:\n  → ring-3 (CYCLE)\n{total}"
        );
        assert_eq!(cycles(&found, &blocked, true), long);
        assert_eq!(cycles(&[], &[], true), "No dependency cycles\n");
    }

    #[test]
    fn layers_and_order_say_what_never_starts() {
        let nodes = example();
        let analysis = Analysis::new(&nodes);
        let never = "Never: ring-1 (on a dependency cycle)\nNever: ring-2 (on a dependency cycle)\n\
             Never: ring-3 (requires ring.2, whose providers can never start)\n";
        let expected = format!("Layer 0: base, other\nLayer 1: web\nLayer 2: top\n{never}Total: 3 layers\n");
        assert_eq!(layers(&analysis.layers(), &analysis.never()), expected);
        let expected = format!(
            "1. base (DONE)\n2. other (ACTIVE)\n3. web (ACTIVE)\n4. top (ACTIVE)\n{never}Total: 4 components\n"
        );
        assert_eq!(order(&analysis.order(), &analysis.never()), expected);
    }

    #[test]
    fn numbers_have_names() {
        let nodes = example();
        let text = metrics(&Analysis::new(&nodes).metrics());
        let expected = "Components: 7\nCapabilities: 5\nTotal dependencies: 6\nOptional dependencies: 0\n\
            Average dependencies: 0.86\nMaximum depth: 2\nStrongly connected components: 6\n\
            Dependency cycles: 1\nCan never start: 3\nCritical path: base → web → top\n";
        assert_eq!(text, expected);
    }
}
