//! Checkpoints: they fail, take long, and are asked for at any time; what is made from one fails, takes for ever, or dies
//! on the way. Images are of no use to anybody but whose they are.

use std::rc::Rc;
use std::time::Duration;

use crate::checkpoint::{After, Made, Origin, Written};
use crate::control::Request;
use crate::engine::{Event, RunId};
use crate::journal::Exit;
use crate::sim::model::{Dumped, Process, Set};
use crate::sim::world::{Plan, Step, World};

/// The longest that anything takes while nothing fails.
const CALM_MS: u64 = 500;

/// Within this time processes end that were written down for that.
const LEAVE_MS: u64 = 20;

/// How long a process stood still, at most, of the time that its checkpoint took.
const FROZEN_PART: u32 = 2;

/// The name of a checkpoint that nobody has.
const NO_IMAGE: &str = "none";

/// What was written down of each component, the newest last.
#[derive(Debug, Default)]
pub(in crate::sim) struct Images {
    last: u64,
    of: Vec<Vec<Rc<str>>>,
    /// Components of which somebody wanted a process from a checkpoint and no other.
    wanted: Set,
}

impl Images {
    /// Another one, of this component.
    fn add(&mut self, number: usize) -> Rc<str> {
        self.last += 1;
        let id: Rc<str> = format!("i{}", self.last).into();
        self.of.resize_with(self.of.len().max(number + 1), Vec::new);
        self.of[number].push(Rc::clone(&id));
        id
    }

    /// Whether somebody wanted this component's process from a checkpoint and no other.
    pub(in crate::sim) fn was_wanted(&self, number: usize) -> bool {
        self.wanted.has(number)
    }

    fn of(&self, number: usize) -> &[Rc<str>] {
        self.of.get(number).map_or(&[], Vec::as_slice)
    }

    /// The image that is meant, if there is one.
    fn find(&self, number: usize, origin: &Origin) -> Option<Rc<str>> {
        let all = self.of(number);
        match &origin.id {
            Some(id) => all.iter().find(|one| *one == id).cloned(),
            None => all.last().cloned(),
        }
    }
}

impl World {
    /// What was written down on a kernel before this one.
    pub(in crate::sim) fn carry_over(&mut self) -> Step {
        let mut origins = Vec::new();
        for number in 0..self.model.slots.len() {
            if self.random.percent(self.options.carried) {
                let id = self.images.add(number);
                origins.push((Rc::clone(&self.model.slots[number].name), Origin { id: Some(id) }));
            }
        }
        if origins.is_empty() { Ok(()) } else { self.give(Event::Carried(origins)) }
    }

    /// Have something written down, mostly what runs; have it held, or go on; have something made from that.
    pub(super) fn ask_about_checkpoints(&mut self) -> Step {
        let able = self
            .model
            .processes()
            .filter(|(_, process)| process.declared.component.checkpoint.enabled && process.told.is_none());
        let able: Vec<usize> = able.map(|(number, _)| number).collect();
        let any = self.random.below(self.model.slots.len() as u64) as usize;
        let chosen = able.get(self.random.below(able.len() as u64) as usize).copied();
        let number = if self.random.percent(90) { chosen.unwrap_or(any) } else { any };
        let name = self.model.slots[number].name.to_string();
        let timeout_ms = self.random.percent(30).then(|| 1 << self.random.below(18));
        let request = match self.random.below(10) {
            0..5 => {
                let after = if self.random.percent(40) { After::Hold } else { After::Run };
                self.ask(0, Request::Checkpoint { name: name.clone(), after, timeout_ms })?;
                if !self.random.percent(20) {
                    return Ok(());
                }
                // It may have to end before it is written down.
                Request::Stop { name, timeout_ms: None }
            }
            5..7 => Request::Continue,
            _ => {
                let fallback = self.random.percent(60);
                if !fallback {
                    self.images.wanted.insert(number);
                }
                Request::Restore { name, id: self.some_image(number), fallback, timeout_ms: None }
            }
        };
        self.ask(0, request)
    }

    /// Some of what runs is held before another kernel is executed.
    pub(in crate::sim) fn hold_some(&mut self) -> Step {
        let able = self
            .model
            .processes()
            .filter(|(_, process)| process.declared.component.checkpoint.enabled && process.told.is_none());
        for number in able.map(|(number, _)| number).collect::<Vec<_>>() {
            if self.random.percent(50) {
                let name = self.model.slots[number].name.to_string();
                self.ask(0, Request::Checkpoint { name, after: After::Hold, timeout_ms: None })?;
            }
        }
        self.run_until(self.model.now + Duration::from_millis(2 * CALM_MS))
    }

    /// One of a component's, the newest, or one that is not there.
    fn some_image(&mut self, number: usize) -> Option<String> {
        let chance = self.random.below(10);
        let all = self.images.of(number);
        match chance {
            0 => Some(NO_IMAGE.to_owned()),
            1..4 => None,
            _ => all.get(self.random.below(all.len() as u64) as usize).map(ToString::to_string),
        }
    }

    /// Move a component that declares it.
    pub(super) fn ask_to_move(&mut self) -> Step {
        let keeps = |process: &Process| process.declared.component.checkpoint.enabled;
        let able =
            self.model.processes().filter(|(number, process)| keeps(process) && self.model.moves(*number));
        let able: Vec<usize> = able.map(|(number, _)| number).collect();
        let Some(number) = able.get(self.random.below(able.len() as u64) as usize) else { return Ok(()) };
        let name = self.model.slots[*number].name.to_string();
        let fallback = self.random.percent(60);
        self.ask(0, Request::Upgrade { name, fallback, queue: false, strategy: None, timeout_ms: None })
    }

    /// A process is to be written down.
    pub(in crate::sim) fn plan_checkpoint(&mut self, run: RunId, limit: Duration) {
        let fails = !self.model.calm && self.random.percent(self.options.checkpoint_failures);
        let most = if self.model.calm { CALM_MS } else { self.options.checkpoint_ms };
        self.plan(most.min(limit.as_millis() as u64).max(1), Plan::Checkpointed(run, !fails));
    }

    /// That is over, unless the process ended before.
    pub(in crate::sim) fn report_checkpoint(&mut self, run: RunId, done: bool) -> Step {
        let Some((number, since, after)) = self.model.making(run) else { return Ok(()) };
        if !done {
            self.model.settle_checkpoint(run);
            return self.give(Event::Checkpointed(run, Err("a device is open".into())));
        }
        let id = self.images.add(number);
        let took = self.model.now.saturating_sub(since);
        let frozen = self.random.percent(50).then_some(took / FROZEN_PART);
        let micros = |time: Duration| time.as_micros() as u64;
        let written = Written {
            id: Rc::clone(&id),
            bytes: 4096,
            pages: Some(1),
            frozen_us: frozen.map(micros),
            took_us: micros(took),
        };
        match after {
            After::Run => self.model.settle_checkpoint(run),
            After::Hold => self.model.turn_dump(run, Dumped::Held(self.model.now)),
            After::End => {
                self.model.turn_dump(run, Dumped::Leaving(id));
                self.plan(LEAVE_MS, Plan::End(run, Exit::Signal(9)));
            }
        }
        self.give(Event::Checkpointed(run, Ok(written)))
    }

    /// A process is about to end of which a checkpoint is being made: that is told first.
    pub(in crate::sim) fn fail_checkpoint_of(&mut self, run: RunId) -> Step {
        if self.model.making(run).is_none() {
            return Ok(());
        }
        self.model.settle_checkpoint(run);
        self.give(Event::Checkpointed(run, Err("its process has ended".into())))
    }

    /// A process is to be made from a checkpoint.
    pub(in crate::sim) fn plan_restoration(&mut self, run: RunId, origin: &Origin) {
        let Some(number) = self.model.owner(run) else { return };
        let most = if self.model.calm { CALM_MS } else { self.options.checkpoint_ms };
        let fails = self.random.percent(self.options.checkpoint_failures);
        let hangs = self.random.percent(self.options.restore_hangs);
        if !self.model.calm && hangs {
            return;
        }
        let there = self.images.find(number, origin);
        let is_made = there.is_some() && (self.model.calm || !fails);
        if let Some(process) = self.model.process_mut(run) {
            process.image = there;
        }
        self.plan(most, Plan::Restored(run, is_made));
    }

    /// It is there, or will not be.
    pub(in crate::sim) fn report_restoration(&mut self, run: RunId, done: bool) -> Step {
        let Some(since) = self.model.process(run).and_then(|process| process.restoring) else {
            return Ok(());
        };
        // Who makes it hangs with it.
        if self.frozen.is_hung(run) {
            return Ok(());
        }
        let image = self.model.process(run).and_then(|process| process.image.clone());
        let Some(id) = image.filter(|_| done) else {
            self.model.end(run);
            return self.give(Event::NotRestored(run, "the image is damaged".into()));
        };
        self.model.restored(run);
        let component = self.model.process(run).map(|process| Rc::clone(&process.declared.component));
        if let Some(component) = component {
            self.plan_rest_of_life(run, &component);
        }
        let took_us = self.model.now.saturating_sub(since).as_micros() as u64;
        self.give(Event::Restored { run, pid: 1, made: Made { id, took_us } })
    }
}
