//! Whose a process or a control group is.

use std::collections::{BTreeSet, HashMap};

use yakiros_guest::ledger::Process;

use super::Account;
use crate::vm::Component;

/// The supervisor's own group, in which all others are.
pub const SUBTREE: &str = "graph";
/// Between the name of a component that hands over and the number of one of its processes.
const GENERATION: &str = ".gen-";

/// An account with its owners.
pub struct Owners<'a> {
    /// What is owned.
    pub account: &'a Account,
    processes: HashMap<i32, &'a Process>,
    /// Group and component, longest group first.
    groups: Vec<(String, &'a Component)>,
}

impl<'a> Owners<'a> {
    /// Finds the owners of an account.
    pub fn of(account: &'a Account) -> Self {
        let processes: HashMap<_, _> = account.ledger.processes.iter().map(|one| (one.pid, one)).collect();
        let mut groups: Vec<_> = account
            .components
            .iter()
            .map(|component| {
                let process = component.pid.and_then(|pid| processes.get(&pid));
                let lived_in = process.filter(|process| is_below(&process.group, SUBTREE));
                let declared = account.groups.get(&component.name).unwrap_or(&component.name);
                let group = lived_in
                    .map_or_else(|| format!("{SUBTREE}/{declared}"), |process| whole(&process.group).into());
                (group, component)
            })
            .collect();
        groups.sort_by_key(|(group, _)| std::cmp::Reverse(group.len()));
        Self { account, processes, groups }
    }

    /// A process by its number.
    pub fn process(&self, pid: i32) -> Option<&'a Process> {
        self.processes.get(&pid).copied()
    }

    /// Whose group it is, or is in. Of several that share it, one that runs.
    pub fn of_group(&self, path: &str) -> Option<&'a Component> {
        let mut found: Vec<_> = self.groups.iter().filter(|(group, _)| is_below(path, group)).collect();
        let longest = found.iter().map(|(group, _)| group.len()).max()?;
        found.retain(|(group, _)| group.len() == longest);
        let running = found.iter().find(|(_, component)| component.pid.is_some());
        running.or(found.first()).map(|(_, component)| *component)
    }

    /// The component that runs in a group, or in one that it is in.
    pub fn runs_in(&self, path: &str) -> Option<&'a Component> {
        self.of_group(path).filter(|component| component.pid.is_some())
    }

    /// Whether a group has to be there for one of a component that is in it.
    pub fn is_above_one(&self, path: &str) -> bool {
        self.groups.iter().any(|(group, _)| is_below(group, path))
    }

    /// Whether a process is in a group.
    pub fn is_lived_in(&self, path: &str) -> bool {
        self.account.ledger.processes.iter().any(|process| is_below(&process.group, path))
    }

    /// Groups of single processes of components that hand over, in which somebody lives.
    pub fn generations(&self) -> usize {
        let groups = self.account.ledger.processes.iter().map(|process| generation(&process.group));
        groups.flatten().collect::<BTreeSet<_>>().len()
    }

    /// Processes of components that run.
    pub fn owned(&self) -> impl Iterator<Item = &'a Process> {
        self.account.ledger.processes.iter().filter(|process| self.runs_in(&process.group).is_some())
    }
}

/// Whether a group is another one, or in it.
pub fn is_below(path: &str, group: &str) -> bool {
    path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The part of a path that ends with the group of one process of a component that hands over.
pub fn generation(path: &str) -> Option<&str> {
    let mark = path.find(GENERATION)?;
    let end = path[mark..].find('/').map_or(path.len(), |length| mark + length);
    Some(&path[..end])
}

/// The component's group, of a group of one of its processes.
fn whole(path: &str) -> &str {
    generation(path).and_then(|own| own.rsplit_once('/')).map_or(path, |(whole, _)| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_process_lies_in_its_components() {
        assert_eq!(generation("graph/web/web.gen-12/worker"), Some("graph/web/web.gen-12"));
        assert_eq!(generation("graph/web"), None);
        assert_eq!(whole("graph/web/web.gen-12"), "graph/web");
        assert_eq!(whole("graph/web/one"), "graph/web/one");
        assert!(is_below("graph/web", "graph/web") && is_below("graph/web/a", "graph/web"));
        assert!(!is_below("graph/website", "graph/web"));
    }
}
