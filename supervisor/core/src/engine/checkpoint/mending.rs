//! Checkpoints that a supervisor finds which takes over.

use std::rc::Rc;
use std::time::Duration;

use super::origin::RESTORE_LIMIT;
use super::{HOLD_LIMIT, Stage};
use crate::checkpoint::Made;
use crate::engine::timers::Due;
use crate::engine::unit::Process;
use crate::engine::{Alive, Effect, Engine, Facts, RunId, Stage as Seen};
use crate::graph::NodeId;
use crate::journal::Cause;

impl Engine {
    /// Processes of which the performer makes a checkpoint.
    pub(in crate::engine) fn checkpointing(&self) -> Vec<RunId> {
        let processes = self.units.iter().flatten().filter_map(|unit| unit.process.as_ref());
        let making = |process: &&Process| {
            process.dump.as_ref().is_some_and(|dump| matches!(dump.stage, Stage::Making))
        };
        processes.filter(making).map(|process| process.run).collect()
    }

    /// Those that did not survive the performer before have failed, as far as is known.
    pub(in crate::engine) fn give_up_checkpoints(&mut self, facts: &Facts) {
        let lost = self.checkpointing().into_iter().filter(|run| !facts.checkpoints.contains(run));
        for run in lost.collect::<Vec<_>>() {
            // It may have been made, and have left everything held.
            if facts.failure.is_some() {
                self.effects.push(Effect::Continue(run));
            }
            self.take_checkpointed(run, Err(Cause::Interrupted.to_string().into()));
        }
    }

    /// After a failure of the supervisor: what is to be held has its limit, what is not held goes on, for the word may be
    /// lost, and what is there was made.
    pub(in crate::engine) fn mend_checkpoint(&mut self, id: NodeId, facts: &Facts) {
        let Some(unit) = self.unit(id) else { return };
        let Some(process) = unit.process.as_ref() else { return };
        let run = process.run;
        let enabled = [&unit.component, &process.component].iter().any(|one| one.checkpoint.enabled);
        let Some(Alive { pid, stage }) = facts.processes.get(&run).copied() else { return };
        if let Some(restoring) = &process.restoring {
            let (made, lost) = (restoring.id.clone(), restoring.timer.is_none());
            if stage >= Seen::Executed
                && let Some(pid) = pid
            {
                let id = made.unwrap_or_else(|| Rc::from("newest"));
                return self.take_restored(run, pid, &Made { id, took_us: 0 });
            }
            if lost {
                self.arm_checkpoint(id, RESTORE_LIMIT);
            }
            return;
        }
        match &process.dump {
            Some(dump) if matches!(dump.stage, Stage::Held) && dump.timer.is_none() && !self.is_kept(id) => {
                self.arm_checkpoint(id, HOLD_LIMIT);
            }
            // What had to end it may not have come to that.
            Some(dump) if matches!(dump.stage, Stage::Leaving(..)) => self.effects.push(Effect::Kill(run)),
            None if enabled => self.effects.push(Effect::Continue(run)),
            _ => {}
        }
    }

    fn arm_checkpoint(&mut self, id: NodeId, after: Duration) {
        let timer = self.timers.arm(self.now.saturating_add(after), Due::Checkpoint(id));
        if let Some(restoring) = self.restoring_of(id) {
            restoring.timer = Some(timer);
        } else if let Some(dump) = self.dump_of(id) {
            dump.timer = Some(timer);
        }
    }
}
