//! The freezer: clients freeze and thaw what runs, or try to; what is frozen does nothing, and a process that hangs in
//! the kernel cannot be frozen.

use std::time::Duration;

use crate::control::{Freezer, Request};
use crate::engine::{Event, RunId};
use crate::journal::Exit;
use crate::sim::model::{Dumped, Process};
use crate::sim::world::{Plan, Step, World};

/// Time that the kernel takes, at most.
const FREEZE_MS: u64 = 3000;

/// How often it is looked whether what a process would have done can be done.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How a process is killed: also while it is frozen.
const KILLED: Exit = Exit::Signal(9);

impl World {
    /// Freeze or thaw a component, mostly one that runs.
    pub(super) fn ask_to_freeze(&mut self) -> Step {
        let running: Vec<usize> = self.model.processes().map(|(number, _)| number).collect();
        let any = self.random.below(self.model.slots.len() as u64) as usize;
        let chosen = running.get(self.random.below(running.len() as u64) as usize).copied();
        let number = if self.random.percent(90) { chosen.unwrap_or(any) } else { any };
        let name = self.model.slots[number].name.to_string();
        if self.random.percent(40) {
            return self.ask(0, Request::Thaw { name });
        }
        let timeout_ms = self.random.percent(50).then(|| 1 + self.random.below(2 * FREEZE_MS));
        self.ask(0, Request::Freeze { name, timeout_ms })
    }

    /// Nobody wants anything frozen any more.
    pub(in crate::sim) fn thaw_everything(&mut self) -> Step {
        let frozen = self.model.processes().filter(|(_, process)| process.freezer.is_some());
        for number in frozen.map(|(number, _)| number).collect::<Vec<_>>() {
            let name = self.model.slots[number].name.to_string();
            self.ask(0, Request::Thaw { name })?;
        }
        Ok(())
    }

    /// A process is to stand still.
    pub(in crate::sim) fn plan_frozen(&mut self, run: RunId, limit: Duration) {
        let fails = self.random.percent(self.options.freeze_failures);
        self.plan(FREEZE_MS.min(limit.as_millis() as u64).max(1), Plan::Frozen(run, !fails));
    }

    /// It is to go on.
    pub(in crate::sim) fn plan_thawed(&mut self, run: RunId) {
        let fails = self.random.percent(self.options.freeze_failures);
        self.plan(FREEZE_MS, Plan::Thawed(run, !fails));
    }

    pub(in crate::sim) fn report_frozen(&mut self, run: RunId, done: bool) -> Step {
        let reason = "process 7 hangs in the kernel";
        let (outcome, mark) = if done { (Ok(()), Some(Freezer::Frozen)) } else { (Err(reason.into()), None) };
        if !self.model.mark(run, Freezer::Freezing, mark) {
            return Ok(());
        }
        self.give(Event::Frozen(run, outcome))
    }

    pub(in crate::sim) fn report_thawed(&mut self, run: RunId, done: bool) -> Step {
        let (outcome, mark) = if done || self.model.calm {
            (Ok(()), None)
        } else {
            (Err("the group that it is in is frozen".into()), Some(Freezer::Frozen))
        };
        if !self.model.mark(run, Freezer::Thawing, mark) {
            return Ok(());
        }
        self.give(Event::Thawed(run, outcome))
    }

    /// Whether a plan is put off, for whoever would do it stands still.
    pub(in crate::sim) fn stands_still(&mut self, plan: Plan) -> bool {
        let run = match plan {
            Plan::End(_, KILLED) => return false,
            Plan::Ready(run) | Plan::End(run, _) | Plan::Say(run, _) | Plan::Beat(run) => run,
            _ => return false,
        };
        let stands = |process: &Process| {
            process.freezer == Some(Freezer::Frozen) || matches!(process.dump, Some(Dumped::Held(_)))
        };
        let stands = self.model.process(run).is_some_and(stands);
        if stands {
            self.plan_after(STANDSTILL, plan);
        }
        stands
    }
}
