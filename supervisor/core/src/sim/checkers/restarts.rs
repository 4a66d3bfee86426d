//! No restart is lost: after every step, a component that may run and lies idle says why, by a
//! requirement that is down or by a pause, and a pause ends.

use std::time::Duration;

use super::{Checker, Verdict};
use crate::component::Kind;
use crate::engine::{Effect, Engine, Event};
use crate::journal::State;
use crate::sim::model::{Model, Slot};

/// The longest pause of the restart rule.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Restarts {
    /// Something happened in this step that may let a component start.
    stirred: bool,
}

impl Checker for Restarts {
    fn event(&mut self, _model: &Model, event: &Event) -> Verdict {
        self.stirred |= !matches!(event, Event::Tick);
        Ok(())
    }

    fn effect(&mut self, _model: &Model, effect: &Effect) -> Verdict {
        self.stirred |= matches!(effect, Effect::Changed(_));
        Ok(())
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        if model.halting.is_some() {
            return Ok(());
        }
        let stirred = std::mem::take(&mut self.stirred);
        for slot in &model.slots {
            match slot.state {
                State::Inactive if stirred && lies_idle(model, slot) => {
                    return Err(format!("{} lies idle though everything that it needs is up", slot.name));
                }
                State::Backoff | State::Failed if pause_is_over(model, slot) => {
                    return Err(format!("{} stays {} after the longest pause", slot.name, slot.state));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn lies_idle(model: &Model, slot: &Slot) -> bool {
    // What is left of a hot swap has to go first.
    if slot.second.is_some() {
        return false;
    }
    let Some(declared) = slot.declared.as_ref().filter(|_| !slot.held) else { return false };
    declared.requires.or(declared.optional).without(model.up).is_empty()
}

/// A oneshot that has ended with an error stays FAILED: only a service comes back by itself.
fn pause_is_over(model: &Model, slot: &Slot) -> bool {
    let service = slot.declared.as_ref().is_some_and(|declared| declared.component.kind == Kind::Service);
    service && !slot.stays_failed && model.now > slot.since + LONGEST_PAUSE
}
