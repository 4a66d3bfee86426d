//! What is wrong with component files together: names declared twice, requirements that nobody
//! provides, cycles, control groups of others.
//!
//! The supervisor takes files as they come and says of each component what it waits for; this is
//! for who has all files in hand and wants to know before.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::keys::nearest;
use super::slice;
use super::{Component, KERNEL, KERNEL_CAPABILITIES, place};
use crate::analysis::{Analysis, Cycle};
use crate::control::{CapabilityStatus, GraphNode};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::rules::{self, Rule};
use crate::journal::State;

/// A file that declares a component.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    /// Its path, for messages.
    pub file: &'a str,
    /// Its text.
    pub source: &'a str,
    /// What it declares.
    pub component: &'a Component,
}

impl Declared<'_> {
    /// A finding about a key, or about the whole file when the key is not there.
    fn finding(&self, rule: &Rule, key: (&str, &str), item: Option<&str>, message: String) -> Diagnostic {
        match place(self.source, key.0, key.1, item) {
            Some(span) => Diagnostic::at(rule, self.source, span, message),
            None => Diagnostic::whole_file(rule, message),
        }
    }
}

/// Findings by the position of the file.
type Findings = Vec<Vec<Diagnostic>>;

/// What is wrong with `files` together: for each of them, in the order given, its findings. As in
/// the supervisor, the first of two files that declare one name is in force.
pub fn check_together(files: &[Declared<'_>]) -> Vec<Vec<Diagnostic>> {
    let mut findings: Findings = files.iter().map(|_| Vec::new()).collect();
    let mut in_force: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, declared) in files.iter().enumerate() {
        let first = *in_force.entry(&declared.component.name).or_insert(position);
        if first != position {
            findings[position].push(duplicate(&files[first], declared));
        }
    }
    let in_force: Vec<usize> = in_force.into_values().collect();
    unprovided(files, &in_force, &mut findings);
    unknown_slices(files, &in_force, &mut findings);
    cycles(files, &in_force, &mut findings);
    shared_groups(files, &in_force, &mut findings);
    findings
}

fn duplicate(first: &Declared<'_>, second: &Declared<'_>) -> Diagnostic {
    let title = second.component.title();
    let message = format!("{title} is declared by {} and by {}", first.file, second.file);
    let help = format!("{} is in force; rename one of the two", first.file);
    let section = if second.component.is_slice() { "slice" } else { "component" };
    second.finding(&rules::DUPLICATE_NAME, (section, "name"), None, message).with_help(help)
}

fn unprovided(files: &[Declared<'_>], in_force: &[usize], findings: &mut Findings) {
    let declared = in_force.iter().flat_map(|at| &files[*at].component.provides);
    let known: HashSet<&str> =
        declared.map(String::as_str).chain(KERNEL_CAPABILITIES.iter().copied()).collect();
    for at in in_force {
        let component = files[*at].component;
        for cap in component.requires.iter().filter(|cap| !known.contains(cap.as_str())) {
            let message = format!("component {:?} requires {cap:?}, which nobody provides", component.name);
            let key = ("requires", "capabilities");
            let finding = files[*at].finding(&rules::UNPROVIDED, key, Some(cap), message);
            findings[*at].push(match nearest(cap, known.iter().copied()) {
                Some(near) => finding.with_help(format!("did you mean {near:?}?")),
                None => finding.with_help("it waits until a file declares a component that does"),
            });
        }
    }
}

/// Slices that components or other slices would lie in.
fn unknown_slices(files: &[Declared<'_>], in_force: &[usize], findings: &mut Findings) {
    let slices = in_force.iter().map(|at| files[*at].component).filter(|component| component.is_slice());
    let known: HashSet<&str> = slices.map(|slice| slice.name.as_str()).collect();
    for at in in_force {
        let component = files[*at].component;
        let (key, around) = match component.slice() {
            Some(slice) => (("resources", "slice"), slice),
            None if component.is_slice() => (("slice", "name"), component.name.clone()),
            None => continue,
        };
        let Some(missing) = slice::path_to(&around).find(|group| !known.contains(group)) else { continue };
        let name = slice::name_of(missing);
        let message = format!("{} lies in slice {name:?}, which nobody declares", component.title());
        let names: Vec<_> = known.iter().map(|group| slice::name_of(group)).collect();
        let help = match nearest(&name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!(
                "write a file with name = {name:?} under [slice]; what lies in it waits until there is one"
            ),
        };
        findings[*at].push(files[*at].finding(&rules::UNKNOWN_SLICE, key, None, message).with_help(help));
    }
}

/// Cycles of several components; that one requires what it provides is told with its file.
fn cycles(files: &[Declared<'_>], in_force: &[usize], findings: &mut Findings) {
    let by_name: HashMap<&str, usize> =
        in_force.iter().map(|at| (files[*at].component.name.as_str(), *at)).collect();
    let mut nodes: Vec<GraphNode> = in_force.iter().map(|at| node(files[*at].component)).collect();
    nodes.push(kernel());
    for cycle in Analysis::new(&nodes).cycles() {
        let first = cycle.route.first();
        if let Some((step, at)) = first.and_then(|step| Some((step, *by_name.get(step.component.as_str())?)))
            && cycle.components.len() > 1
        {
            let key = ("requires", "capabilities");
            let message = format!("components wait for each other: {}", way(&cycle));
            let finding = files[at].finding(&rules::CYCLE, key, Some(&step.capability), message);
            findings[at].push(finding.with_help("none of them can ever start; take one requirement away"));
        }
    }
}

/// A cycle in words: who needs what of whom, back to the first.
fn way(cycle: &Cycle) -> String {
    let steps = cycle.route.iter();
    let steps =
        steps.map(|step| format!("{} needs {} of {}", step.component, step.capability, step.provider));
    steps.collect::<Vec<_>>().join(", ")
}

fn node(component: &Component) -> GraphNode {
    GraphNode {
        name: component.name.as_str().into(),
        state: State::Inactive,
        level: CapabilityStatus::Down,
        held: false,
        provides: component.provides.clone(),
        requires: component.requires.clone(),
        optional: component.optional.clone(),
    }
}

/// What is there before any component. Under a name that no component can have: a file may extend
/// the kernel, which is then a node of its own.
fn kernel() -> GraphNode {
    GraphNode {
        name: "".into(),
        state: State::Active,
        level: CapabilityStatus::Up,
        held: false,
        provides: KERNEL_CAPABILITIES.iter().map(|cap| (*cap).to_owned()).collect(),
        requires: Vec::new(),
        optional: Vec::new(),
    }
}

/// Components in one group, or one in a group inside another's.
fn shared_groups(files: &[Declared<'_>], in_force: &[usize], findings: &mut Findings) {
    let mut owners: BTreeMap<Cow<'_, str>, usize> = BTreeMap::new();
    let has_process = |component: &Component| component.name != KERNEL && !component.is_slice();
    let with_process = in_force.iter().filter(|at| has_process(files[**at].component));
    for at in with_process {
        let declared = &files[*at];
        let path = declared.component.cgroup();
        if let Some(other) = owners.get(&path) {
            findings[*at].push(shared(declared, &files[*other], "is also the group of"));
        } else {
            owners.insert(path, *at);
        }
    }
    for (path, at) in &owners {
        let outer = path.match_indices('/').find_map(|(end, _)| owners.get(&path[..end]));
        if let Some(outer) = outer {
            findings[*at].push(shared(&files[*at], &files[*outer], "lies inside the group of"));
        }
    }
}

fn shared(declared: &Declared<'_>, other: &Declared<'_>, how: &str) -> Diagnostic {
    let (path, name) = (declared.component.cgroup(), &other.component.name);
    let message = format!("the control group {path:?} {how} component {name:?} ({})", other.file);
    declared
        .finding(&rules::SHARED_CGROUP, ("resources", "cgroup"), None, message)
        .with_help("their limits mix, and neither group can be emptied when its component ends")
}
