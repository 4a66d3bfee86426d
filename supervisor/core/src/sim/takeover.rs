//! The supervisor executes itself again, in order or after a failure in the midst of something.
//!
//! In order, nothing may be seen of it: the effects are those of the same seed without. After a
//! failure events and effects are lost, so most checkers have nothing to go by; what must hold all
//! the same is that no component ever has two processes, that every client gets an answer, and
//! that everything comes up that can. Choices are drawn from a source of their own, so that all
//! others stay the same.

use crate::engine::{Alive, Config, Effect, Engine, Event, Facts, Place, Snapshot, Stage};

use super::model::Process;
use super::world::{Step, World};
use super::{Random, Reason};

/// How often the supervisor executes itself again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeovers {
    /// Never.
    #[default]
    Never,
    /// In order, after one event in so many.
    Orderly(u64),
    /// One event in so many is lost, or some of its effects are.
    Failing(u64),
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Takeover {
    when: Takeovers,
    random: Random,
    /// The newest change of state that was reported.
    seen: u64,
    /// Times that the supervisor has ended what it passes on between processes. (Orderly take-overs that are to change
    /// nothing at all do not.)
    pub(super) images: u64,
}

impl Takeover {
    /// With choices that follow from another source.
    pub(super) fn new(when: Takeovers, random: &Random) -> Self {
        // Any other seed will do that is not near.
        let random = Random::new(!random.clone().next_u64());
        Self { when, random, seen: 0, images: 0 }
    }

    pub(super) fn is_failing(&self) -> bool {
        matches!(self.when, Takeovers::Failing(_))
    }

    fn is_orderly_now(&mut self) -> bool {
        let when = self.when;
        matches!(when, Takeovers::Orderly(one_in) if self.random.below(one_in) == 0)
    }

    fn fails_now(&mut self) -> bool {
        let when = self.when;
        matches!(when, Takeovers::Failing(one_in) if self.random.below(one_in) == 0)
    }
}

impl World {
    /// Whether the supervisor fails over an event, which is lost then. What somebody wants is not
    /// lost here, for then the world would have to know what became of it.
    pub(super) fn fails_over(&mut self, event: &Event) -> bool {
        let wanted =
            matches!(event, Event::Files(_) | Event::Halt(_) | Event::Resolve | Event::ClientGone(_))
                || matches!(event, Event::Request { request, .. } if request.is_privileged());
        !self.model.calm && !wanted && self.takeover.fails_now()
    }

    /// The effects that come about before the supervisor fails, if it does. Whether it does.
    pub(super) fn fails_within(&mut self, effects: &mut Vec<Effect>) -> bool {
        let fails = !self.model.calm && self.takeover.fails_now();
        if fails {
            let left = self.takeover.random.below(effects.len() as u64 + 1);
            effects.truncate(left as usize);
        }
        fails
    }

    /// What must hold even then.
    pub(super) fn look_for_twins(&mut self, effect: &Effect) -> Step {
        match effect {
            Effect::Changed(record) => self.takeover.seen = record.revision,
            Effect::Spawn { component, place, .. } if self.takeover.is_failing() => {
                let slot = self.model.number(&component.name).map(|number| &self.model.slots[number]);
                if slot.is_some_and(|slot| {
                    slot.second.is_some() || (slot.process.is_some() && *place == Place::Alone)
                }) {
                    return Err(broken(format!("{} gets one process too many", component.name)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Who has no answer still waits for one.
    pub(super) fn look_for_forgotten_clients(&self) -> Step {
        let waiting = self.engine.agreeing_facts().clients;
        match self.clients.open().find(|client| !waiting.contains(client)) {
            None => Ok(()),
            Some(client) => Err(broken(format!("client {} never gets an answer", client.0))),
        }
    }

    /// After an event and all that followed from it.
    pub(super) fn take_over_in_order(&mut self) -> Step {
        if !self.takeover.is_orderly_now() {
            return Ok(());
        }
        self.execute_again()
    }

    /// In order: nothing is to be done then.
    pub(super) fn execute_again(&mut self) -> Step {
        let facts = self.engine.agreeing_facts();
        self.replace_engine()?;
        match self.engine.handle(self.model.now, Event::Resumed(facts)).first() {
            // Said again once everything is stopped.
            None | Some(Effect::Halt(_)) => Ok(()),
            Some(effect) => {
                Err(broken(format!("after an orderly take-over there is still to be done: {effect:?}")))
            }
        }
    }

    /// After a failure that lost something. Changes of state that were not reported are read in
    /// the journal.
    pub(super) fn take_over_after_failure(&mut self) -> Step {
        self.replace_engine()?;
        let missed: Vec<_> = self.engine.journal().since(self.takeover.seen).cloned().collect();
        for record in missed {
            self.takeover.seen = record.revision;
            self.model.apply(&Effect::Changed(record));
        }
        // What was being written down runs on.
        self.model.forget_checkpoints();
        let processes = self.model.all_processes().map(|(_, process)| (process.run, alive(process)));
        let facts = Facts {
            failure: Some("drawn".into()),
            processes: processes.collect(),
            probes: Vec::new(),
            limits: Vec::new(),
            slices: Vec::new(),
            freezing: Vec::new(),
            checkpoints: Vec::new(),
            clients: self.clients.open().collect(),
        };
        self.give(Event::Resumed(facts))
    }

    /// Through bytes, as from one process image to the next.
    fn replace_engine(&mut self) -> Step {
        let bytes = serde_json::to_vec(&self.engine.snapshot()).map_err(|error| unusable(&error))?;
        let snapshot: Snapshot = serde_json::from_slice(&bytes).map_err(|error| unusable(&error))?;
        self.engine = Engine::restore(Config::default(), snapshot).map_err(|error| unusable(&error))?;
        Ok(())
    }
}

fn alive(process: &Process) -> Alive {
    let stage = match (process.ready, process.executed) {
        _ if process.restoring.is_some() => Stage::Created,
        (true, _) => Stage::Ready,
        (false, Some(_)) => Stage::Executed,
        (false, None) => Stage::Created,
    };
    Alive { pid: Some(1), stage }
}

fn broken(message: String) -> Reason {
    Reason::Broken { checker: "takeover", message }
}

fn unusable(error: &dyn std::fmt::Display) -> Reason {
    broken(format!("the snapshot cannot be used: {error}"))
}
