//! What an onlooker knows of checkpoints.

use std::time::Duration;

use super::{Dumped, Model, Process};
use crate::checkpoint::After;
use crate::component::Handoff;
use crate::engine::{Halt, RunId};

impl Process {
    /// Whether nothing can be expected of it for a checkpoint.
    pub(in crate::sim) fn is_away(&self) -> bool {
        self.dump.is_some() || self.restoring.is_some()
    }

    /// Whether it stands still until it is told to go on.
    pub(in crate::sim) fn is_held(&self) -> bool {
        matches!(self.dump, Some(Dumped::Held(_)))
    }
}

impl Model {
    /// Everything is to stop, but what is held before another kernel is executed.
    pub(in crate::sim) fn begin_halt(&mut self, halt: Halt) {
        if self.halting.is_none() {
            self.halting = Some(self.now);
            self.jumping = halt == Halt::Kexec;
        }
    }

    /// Whether a component declares that its process is moved.
    pub(in crate::sim) fn moves(&self, number: usize) -> bool {
        let declared = self.slots[number].declared.as_ref();
        declared.is_some_and(|declared| declared.component.lifecycle.handoff == Handoff::Checkpoint)
    }

    /// Whether a process is left as it is for the next kernel.
    pub(in crate::sim) fn is_kept(&self, process: &Process) -> bool {
        self.jumping && process.is_held()
    }

    /// A process is to be written down: what it has announced need not come meanwhile.
    pub(super) fn begin_checkpoint(&mut self, run: RunId, after: After) {
        let now = self.now;
        let Some(number) = self.owner(run) else { return };
        let up = self.slots[number].state.is_up();
        let Some(process) = self.process_mut(run) else { return };
        process.dump = Some(Dumped::Making(now, after));
        if up {
            process.due = None;
        }
    }

    /// Whose checkpoint is being made, since when, and what follows.
    pub(in crate::sim) fn making(&self, run: RunId) -> Option<(usize, Duration, After)> {
        match self.process(run)?.dump {
            Some(Dumped::Making(since, after)) => Some((self.owner(run)?, since, after)),
            _ => None,
        }
    }

    /// It has come so far.
    pub(in crate::sim) fn turn_dump(&mut self, run: RunId, dump: Dumped) {
        if let Some(process) = self.process_mut(run) {
            process.dump = Some(dump);
        }
    }

    /// It has nothing to do with the process any more.
    pub(in crate::sim) fn settle_checkpoint(&mut self, run: RunId) {
        if let Some(process) = self.process_mut(run) {
            process.dump = None;
        }
        self.expect_again(run);
    }

    /// A process is told to go on.
    pub(super) fn go_on(&mut self, run: RunId) {
        if self.process(run).is_some_and(Process::is_held) {
            self.settle_checkpoint(run);
        }
    }

    /// What it has announced is awaited from now on.
    fn expect_again(&mut self, run: RunId) {
        let now = self.now;
        let Some(number) = self.owner(run) else { return };
        let slot = &mut self.slots[number];
        let up = slot.state.is_up();
        let current = |process: &&mut Process| process.run == run && process.announced && up;
        if let Some(process) = slot.process.as_mut().filter(current) {
            let declared = slot.declared.as_ref().unwrap_or(&process.declared);
            process.due = Some(now + declared.component.hotswap.shutdown_grace);
        }
    }

    /// A process that was just begun is made from a checkpoint; one whose component is up goes on as it.
    pub(super) fn begin_again(&mut self, run: RunId) {
        let now = self.now;
        let Some(number) = self.owner(run) else { return };
        let slot = &mut self.slots[number];
        let moved = slot.moved.take().filter(|_| slot.state.is_up());
        let Some(process) = &mut slot.process else { return };
        if let Some(before) = moved {
            let generation = process.generation;
            *process = Process { run, generation, dump: None, due: None, ..before };
        }
        (process.restoring, process.remade) = (Some(now), true);
    }

    /// It is there, and as ready as it was.
    pub(in crate::sim) fn restored(&mut self, run: RunId) {
        let now = self.now;
        if let Some(process) = self.process_mut(run) {
            process.restoring = None;
            process.executed.get_or_insert(now);
            process.ready = true;
        }
        self.expect_again(run);
    }

    /// Nobody makes any more what was being made.
    pub(in crate::sim) fn forget_checkpoints(&mut self) {
        for process in self.slots.iter_mut().filter_map(|slot| slot.process.as_mut()) {
            if matches!(process.dump, Some(Dumped::Making(..))) {
                process.dump = None;
            }
        }
    }
}
