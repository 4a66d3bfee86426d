//! Limits that are declared anew while a process runs: they are changed on it, nothing is started
//! anew. One change is under way at a time; what is declared meanwhile follows it.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::{Effect, Engine, RunId};
use crate::graph::NodeId;
use crate::journal::{Cause, Record};
use crate::mutation::{Mutation, broken};

/// The limits of one process.
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
        let limits = &mut process.limits;
        limits.again = limits.busy;
        limits.changed = true;
        if !std::mem::replace(&mut limits.busy, true) {
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
        let limits = &mut process.limits;
        limits.busy = false;
        if std::mem::take(&mut limits.again) {
            return self.change_limits(id);
        }
        limits.failed = outcome.err();
        if let Some(reason) = limits.failed.clone() {
            self.remark(id, Cause::LimitsNotSet { reason }, None);
        }
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
