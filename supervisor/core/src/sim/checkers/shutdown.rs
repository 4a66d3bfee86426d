//! A shutdown ends, once, when nothing lives any more, or when its time is over and everything
//! was killed; and nothing is started once it has begun.

use std::time::Duration;

use super::{Checker, Verdict};
use crate::engine::{Effect, Engine};
use crate::sim::model::Model;

/// After this the machine goes down regardless: the limit of an orderly shutdown and the time
/// that killed processes have to go.
const LIMIT: Duration = Duration::from_secs(65);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Shutdown {
    sent: bool,
}

impl Checker for Shutdown {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Spawn { component, .. } if model.halting.is_some() => {
                Err(format!("{} is started during the shutdown", component.name))
            }
            Effect::Halt(_) if std::mem::replace(&mut self.sent, true) => {
                Err("the machine goes down twice".to_owned())
            }
            Effect::Halt(_) => {
                let forced = model.halting.is_some_and(|since| model.now >= since + LIMIT);
                match model.all_processes().find(|(_, process)| !model.is_kept(process)) {
                    Some((number, _)) if !forced => {
                        Err(format!("the machine goes down while {} lives", model.slots[number].name))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        match model.halting {
            Some(since) if !model.halted && model.now > since + LIMIT => {
                Err("the shutdown does not end".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        if model.halted { Ok(()) } else { Err("the machine does not go down".to_owned()) }
    }
}
