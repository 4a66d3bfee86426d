//! Deadlines, each cancellable, in the order in which they are due.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ClientId, Engine, Input};
use crate::graph::NodeId;
use crate::journal::Cause;
use crate::mutation::{Mutation, broken};

/// Where a timer stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct TimerKey(Duration, u64);

impl TimerKey {
    /// What tells it from others of the same time.
    pub(super) fn number(&self) -> u64 {
        self.1
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Due {
    /// The component's process had its time to become ready.
    Readiness(NodeId),
    /// The component's process had its time to end.
    Grace(NodeId),
    /// The pause before the next attempt is over.
    Pause(NodeId),
    /// The next health probe of the component is due.
    Probe(NodeId),
    /// The component's health probe had its time.
    ProbeLimit(NodeId),
    /// The component should have said by now that it is alive.
    Watchdog(NodeId),
    /// A step of the component's hot swap had its time.
    Handover(NodeId),
    /// The component's process was held by a checkpoint for long enough, or had its time to be made from one.
    Checkpoint(NodeId),
    /// A client has waited long enough.
    Client(ClientId),
    /// Stopping everything has taken long enough.
    Halt,
}

/// The queue. It has at most one timer of every client, and of every component one for its life,
/// one for its next probe, one for the limit of the probe under way, one for its watchdog, one for
/// its hot swap and one for a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) queue: BTreeMap<TimerKey, Due>,
    pub(super) last: u64,
}

impl Timers {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// When the first one is due.
    pub(super) fn first(&self) -> Option<Duration> {
        self.queue.keys().next().map(|key| key.0)
    }

    pub(super) fn arm(&mut self, at: Duration, due: Due) -> TimerKey {
        self.last += 1;
        let key = TimerKey(at, self.last);
        self.queue.insert(key, due);
        key
    }

    pub(super) fn disarm(&mut self, key: TimerKey) {
        if !broken(Mutation::LeakTimers) {
            self.queue.remove(&key);
        }
    }

    /// When and for what a timer is armed.
    pub(super) fn get(&self, key: TimerKey) -> Option<(Duration, Due)> {
        self.queue.get(&key).map(|due| (key.0, *due))
    }

    /// All of them, in the order in which they are due.
    pub(super) fn all(&self) -> impl Iterator<Item = (Duration, Due)> {
        self.queue.iter().map(|(key, due)| (key.0, *due))
    }

    /// What is due at the time `now`.
    pub(super) fn due(&self, now: Duration) -> impl Iterator<Item = Due> {
        self.queue.iter().take_while(move |(key, _)| key.0 <= now).map(|(_, due)| *due)
    }

    pub(super) fn disarm_all(&mut self, due: Due) {
        self.queue.retain(|_, other| *other != due);
    }

    fn pop(&mut self, now: Duration) -> Option<(TimerKey, Due)> {
        let entry = self.queue.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        Some(entry.remove_entry())
    }
}

impl Engine {
    /// Act on everything that is due.
    pub(super) fn run_timers(&mut self) {
        while let Some((key, due)) = self.timers.pop(self.now) {
            match due {
                Due::Readiness(id) => self.ring(id, key, Input::Late),
                Due::Grace(id) => self.ring(id, key, Input::GraceOver),
                Due::Pause(id) => self.ring(id, key, Input::PauseOver),
                Due::Probe(id) => self.probe_due(id, key),
                Due::ProbeLimit(id) => self.probe_late(id, key),
                Due::Watchdog(id) => self.watchdog_due(id, key),
                Due::Handover(id) => self.handover_due(id, key),
                Due::Checkpoint(id) => self.checkpoint_due(id, key),
                Due::Client(client) => self.expire_waiter(client),
                Due::Halt => self.force_halt(),
            }
        }
    }

    fn ring(&mut self, id: NodeId, key: TimerKey, input: Input) {
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        if unit.timer != Some(key) {
            return;
        }
        unit.timer = None;
        let limit = unit.readiness_limit();
        let last = unit.process.as_ref().and_then(|process| process.answer.clone());
        let cause = match input {
            Input::Late => {
                Cause::NotReady { limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), last }
            }
            Input::GraceOver if unit.state.is_up() => Cause::NotEnded,
            _ => Cause::Restart,
        };
        self.feed(id, input, cause);
    }

    /// Give a component its one timer.
    pub(super) fn arm_unit(&mut self, id: NodeId, after: Duration, due: Due) {
        self.disarm_unit(id);
        let key = self.timers.arm(self.now.saturating_add(after), due);
        if let Some(unit) = self.unit_mut(id) {
            unit.timer = Some(key);
        }
    }

    pub(super) fn disarm_unit(&mut self, id: NodeId) {
        if let Some(key) = self.unit_mut(id).and_then(|unit| unit.timer.take()) {
            self.timers.disarm(key);
        }
    }
}
