//! Checkpoints: from the question until the answer, while it is held and while it is made again, a process is not probed,
//! and its silence is no failure. One that fails loses nothing. What is held goes on within a time, unless another kernel
//! is to be executed: then it stays as it is. What was written down and ended is made again at once; what takes too long
//! to be made is ended. Nothing is made from what was not asked for, from the image of another declaration, or from one
//! that was found to be of no use; and who is told that a checkpoint was made, or that a process was made from one, is
//! told the truth.

use std::rc::Rc;

use super::{Checker, Verdict};
use crate::checkpoint::{After, Origin};
use crate::component::Component;
use crate::control::{Answer, Request};
use crate::engine::{ClientId, Effect, Engine, Event, HOLD_LIMIT, RESTORE_LIMIT, RunId};
use crate::journal::{Cause, Record, State};
use crate::sim::model::{Dumped, Model, Process};

/// What a checkpoint was asked for for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Asked,
    Move,
    Warm,
}

/// Somebody wants a process made from this checkpoint.
#[derive(Clone, Debug)]
struct Wanted {
    client: ClientId,
    id: Option<Rc<str>>,
    /// A new start will do.
    fallback: bool,
}

/// What starts of a component may be made from.
#[derive(Clone, Debug, Default)]
struct Sources {
    /// Requests for a restore that nothing has followed from yet.
    wanted: Vec<Wanted>,
    /// An upgrade waits for the checkpoint that is being made.
    queued: bool,
    /// What was carried over, until it is used.
    carried: Option<Origin>,
    /// What was written down of a start with this declaration.
    warm: Option<(Rc<str>, Rc<Component>)>,
    /// The process that is being made was asked for, and nothing else will do.
    strict: Option<RunId>,
    /// The process that is being made is a warm start.
    warming: Option<RunId>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    sources: Vec<Sources>,
    /// Checkpoints that are being made.
    open: Vec<(RunId, Purpose)>,
    /// What this step is about.
    now: Now,
}

/// What one event is about.
#[derive(Debug, Default)]
struct Now {
    /// Somebody has asked for a checkpoint, or for an upgrade.
    asked: Option<Purpose>,
    /// This checkpoint was made, of this process.
    made: Option<(RunId, Rc<str>)>,
    /// That of this process failed, and was to lose nothing.
    failed: Option<RunId>,
    /// This process could not be made, and no other is to be started.
    refused: Option<usize>,
    /// Everything is to stop from now on, or time has passed.
    unasked: bool,
}

impl Checker for Checkpoints {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        self.sources.resize_with(model.slots.len(), Sources::default);
        self.now = Now::default();
        match event {
            Event::Carried(origins) => {
                for (name, origin) in origins {
                    if let Some(number) = model.number(name) {
                        self.sources[number].carried = Some(origin.clone());
                    }
                }
            }
            Event::Request { client, request, peer } if peer.uid == 0 => self.ask(model, *client, request),
            Event::Halt(_) | Event::Tick => self.now.unasked = true,
            Event::Checkpointed(run, outcome) => {
                let at = self.open.iter().position(|(open, _)| open == run);
                let Some(purpose) = at.map(|at| self.open.swap_remove(at).1) else { return Ok(()) };
                match outcome {
                    Ok(written) => {
                        self.now.made = Some((*run, Rc::clone(&written.id)));
                        let started = model.process(*run).map(|process| &process.declared.component);
                        if let (Purpose::Warm, Some(component), Some(number)) =
                            (purpose, started, model.owner(*run))
                        {
                            self.sources[number].warm = Some((Rc::clone(&written.id), Rc::clone(component)));
                        }
                    }
                    Err(_) if purpose != Purpose::Move => self.now.failed = Some(*run),
                    Err(_) => {}
                }
            }
            Event::NotRestored(run, _) => self.lose(model, *run),
            Event::Ended(run, _) => {
                self.open.retain(|(open, _)| open != run);
                self.lose(model, *run);
            }
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Checkpoint { run, after, .. } => self.begin(model, *run, *after),
            Effect::Spawn { run, component, origin, .. } => {
                self.start(model, *run, component, origin.as_ref())
            }
            Effect::Probe { run, component, .. } if model.process(*run).is_some_and(Process::is_away) => {
                Err(format!("{} is probed while a checkpoint is made of it, or made into it", component.name))
            }
            Effect::Terminate(run) | Effect::Kill(run) => self.weigh_end(model, *run),
            Effect::Changed(record) => silence_is_no_failure(model, record),
            Effect::Reply(client, answer) => {
                if matches!(answer, Answer::Refused { .. }) {
                    let all = self.sources.iter_mut();
                    all.for_each(|sources| sources.wanted.retain(|wanted| wanted.client != *client));
                }
                self.judge(model, answer)
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        for slot in &model.slots {
            let up = matches!(slot.state, State::Active | State::Degraded);
            let Some(process) = &slot.process else {
                if up {
                    return Err(format!("{} is {} and has no process", slot.name, slot.state));
                }
                continue;
            };
            if let Some(Dumped::Held(since)) = process.dump
                && !model.jumping
                && (process.told.is_some() || model.now > since + HOLD_LIMIT)
            {
                return Err(format!("{} is held since {since:?}, and does not go on", slot.name));
            }
            let late = process.restoring.is_some_and(|since| model.now > since + RESTORE_LIMIT);
            if late && process.killed.is_none() && !model.halted {
                return Err(format!("{} takes too long to be made from a checkpoint", slot.name));
            }
        }
        Ok(())
    }

    fn rest(&mut self, model: &Model, engine: &Engine) -> Verdict {
        if let Some((number, _)) = model.processes().find(|(_, process)| process.is_away()) {
            return Err(format!("{} never goes on after a checkpoint", model.slots[number].name));
        }
        match engine.agreeing_facts().checkpoints.first() {
            Some(run) => Err(format!("a checkpoint of run {} is awaited that nobody makes", run.0)),
            None => Ok(()),
        }
    }
}

impl Checkpoints {
    fn ask(&mut self, model: &Model, client: ClientId, request: &Request) {
        match request {
            Request::Checkpoint { .. } => self.now.asked = Some(Purpose::Asked),
            Request::Upgrade { name, queue, .. } => {
                self.now.asked = Some(Purpose::Move);
                if let Some(number) = model.number(name) {
                    self.sources[number].queued |= queue;
                }
            }
            Request::Kexec => self.now.unasked = true,
            Request::Restore { name, id, fallback, .. } => {
                if let Some(number) = model.number(name) {
                    let id = id.as_deref().map(Rc::from);
                    self.sources[number].wanted.push(Wanted { client, id, fallback: *fallback });
                }
            }
            // It is to run, however.
            Request::Start { name, .. } => {
                if let Some(number) = model.number(name) {
                    let sources = &mut self.sources[number];
                    sources.strict = None;
                    sources.wanted.iter_mut().for_each(|wanted| wanted.fallback = true);
                }
            }
            _ => {}
        }
    }

    /// A process is to be written down.
    fn begin(&mut self, model: &Model, run: RunId, after: After) -> Verdict {
        let (Some(process), Some(number)) = (model.process(run), model.owner(run)) else {
            return Err("a process that is gone is written down".to_owned());
        };
        let slot = &model.slots[number];
        let name = &slot.name;
        // What stands before it in this step may have ended an upgrade.
        let alone = slot.second.is_none() && slot.process.as_ref().is_some_and(|process| process.run == run);
        if !alone || process.is_away() || process.freezer.is_some() || process.told.is_some() {
            return Err(format!("{name} is written down while something else is done with it"));
        }
        let current = slot.declared.as_ref().map(|declared| &declared.component);
        if current.is_some_and(|component| !component.checkpoint.enabled) {
            return Err(format!("{name} is written down, which is not enabled"));
        }
        let purpose = match (self.now.asked, after) {
            (Some(purpose), _) => purpose,
            (None, After::End) => Purpose::Move,
            (None, _) => Purpose::Warm,
        };
        if purpose == Purpose::Warm && process.remade {
            return Err(format!("{name} is written down for warm starts, and is no new start"));
        }
        self.sources[number].queued = false;
        self.open.push((run, purpose));
        Ok(())
    }

    /// A process is started.
    fn start(
        &mut self,
        model: &Model,
        run: RunId,
        component: &Rc<Component>,
        origin: Option<&Origin>,
    ) -> Verdict {
        let Some(number) = model.number(&component.name) else { return Ok(()) };
        let slot = &model.slots[number];
        let name = &slot.name;
        if self.now.refused == Some(number) {
            return Err(format!(
                "{name} is started anew, and was to be made from a checkpoint or not at all"
            ));
        }
        let Some(origin) = origin else { return Ok(()) };
        if let Some(moved) = slot.moved.as_ref().filter(|_| slot.state.is_up()) {
            let right = matches!(&moved.dump, Some(Dumped::Leaving(id)) if origin.id.as_ref() == Some(id));
            return if right { Ok(()) } else { Err(format!("{name} goes on as another than it was")) };
        }
        let sources = &mut self.sources[number];
        if let Some(at) = sources.wanted.iter().rposition(|wanted| wanted.id == origin.id) {
            let Wanted { fallback, .. } = sources.wanted.remove(at);
            sources.wanted.clear();
            sources.strict = (!fallback).then_some(run);
            return Ok(());
        }
        if sources.carried.take_if(|carried| carried == origin).is_some() {
            return Ok(());
        }
        match &sources.warm {
            Some((id, declared)) if origin.id.as_ref() == Some(id) && declared == component => {
                sources.warming = Some(run);
                Ok(())
            }
            Some((id, _)) if origin.id.as_ref() == Some(id) => {
                Err(format!("{name} is made from what was written down of another declaration"))
            }
            _ => Err(format!("{name} is made from a checkpoint that is not to be used")),
        }
    }

    /// A process that was to be made is gone.
    fn lose(&mut self, model: &Model, run: RunId) {
        let Some(number) = model.owner(run) else { return };
        let Some(sources) = self.sources.get_mut(number) else { return };
        let starting = model.slots[number].state == State::Starting;
        if sources.strict.take_if(|strict| *strict == run).is_some() && starting {
            // An upgrade that has waited for this begins with a start of its own.
            self.now.refused = (!sources.queued).then_some(number);
        } else if sources.warming.take_if(|warming| *warming == run).is_some() && starting {
            sources.warm = None;
        }
    }

    /// A process is told to end, or killed.
    fn weigh_end(&self, model: &Model, run: RunId) -> Verdict {
        let (Some(process), Some(number)) = (model.process(run), model.owner(run)) else { return Ok(()) };
        let slot = &model.slots[number];
        if self.now.failed == Some(run) {
            let declared = slot.declared.as_ref().map(|declared| &declared.component);
            let same = declared.is_some_and(|now| now.same_process(&process.declared.component));
            if same && process.told.is_none() && !self.sources[number].queued {
                return Err(format!("{} is ended because its checkpoint failed", slot.name));
            }
        }
        if self.now.unasked && model.is_kept(process) {
            return Err(format!("{} is held for another kernel, and is ended", slot.name));
        }
        Ok(())
    }

    fn judge(&self, model: &Model, answer: &Answer) -> Verdict {
        match answer {
            Answer::Checkpointed { component, written, .. } => {
                let made = self.now.made.as_ref().filter(|(_, id)| *id == written.id);
                let of = made.and_then(|(run, _)| model.owner(*run));
                let right = of.is_some() && of == model.number(component);
                if right {
                    Ok(())
                } else {
                    Err(format!("{component} is said to be written down, and is not"))
                }
            }
            Answer::Restored { component, made: Some(made), .. } => {
                let slot = model.number(component).map(|number| &model.slots[number]);
                // One that has done its work is gone.
                let done = slot.is_some_and(|slot| slot.state == State::Done);
                let process = slot.and_then(|slot| slot.process.as_ref());
                let right = done
                    || process.is_some_and(|process| {
                        process.image.as_ref() == Some(&made.id) && process.restoring.is_none()
                    });
                if right { Ok(()) } else { Err(format!("{component} is said to be made from {}", made.id)) }
            }
            _ => Ok(()),
        }
    }
}

fn silence_is_no_failure(model: &Model, record: &Record) -> Verdict {
    let Some(number) = model.number(&record.component) else { return Ok(()) };
    let away = model.slots[number].process.as_ref().is_some_and(Process::is_away);
    let silence =
        matches!(record.cause, Cause::Unhealthy { .. } | Cause::WatchdogExpired { .. } | Cause::NotEnded);
    if away && silence && record.from != record.to {
        return Err(format!("{} goes {} in a checkpoint: {}", record.component, record.to, record.cause));
    }
    Ok(())
}
