//! A component has one process; two while one takes over from the other, and never three.

use super::{Checker, Verdict};
use crate::engine::{Effect, Place};
use crate::sim::model::Model;

/// See the module documentation.
pub(super) struct Single;

impl Checker for Single {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Spawn { component, place, .. } = effect else { return Ok(()) };
        let slot = model.number(&component.name).map(|number| &model.slots[number]);
        match slot {
            Some(slot) if slot.process.is_some() == (*place == Place::Alone) || slot.second.is_some() => {
                Err(format!("{} is started while a process of it lives, or takes over from none", slot.name))
            }
            _ => Ok(()),
        }
    }
}
