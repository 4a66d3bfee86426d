//! Limits that are declared anew while a process runs: they are changed on it, nothing is started
//! anew. One change is under way at a time; what is declared meanwhile follows it. So it is with those of slices, which
//! hold for what runs in them.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::{Effect, Engine, RunId};
use crate::component::{Component, slice};
use crate::graph::NodeId;
use crate::journal::{Cause, Record};
use crate::mutation::{Mutation, broken};

/// The limits of one process, or of a slice.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    /// A change is under way.
    busy: bool,
    /// They were declared anew since it began.
    again: bool,
    /// They were ever changed, so that they need not be those that the process was started with.
    changed: bool,
    /// Why some of the declared ones do not hold.
    failed: Option<Rc<str>>,
}

impl Limits {
    /// They are declared anew. Whether they are to be changed now: not while a change is under way.
    fn begin(&mut self) -> bool {
        self.again = self.busy;
        self.changed = true;
        !std::mem::replace(&mut self.busy, true)
    }

    /// Those of a process that takes this one's place: not known to be what is declared, if this one's were not.
    pub(super) fn of_next(&self) -> Self {
        Self { changed: self.changed, ..Self::default() }
    }

    /// A change is over. Whether another one is to follow; the outcome is then that of the next.
    fn conclude(&mut self, outcome: Result<(), Rc<str>>) -> bool {
        self.busy = false;
        let again = std::mem::take(&mut self.again);
        if !again {
            self.failed = outcome.err();
        }
        again
    }

    /// They were written by other means, and hold; what is under way has its own outcome.
    fn are_written(&mut self) {
        if !self.busy {
            self.failed = None;
        }
    }

    /// They are no longer declared. Whether a change is under way, whose end is still to be told.
    fn end(&mut self) -> bool {
        self.failed = None;
        self.busy && !broken(Mutation::RewriteSlice)
    }

    /// Whether they are sure to be those that the process was started with.
    pub(super) fn are_original(&self) -> bool {
        !self.changed
    }

    /// What `status` says while some do not hold.
    pub(super) fn complaint(&self) -> Option<String> {
        self.failed.as_ref().map(|reason| Cause::LimitsNotSet { reason: Rc::clone(reason) }.to_string())
    }
}

impl Engine {
    /// Runs whose limits are being changed.
    pub(super) fn limiting(&self) -> Vec<RunId> {
        let processes = self.units.iter().flatten().filter_map(|unit| unit.process.as_ref());
        processes.filter(|process| process.limits.busy).map(|process| process.run).collect()
    }

    /// A change that did not survive the performer before is asked for again.
    pub(super) fn limit_again(&mut self, under_way: &[RunId]) {
        for run in self.limiting().into_iter().filter(|run| !under_way.contains(run)) {
            let Some(id) = self.runs.get(&run).copied() else { continue };
            if let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) {
                process.limits.busy = false;
                self.change_limits(id);
            }
        }
    }

    /// The declared limits are others than those of the process.
    pub(super) fn change_limits(&mut self, id: NodeId) {
        if broken(Mutation::ForgetLimits) {
            return;
        }
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let component = Rc::clone(&unit.component);
        let Some(process) = unit.process.as_mut().filter(|process| !process.told) else {
            return;
        };
        if process.limits.begin() {
            let run = process.run;
            self.effects.push(Effect::Limit { run, component });
        }
    }

    /// A change is done, or has failed: the process runs on, and it is said.
    pub(super) fn take_limited(&mut self, run: RunId, outcome: Result<(), Rc<str>>) {
        if let Some(kept) = self.second_mut(run) {
            // If it becomes the component's process again, it gets what is declared then.
            (kept.limits.busy, kept.limits.again) = (false, false);
            return;
        }
        let Some(id) = self.runs.get(&run).copied() else {
            return;
        };
        let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) else {
            return;
        };
        if process.limits.conclude(outcome) {
            return self.change_limits(id);
        }
        if let Some(reason) = process.limits.failed.clone() {
            self.remark(id, Cause::LimitsNotSet { reason }, None);
        }
    }

    /// A slice is declared, anew or not: what runs in it gets its limits.
    pub(super) fn limit_slice(&mut self, slice: &Rc<Component>) {
        if broken(Mutation::ForgetSliceLimits) {
            return;
        }
        if self.slices.entry(slice.name.as_str().into()).or_default().begin() {
            self.effects.push(Effect::LimitSlice(Rc::clone(slice)));
        }
    }

    /// A change is done, or has failed: what is in the slice runs on, and it is said.
    pub(super) fn take_slice_limited(&mut self, group: &Rc<str>, outcome: Result<(), Rc<str>>) {
        let Some(limits) = self.slices.get_mut(group) else { return };
        if self.files.in_force(group).is_none() {
            // One that is no longer declared needs nothing.
            self.slices.remove(group);
            return;
        }
        let outcome = outcome.map_err(|reason| format!("slice {}: {reason}", slice::name_of(group)).into());
        if limits.conclude(outcome) {
            if let Some(slice) = self.files.in_force(group).cloned() {
                self.limit_slice(&slice);
            }
        } else if let Some(reason) = limits.failed.clone() {
            self.remark_on_kernel(Cause::LimitsNotSet { reason });
        }
    }

    /// Slices that are no longer declared are forgotten; what is being written for one ends first, or it would come
    /// after what is written for the next of that name.
    pub(super) fn forget_slices(&mut self) {
        let files = &self.files;
        self.slices.retain(|group, limits| files.in_force(group).is_some() || limits.end());
    }

    /// A process was created, for which the limits of all slices that it lies in were written: none of them is missing
    /// any more, whatever became of the change that was made while others ran.
    pub(super) fn note_limits_of_slices(&mut self, run: RunId) {
        if broken(Mutation::ComplainForEver) {
            return;
        }
        let inner = self.started_with(run).and_then(|component| component.slice());
        for group in inner.iter().flat_map(|inner| slice::path_to(inner)) {
            self.slices.get_mut(group).into_iter().for_each(Limits::are_written);
        }
    }

    /// Slices whose limits are being changed, by the paths of their groups.
    pub(super) fn limiting_slices(&self) -> Vec<Rc<str>> {
        let busy = self.slices.iter().filter(|(_, limits)| limits.busy);
        busy.map(|(group, _)| Rc::clone(group)).collect()
    }

    /// Changes of slices that did not survive the performer before are asked for again.
    pub(super) fn limit_slices_again(&mut self, under_way: &[Rc<str>]) {
        let lost = |(group, limits): (&Rc<str>, &mut Limits)| {
            let lost = limits.busy && !under_way.contains(group);
            limits.busy &= !lost;
            lost.then(|| Rc::clone(group))
        };
        let groups: Vec<_> = self.slices.iter_mut().filter_map(lost).collect();
        self.forget_slices();
        for slice in groups.iter().filter_map(|group| self.files.in_force(group).cloned()).collect::<Vec<_>>()
        {
            self.limit_slice(&slice);
        }
    }

    /// The slices that a component lies in, the outermost first, as they are declared now.
    pub fn slices_around(&self, component: &Component) -> Vec<Rc<Component>> {
        let inner = component.slice();
        let groups = inner.iter().flat_map(|inner| slice::path_to(inner));
        let declared = groups.filter_map(|group| self.files.in_force(group).cloned());
        declared.filter(|declared| declared.is_slice()).collect()
    }

    /// What `status` says of a component in slices whose limits do not hold.
    pub(super) fn complaints_about_slices<'a>(
        &'a self,
        component: &Component,
    ) -> impl Iterator<Item = String> + 'a {
        let inner = component.slice();
        let groups: Vec<String> =
            inner.iter().flat_map(|inner| slice::path_to(inner)).map(str::to_owned).collect();
        groups.into_iter().filter_map(|group| self.slices.get(&*group)?.complaint())
    }

    /// Write something down about a component that stays in its state.
    pub(super) fn remark(&mut self, id: NodeId, cause: Cause, after: Option<u64>) {
        let time_ms = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        let Some(unit) = self.unit(id) else { return };
        let (component, state) = (Rc::clone(&unit.name), unit.state);
        let record = Record { revision: 0, time_ms, component, from: state, to: state, cause, after };
        let revision = self.record(record);
        if let Some(unit) = self.unit_mut(id) {
            unit.revision = revision;
        }
    }
}
