//! From files to components: who declares what, and what a change means for what runs.
//!
//! A batch of changes is one change: a component that moves from one file to another is not
//! touched. A file that becomes unusable keeps in force what it declared before. Of several files
//! that declare one name, the one in force stays; the others are rejected until it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::unit::{AfterStop, Unit};
use super::{Effect, Engine, FileChange, FileContent, Input};
use crate::component::{Component, KERNEL, KERNEL_CAPABILITIES, slice};
use crate::control::RejectedFile;
use crate::diagnostic::{Diagnostic, rules};
use crate::graph::{Graph, Level, NodeId};
use crate::journal::{Cause, Record, State};
use crate::mutation::{Mutation, broken};

/// One file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    /// What it declared when it was last usable.
    component: Option<Rc<Component>>,
    /// Why it is not usable now.
    errors: Vec<Diagnostic>,
}

/// Who declares a name. Nearly always one file, so this allocates nothing then.
#[derive(Debug, Default)]
struct Claim {
    /// The file in force.
    owner: Option<Rc<str>>,
    /// The file in force declares the name; it may not in the midst of a batch of changes.
    declares: bool,
    /// The other files that declare it.
    others: BTreeSet<Rc<str>>,
}

/// Names that are kept of a cycle.
const CYCLE_SHOWN: usize = 8;

/// One change of a file, as far as it can close a cycle.
pub(super) struct Edit {
    file: Rc<str>,
    /// What it declared until then.
    before: Option<Rc<Component>>,
    /// Whom it declares now.
    name: Option<Rc<str>>,
}

/// All files and who declares which name.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) entries: BTreeMap<Rc<str>, Entry>,
    /// By the name that is declared.
    claims: BTreeMap<Box<str>, Claim>,
    /// What was declared last, for the next to share what is the same.
    alike: Rc<Component>,
    /// How many changes were taken over.
    changes: u64,
}

impl Claim {
    /// The file in force from now on: the one that was while it declares the name, then the first of the others.
    fn settle(&mut self) -> Option<Rc<str>> {
        if !self.declares {
            self.owner = self.others.pop_first();
            self.declares = self.owner.is_some();
            if self.others.is_empty() {
                // A set keeps room for eleven after the last one is taken out.
                self.others = BTreeSet::new();
            }
        }
        self.owner.clone()
    }
}

impl Files {
    /// As it was: entries and owners are facts, the rest follows.
    pub(super) fn restore(mut entries: BTreeMap<Rc<str>, Entry>, owners: BTreeMap<String, Rc<str>>) -> Self {
        let mut files = Self::default();
        for (file, entry) in &mut entries {
            if let Some(component) = &mut entry.component {
                Rc::make_mut(component).share_with(&files.alike);
                files.alike = Rc::clone(component);
                files.claim(&component.name, file);
            }
        }
        files.entries = entries;
        for (name, owner) in owners {
            if let Some(claim) = files.claims.get_mut(name.as_str()) {
                claim.declares = claim.others.remove(&owner);
                claim.owner = claim.declares.then_some(owner);
            }
        }
        files.claims.values_mut().for_each(|claim| drop(claim.settle()));
        files
    }

    /// The file in force for each name.
    pub(super) fn owners(&self) -> impl Iterator<Item = (&str, &Rc<str>)> {
        self.claims.iter().filter_map(|(name, claim)| Some((&**name, claim.owner.as_ref()?)))
    }

    /// The declaration in force for `name`.
    pub(super) fn in_force(&self, name: &str) -> Option<&Rc<Component>> {
        self.entries.get(self.owner_of(name)?)?.component.as_ref()
    }

    fn owner_of(&self, name: &str) -> Option<&Rc<str>> {
        self.claims.get(name)?.owner.as_ref()
    }

    /// Those of `names` that no file declares as components.
    pub(super) fn undeclared<'n>(&self, names: impl Iterator<Item = &'n Rc<str>>) -> Vec<Rc<str>> {
        names
            .filter(|name| self.in_force(name).is_none_or(|component| component.is_slice()))
            .cloned()
            .collect()
    }

    /// What a change is about to edit.
    fn edit(&self, change: &FileChange) -> Edit {
        let file: Rc<str> = change.file.as_str().into();
        let before = self.entries.get(&file).and_then(|entry| entry.component.clone());
        let name = match &change.content {
            FileContent::Component(component) => Some(component.name.as_str().into()),
            FileContent::Rejected(_) | FileContent::Gone => None,
        };
        Edit { file, before, name }
    }

    /// Take one change over; the names it concerns go to `names`.
    fn apply(&mut self, change: FileChange, names: &mut BTreeSet<String>) {
        let file: Rc<str> = change.file.into();
        self.changes += 1;
        match change.content {
            FileContent::Component(mut component) => {
                self.disclaim(&file, names);
                names.insert(component.name.clone());
                self.claim(&component.name, &file);
                component.share_with(&self.alike);
                self.alike = Rc::new(*component);
                let entry = Entry { component: Some(Rc::clone(&self.alike)), errors: Vec::new() };
                self.entries.insert(file, entry);
            }
            FileContent::Rejected(errors) => {
                self.entries.entry(file).or_default().errors = errors;
            }
            FileContent::Gone => {
                self.disclaim(&file, names);
                self.entries.remove(&file);
            }
        }
    }

    fn claim(&mut self, name: &str, file: &Rc<str>) {
        match self.claims.get_mut(name) {
            Some(claim) if claim.owner.as_ref() == Some(file) => claim.declares = true,
            Some(claim) => drop(claim.others.insert(Rc::clone(file))),
            None => {
                let others = BTreeSet::from([Rc::clone(file)]);
                self.claims.insert(name.into(), Claim { others, ..Claim::default() });
            }
        }
    }

    fn disclaim(&mut self, file: &Rc<str>, names: &mut BTreeSet<String>) {
        let entry = self.entries.get(file);
        let Some(old) = entry.and_then(|entry| entry.component.as_ref()) else {
            return;
        };
        names.insert(old.name.clone());
        if let Some(claim) = self.claims.get_mut(old.name.as_str()) {
            claim.others.remove(file);
            claim.declares &= claim.owner.as_ref() != Some(file);
        }
    }

    /// The declaration in force for `name`, after a change, and its file.
    fn owner(&mut self, name: &str) -> Option<(Rc<str>, Rc<Component>)> {
        let Some(owner) = self.claims.get_mut(name)?.settle() else {
            self.claims.remove(name);
            return None;
        };
        let component = self.entries.get(&owner)?.component.clone()?;
        Some((owner, component))
    }

    /// What the pseudo-component provides: what the kernel does, what a file says that it does, and the slices.
    pub(super) fn provided_by_kernel(&self) -> Vec<String> {
        let own = KERNEL_CAPABILITIES.iter().map(|cap| (*cap).to_owned());
        let extension =
            self.in_force(KERNEL).into_iter().flat_map(|component| component.provides.iter().cloned());
        let slices = self.slices().map(|slice| slice::capability(&slice.name));
        own.chain(extension).chain(slices).collect()
    }

    /// The file in force for a name.
    pub(super) fn file_of(&self, name: &str) -> Option<&str> {
        self.owner_of(name).map(|file| &**file)
    }

    /// The slices in force, in the order of their groups.
    pub(super) fn slices(&self) -> impl Iterator<Item = &Rc<Component>> {
        let names = self.claims.keys().filter(|name| slice::is_slice(name));
        names.filter_map(|name| self.in_force(name)).filter(|component| component.is_slice())
    }

    /// Why a file is not used; empty when it is.
    fn complaints(&self, file: &Rc<str>, entry: &Entry) -> Vec<Diagnostic> {
        if !entry.errors.is_empty() {
            return entry.errors.clone();
        }
        let component = entry.component.as_ref();
        let owner = component.and_then(|component| self.owner_of(&component.name));
        match (component, owner) {
            (Some(component), Some(owner)) if owner != file => {
                let message = format!("{} is declared by {owner} and by {file}", component.title());
                let help = format!("{owner} is in force; rename one of the two");
                vec![Diagnostic::whole_file(&rules::DUPLICATE_NAME, message).with_help(help)]
            }
            _ => Vec::new(),
        }
    }

    /// The files after `after` that are not used, in order.
    pub(super) fn rejected(&self, after: &str) -> impl Iterator<Item = RejectedFile> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (Excluded(after), Unbounded);
        let rest = self.entries.range::<str, _>(range);
        rest.filter_map(|(file, entry)| {
            let diagnostics = self.complaints(file, entry);
            (!diagnostics.is_empty()).then(|| RejectedFile { file: file.to_string(), diagnostics })
        })
    }

    /// What [`Files::is_rejected`] says stays the same while this does.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a file is rejected, by its path or by its name alone.
    pub(super) fn is_rejected(&self, wanted: &str) -> bool {
        self.entries.iter().any(|(file, entry)| {
            // Asked again with every change while somebody waits for it: no search for the name's start.
            let folder = file.strip_suffix(wanted);
            let named = folder
                .is_some_and(|folder| folder.is_empty() || (folder.ends_with('/') && !wanted.contains('/')));
            named && !self.complaints(file, entry).is_empty()
        })
    }
}

/// Put the pseudo-component into a new graph, up from the start.
pub(super) fn insert_kernel(graph: &mut Graph, provides: &[String]) -> NodeId {
    let id = graph.insert(provides, &[], &[]);
    graph.settle();
    graph.set_level(id, Level::Up);
    id
}

impl Engine {
    /// Act on a batch of file changes.
    pub(super) fn take_files(&mut self, changes: Vec<FileChange>) {
        let mut names = BTreeSet::new();
        self.undeclared = None;
        let mut edits = Vec::new();
        for change in changes {
            edits.push(self.files.edit(&change));
            self.files.apply(change, &mut names);
        }
        let (mut declared, mut slices) = (Vec::new(), Vec::new());
        for name in &names {
            match self.files.owner(name) {
                Some((_, component)) if component.is_slice() => {
                    // A slice has no process: one that the name was declared with before goes.
                    self.undeclare(name);
                    slices.push(component);
                }
                Some((file, component)) => declared.push((file, component)),
                None => self.undeclare(name),
            }
        }
        let mut changed = Vec::new();
        for (file, component) in declared {
            if component.name == KERNEL {
                // What it provides follows from all files.
            } else if let Some(change) = self.declare(&file, component) {
                changed.push(change);
            }
        }
        for slice in &slices {
            self.limit_slice(slice);
        }
        if names.iter().any(|name| name == KERNEL || slice::is_slice(name)) {
            self.forget_slices();
            self.graph.replace(self.kernel, &self.files.provided_by_kernel(), &[], &[]);
        }
        self.settle_graph(&edits);
        for (id, file, before) in changed {
            if let Some(before) = before {
                self.adapt(id, &file, &before);
            }
            self.reconsider(id);
        }
    }

    /// Derive the graph anew after these edits, and carry cycles that came or went to their
    /// components: to those on them before those that need these, so that each follows from what
    /// led to it.
    pub(super) fn settle_graph(&mut self, edits: &[Edit]) {
        self.old_waits = self.moving() > 0 && self.units.iter().flatten().any(|unit| unit.waits_for > 0);
        let mut moved = self.graph.settle();
        // What waited for a cycle may be on one now, which moves nobody.
        if !moved.is_empty() || !self.cycle_of.is_empty() {
            self.find_cycles();
        }
        moved.sort_by_key(|id| (!self.cycle_of.contains_key(id), self.graph.rank(*id), *id));
        // Those on one cycle follow each other, and have one cause.
        let mut last: Option<(Rc<[NodeId]>, Cause)> = None;
        for id in moved {
            if self.graph.in_cycle(id) {
                let cycle = self.cycle_of.get(&id).cloned();
                let known =
                    last.take().filter(|(other, _)| cycle.as_ref().is_some_and(|c| Rc::ptr_eq(c, other)));
                let cause = known.map_or_else(|| self.cycle_cause(id, edits), |(_, cause)| cause);
                last = cycle.map(|cycle| (cycle, cause.clone()));
                self.feed(id, Input::CycleOn, cause);
            } else if !broken(Mutation::StayInCycle) {
                self.feed(id, Input::CycleOff, Cause::Cycle);
            }
        }
    }

    /// Why a component is in CYCLE after these edits.
    pub(super) fn cycle_cause(&self, id: NodeId, edits: &[Edit]) -> Cause {
        let Some(cycle) = self.cycle_of.get(&id) else {
            return Cause::Cycle;
        };
        let names = cycle.iter().filter_map(|id| Some(Rc::clone(&self.unit(*id)?.name)));
        let members: Rc<[_]> = names.take(CYCLE_SHOWN).collect();
        let more = u32::try_from(cycle.len() - members.len()).unwrap_or(u32::MAX);
        Cause::CycleClosed { members, more, file: self.closed_by(cycle, edits) }
    }

    /// The file whose change closed a cycle: that of one on it, or one that no longer provides what
    /// was a way out of it.
    fn closed_by(&self, cycle: &Rc<[NodeId]>, edits: &[Edit]) -> Option<Rc<str>> {
        let is_on = |id: &NodeId| self.cycle_of.get(id).is_some_and(|other| Rc::ptr_eq(other, cycle));
        let is_member = |name: &Rc<str>| self.names.get(name).is_some_and(is_on);
        let is_required = |name: &String| {
            let cap = self.graph.cap(name);
            cap.is_some_and(|cap| self.graph.requirers(cap).iter().any(is_on))
        };
        let own = edits.iter().rev().find(|edit| edit.name.as_ref().is_some_and(is_member));
        let other = || {
            let before =
                |edit: &&Edit| edit.before.as_ref().is_some_and(|c| c.provides.iter().any(is_required));
            edits.iter().rev().find(before)
        };
        own.or_else(other).map(|edit| Rc::clone(&edit.file))
    }

    /// Note which components are on which cycle.
    pub(super) fn find_cycles(&mut self) {
        self.cycle_of.clear();
        for cycle in self.graph.cycles() {
            let cycle: Rc<[NodeId]> = cycle.into();
            let members = cycle.iter().map(|id| (*id, Rc::clone(&cycle)));
            self.cycle_of.extend(members);
        }
    }

    /// A name without a declaration: its process goes first, then it is forgotten. Dependents
    /// are found by the edges as they were, so this comes before the edges change.
    pub(super) fn undeclare(&mut self, name: &str) {
        let Some(id) = self.names.get(name).copied() else {
            return;
        };
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        unit.doomed = true;
        let running = unit.process.is_some();
        let stopping = unit.state == State::Stopping;
        if running && !stopping {
            self.terminate(id, AfterStop::Rest, Cause::Undeclared);
            self.undeclared = Some(self.journal.revision());
        }
        self.graph.replace(id, &[], &[], &[]);
        if !running {
            self.discard(id, Cause::Undeclared);
            self.undeclared = Some(self.journal.revision());
        }
    }

    /// Forget a component whose process and edges are gone.
    pub(super) fn discard(&mut self, id: NodeId, cause: Cause) {
        self.disarm_unit(id);
        if self.second_lives(id) {
            // Called again when it is gone.
            return;
        }
        self.enter(id, State::Removed, cause, None);
        if let Some(unit) = self.units.get_mut(id.index()).and_then(Option::take) {
            self.names.remove(&unit.name);
            self.effects.push(Effect::Forget(unit.name));
        }
        self.cycle_of.remove(&id);
        self.graph.remove(id);
    }

    /// Put a declaration in force in the graph. Returns what has to be looked at once the graph
    /// is settled: the component, its file, and the declaration before if there was one.
    fn declare(
        &mut self,
        file: &Rc<str>,
        component: Rc<Component>,
    ) -> Option<(NodeId, Rc<str>, Option<Rc<Component>>)> {
        let (provides, requires) = (&component.provides, &component.needs());
        let optional = &component.optional;
        let Some(id) = self.names.get(component.name.as_str()).copied() else {
            let id = self.graph.insert(provides, requires, optional);
            self.introduce(id, file, component);
            return Some((id, Rc::clone(file), None));
        };
        let doomed = self.unit(id)?.doomed;
        if !doomed && self.unit(id)?.component == component {
            return None;
        }
        self.graph.replace(id, provides, requires, optional);
        let unit = self.unit_mut(id)?;
        unit.doomed = false;
        let before = std::mem::replace(&mut unit.component, component);
        Some((id, Rc::clone(file), Some(before)))
    }

    fn introduce(&mut self, id: NodeId, file: &Rc<str>, component: Rc<Component>) {
        let mut unit = Unit::new(component);
        let record = Record {
            revision: 0,
            time_ms: u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX),
            component: Rc::clone(&unit.name),
            from: State::Removed,
            to: State::Inactive,
            cause: Cause::Declared { file: Rc::clone(file) },
            after: None,
        };
        unit.revision = self.record(record);
        self.count(State::Removed, unit.state);
        self.names.insert(Rc::clone(&unit.name), id);
        if self.units.len() <= id.index() {
            self.units.resize_with(id.index() + 1, || None);
        }
        self.units[id.index()] = Some(Box::new(unit));
    }

    /// A declaration has changed: start anew only what the process can see, or what was given up.
    /// Limits are changed on what runs; everything else is the supervisor's own and holds at once.
    fn adapt(&mut self, id: NodeId, file: &Rc<str>, before: &Component) {
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let now = &unit.component;
        // A process that nobody could take over from still has an earlier one.
        let process = unit.process.as_ref().map_or(before, |process| &process.component);
        let moved = now.restart_key(process);
        let second = unit.handover.second().and_then(|second| now.restart_key(&second.process.component));
        let health_moved = now.lifecycle.health != before.lifecycle.health;
        let readiness_moved = now.lifecycle.readiness != before.lifecycle.readiness;
        let renew = match unit.state {
            State::Failed | State::Backoff => true,
            State::Starting | State::ReadyWait => moved.is_some() || readiness_moved,
            _ => moved.is_some(),
        };
        let renew = renew && !broken(Mutation::KeepOldDeclaration);
        let limits_moved = now.resources != before.resources;
        let key = moved.unwrap_or(if readiness_moved { "lifecycle.readiness" } else { "" });
        let hands_over = now.hands_over();
        let runs = unit.process.is_some();
        unit.forgive();
        if renew {
            let file = Rc::clone(file);
            if !runs {
                self.feed(id, Input::Renew, Cause::Declared { file });
            } else if let Err(why) = self.renew_changed(id, &file, key, hands_over) {
                let cause = Cause::Redeclared { file, key: key.into(), restarted: why };
                self.feed(id, Input::Renew, cause);
            }
        } else if limits_moved {
            self.change_limits(id);
        }
        if let Some(key) = second.filter(|_| moved.is_none()) {
            let cause = Cause::Redeclared { file: Rc::clone(file), key: key.into(), restarted: None };
            self.end_outdated_handover(id, cause);
        }
        if health_moved {
            self.renew_watch(id);
        }
        if let Some(unit) = self.unit(id) {
            let may_rise = unit.may_rise() && self.halting.is_none();
            self.graph.set_may_rise(id, may_rise);
        }
    }

    /// Begin a hot swap for a changed key, if there can be one; if it was declared, say why not.
    fn renew_changed(
        &mut self,
        id: NodeId,
        file: &Rc<str>,
        key: &str,
        hands_over: bool,
    ) -> Result<(), Option<Rc<str>>> {
        if !hands_over {
            return Err(None);
        }
        let cause = Cause::Redeclared { file: Rc::clone(file), key: key.into(), restarted: None };
        self.hand_over_changed(id, &cause).map_err(|why| Some(why.into()))
    }

    /// Derive the graph anew and try everything that waits, backs off or has failed.
    pub(super) fn resolve(&mut self, cause: &Cause) {
        self.settle_graph(&[]);
        for id in self.all_ids() {
            let Some(unit) = self.unit_mut(id) else {
                continue;
            };
            if matches!(unit.state, State::Failed | State::Backoff) && !unit.held {
                unit.forgive();
                self.feed(id, Input::PauseOver, cause.clone());
            } else {
                self.reconsider(id);
            }
        }
    }
}
