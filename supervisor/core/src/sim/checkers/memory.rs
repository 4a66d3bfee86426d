//! Nothing grows with time: timers, waiting clients, runs, probes and records are bounded by what
//! is declared, and a step's effects by what it can touch.

use super::{Checker, Verdict};
use crate::engine::{Effect, Engine, Event, WAITER_LIMIT};
use crate::journal::CAPACITY;
use crate::sim::model::Model;

/// Timers of a component: while it is up one for its next probe, one for the probe under way and one
/// for its watchdog; otherwise one of its life. And one for its hot swap.
const TIMERS_OF_ONE: usize = 4;

/// Processes of a component: the second one is of a hot swap.
const RUNS_OF_ONE: usize = 2;

/// Probes of a component: one under way, and cancelled ones that are not yet over. One is
/// cancelled with every end of a process, and the world ends it soon.
const PROBES_OF_ONE: usize = 8;

/// Effects of one step for a component: it may go through a whole life within one.
const EFFECTS_OF_ONE: usize = 16;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Memory {
    effects: usize,
}

impl Checker for Memory {
    fn event(&mut self, _model: &Model, _event: &Event) -> Verdict {
        self.effects = 0;
        Ok(())
    }

    fn effect(&mut self, _model: &Model, _effect: &Effect) -> Verdict {
        self.effects += 1;
        Ok(())
    }

    fn step(&mut self, model: &Model, engine: &Engine) -> Verdict {
        let sizes = engine.sizes();
        let components = model.slots.len();
        let rows = [
            ("timers", sizes.timers, TIMERS_OF_ONE * components + sizes.waiters + 1),
            ("clients", sizes.waiters, WAITER_LIMIT),
            ("runs", sizes.runs, RUNS_OF_ONE * components),
            ("probes", sizes.probes, PROBES_OF_ONE * components),
            ("records", sizes.records, CAPACITY),
            ("effects", self.effects, EFFECTS_OF_ONE * components + WAITER_LIMIT + 1),
        ];
        for (what, count, most) in rows {
            if count > most {
                return Err(format!("{count} {what} of {components} components; {most} at most"));
            }
        }
        Ok(())
    }
}
