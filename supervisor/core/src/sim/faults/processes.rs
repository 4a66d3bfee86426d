//! Processes: they fail to start, say nothing, hear nothing, die at any time.

use std::rc::Rc;
use std::time::Duration;

use crate::component::{Component, Kind, Readiness, slice};
use crate::control::Strain;
use crate::engine::{Event, RunId};
use crate::journal::{Exit, OutOfMemory};
use crate::sim::model::SLICES;
use crate::sim::world::{Plan, Step, World};

/// A kill that takes longer than the engine's patience with it (10 s), and how much longer.
const STUCK: Duration = Duration::from_secs(11);
const STUCK_LONGER_MS: u64 = 20_000;

/// Time that a change of limits takes, at most.
const LIMITS_MS: u64 = 3000;

/// Processes that die at once besides the first, at most less one.
const MASSACRE: u64 = 8;

impl World {
    /// What becomes of a process that was just created.
    pub(in crate::sim) fn plan_life(&mut self, run: RunId, component: &Rc<Component>) {
        let faults = !self.model.calm;
        let deaf = self.random.percent(self.options.deaf);
        if let Some(process) = self.model.process_mut(run) {
            process.deaf = deaf;
        }
        if faults && self.random.percent(self.options.unsupported) {
            return self.plan(self.options.exec_ms, Plan::Refuse(run));
        }
        if faults && self.random.percent(self.options.exec_failures) {
            return self.plan(self.options.exec_ms, Plan::FailToExecute(run));
        }
        self.plan(self.options.exec_ms, Plan::Execute(run));
        let silent = faults && self.random.percent(self.options.silent);
        if component.lifecycle.readiness != Readiness::None && !silent {
            self.plan(self.options.ready_ms.min(self.most_ready_ms(component)), Plan::Ready(run));
        }
        self.plan_rest_of_life(run, component);
    }

    /// What becomes of one that is executed.
    pub(super) fn plan_rest_of_life(&mut self, run: RunId, component: &Component) {
        let faults = !self.model.calm;
        if let Some(interval) = component.lifecycle.watchdog {
            self.plan_beat(run, interval);
        }
        if component.kind == Kind::Oneshot {
            let code = i32::from(faults && self.random.percent(self.options.oneshot_failures));
            self.plan(self.options.oneshot_ms, Plan::End(run, Exit::Code(code)));
        }
    }

    /// While calm, everybody is ready in time.
    fn most_ready_ms(&self, component: &Component) -> u64 {
        if self.model.calm { component.lifecycle.readiness_timeout.as_millis() as u64 / 2 } else { u64::MAX }
    }

    /// A process is to get other limits.
    pub(in crate::sim) fn plan_limits(&mut self, run: RunId) {
        let fails = !self.model.calm && self.random.percent(self.options.limit_failures);
        self.plan(LIMITS_MS, Plan::Limit(run, !fails));
    }

    pub(in crate::sim) fn report_limits(&mut self, run: RunId, done: bool) -> Step {
        if self.model.process(run).is_none() {
            return Ok(());
        }
        let outcome = if done { Ok(()) } else { Err("memory.max: it failed".into()) };
        self.give(Event::Limited(run, outcome))
    }

    /// A slice is to get other limits.
    pub(in crate::sim) fn plan_slice_limits(&mut self, slice: &Component) {
        let fails = !self.model.calm && self.random.percent(self.options.limit_failures);
        let number = SLICES.iter().position(|name| slice::group_of(name) == slice.name);
        if let Some(number) = number {
            self.plan(LIMITS_MS, Plan::LimitSlice(number, !fails));
        }
    }

    pub(in crate::sim) fn report_slice_limits(&mut self, number: usize, done: bool) -> Step {
        let outcome = if done { Ok(()) } else { Err("memory.max: it failed".into()) };
        self.give(Event::SliceLimited(slice::group_of(SLICES[number]).into(), outcome))
    }

    /// A process is told to end.
    pub(in crate::sim) fn plan_end(&mut self, run: RunId) {
        if self.model.process(run).is_some_and(|process| !process.deaf) {
            self.plan(self.options.stop_ms, Plan::End(run, Exit::Signal(15)));
        }
    }

    /// A process is killed.
    pub(in crate::sim) fn plan_death(&mut self, run: RunId) {
        let end = Plan::End(run, Exit::Signal(9));
        if !self.model.calm && self.random.percent(self.options.stuck) {
            let longer = Duration::from_millis(self.random.below(STUCK_LONGER_MS));
            return self.plan_after(STUCK + longer, end);
        }
        self.plan(self.options.kill_ms, end);
    }

    pub(in crate::sim) fn execute(&mut self, run: RunId) -> Step {
        let now = self.model.now;
        let Some(process) = self.model.process_mut(run) else { return Ok(()) };
        process.executed = Some(now);
        self.hold(run)?;
        self.plan_hello(run);
        self.give(Event::Executed(run))
    }

    pub(in crate::sim) fn report_ready(&mut self, run: RunId) -> Step {
        let Some(process) = self.model.process_mut(run) else { return Ok(()) };
        process.ready = true;
        self.give(Event::Ready(run))
    }

    pub(in crate::sim) fn fail_to_execute(&mut self, run: RunId) -> Step {
        if !self.model.end(run) {
            return Ok(());
        }
        self.give(Event::NotExecuted { run, step: "execute the binary".into(), errno: 2 })
    }

    pub(in crate::sim) fn refuse_to_execute(&mut self, run: RunId) -> Step {
        if !self.model.end(run) {
            return Ok(());
        }
        self.give(Event::Unsupported { run, what: "isolation.root".into() })
    }

    pub(in crate::sim) fn end(&mut self, run: RunId, exit: Exit) -> Step {
        self.fail_giver_of(run)?;
        self.fail_checkpoint_of(run)?;
        if !self.model.end(run) {
            return Ok(());
        }
        self.give(Event::Ended(run, exit))
    }

    /// Some process dies.
    pub(super) fn kill_one(&mut self) -> Step {
        let runs: Vec<_> = self.model.all_processes().map(|(_, process)| process.run).collect();
        match runs.get(self.random.below(runs.len() as u64) as usize) {
            Some(run) => self.end(*run, Exit::Signal(9)),
            None => Ok(()),
        }
    }

    /// The process that was started last dies.
    pub(super) fn kill_the_newest(&mut self) -> Step {
        let newest = self.model.all_processes().map(|(_, process)| process.run).max();
        newest.map_or(Ok(()), |run| self.end(run, Exit::Code(1)))
    }

    /// The kernel kills for want of memory: a component's own process, or one that this has started.
    pub(super) fn starve_one(&mut self) -> Step {
        let runs: Vec<_> = self.model.all_processes().map(|(_, process)| process.run).collect();
        let Some(run) = runs.get(self.random.below(runs.len() as u64) as usize).copied() else {
            return Ok(());
        };
        if self.random.percent(20) {
            return self.give(Event::Strained(run, Strain { what: "memory.high".into(), times: 1 }));
        }
        let (main, shared) = (self.random.percent(40), self.random.percent(10));
        let kills = 1 + self.random.below(3);
        self.give(Event::OutOfMemory(run, OutOfMemory { kills, main, shared, ..OutOfMemory::default() }))?;
        if main { self.end(run, Exit::Signal(9)) } else { Ok(()) }
    }

    /// Several die within one instant.
    pub(super) fn kill_many(&mut self) -> Step {
        for _ in 0..=self.random.below(MASSACRE) {
            self.kill_one()?;
        }
        Ok(())
    }
}
