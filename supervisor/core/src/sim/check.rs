//! What must hold, judged from declarations, effects and records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::rc::Rc;

use crate::component::Component;
use crate::engine::RunId;
use crate::journal::State;

use super::world::Process;

/// The declarations in force, by name, and the last seen states.
pub(super) struct Seen<'a> {
    pub(super) declared: &'a BTreeMap<String, Rc<Component>>,
    pub(super) states: &'a BTreeMap<String, State>,
    pub(super) processes: &'a [Process],
}

impl Seen<'_> {
    fn is_up(&self, name: &str) -> bool {
        self.states.get(name).is_some_and(|state| state.is_up())
    }

    fn provided(&self, cap: &str) -> bool {
        cap.starts_with("kernel.") || self.provided_without(cap, "")
    }

    /// Whether a component other than `name` grants a capability.
    pub(super) fn provided_without(&self, cap: &str, name: &str) -> bool {
        let mut others = self.declared.values().filter(|c| c.name != name);
        others.any(|c| c.provides.iter().any(|p| p == cap) && self.is_up(&c.name))
    }

    /// A start needs everything up, and no other process of the same component.
    pub(super) fn start(&self, component: &Component) -> Result<(), String> {
        let name = &component.name;
        for cap in &component.requires {
            if !self.provided(cap) {
                return Err(format!("{name} is started while {cap} is down"));
            }
        }
        if self.processes.iter().any(|p| p.component.name == *name) {
            return Err(format!("{name} is started while a process of it lives"));
        }
        Ok(())
    }

    /// Only what is up is probed, and only a process that lives.
    pub(super) fn probe(&self, run: RunId, component: &Component) -> Result<(), String> {
        let name = &component.name;
        let state = self.states.get(name).copied();
        if !matches!(state, Some(State::Active | State::Degraded)) {
            return Err(format!("{name} is probed while it is not up"));
        }
        let lives = self.processes.iter().any(|p| p.run == run && p.component.name == *name);
        if lives { Ok(()) } else { Err(format!("{name} is probed without a process")) }
    }

    /// Nothing that needs this process may still live when it is told to stop.
    pub(super) fn stop(&self, own: &Process) -> Result<(), String> {
        for other in self.processes {
            let (name, user) = (&own.component.name, &other.component.name);
            if name == user || self.depends(name, user) {
                continue;
            }
            let relies = other.stands_on.contains(&own.run)
                && other.component.requires.iter().any(|cap| {
                    self.still_needs(user, cap) && own.sole.contains(cap) && self.is_only_provider(name, cap)
                });
            if relies {
                let around = self.surroundings(&other.component);
                return Err(format!("{name} is stopped while {user} still needs it{around}"));
            }
        }
        Ok(())
    }

    fn still_needs(&self, user: &str, cap: &String) -> bool {
        let now = self.declared.get(user);
        now.is_some_and(|component| component.requires.contains(cap))
    }

    fn is_only_provider(&self, name: &str, cap: &String) -> bool {
        let mut providers = self.declared.values().filter(|c| c.provides.contains(cap));
        providers.all(|c| c.name == name)
            && self.declared.get(name).is_none_or(|component| component.provides.contains(cap))
    }

    /// Whether `user` is needed, directly or not, by `name`: a cycle has no order.
    fn depends(&self, name: &str, user: &str) -> bool {
        let mut open = vec![name];
        let mut seen = BTreeSet::new();
        while let Some(next) = open.pop() {
            let Some(component) = self.declared.get(next).filter(|_| seen.insert(next)) else {
                continue;
            };
            for cap in &component.requires {
                for provider in self.declared.values() {
                    if provider.provides.contains(cap) {
                        if provider.name == user {
                            return true;
                        }
                        open.push(&provider.name);
                    }
                }
            }
        }
        false
    }

    /// Once nothing fails any more, everything runs that can, and the rest says why not.
    pub(super) fn converged(&self) -> Result<(), String> {
        let can_run = self.rises(false);
        let no_cycle = self.rises(true);
        for (name, component) in self.declared {
            let state = self.states.get(name).copied().unwrap_or(State::Removed);
            let right = match (can_run.contains(name), no_cycle.contains(name)) {
                (true, _) => matches!(state, State::Active | State::Done),
                // What could not start afresh may run on, held up by itself or a ring of others.
                (false, true) if state.is_up() => component.requires.iter().all(|cap| self.provided(cap)),
                (false, true) => state == State::Inactive,
                (false, false) => state == State::Cycle,
            };
            if !right {
                return Err(format!("{name} ends up {state}{}", self.surroundings(component)));
            }
        }
        Ok(())
    }

    /// Everything that a component needs, directly or not, and how that stands.
    fn surroundings(&self, component: &Component) -> String {
        let mut text = String::new();
        for other in self.declared.values() {
            if other.name == component.name || self.depends(&component.name, &other.name) {
                let state = self.states.get(&other.name);
                let state = state.copied().unwrap_or(State::Removed);
                let (provides, requires) = (&other.provides, &other.requires);
                let _ =
                    write!(text, "\n  {} {state}: provides {provides:?}, requires {requires:?}", other.name);
            }
        }
        text
    }

    /// Components that can start, by the plainest of fixpoints. If `missing_counts_as_up`,
    /// what nobody provides is no obstacle: then what is left out is in a cycle.
    fn rises(&self, missing_counts_as_up: bool) -> BTreeSet<&String> {
        let all = || self.declared.values();
        let mut up: BTreeSet<&String> = BTreeSet::new();
        if !missing_counts_as_up {
            // A oneshot that is done stays so, whatever becomes of what it needed.
            let done = |c: &&Rc<Component>| self.states.get(&c.name) == Some(&State::Done);
            up.extend(all().filter(done).map(|component| &component.name));
        }
        loop {
            let before = up.len();
            for component in all() {
                let met = component.requires.iter().all(|cap| {
                    let mut providers = all().filter(|c| c.provides.contains(cap)).peekable();
                    cap.starts_with("kernel.")
                        || (missing_counts_as_up && providers.peek().is_none())
                        || providers.any(|c| up.contains(&c.name))
                });
                if met {
                    up.insert(&component.name);
                }
            }
            if up.len() == before {
                return up;
            }
        }
    }
}
