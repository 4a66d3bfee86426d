//! A component that a user stopped stays stopped until a user starts it.

use super::{Checker, Verdict};
use crate::engine::Effect;
use crate::sim::model::Model;

/// See the module documentation.
pub(super) struct Held;

impl Checker for Held {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Spawn { component, .. } = effect else { return Ok(()) };
        let slot = model.number(&component.name).map(|number| &model.slots[number]);
        match slot {
            Some(slot) if slot.held => Err(format!("{} is started though a user stopped it", slot.name)),
            _ => Ok(()),
        }
    }
}
