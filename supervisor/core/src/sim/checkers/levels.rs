//! A capability is as well as the best of those who provide it: what the graph says follows from
//! the states that were reported.

use super::{Checker, Verdict};
use crate::engine::{Effect, Engine, Event};
use crate::graph::Level;
use crate::sim::model::{CAPABILITIES, Model, Set};

/// See the module documentation.
#[derive(Default)]
pub(super) struct Levels {
    /// Capabilities that may have changed in this step.
    touched: Set,
}

impl Checker for Levels {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        if matches!(event, Event::Files(_)) {
            self.touched = self.touched.or(model.provided());
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        if let Effect::Changed(record) = effect
            && let Some(number) = model.number(&record.component)
            && let Some(declared) = &model.slots[number].declared
        {
            self.touched = self.touched.or(declared.provides);
        }
        Ok(())
    }

    fn step(&mut self, model: &Model, engine: &Engine) -> Verdict {
        for cap in std::mem::take(&mut self.touched).iter() {
            let level = engine.level(&CAPABILITIES[cap]);
            let expected = match (model.up.has(cap), model.healthy.has(cap)) {
                (true, true) => Level::Up,
                (true, false) => Level::Degraded,
                _ => Level::Down,
            };
            if level != expected {
                return Err(format!("cap.{cap} is {level:?}; by its providers it is {expected:?}"));
            }
        }
        Ok(())
    }
}
