//! Once nothing fails any more, everything runs that can, and the rest is where it belongs.

use super::{Checker, Verdict};
use crate::engine::Engine;
use crate::journal::State;
use crate::sim::model::Model;

/// See the module documentation.
pub(super) struct Convergence;

impl Checker for Convergence {
    fn rest(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        obstacle(model).map_or(Ok(()), Err)
    }
}

/// The first component that is not where it belongs, with everything it needs; `None` when all
/// are. A component that a user has stopped belongs nowhere else.
pub(in crate::sim) fn obstacle(model: &Model) -> Option<String> {
    let can_run = model.rises(false);
    let no_cycle = model.rises(true);
    for (number, slot) in model.slots.iter().enumerate() {
        if slot.second.is_some() {
            return Some(format!("the hot swap of {} is not over", slot.name));
        }
        let Some(declared) = &slot.declared else {
            if slot.state == State::Removed {
                continue;
            }
            return Some(format!("{} is no longer declared, and is {}", slot.name, slot.state));
        };
        let right = match (can_run.has(number), no_cycle.has(number)) {
            (true, _) => matches!(slot.state, State::Active | State::Done),
            // What could not start afresh may run on, held up by itself or a ring of others.
            (false, true) if slot.state.is_up() => declared.requires.without(model.up).is_empty(),
            (false, true) => slot.state == State::Inactive,
            (false, false) => slot.state == State::Cycle,
        };
        if !right {
            return Some(format!(
                "{} stays {} since {:?}{}",
                slot.name,
                slot.state,
                slot.since,
                model.surroundings(number)
            ));
        }
    }
    None
}
