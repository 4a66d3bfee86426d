//! A running digest of events and effects, to compare two runs.
//!
//! Not for security: a multiplication and a rotation for every eight bytes, as in FxHash.

use crate::control::Answer;
use crate::engine::{Effect, Event, Relayed};
use crate::journal::Record;

/// Odd, and without a pattern in its bits (the fraction of π, as FxHash has it).
const FACTOR: u64 = 0x517C_C1B7_2722_0A95;

/// See the module documentation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn value(self) -> u64 {
        self.0
    }

    fn number(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(FACTOR);
    }

    fn text(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(bytes));
        }
        self.number(text.len() as u64);
    }

    /// The kind of an event; what it holds was chosen by effects and the seed.
    pub(super) fn event(&mut self, event: &Event) {
        self.number(match event {
            Event::Files(changes) => 100 + changes.len() as u64,
            Event::Created { run, .. } => 2 + (run.0 << 8),
            Event::Executed(run) => 3 + (run.0 << 8),
            Event::NotExecuted { run, .. } => 4 + (run.0 << 8),
            Event::Unsupported { run, .. } => 5 + (run.0 << 8),
            Event::Ready(run) => 6 + (run.0 << 8),
            Event::Probed { probe, outcome } => 7 + u64::from(outcome.is_ok()) + (probe.0 << 8),
            Event::Ended(run, _) => 9 + (run.0 << 8),
            Event::Tick => 10,
            Event::Request { client, .. } => 11 + (client.0 << 8),
            Event::ClientGone(client) => 12 + (client.0 << 8),
            Event::Halt(_) => 13,
            Event::Resolve => 14,
            Event::LogGrew(_) => 15,
            Event::Notified(run, _) => 16 + (run.0 << 8),
            Event::Resumed(_) => 17,
            Event::Limited(run, outcome) => 18 + u64::from(outcome.is_ok()) + (run.0 << 8),
            Event::SliceLimited(_, outcome) => 34 + u64::from(outcome.is_ok()),
            Event::Adopted { run, .. } => 21 + (run.0 << 8),
            Event::StateLost { .. } => 22,
            Event::Reported(run, _) => 23 + (run.0 << 8),
            Event::Garbled(run, _) => 24 + (run.0 << 8),
            Event::NotYetReady(run, _) => 20 + (run.0 << 8),
            Event::Restored { run, .. } => 38 + (run.0 << 8),
            Event::NotRestored(run, _) => 39 + (run.0 << 8),
            Event::Checkpointed(run, outcome) => 40 + u64::from(outcome.is_ok()) + (run.0 << 8),
            Event::Carried(origins) => 200 + origins.len() as u64,
            Event::Held(..) => 25,
            Event::Listens(run) => 26 + (run.0 << 8),
            Event::Relayed(run, Relayed::Whole(_)) => 27 + (run.0 << 8),
            Event::Relayed(run, Relayed::NotGiven(_)) => 28 + (run.0 << 8),
            Event::Relayed(run, Relayed::NotTaken(_)) => 29 + (run.0 << 8),
            Event::Frozen(run, outcome) => 34 + u64::from(outcome.is_ok()) + (run.0 << 8),
            Event::Thawed(run, outcome) => 36 + u64::from(outcome.is_ok()) + (run.0 << 8),
            Event::Strained(run, _) => 32 + (run.0 << 8),
            Event::OutOfMemory(run, what) => 30 + u64::from(what.main) + (run.0 << 8),
        });
    }

    /// An effect with everything that it says.
    pub(super) fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { run, component, generation, place, .. } => {
                self.number(1 + (run.0 << 8) + ((*place as u64) << 60));
                self.number(*generation);
                self.text(&component.name);
            }
            Effect::Probe { probe, run, .. } => {
                self.number(2 + (run.0 << 8));
                self.number(probe.0);
            }
            Effect::Limit { run, .. } => self.number(10 + (run.0 << 8)),
            Effect::LimitSlice(slice) => self.text(&slice.name),
            Effect::CancelProbe(probe) => self.number(3 + (probe.0 << 8)),
            Effect::Terminate(run) => self.number(4 + (run.0 << 8)),
            Effect::Kill(run) => self.number(5 + (run.0 << 8)),
            Effect::Signal(run, signal) => self.number(6 + (run.0 << 8) + ((signal.0 as u64) << 40)),
            Effect::Connect { giver, taker, generation, .. } => {
                self.number(11 + (giver.0 << 8) + (taker.0 << 32));
                self.number(*generation);
            }
            Effect::Order(run, order) => {
                self.number(12 + (run.0 << 8));
                self.text(&order.to_string());
            }
            Effect::Relay { giver, taker, .. } => self.number(14 + (giver.0 << 8) + (taker.0 << 32)),
            Effect::Freeze { run, .. } => self.number(15 + (run.0 << 8)),
            Effect::Thaw(run) => self.number(16 + (run.0 << 8)),
            Effect::Checkpoint { run, after, .. } => self.number(17 + (run.0 << 8) + ((*after as u64) << 60)),
            Effect::Continue(run) => self.number(18 + (run.0 << 8)),
            Effect::Unconfine(run) => self.number(13 + (run.0 << 8)),
            Effect::Forget(name) => self.text(name),
            Effect::Reply(client, answer) => {
                self.number(7 + (client.0 << 8));
                self.answer(answer);
            }
            Effect::ReadFiles => self.number(8),
            Effect::Reexecute(client) => self.number(10 + (client.0 << 8)),
            Effect::Changed(record) => self.record(record),
            Effect::Halt(_) => self.number(9),
        }
    }

    fn record(&mut self, record: &Record) {
        let Record { revision, time_ms, component, from, to, cause, after } = record;
        self.number(*revision);
        self.number(*time_ms);
        self.number(*from as u64 + (*to as u64) * 16);
        self.number(after.unwrap_or(0));
        self.text(component);
        if let crate::journal::Cause::RequirementLost { capability } = cause {
            self.text(capability);
        }
    }

    fn answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Done { message, revision } | Answer::TimedOut { message, revision, .. } => {
                self.number(*revision);
                self.text(message);
            }
            Answer::Refused { message, .. } => self.text(message),
            Answer::Status(page) => page.components.iter().for_each(|c| {
                self.text(&c.name);
                self.number(c.state as u64 + c.restarts * 16);
            }),
            Answer::Graph(page) => page.components.iter().for_each(|c| {
                self.text(&c.name);
                self.number(c.state as u64 + (c.level as u64) * 16);
            }),
            Answer::Events(page) => page.records.iter().for_each(|record| self.record(record)),
            Answer::Why(page) => page.records.iter().for_each(|record| self.record(record)),
            Answer::Checkpointed { component, written, revision } => {
                self.text(component);
                self.text(&written.id);
                self.number(*revision);
            }
            Answer::Restored { component, made, revision, .. } => {
                self.text(component);
                self.text(made.as_ref().map_or("", |made| &made.id));
                self.number(*revision);
            }
            Answer::Log(log) => self.text(&log.text),
            Answer::Readiness(page) => page.components.iter().for_each(|c| {
                self.text(&c.name);
                self.number(c.readiness as u64 + c.for_ms.unwrap_or(0) * 4);
            }),
            Answer::Slices(page) => page.slices.iter().for_each(|slice| {
                self.text(&slice.cgroup);
                self.number(slice.components + (slice.running << 32));
            }),
            Answer::Declaration(shown) => {
                self.text(&shown.component.name);
                self.number(shown.state as u64 + shown.generation * 16);
            }
            Answer::Upgraded(done) => {
                self.number(done.revision);
                self.number(done.gap_us.unwrap_or(u64::MAX));
            }
        }
    }
}
