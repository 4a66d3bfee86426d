//! Nothing runs in a slice that nobody declares: what lies in one is not started, and is stopped when it goes. The limits
//! of a slice are changed one at a time, in the end they are those that are declared, and the engine says of a slice
//! that they do not hold when that is so, and no longer.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Checker, Verdict};
use crate::component::Resources;
use crate::engine::{Effect, Engine, Event};
use crate::journal::State;
use crate::sim::model::{CAPABILITIES, FIRST_SLICE, Model, Set, slices_around};

/// What is known of the limits of a slice.
#[derive(Debug, Default)]
struct Given {
    /// Those that were asked for last.
    resources: Option<Rc<Resources>>,
    /// A change is under way.
    busy: bool,
    /// The last one has failed, and no start has written them since.
    failed: bool,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Slices {
    /// Files have changed in this step.
    changed: bool,
    /// By the capability that stands for each.
    given: BTreeMap<usize, Given>,
}

impl Checker for Slices {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        match event {
            Event::Files(_) => {
                self.changed = true;
                // What nobody declares fails no more.
                let gone = self.given.iter_mut().filter(|(cap, _)| !model.kernel.has(**cap));
                gone.for_each(|(_, given)| given.failed = false);
            }
            Event::SliceLimited(group, outcome) => {
                let given = number(group).and_then(|cap| self.given.get_mut(&cap));
                let given = given.ok_or("a slice is reported whose limits were never changed")?;
                (given.busy, given.failed) = (false, outcome.is_err());
            }
            // The limits of all around it were written.
            Event::Created { run, .. } => {
                let around = model.process(*run).map(|process| slices_around(&process.declared.component));
                for cap in around.unwrap_or_default().iter() {
                    if let Some(given) = self.given.get_mut(&cap).filter(|given| !given.busy) {
                        given.failed = false;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Spawn { component, .. } => match undeclared(model, slices_around(component)) {
                Some(slice) => Err(format!("{} is started, and nobody declares {slice}", component.name)),
                None => Ok(()),
            },
            Effect::LimitSlice(slice) => {
                let cap = number(&slice.name).ok_or("a slice gets limits that is none")?;
                let given = self.given.entry(cap).or_default();
                if std::mem::replace(&mut given.busy, true) {
                    return Err(format!("the limits of {} are changed twice at once", CAPABILITIES[cap]));
                }
                (given.resources, given.failed) = (Some(Rc::clone(&slice.resources)), false);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        for (number, _) in model.processes().filter(|(_, process)| !model.is_kept(process)) {
            let slot = &model.slots[number];
            // From one that is now to lie elsewhere another process may be about to take over.
            let around = slot.declared.as_ref().map(|declared| slices_around(&declared.component));
            let around = around.unwrap_or_default();
            if let Some(slice) = undeclared(model, around).filter(|_| slot.state != State::Stopping) {
                return Err(format!("{} runs on as {}, and nobody declares {slice}", slot.name, slot.state));
            }
        }
        Ok(())
    }

    fn rest(&mut self, model: &Model, engine: &Engine) -> Verdict {
        for slice in &engine.slices_page(None).slices {
            let name = &slice.name;
            let given = number(&slice.cgroup).and_then(|cap| self.given.get(&cap));
            let given = given.ok_or_else(|| format!("slice {name} never gets its limits"))?;
            let declared = number(&slice.cgroup).and_then(|cap| model.slices[cap - FIRST_SLICE].as_ref());
            if given.busy || given.resources.as_ref() != declared.map(|declared| &declared.resources) {
                return Err(format!("slice {name} has limits that are no longer declared"));
            }
            if given.failed != slice.detail.is_some() {
                return Err(format!("of slice {name} is said: {:?}", slice.detail));
            }
        }
        let shown = engine.slices_page(None).slices.len();
        let declared = model.slices.iter().flatten().count();
        if shown == declared { Ok(()) } else { Err(format!("{shown} slices are shown, {declared} declared")) }
    }
}

/// One of these slices that nobody declares.
fn undeclared(model: &Model, slices: Set) -> Option<&'static str> {
    slices.without(model.kernel).iter().next().map(|cap| CAPABILITIES[cap].as_str())
}

/// The number of the capability that stands for the slice of a group.
fn number(group: &str) -> Option<usize> {
    let name = crate::component::slice::capability(group);
    CAPABILITIES.iter().position(|capability| *capability == name)
}
