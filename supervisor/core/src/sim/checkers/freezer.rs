//! From the request to freeze a process until it is thawed nothing is expected of it: it is not probed, and neither its
//! component's state nor its life suffers from its silence. What is told to end is thawed right after that and not
//! before. Who asked for something to be frozen is told so when it is, and not earlier.

use super::{Checker, Verdict};
use crate::control::{Answer, Freezer, Request};
use crate::engine::{ClientId, Effect, Engine, Event};
use crate::journal::{Cause, Record, State};
use crate::sim::model::Model;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Freezers {
    /// Who asked for a component to be frozen, and has no answer.
    asked: Vec<(ClientId, usize)>,
    /// Somebody wants something thawed in this step, whatever else becomes of it.
    wanted: bool,
}

impl Checker for Freezers {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        self.wanted = matches!(event, Event::Request { request: Request::Thaw { .. }, .. });
        match event {
            Event::Request { client, request: Request::Freeze { name, .. }, .. } => {
                self.asked.extend(model.number(name).map(|number| (*client, number)));
            }
            Event::ClientGone(client) => self.asked.retain(|(other, _)| other != client),
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let mark = |run| model.process(run).and_then(|process| process.freezer);
        match effect {
            Effect::Probe { run, component, .. } if mark(*run).is_some() => {
                Err(format!("{} is probed while it is frozen", component.name))
            }
            Effect::Thaw(run) if !self.wanted => {
                let slot = model.owner(*run).map(|number| &model.slots[number]);
                let Some(slot) = slot.filter(|slot| slot.state == State::Stopping) else { return Ok(()) };
                match model.process(*run) {
                    Some(process) if process.told.is_none() => {
                        Err(format!("{} is thawed before it is told to end", slot.name))
                    }
                    _ => Ok(()),
                }
            }
            Effect::Changed(record) => silence_is_no_failure(model, record),
            Effect::Reply(client, answer) => self.judge(model, *client, answer),
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        for (number, process) in model.processes() {
            let stands = matches!(process.freezer, Some(Freezer::Freezing | Freezer::Frozen));
            // Of one that could not be thawed that is not so, and it has its grace all the same.
            if process.told == Some(model.now) && stands {
                return Err(format!("{} is told to end and not thawed", model.slots[number].name));
            }
        }
        Ok(())
    }

    fn rest(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        match model.processes().find(|(_, process)| process.freezer.is_some()) {
            Some((number, _)) => Err(format!("{} is never thawed", model.slots[number].name)),
            None => Ok(()),
        }
    }
}

impl Freezers {
    fn judge(&mut self, model: &Model, client: ClientId, answer: &Answer) -> Verdict {
        let Some(at) = self.asked.iter().position(|(asked, _)| *asked == client) else { return Ok(()) };
        let (_, number) = self.asked.swap_remove(at);
        let slot = &model.slots[number];
        let mark = slot.process.as_ref().and_then(|process| process.freezer);
        if matches!(answer, Answer::Done { .. }) && mark != Some(Freezer::Frozen) {
            return Err(format!("{} is said to be frozen and is not", slot.name));
        }
        Ok(())
    }
}

fn silence_is_no_failure(model: &Model, record: &Record) -> Verdict {
    let Some(number) = model.number(&record.component) else { return Ok(()) };
    let frozen = model.slots[number].process.as_ref().is_some_and(|process| process.freezer.is_some());
    let silence =
        matches!(record.cause, Cause::Unhealthy { .. } | Cause::WatchdogExpired { .. } | Cause::NotEnded);
    if frozen && silence && record.from != record.to {
        return Err(format!("{} goes {} while it is frozen: {}", record.component, record.to, record.cause));
    }
    Ok(())
}
