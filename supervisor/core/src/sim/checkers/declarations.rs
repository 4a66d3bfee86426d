//! What runs is what is declared: a process is started with the declaration in force, and one
//! that was started with another that it would notice is being stopped, or another process is to
//! take over from it.

use super::{Checker, Verdict};
use crate::engine::{Effect, Engine, Event};
use crate::journal::State;
use crate::sim::model::Model;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Declarations {
    /// Files have changed in this step.
    changed: bool,
}

impl Checker for Declarations {
    fn event(&mut self, _model: &Model, event: &Event) -> Verdict {
        self.changed |= matches!(event, Event::Files(_));
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Spawn { component, .. } = effect else { return Ok(()) };
        let name = &component.name;
        let slot = model.number(name).map(|number| &model.slots[number]);
        match slot.and_then(|slot| slot.declared.as_ref()) {
            None => Err(format!("{name} is started though nothing declares it")),
            // What goes on as another process is what it was.
            Some(_) if slot.is_some_and(|slot| slot.moved.is_some() && slot.state.is_up()) => Ok(()),
            Some(declared) if declared.component != *component => {
                Err(format!("{name} is started with a declaration that is no longer in force"))
            }
            Some(_) => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        for (number, process) in model.processes() {
            let slot = &model.slots[number];
            let same = slot
                .declared
                .as_ref()
                .is_some_and(|declared| process.declared.component.same_process(&declared.component));
            // Nobody can take over from one that is not known to serve, or stands still.
            let stands = (process.freezer.is_some() || process.is_away()) && model.hands_over(&slot.name);
            let able = process.said_serving && !stands;
            let waits = slot.second.is_some() || process.stays || !able;
            if !same && !waits && slot.state != State::Stopping {
                return Err(format!("{} runs on with a declaration that is no longer in force", slot.name));
            }
        }
        Ok(())
    }
}
