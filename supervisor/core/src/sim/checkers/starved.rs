//! A component that loses a process to want of memory is stopped at once, unless it is declared to run on; every such loss
//! is told; and what is declared to stay FAILED then does until somebody asks for it, or what it stands on changes.

use super::{Checker, Verdict};
use crate::component::{Kind, OnOom};
use crate::engine::{Effect, Engine, Event, RunId};
use crate::journal::{Cause, Progress, Record, State};
use crate::sim::model::{Model, Set};

/// A process of a component was killed, and not the one of its own.
struct Loss {
    number: usize,
    run: RunId,
    policy: OnOom,
    told: bool,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Starved {
    loss: Option<Loss>,
    /// Components that are to stay FAILED.
    staying: Set,
    /// Everything that waits or backs off is tried again.
    resolving: bool,
}

impl Checker for Starved {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        self.resolving = matches!(event, Event::Resolve);
        self.loss = None;
        let Event::OutOfMemory(run, what) = event else { return Ok(()) };
        let Some(number) = model.owner(*run) else { return Ok(()) };
        let slot = &model.slots[number];
        let Some(declared) = slot.process.as_ref().filter(|p| p.run == *run).and(slot.declared.as_ref())
        else {
            return Ok(());
        };
        let spared = what.main || what.shared || slot.state == State::Stopping;
        let policy = if spared { OnOom::Continue } else { declared.component.resources.on_oom };
        self.loss = Some(Loss { number, run: *run, policy, told: false });
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Changed(record) = effect else { return Ok(()) };
        let Some(number) = model.number(&record.component) else { return Ok(()) };
        let tells = match &record.cause {
            Cause::OutOfMemory(_) => true,
            Cause::Handover { progress, .. } => matches!(progress, Progress::Reverting { .. }),
            _ => false,
        };
        if let Some(loss) = self.loss.as_mut().filter(|loss| loss.number == number) {
            loss.told |= tells;
            let stops = matches!(record.cause, Cause::OutOfMemory(_)) && record.from != record.to;
            if loss.policy == OnOom::Continue && stops {
                return Err(format!(
                    "{} is to run on without a process, and is {}",
                    record.component, record.to
                ));
            }
        }
        self.follow(model, number, record)
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        let Some(Loss { number, run, policy, told }) = self.loss.take() else { return Ok(()) };
        let slot = &model.slots[number];
        if !told {
            return Err(format!("{} has lost a process to want of memory, and nobody is told", slot.name));
        }
        // A new process on its probation goes, and the one before it takes over again.
        let runs = slot.process.as_ref().is_some_and(|process| process.run == run);
        match policy {
            OnOom::Restart | OnOom::Stop if runs && slot.state != State::Stopping => {
                Err(format!("{} has lost a process to want of memory, and is {}", slot.name, slot.state))
            }
            _ => Ok(()),
        }
    }
}

impl Starved {
    fn follow(&mut self, model: &Model, number: usize, record: &Record) -> Verdict {
        let by_itself = matches!(record.cause, Cause::Restart | Cause::TooManyRestarts { .. });
        if self.staying.has(number) && record.from == State::Failed && by_itself && !self.resolving {
            return Err(format!("{} is started again, and was to stay FAILED", record.component));
        }
        if record.from != record.to {
            self.staying = self.staying.without(Set::one(number));
        }
        if record.to == State::Failed && model.stays_failed(number, &record.cause) {
            self.staying.insert(number);
        }
        Ok(())
    }
}

impl Model {
    /// Whether a service that has FAILED for this stays so by what it declares.
    pub(in crate::sim) fn stays_failed(&self, number: usize, cause: &Cause) -> bool {
        let declared = self.slots[number].declared.as_ref().map(|declared| &declared.component);
        let stops = declared.is_some_and(|c| c.kind == Kind::Service && c.resources.on_oom == OnOom::Stop);
        // That none is to be started in its place was asked for.
        (stops && matches!(cause, Cause::OutOfMemory(_))) || matches!(cause, Cause::NotRestored { .. })
    }
}
