//! A process is started anew for a declaration only when a new one would differ in what the process
//! itself can see. Limits are changed on what runs: one change at a time, and in the end the limits
//! of each process are those that are declared. What has taken over is not kept to what the one before it left of them.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Checker, Verdict};
use crate::component::{Component, Resources};
use crate::engine::{Effect, Engine, Event, Place, RunId};
use crate::journal::{Cause, State};
use crate::sim::model::Model;

/// What one process has got.
#[derive(Debug)]
struct Given {
    resources: Rc<Resources>,
    /// A change is under way.
    busy: bool,
    /// It may use what another process leaves.
    confined: bool,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Limits {
    given: BTreeMap<RunId, Given>,
}

impl Checker for Limits {
    fn event(&mut self, _model: &Model, event: &Event) -> Verdict {
        match event {
            Event::Limited(run, _) => {
                if let Some(given) = self.given.get_mut(run) {
                    given.busy = false;
                }
            }
            // What was under way is lost, and asked for again.
            Event::Resumed(_) => self.given.values_mut().for_each(|given| given.busy = false),
            Event::Ended(run, _) | Event::NotExecuted { run, .. } | Event::Unsupported { run, .. } => {
                self.given.remove(run);
            }
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Spawn { run, component, place, .. } => {
                let resources = component.resources.clone();
                self.given.insert(*run, Given { resources, busy: false, confined: *place != Place::Alone });
                Ok(())
            }
            Effect::Unconfine(run) => {
                self.given.get_mut(run).into_iter().for_each(|given| given.confined = false);
                Ok(())
            }
            Effect::Limit { run, component } => self.change(*run, component),
            Effect::Changed(record) if matches!(record.cause, Cause::Redeclared { .. }) => {
                let number = model.number(&record.component).ok_or("a record names a stranger")?;
                let slot = &model.slots[number];
                let (Some(now), Some(process)) = (&slot.declared, &slot.process) else { return Ok(()) };
                let waits = matches!(record.from, State::Starting | State::ReadyWait);
                let (now, then) = (&now.component, &process.declared.component);
                if differ(now, then) || waits || record.from == State::Stopping {
                    return Ok(());
                }
                Err(format!("{} is started anew for what it cannot see", record.component))
            }
            _ => Ok(()),
        }
    }

    fn rest(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        for (number, process) in model.processes() {
            let slot = &model.slots[number];
            let Some(given) = self.given.get(&process.run) else { continue };
            let declared = slot.declared.as_ref().map(|declared| &declared.component.resources);
            if given.busy || declared.is_some_and(|declared| *declared != given.resources) {
                return Err(format!("{} runs on with limits that are no longer declared", slot.name));
            }
            if given.confined {
                return Err(format!("{} runs on with what the process before it left", slot.name));
            }
        }
        Ok(())
    }
}

impl Limits {
    fn change(&mut self, run: RunId, component: &Rc<Component>) -> Verdict {
        let name = &component.name;
        let Some(given) = self.given.get_mut(&run) else {
            return Err(format!("{name} gets limits and has no process"));
        };
        if std::mem::replace(&mut given.busy, true) {
            return Err(format!("the limits of {name} are changed twice at once"));
        }
        given.resources = component.resources.clone();
        Ok(())
    }
}

/// Whether a process can tell one declaration from the other. (What the world draws of it.)
fn differ(one: &Component, other: &Component) -> bool {
    let seen = |c: &Component| {
        let slice = c.resources.slice.clone();
        (c.args.clone(), c.kind, c.lifecycle.watchdog, c.lifecycle.handoff, slice)
    };
    seen(one) != seen(other)
}
