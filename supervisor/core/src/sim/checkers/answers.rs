//! What is shown is true: a page names every component that is declared, with the state it is in,
//! what it grants and whether it is ready, and counts them right.

use super::{Checker, Verdict};
use crate::control::{Answer, CapabilityStatus, Readiness, Request, Summary};
use crate::engine::{ClientId, Effect, Event};
use crate::journal::State;
use crate::sim::model::Model;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Answers {
    /// Who has just asked for all components.
    asked_for_all: Option<ClientId>,
}

/// What a page says about one component.
struct Shown<'a> {
    name: &'a str,
    state: State,
    level: Option<CapabilityStatus>,
    readiness: Option<Readiness>,
}

impl Checker for Answers {
    fn event(&mut self, _model: &Model, event: &Event) -> Verdict {
        self.asked_for_all = match event {
            Event::Request {
                client,
                request:
                    Request::Status { name: None, after: None }
                    | Request::Readiness { name: None, after: None }
                    | Request::Graph { after: None },
                ..
            } => Some(*client),
            _ => None,
        };
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Reply(client, answer) = effect else { return Ok(()) };
        let Some((shown, more)) = shown(answer) else { return Ok(()) };
        if let Answer::Status(page) = answer {
            add_up(model, page.summary)?;
        }
        let mut seen = 0;
        for one in shown {
            // The kernel's own has no number.
            let Some(number) = model.number(one.name) else { continue };
            seen += 1;
            judge(model, number, &one)?;
        }
        let declared = model.slots.iter().filter(|slot| slot.state != State::Removed).count();
        if self.asked_for_all == Some(*client) && !more && seen != declared {
            return Err(format!("{seen} components are shown, and {declared} are declared"));
        }
        Ok(())
    }
}

/// What a page says, and whether there are more.
fn shown(answer: &Answer) -> Option<(Vec<Shown<'_>>, bool)> {
    match answer {
        Answer::Status(page) => {
            let shown = page.components.iter().map(|c| Shown {
                name: &c.name,
                state: c.state,
                level: None,
                readiness: None,
            });
            Some((shown.collect(), page.next.is_some()))
        }
        Answer::Graph(page) => {
            let shown = page.components.iter().map(|c| Shown {
                name: &c.name,
                state: c.state,
                level: Some(c.level),
                readiness: None,
            });
            Some((shown.collect(), page.next.is_some()))
        }
        Answer::Readiness(page) => {
            let shown = page.components.iter().map(|c| Shown {
                name: &c.name,
                state: c.state,
                level: None,
                readiness: Some(c.readiness),
            });
            Some((shown.collect(), page.next.is_some()))
        }
        _ => None,
    }
}

/// The counts over all components.
fn add_up(model: &Model, shown: Summary) -> Verdict {
    let count =
        |states: &[State]| model.slots.iter().filter(|slot| states.contains(&slot.state)).count() as u64;
    let counted = Summary {
        total: model.slots.iter().filter(|slot| slot.state != State::Removed).count() as u64,
        active: count(&[State::Active, State::Done]),
        degraded: count(&[State::Degraded]),
        starting: count(&[State::Starting, State::ReadyWait]),
        failed: count(&[State::Failed, State::Backoff, State::Cycle]),
    };
    if shown == counted { Ok(()) } else { Err(format!("{shown:?} is said of {counted:?}")) }
}

fn judge(model: &Model, number: usize, shown: &Shown<'_>) -> Verdict {
    let slot = &model.slots[number];
    let name = shown.name;
    if shown.state != slot.state {
        return Err(format!("{name} is shown as {} while it is {}", shown.state, slot.state));
    }
    let (level, readiness) = match slot.state {
        State::Degraded => (CapabilityStatus::Degraded, Readiness::Ready),
        state if state.is_up() => (CapabilityStatus::Up, Readiness::Ready),
        State::Starting | State::ReadyWait => (CapabilityStatus::Down, Readiness::Waiting),
        _ => (CapabilityStatus::Down, Readiness::Down),
    };
    if shown.level.is_some_and(|shown| shown != level) {
        return Err(format!("{name} is said to grant {:?} while it is {}", shown.level, slot.state));
    }
    if shown.readiness.is_some_and(|shown| shown != readiness) {
        return Err(format!("{name} is said to be {:?} while it is {}", shown.readiness, slot.state));
    }
    Ok(())
}
