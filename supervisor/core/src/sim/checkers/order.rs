//! Stops come in reverse order: a process is told to end when nothing lives any more that stands
//! on it, needs what it gives and finds that nowhere else.

use super::{Checker, Verdict};
use crate::engine::Effect;
use crate::sim::model::{Model, Set, told_to_end};

/// See the module documentation.
pub(super) struct Order;

impl Checker for Order {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Some(run) = told_to_end(effect) else { return Ok(()) };
        let (Some(own), Some(process)) = (model.owner(run), model.process(run)) else { return Ok(()) };
        let sole = process.sole.and(only_from(model, own));
        if sole.is_empty() {
            return Ok(());
        }
        for (user, other) in model.processes() {
            // A cycle has no order.
            if user == own || model.is_kept(other) || !other.stands_on.has(own) || model.needs(own, user) {
                continue;
            }
            let Some(declared) = &model.slots[user].declared else { continue };
            if !other.declared.requires.and(declared.requires).and(sole).is_empty() {
                let (name, user_name) = (&model.slots[own].name, &model.slots[user].name);
                let around = model.surroundings(user);
                return Err(format!("{name} is told to end while {user_name} still needs it{around}"));
            }
        }
        Ok(())
    }
}

/// Capabilities that nobody but this component declares.
fn only_from(model: &Model, own: usize) -> Set {
    let declared = model.slots[own].declared.as_ref();
    let process = model.slots[own].process.as_ref();
    let candidates = declared.or(process.map(|process| &process.declared));
    let caps = candidates.map(|declared| declared.provides).unwrap_or_default();
    let only =
        |cap: &usize| model.providers(*cap).without(Set::one(own)).is_empty() && !model.kernel.has(*cap);
    caps.iter().filter(only).collect()
}
