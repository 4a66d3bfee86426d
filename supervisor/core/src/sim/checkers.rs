//! What must hold. Each promise is a file and a row of the table; adding one touches nothing else.
//!
//! A checker sees what goes into the engine and what comes out of it, and the [`Model`] of an
//! onlooker; some look at the engine's public face after a step. None knows how the engine works.

mod answers;
mod checkpoint;
mod convergence;
mod declarations;
mod freezer;
mod grace;
mod handover;
mod health;
mod held;
mod journal;
mod levels;
mod limits;
mod memory;
mod order;
mod readiness;
mod replies;
mod requirements;
mod restarts;
mod shutdown;
mod single;
mod slices;
mod starved;
mod watchdog;

use crate::engine::{Effect, Engine, Event};

use super::model::Model;

/// A promise that is broken, in words.
pub(super) type Verdict = Result<(), String>;

/// See the module documentation. The model shows the world after `event` and before `effect`.
pub(super) trait Checker {
    /// An event goes into the engine.
    fn event(&mut self, _model: &Model, _event: &Event) -> Verdict {
        Ok(())
    }

    /// An effect came out, and is about to be performed.
    fn effect(&mut self, _model: &Model, _effect: &Effect) -> Verdict {
        Ok(())
    }

    /// All effects of an event have been performed.
    fn step(&mut self, _model: &Model, _engine: &Engine) -> Verdict {
        Ok(())
    }

    /// Faults have ended long ago; everything has come to rest.
    fn rest(&mut self, _model: &Model, _engine: &Engine) -> Verdict {
        Ok(())
    }

    /// The machine is down.
    fn end(&mut self, _model: &Model, _engine: &Engine) -> Verdict {
        Ok(())
    }
}

type Row = (&'static str, fn() -> Box<dyn Checker>);

/// All checkers by name, in alphabetical order.
const ALL: [Row; 23] = [
    ("answers", || Box::<answers::Answers>::default()),
    ("checkpoint", || Box::<checkpoint::Checkpoints>::default()),
    ("convergence", || Box::new(convergence::Convergence)),
    ("declarations", || Box::<declarations::Declarations>::default()),
    ("freezer", || Box::<freezer::Freezers>::default()),
    ("grace", || Box::new(grace::Grace)),
    ("handover", || Box::<handover::Handovers>::default()),
    ("health", || Box::<health::Probes>::default()),
    ("held", || Box::new(held::Held)),
    ("journal", || Box::<journal::Revisions>::default()),
    ("levels", || Box::<levels::Levels>::default()),
    ("limits", || Box::<limits::Limits>::default()),
    ("memory", || Box::<memory::Memory>::default()),
    ("order", || Box::new(order::Order)),
    ("readiness", || Box::new(readiness::Ready)),
    ("replies", || Box::<replies::Replies>::default()),
    ("requirements", || Box::new(requirements::Requirements)),
    ("restarts", || Box::<restarts::Restarts>::default()),
    ("shutdown", || Box::<shutdown::Shutdown>::default()),
    ("single", || Box::new(single::Single)),
    ("slices", || Box::<slices::Slices>::default()),
    ("starved", || Box::<starved::Starved>::default()),
    ("watchdog", || Box::<watchdog::Watchdogs>::default()),
];

/// The names of all checkers.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|(name, _)| name)
}

/// One of each, with its name.
pub(super) fn all() -> Vec<(&'static str, Box<dyn Checker>)> {
    ALL.into_iter().map(|(name, make)| (name, make())).collect()
}

pub(super) use convergence::obstacle;
