//! A process is told once to end, by SIGTERM or by SIGABRT and never by both, has its grace, and is
//! killed when that is over, again and again while it does not go. Nothing is killed earlier, but at
//! the end of a shutdown. What a process asks for beyond its grace it gets, up to a limit. One that was released
//! has the same grace; one that failed to take over has none, for it serves nobody,
//! nor has one that was not made from a checkpoint in time.

use std::time::Duration;

use super::{Checker, Verdict};
use crate::engine::{Effect, Engine, RESTORE_LIMIT};
use crate::sim::model::{Model, told_to_end};

/// How long a shutdown takes before everything left is killed.
const HALT_LIMIT: Duration = Duration::from_secs(60);

/// See the module documentation.
pub(super) struct Grace;

impl Checker for Grace {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let told = told_to_end(effect);
        let killed = if let Effect::Kill(run) = effect { Some(*run) } else { None };
        let Some(run) = told.or(killed) else { return Ok(()) };
        let Some(process) = model.process(run) else {
            return Err("a process that is gone is told to end".to_owned());
        };
        let name = &process.declared.component.name;
        if told.is_some() {
            return match process.told {
                Some(_) => Err(format!("{name} is told to end twice")),
                None => Ok(()),
            };
        }
        let grace = process.declared.component.hotswap.shutdown_grace;
        let released = process.released.is_some_and(|since| model.now >= since + grace);
        let slot = model.owner(run).map(|number| &model.slots[number]);
        let second = slot.is_some_and(|slot| slot.second.as_ref().is_some_and(|second| second.run == run));
        let failed = second && process.released.is_none() && process.gives_to.is_none();
        // The next start waits for it.
        let in_the_way = second && slot.is_some_and(|slot| slot.process.is_none());
        let unmade = process.restoring.is_some_and(|since| model.now >= since + RESTORE_LIMIT);
        if failed || released || in_the_way || unmade {
            return Ok(());
        }
        let forced = model.halting.is_some_and(|since| model.now >= since + HALT_LIMIT);
        let over = process.told.is_some() && process.due.is_some_and(|due| model.now >= due);
        if over || forced { Ok(()) } else { Err(format!("{name} is killed before its grace is over")) }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        for (number, process) in model.all_processes() {
            let overdue = process.told.is_some() && process.due.is_some_and(|due| model.now > due);
            if overdue && !model.halted {
                return Err(format!("{} outlives its grace and is not killed", model.slots[number].name));
            }
        }
        Ok(())
    }
}
