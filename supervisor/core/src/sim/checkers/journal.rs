//! Revisions have no gap, time does not go back, each change begins where the last one of its
//! component ended, and the record that a change names as what led to it is an earlier one that
//! can have: the component's own last change, or one of a component that it needs, or one that
//! withdrew a declaration.

use std::collections::VecDeque;

use super::{Checker, Verdict};
use crate::component::KERNEL;
use crate::engine::{Effect, Engine};
use crate::journal::{CAPACITY, Cause, Record, State};
use crate::sim::model::{Model, SLOTS};

/// What is remembered of a record.
struct Seen {
    number: usize,
    /// It withdrew a declaration.
    undeclared: bool,
}

/// See the module documentation.
pub(super) struct Revisions {
    last: u64,
    time_ms: u64,
    /// The last records; as many as the ring holds.
    recent: VecDeque<Seen>,
    /// The last record of each component, and of the pseudo-component.
    own: [u64; SLOTS + 1],
}

impl Default for Revisions {
    fn default() -> Self {
        Self { last: 0, time_ms: 0, recent: VecDeque::new(), own: [0; SLOTS + 1] }
    }
}

impl Checker for Revisions {
    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Changed(record) = effect else { return Ok(()) };
        let Record { revision, time_ms, component, from, to, cause, after } = record;
        if *revision != self.last + 1 {
            return Err(format!("revision {revision} follows {}", self.last));
        }
        if *time_ms < self.time_ms {
            return Err(format!("revision {revision} is earlier than the one before"));
        }
        // Limits that do not hold may be those of a slice, which is none's.
        let of_slice = matches!(cause, Cause::LimitsNotSet { .. }) && **component == *KERNEL;
        let of_kernel = of_slice || matches!(cause, Cause::TookOver { .. } | Cause::StateLost { .. });
        let number = model.number(component).unwrap_or(SLOTS);
        if of_kernel != (**component == *KERNEL) || of_kernel != (number == SLOTS) {
            return Err(format!("a record of {component} says: {cause}"));
        }
        let state = model.slots.get(number).map_or(State::Active, |slot| slot.state);
        // What a hot swap begins with is a remark, too, and so is a kill that nothing follows.
        let told = matches!(
            cause,
            Cause::Request { .. }
                | Cause::Redeclared { .. }
                | Cause::OutOfMemory(_)
                | Cause::NotRestored { .. }
        );
        let begins = from == to && told;
        if *from != state || (from == to) != (begins || cause.is_remark()) {
            return Err(format!("{component} goes from {from} to {to} while it is {state}"));
        }
        if let Some(after) = after {
            self.judge_cause(model, number, cause, *after)?;
        }
        self.last = *revision;
        self.time_ms = *time_ms;
        if self.recent.len() == CAPACITY {
            self.recent.pop_front();
        }
        self.recent.push_back(Seen { number, undeclared: *cause == Cause::Undeclared });
        self.own[number] = *revision;
        Ok(())
    }

    fn step(&mut self, _model: &Model, engine: &Engine) -> Verdict {
        let journal = engine.journal();
        let kept = journal.since(self.last.saturating_sub(1)).next().map(|record| record.revision);
        let right = journal.revision() == self.last && kept == (self.last > 0).then_some(self.last);
        if right { Ok(()) } else { Err(format!("the journal does not end with revision {}", self.last)) }
    }
}

impl Revisions {
    fn judge_cause(&self, model: &Model, number: usize, cause: &Cause, after: u64) -> Verdict {
        let name = &model.slots[number].name;
        if after == 0 || after > self.last {
            return Err(format!("{name} changes after revision {after}, which does not exist"));
        }
        let dropped = self.last - self.recent.len() as u64;
        let led = after.checked_sub(dropped + 1).and_then(|at| self.recent.get(at as usize));
        let Some(led) = led.filter(|_| after != self.own[number]) else {
            return Ok(());
        };
        let declared = model.slots[number].declared.as_ref();
        let waited_for = declared.map(|declared| declared.requires.or(declared.optional)).unwrap_or_default();
        let from_provider = waited_for.iter().any(|cap| model.providers(cap).has(led.number));
        let right = match cause {
            Cause::RequirementsUp | Cause::Cycle => from_provider,
            Cause::RequirementLost { .. } => from_provider || led.undeclared,
            Cause::Interrupted => led.number == SLOTS,
            _ => false,
        };
        if right {
            return Ok(());
        }
        Err(format!("{name}: {cause}, but revision {after} of c{} did not lead to that", led.number))
    }
}
