//! A component with a watchdog that falls silent is stopped exactly when its interval is over, one
//! that triggers it at once, and no other for that reason. Those get SIGABRT, and no other does. One that
//! has announced its end is not watched any more, and is stopped when its grace for that is over.

use std::time::Duration;

use super::{Checker, Verdict};
use crate::component::{Component, Signal};
use crate::engine::{Effect, Engine, Event, Place, RunId};
use crate::journal::{Cause, Progress, Record, State};
use crate::notify::Watchdog;
use crate::sim::model::{Model, Process};
use yakiros_handoff::message::Order;

/// The watchdog of one process, by the onlooker's own clock.
#[derive(Clone, Copy, Debug)]
struct Dog {
    run: RunId,
    /// The interval in force; zero when it is not watched.
    interval: Duration,
    /// When it came up, or said last that it is alive.
    last: Duration,
    /// It was stopped for its silence, or triggered it.
    given_up: bool,
    /// It was asked for its descriptors by a signal: it works on meanwhile, and is watched.
    signalled: bool,
}

impl Dog {
    fn new(run: RunId, component: &Component) -> Self {
        Self {
            run,
            interval: component.lifecycle.watchdog.unwrap_or_default(),
            last: Duration::ZERO,
            given_up: false,
            signalled: false,
        }
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Watchdogs {
    /// By component: each has one process at most.
    dogs: Vec<Option<Dog>>,
    /// Those of processes that are kept while another is on probation.
    kept: Vec<Option<Dog>>,
    /// Those of canaries.
    canaries: Vec<Option<Dog>>,
    /// Who triggered its watchdog in this step.
    triggered: Option<RunId>,
}

fn is_watched(state: State) -> bool {
    matches!(state, State::Active | State::Degraded)
}

/// That a component says it is broken counts in this state.
fn is_heeded(state: State) -> bool {
    is_watched(state) || state == State::ReadyWait
}

impl Checker for Watchdogs {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        self.triggered = None;
        match event {
            Event::Notified(run, said) => {
                let state = model.owner(*run).map(|number| model.slots[number].state);
                let watched = state.is_some_and(is_watched);
                if said.watchdog == Some(Watchdog::Trigger) && state.is_some_and(is_heeded) {
                    self.triggered = Some(*run);
                }
                if let Some(dog) = self.dog_mut(model, *run) {
                    dog.interval = said.watchdog_interval.unwrap_or(dog.interval);
                    let heard = said.watchdog == Some(Watchdog::Beat) || said.watchdog_interval.is_some();
                    if heard && watched {
                        dog.last = model.now;
                    }
                }
            }
            // It has an interval from when it runs again.
            Event::Thawed(run, Ok(())) | Event::Frozen(run, Err(_)) => {
                if let Some(dog) = self.dog_mut(model, *run) {
                    dog.last = model.now;
                }
            }
            Event::Checkpointed(run, _) | Event::Restored { run, .. } => self.begin_anew(model, *run),
            // It goes on as another process.
            Event::Ended(run, _) if is_moved(model, *run) => {}
            Event::Ended(run, _)
            | Event::NotExecuted { run, .. }
            | Event::Unsupported { run, .. }
            | Event::NotRestored(run, _) => {
                if let Some(number) = model.owner(*run)
                    && self.dogs[number].is_some_and(|dog| dog.run == *run)
                {
                    self.dogs[number] = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Spawn { run, component, place, .. } => {
                let number = model.number(&component.name).ok_or("a stranger is started")?;
                self.dogs.resize(model.slots.len(), None);
                self.kept.resize(model.slots.len(), None);
                self.canaries.resize(model.slots.len(), None);
                // Who is to take over is watched from when it has.
                let slot = &model.slots[number];
                let goes_on = slot.moved.is_some() && slot.state.is_up();
                match &mut self.dogs[number] {
                    Some(dog) if goes_on => dog.run = *run,
                    dog if *place == Place::Alone => *dog = Some(Dog::new(*run, component)),
                    _ => {}
                }
                Ok(())
            }
            Effect::Signal(run, Signal::ABORT) => match self.dog_mut(model, *run) {
                Some(dog) if dog.given_up => Ok(()),
                _ => Err(format!("run {} is aborted and was not silent", run.0)),
            },
            Effect::Terminate(run) if self.dog_mut(model, *run).is_some_and(|dog| dog.given_up) => {
                Err(format!("run {} gets SIGTERM where it should be aborted", run.0))
            }
            Effect::Relay { giver, .. } => {
                if let Some(dog) = self.dog_mut(model, *giver) {
                    dog.signalled = true;
                }
                Ok(())
            }
            Effect::Order(run, Order::Abort(_)) => {
                // Who gave did not work, and has an interval from when it does again.
                if let Some(dog) = self.dog_mut(model, *run)
                    && !std::mem::take(&mut dog.signalled)
                {
                    dog.last = model.now;
                }
                Ok(())
            }
            Effect::Continue(run) => {
                self.begin_anew(model, *run);
                Ok(())
            }
            Effect::Changed(record) => self.change(model, record),
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        for (dog, slot) in self.canaries.iter().zip(&model.slots) {
            let Some(dog) = dog.filter(|_| slot.canary && is_watched(slot.state)) else { continue };
            let silent = !dog.interval.is_zero() && model.now >= dog.last + dog.interval;
            if silent && model.process(dog.run).is_some() {
                return Err(format!(
                    "the canary of {} is silent since {:?} and runs on",
                    slot.name, dog.last
                ));
            }
        }
        for (dog, slot) in self.dogs.iter().zip(&model.slots) {
            // Who gives to another does not work meanwhile.
            let gives = slot.process.as_ref().is_some_and(|process| {
                process.gives_to.is_some() || (process.lends_to.is_some() && !slot.canary)
            });
            let Some(dog) = dog.filter(|_| is_heeded(slot.state) && !gives) else { continue };
            if self.triggered == Some(dog.run) {
                return Err(format!("{} has triggered its watchdog and runs on", slot.name));
            }
            if !is_watched(slot.state) {
                continue;
            }
            let announced = slot.process.as_ref().filter(|process| process.announced);
            if let Some(due) = announced.and_then(|process| process.due).filter(|due| model.now >= *due) {
                return Err(format!("{} has announced its end, by {due:?}, and runs on", slot.name));
            }
            let still = |process: &Process| process.freezer.is_some() || process.is_away();
            let frozen = slot.process.as_ref().is_some_and(still);
            if announced.is_none()
                && !frozen
                && !dog.interval.is_zero()
                && model.now >= dog.last + dog.interval
            {
                return Err(format!("{} is silent since {:?} and runs on", slot.name, dog.last));
            }
        }
        Ok(())
    }
}

/// Whether a process was written down and ended to go on as another one.
fn is_moved(model: &Model, run: RunId) -> bool {
    let slot = model.owner(run).map(|number| &model.slots[number]);
    slot.and_then(|slot| slot.moved.as_ref()).is_some_and(|moved| moved.run == run)
}

impl Watchdogs {
    /// A process has its interval from now on.
    fn begin_anew(&mut self, model: &Model, run: RunId) {
        if let Some(dog) = self.dog_mut(model, run) {
            dog.last = model.now;
        }
    }

    fn dog_mut(&mut self, model: &Model, run: RunId) -> Option<&mut Dog> {
        let number = model.owner(run)?;
        let dogs = [self.dogs.get_mut(number)?, self.canaries.get_mut(number)?];
        dogs.into_iter().flatten().find(|dog| dog.run == run)
    }

    fn change(&mut self, model: &Model, record: &Record) -> Verdict {
        let name = &record.component;
        // A remark on the supervisor itself is of no process.
        let Some(number) = model.number(name) else { return Ok(()) };
        if matches!(record.cause, Cause::Handover { progress: Progress::Reverting { .. }, .. }) {
            if let Some(kept) = self.kept.get_mut(number).and_then(Option::take) {
                self.dogs[number] = Some(Dog { last: model.now, ..kept });
            }
            return Ok(());
        }
        if matches!(record.cause, Cause::Handover { progress: Progress::Canary { .. }, .. }) {
            let slot = &model.slots[number];
            if let (Some(next), Some(dog)) = (&slot.second, self.canaries.get_mut(number)) {
                *dog = Some(Dog { last: model.now, ..Dog::new(next.run, &next.declared.component) });
            }
            if let Some(dog) = self.dogs.get_mut(number).and_then(Option::as_mut) {
                dog.last = model.now;
            }
            return Ok(());
        }
        if matches!(record.cause, Cause::Handover { progress: Progress::Committed { .. }, .. }) {
            if let (Some(next), Some(dog)) = (&model.slots[number].second, self.dogs.get_mut(number)) {
                self.kept[number] = dog.take();
                *dog = Some(Dog { last: model.now, ..Dog::new(next.run, &next.declared.component) });
            }
            return Ok(());
        }
        let Some(dog) = self.dogs.get_mut(number).and_then(Option::as_mut) else { return Ok(()) };
        if is_watched(record.to) && !is_watched(record.from) {
            dog.last = model.now;
        }
        let process = model.process(dog.run);
        let announced = process.is_some_and(|process| process.announced);
        let right = match record.cause {
            _ if record.to != State::Stopping => true,
            Cause::WatchdogExpired { .. } => {
                dog.given_up = true;
                !announced && !dog.interval.is_zero() && model.now >= dog.last + dog.interval
            }
            Cause::NotEnded => {
                announced && process.and_then(|process| process.due).is_some_and(|due| model.now >= due)
            }
            Cause::WatchdogTriggered => {
                dog.given_up = true;
                self.triggered == Some(dog.run)
            }
            _ => true,
        };
        if right { Ok(()) } else { Err(format!("{name} is stopped: {}, which is not true", record.cause)) }
    }
}
