//! A component is up only when it has said so in the declared way, and has so much time to: no more
//! and no less, with what it asks for beyond that up to a limit.

use super::{Checker, Verdict};
use crate::component::Readiness;
use crate::engine::{Effect, Engine};
use crate::journal::{Cause, State};
use crate::sim::model::Model;

/// See the module documentation.
pub(super) struct Ready;

impl Checker for Ready {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Changed(record) = effect else { return Ok(()) };
        if matches!(record.cause, Cause::NotReady { .. }) && record.to == State::Stopping {
            let process = model.number(&record.component).and_then(|n| model.slots[n].process.as_ref());
            let over = process.and_then(|process| process.due).is_some_and(|due| model.now >= due);
            return if over {
                Ok(())
            } else {
                Err(format!("{} is stopped before its limit", record.component))
            };
        }
        if record.to != State::Active || matches!(record.from, State::Active | State::Degraded) {
            return Ok(());
        }
        let slot = model.number(&record.component).map(|number| &model.slots[number]);
        let Some(slot) = slot else { return Ok(()) };
        let Some(process) = &slot.process else {
            return Err(format!("{} is ACTIVE without a process", slot.name));
        };
        // The declaration may have changed since: either method will do.
        let current = slot.declared.as_ref().unwrap_or(&process.declared);
        let plain = [current, &process.declared]
            .iter()
            .any(|declared| declared.component.lifecycle.readiness == Readiness::None);
        if process.ready || (plain && process.executed.is_some()) {
            return Ok(());
        }
        Err(format!("{} is ACTIVE before it was ready", slot.name))
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        for slot in model.slots.iter().filter(|slot| slot.state == State::ReadyWait) {
            let due = slot.process.as_ref().and_then(|process| process.due);
            if due.is_some_and(|due| model.now > due) {
                return Err(format!("{} is waited for longer than its limit", slot.name));
            }
        }
        Ok(())
    }
}
