//! Health: when a component is probed, and what the outcomes make of it.
//!
//! A component is watched from the moment it is up until it no longer is. Its first probe comes
//! an interval after that, less a part of the jitter (half of the interval unless declared) that
//! follows from its name, so that many components with one interval are not probed at once; then
//! one comes every interval by the monotonic clock, however long the one before took. There is
//! never more than one: while one is under way, the next is left out.
//!
//! A probe may be put off by a [`SLACK_PART`] of its interval, so that many components are probed in
//! few wake-ups; the rhythm stays that of the interval.
//!
//! Within the start grace a failure is shown and does not count; the first pass ends the grace.
//!
//! A probe that exceeds its limit has failed and is cancelled. One that cannot even be cancelled
//! (its process hangs in the kernel) fails again with each interval that passes.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timers::{Due, TimerKey};
use super::{Effect, Engine, Input, ProbeId};
use crate::component::Health as Declared;
use crate::control::Health;
use crate::graph::NodeId;
use crate::journal::{Cause, State, unhealthy_text};
use crate::mutation::{Mutation, broken};

/// The part of its interval for which a probe may be put off: a failure is seen at most so much later.
const SLACK_PART: u32 = 4;

/// The longest time for which a probe may be put off. Enough for tens of wake-ups a minute, however many components
/// are probed; nobody who looks at one waits for longer.
const SLACK_LIMIT: Duration = Duration::from_secs(1);

/// What is known about the health of one component.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Watch {
    /// When the component came up.
    since: Duration,
    /// A probe has passed since then: failures count, whatever is left of the start grace.
    passed: bool,
    /// When the next probe is due, while the component is watched.
    due: Duration,
    timer: Option<TimerKey>,
    current: Option<Current>,
    /// Probes that failed since the last one that passed.
    failures: u32,
    /// What the last probe said.
    last: Option<Result<(), Rc<str>>>,
}

/// A probe under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Current {
    probe: ProbeId,
    /// The timer of its limit; `None` once it was cancelled.
    limit: Option<TimerKey>,
    /// When it was cancelled, or found to hang since then.
    cancelled: Duration,
}

impl Watch {
    /// The probe under way, or cancelled and not yet over.
    pub(super) fn under_way(&self) -> Option<ProbeId> {
        self.current.as_ref().map(|current| current.probe)
    }

    /// Whether a probe is under way whose outcome counts.
    pub(super) fn is_waiting(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.limit.is_some())
    }

    /// Whether the time of the next probe is set.
    pub(super) fn is_armed(&self) -> bool {
        self.timer.is_some()
    }

    /// There is no probe any more.
    pub(super) fn forget_current(&mut self) {
        self.current = None;
    }

    /// Every timer that is counted on.
    pub(super) fn timers(&mut self) -> impl Iterator<Item = &mut Option<TimerKey>> {
        let limit = self.current.as_mut().map(|current| &mut current.limit);
        [&mut self.timer].into_iter().chain(limit)
    }

    /// For the HEALTH column.
    pub(super) fn verdict(&self) -> Health {
        match &self.last {
            None => Health::None,
            Some(Ok(())) => Health::Healthy,
            Some(Err(_)) => Health::Failing,
        }
    }

    /// What `status` says while probes fail.
    pub(super) fn complaint(&self) -> Option<String> {
        match &self.last {
            Some(Err(reason)) if self.failures == 0 => {
                Some(format!("a health probe failed within the start grace: {reason}"))
            }
            Some(Err(reason)) => Some(unhealthy_text(self.failures, reason)),
            _ => None,
        }
    }
}

/// Where in its interval a component is probed, from 0 to 999 thousandths (FNV-1a of its name).
fn phase(name: &str) -> u32 {
    let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    name.bytes().fold(0x811C_9DC5, step) % 1000
}

impl Engine {
    /// The component is up: from now on it is probed.
    pub(super) fn begin_watch(&mut self, id: NodeId) {
        let now = self.now;
        // Who gives to another does not serve.
        let is_expected = (!self.is_frozen(id) || broken(Mutation::ProbeFrozen)) && !self.is_away(id);
        let Some(unit) = self.unit_mut(id).filter(|unit| unit.handover.is_over() && is_expected) else {
            return;
        };
        unit.watch = Watch { since: now, ..Watch::default() };
        let Some(health) = &unit.component.lifecycle.health else {
            return;
        };
        let jitter = health.jitter.unwrap_or(health.interval / 2);
        let first = health.interval.saturating_sub(jitter) + jitter * phase(&unit.name) / 1000;
        unit.watch.due = now.saturating_add(first);
        self.arm_probe(id);
    }

    /// The component is no longer up: what is under way is of no interest any more.
    pub(super) fn end_watch(&mut self, id: NodeId) {
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let watch = std::mem::take(&mut unit.watch);
        if let Some(timer) = watch.timer {
            self.timers.disarm(timer);
        }
        if let Some(current) = watch.current {
            self.probes.remove(&current.probe);
            if let Some(limit) = current.limit {
                self.timers.disarm(limit);
                self.effects.push(Effect::CancelProbe(current.probe));
            }
        }
    }

    /// The declared probe has changed: begin anew. What was DEGRADED by a probe that is no longer
    /// declared is well again; otherwise the new one has to pass.
    pub(super) fn renew_watch(&mut self, id: NodeId) {
        let Some(unit) = self.unit(id) else { return };
        let (state, probed) = (unit.state, unit.component.lifecycle.health.is_some());
        if !matches!(state, State::Active | State::Degraded) {
            return;
        }
        let (since, passed) = (unit.watch.since, unit.watch.passed);
        self.end_watch(id);
        self.begin_watch(id);
        if let Some(unit) = self.unit_mut(id) {
            // The start grace is counted from the start.
            (unit.watch.since, unit.watch.passed) = (since, passed);
        }
        if !probed {
            self.feed(id, Input::Healthy, Cause::Healthy);
        }
    }

    /// For how long a timer may be put off.
    pub(super) fn slack(&self, due: Due) -> Duration {
        let Due::Probe(id) = due else { return Duration::ZERO };
        let health = self.unit(id).and_then(|unit| unit.component.lifecycle.health.as_ref());
        health.map_or(Duration::ZERO, |health| (health.interval / SLACK_PART).min(SLACK_LIMIT))
    }

    fn arm_probe(&mut self, id: NodeId) {
        let Some(due) = self.unit(id).map(|unit| unit.watch.due) else {
            return;
        };
        let key = self.timers.arm(due, Due::Probe(id));
        if let Some(unit) = self.unit_mut(id) {
            unit.watch.timer = Some(key);
        }
    }

    /// The time of a probe has come. The next one is an interval later, whatever becomes of it.
    pub(super) fn probe_due(&mut self, id: NodeId, key: TimerKey) {
        let now = self.now;
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let Some(health) = unit.component.lifecycle.health.as_ref().filter(|_| unit.watch.timer == Some(key))
        else {
            return;
        };
        unit.watch.due = next_due(unit.watch.due, health, now);
        self.arm_probe(id);
        self.feed(id, Input::ProbeDue, Cause::Healthy);
    }

    /// Send a probe, unless one is still under way.
    pub(super) fn probe(&mut self, id: NodeId) {
        let now = self.now;
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let (Some(health), Some(process)) = (&unit.component.lifecycle.health, &unit.process) else {
            return;
        };
        if let Some(current) = &mut unit.watch.current
            && !broken(Mutation::ProbeTwice)
        {
            let hangs = current.limit.is_none() && now.saturating_sub(current.cancelled) >= health.interval;
            if hangs {
                current.cancelled = now;
                let reason = format!("{}: cannot be ended", health.check).into();
                self.weigh(id, Err(reason));
            }
            return;
        }
        let (run, timeout, component) = (process.run, health.timeout, Rc::clone(&unit.component));
        self.last_probe += 1;
        let probe = ProbeId(self.last_probe);
        let limit = self.timers.arm(now.saturating_add(timeout), Due::ProbeLimit(id));
        if let Some(unit) = self.unit_mut(id) {
            unit.watch.current = Some(Current { probe, limit: Some(limit), cancelled: now });
        }
        self.probes.insert(probe, id);
        self.effects.push(Effect::Probe { probe, run, component });
    }

    /// A probe is over.
    pub(super) fn take_outcome(&mut self, probe: ProbeId, outcome: Result<(), Rc<str>>) {
        let Some(id) = self.probes.remove(&probe) else {
            return;
        };
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let Some(current) = unit.watch.current.take() else {
            return;
        };
        // A cancelled one has counted when its time was over.
        let Some(limit) = current.limit else { return };
        self.timers.disarm(limit);
        self.weigh(id, outcome);
    }

    /// A probe has taken longer than it may.
    pub(super) fn probe_late(&mut self, id: NodeId, key: TimerKey) {
        let now = self.now;
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let Some(health) = &unit.component.lifecycle.health else {
            return;
        };
        let current = unit.watch.current.as_mut().filter(|current| current.limit == Some(key));
        let Some(current) = current else { return };
        current.limit = None;
        current.cancelled = now;
        let probe = current.probe;
        let reason = format!("{}: no answer within {:?}", health.check, health.timeout).into();
        self.effects.push(Effect::CancelProbe(probe));
        self.weigh(id, Err(reason));
    }

    /// Count an outcome and see what it means.
    fn weigh(&mut self, id: NodeId, outcome: Result<(), Rc<str>>) {
        let now = self.now;
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let Some(health) = &unit.component.lifecycle.health else {
            return;
        };
        let watch = &mut unit.watch;
        watch.passed |= outcome.is_ok();
        let in_grace = !watch.passed && now.saturating_sub(watch.since) < health.start_grace;
        watch.failures = match outcome {
            Ok(()) => 0,
            Err(_) if in_grace => watch.failures,
            Err(_) => watch.failures.saturating_add(1),
        };
        let failures = watch.failures;
        watch.last = Some(outcome.clone());
        let (input, cause) = match outcome {
            Ok(()) => (Input::Healthy, Cause::Healthy),
            Err(_) if in_grace => return,
            Err(_) if failures < health.fail_threshold.min(health.restart_threshold) => return,
            Err(_) if failures == health.fail_threshold && broken(Mutation::CountOneLess) => return,
            Err(reason) if failures < health.restart_threshold => {
                (Input::Unhealthy, Cause::Unhealthy { failures, reason })
            }
            Err(reason) => (Input::Hopeless, Cause::Unhealthy { failures, reason }),
        };
        self.feed(id, input, cause);
    }
}

/// The next multiple of the interval after `now`: what was missed is not made up for.
fn next_due(due: Duration, health: &Declared, now: Duration) -> Duration {
    let late = now.saturating_sub(due).as_nanos();
    let missed = late / health.interval.as_nanos().max(1);
    let missed = u32::try_from(missed).unwrap_or(u32::MAX);
    due.saturating_add(health.interval.saturating_mul(missed)).saturating_add(health.interval)
}
