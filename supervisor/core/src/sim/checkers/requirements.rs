//! No process is started before everything that its component requires is up.

use super::{Checker, Verdict};
use crate::engine::Effect;
use crate::sim::model::{CAPABILITIES, Model};

/// See the module documentation.
pub(super) struct Requirements;

impl Checker for Requirements {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Spawn { component, .. } = effect else { return Ok(()) };
        let slot = model.number(&component.name).map(|number| &model.slots[number]);
        let Some(declared) = slot.and_then(|slot| slot.declared.as_ref()) else { return Ok(()) };
        let missing = declared.requires.without(model.up).iter().next();
        missing.map_or(Ok(()), |cap| {
            Err(format!("{} is started while {} is down", component.name, CAPABILITIES[cap]))
        })
    }
}
