//! Want of memory: the kernel has killed a process of a component, and what that means for it is declared.
//!
//! Of a process of its own that is gone nothing more can be decided than what follows its end. What it has started can be
//! gone without it: then the component is stopped (dependents first), and started again by the restart rule or left
//! FAILED, or it runs on. Every kill is counted once and told.

use std::rc::Rc;

use super::{Action, Engine, Input, RunId, decide};
use crate::component::{Kind, OnOom};
use crate::graph::NodeId;
use crate::journal::{Cause, Exit, OutOfMemory};
use crate::mutation::{Mutation, broken};

/// How the kernel ends a process for want of memory: by SIGKILL.
const KILLED: Exit = Exit::Signal(9);

impl Engine {
    /// The kernel has killed for want of memory.
    pub(super) fn take_out_of_memory(&mut self, run: RunId, what: OutOfMemory) {
        let what = Rc::new(what);
        let owner = self.runs.get(&run).or_else(|| self.seconds.get(&run)).copied();
        let Some(id) = owner else { return };
        if let Some(unit) = self.unit_mut(id) {
            unit.oom_kills = unit.oom_kills.saturating_add(what.kills);
        }
        let cause = Cause::OutOfMemory(Rc::clone(&what));
        if let Some(second) = self.second_mut(run) {
            // If it was that process itself, its end is all that follows.
            second.starved = Some(what).filter(|what| what.main);
            return self.remark(id, cause, None);
        }
        if what.main {
            if let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) {
                process.starved = Some(what);
            }
            return self.remark(id, cause, None);
        }
        let Some(unit) = self.unit(id) else { return };
        let acts = decide(unit.state, Input::OutOfMemory) != Action::Keep;
        let continues = unit.component.resources.on_oom == OnOom::Continue || what.shared;
        if !acts || continues || broken(Mutation::RunOnStarved) {
            return self.remark(id, cause, None);
        }
        self.feed(id, Input::OutOfMemory, cause);
    }

    /// What ended the process of a run: want of memory, if it was killed for that.
    pub(super) fn cause_of_end(&self, run: RunId, exit: Exit) -> Cause {
        let process = match self.runs.get(&run) {
            Some(id) => self.unit(*id).and_then(|unit| unit.process.as_ref()),
            None => self.second(run),
        };
        let starved = process.and_then(|process| process.starved.clone()).filter(|_| exit == KILLED);
        starved.map_or(Cause::Ended(exit), Cause::OutOfMemory)
    }

    /// Whether what has failed for this is not started again until it is asked for. (A oneshot never is.)
    pub(super) fn stays_failed(&self, id: NodeId, cause: &Cause) -> bool {
        let Some(unit) = self.unit(id).filter(|_| matches!(cause, Cause::OutOfMemory(_))) else {
            return false;
        };
        let stops = unit.component.resources.on_oom == OnOom::Stop && !broken(Mutation::RestartStarved);
        stops || unit.component.kind == Kind::Oneshot
    }
}
