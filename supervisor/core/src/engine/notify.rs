//! What a component says about itself, and its watchdog.
//!
//! Everything said belongs to one process and goes with it. Only three things that are said change
//! a state: `READY=1` where readiness is declared to be told so, and the watchdog's silence or
//! `WATCHDOG=trigger`, which have the component stopped (dependents first; by SIGABRT in place of
//! SIGTERM, whose handler has the grace to finish) and started again by the restart rule. A watchdog
//! falls silent only while the component is up; before that the readiness limit counts, and after that
//! the grace. It may be triggered as soon as the program runs.
//!
//! A reload that is announced is shown and changes no state: capabilities stay up. A stop that is
//! announced is shown with the end that follows, for which the process has its grace: its watchdog is
//! over, and one that has not ended by then is stopped and started again by the restart rule.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timers::{Due, TimerKey};
use super::unit::{Process, Unit};
use super::{Engine, Input, RunId};
use crate::component::Readiness;
use crate::component::keys::SHORTEST_INTERVAL;
use crate::control::{Announced, Health};
use crate::graph::NodeId;
use crate::journal::{Cause, errno_text};
use crate::mutation::{Mutation, broken};
use crate::notify::{Notification, Watchdog as Call};

/// The most that a process may put off its limit of readiness or of its stop, all in all: above
/// what any recovery of a database at the start was seen to take, and an end to one that asks for
/// ever.
const EXTENSION_LIMIT: Duration = Duration::from_secs(3600);

/// The longest interval of a watchdog that a process may ask for, as long as one can be declared;
/// the shortest is [`SHORTEST_INTERVAL`].
const INTERVAL_LIMIT: Duration = Duration::from_secs(366 * 24 * 3600);

/// What one process has said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    pub(super) status: Option<String>,
    errno: Option<i32>,
    stopping: bool,
    /// When the reload under way began.
    pub(super) reloading: Option<Duration>,
    /// When the last one began that was completed.
    pub(super) reloaded: Option<Duration>,
    /// The interval of the watchdog, when it is another than the declared one; zero for none.
    interval: Option<Duration>,
    /// By how much its limits were put off.
    pub(super) extended: Duration,
}

/// The watchdog of a component that is up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Watchdog {
    pub(super) timer: Option<TimerKey>,
    /// It has said that it is alive, since it is up.
    beaten: bool,
}

impl Said {
    pub(super) fn take(&mut self, said: Notification, now: Duration) {
        if let Some(status) = said.status {
            self.status = Some(status).filter(|text| !text.is_empty());
        }
        self.errno = said.errno.or(self.errno);
        self.stopping |= said.stopping;
        if let Some(since) = said.reloading {
            self.reloading = Some(since.unwrap_or(now).min(now));
        }
        if said.ready
            && let Some(began) = self.reloading.take()
        {
            self.reloaded = Some(began);
        }
        let in_range = |interval: Duration| match interval {
            Duration::ZERO => interval,
            _ => interval.clamp(SHORTEST_INTERVAL, INTERVAL_LIMIT),
        };
        let interval = said.watchdog_interval.map(in_range);
        self.interval = interval.or(self.interval);
    }

    /// For the machine-readable status.
    pub(super) fn announced(&self) -> Option<Announced> {
        match (self.stopping, self.reloading) {
            (true, _) => Some(Announced::Stopping),
            (false, Some(_)) => Some(Announced::Reloading),
            (false, None) => None,
        }
    }

    /// What `status` says while the process runs.
    pub(super) fn summary(&self) -> Option<String> {
        let announced = self.announced().map(|announced| match announced {
            Announced::Reloading => "reloading".to_owned(),
            Announced::Stopping => "has announced its end".to_owned(),
        });
        let status = self.status.as_ref().map(|text| format!("says \"{text}\""));
        join(announced, status)
    }

    /// What belongs to the process's end, by itself or not, to stand behind its cause.
    pub(super) fn last_words(&self, by_itself: bool) -> Option<String> {
        let stopping = (self.stopping && by_itself).then(|| "as it had announced".to_owned());
        let errno = self.errno.filter(|errno| *errno != 0);
        let errno = errno.map(|errno| format!("it reported errno {errno}: {}", errno_text(errno)));
        join(stopping, errno)
    }
}

fn join(one: Option<String>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    }
}

impl Unit {
    /// For the HEALTH column: the last probe, or else the watchdog.
    pub(super) fn health(&self) -> Health {
        match self.watch.verdict() {
            Health::None if self.watchdog.beaten => Health::Healthy,
            verdict => verdict,
        }
    }

    /// Whether its process has said that it is about to end by itself.
    pub(super) fn has_announced_its_end(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.said.stopping)
    }

    /// The interval of its watchdog, while there is one: not while it ends.
    fn watchdog_interval(&self) -> Option<Duration> {
        self.process.as_ref()?.watchdog_interval()
    }
}

impl Process {
    /// The interval of its watchdog, while there is one: not while it ends.
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        if self.said.stopping && !broken(Mutation::WatchTheEnding) {
            return None;
        }
        // By the declaration that the process was started with: another one starts another process.
        let interval = self.said.interval.or(self.component.lifecycle.watchdog)?;
        (!interval.is_zero()).then_some(interval)
    }
}

impl Engine {
    /// A process has said something about itself.
    pub(super) fn take_notification(&mut self, run: RunId, said: Notification) {
        let now = self.now;
        let Some(id) = self.runs.get(&run).copied() else {
            return self.take_notification_of_second(run, said);
        };
        let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) else {
            return;
        };
        let (ready, call, extend) = (said.ready, said.watchdog, said.extend_timeout);
        let moved = said.watchdog_interval.is_some();
        let ends = said.stopping && !process.said.stopping;
        // One that is declared to be ready in another way has only completed a reload.
        let declared = process.component.lifecycle.readiness == Readiness::Notify;
        let ready = ready && (declared || broken(Mutation::TakeAnyReady));
        process.said.take(said, now);
        if ends {
            self.rearm_watchdog(id);
            self.await_announced_end(id);
        }
        if let Some(extend) = extend {
            self.extend_limit(id, extend);
        }
        if ready {
            self.feed(id, Input::Ready, Cause::Ready);
        }
        match call {
            Some(Call::Trigger) => self.feed(id, Input::Hopeless, Cause::WatchdogTriggered),
            Some(Call::Beat) => self.beat(id),
            None if moved => self.rearm_watchdog(id),
            None => {}
        }
    }

    /// The component is no longer up.
    pub(super) fn end_watchdog(&mut self, id: NodeId) {
        let watchdog = self.unit_mut(id).map(|unit| std::mem::take(&mut unit.watchdog));
        if let Some(timer) = watchdog.and_then(|watchdog| watchdog.timer) {
            self.timers.disarm(timer);
        }
    }

    fn beat(&mut self, id: NodeId) {
        let Some(unit) = self.unit_mut(id).filter(|unit| unit.state.is_up()) else {
            return;
        };
        unit.watchdog.beaten = true;
        self.rearm_watchdog(id);
    }

    pub(super) fn rearm_watchdog(&mut self, id: NodeId) {
        let Some(unit) = self.unit_mut(id).filter(|unit| unit.state.is_up()) else {
            return;
        };
        if let Some(timer) = unit.watchdog.timer.take() {
            self.timers.disarm(timer);
        }
        self.arm_watchdog(id);
    }

    /// The component is up, or has just said that it is alive: it has an interval until the next.
    pub(super) fn arm_watchdog(&mut self, id: NodeId) {
        if broken(Mutation::DropWatchdog) {
            return;
        }
        let is_expected = (!self.is_frozen(id) || broken(Mutation::WatchFrozen)) && !self.is_away(id);
        let unit = self.unit(id).filter(|unit| unit.handover.is_over() && is_expected);
        let Some(interval) = unit.and_then(Unit::watchdog_interval) else {
            return;
        };
        let timer = self.timers.arm(self.now.saturating_add(interval), Due::Watchdog(id));
        if let Some(unit) = self.unit_mut(id) {
            unit.watchdog.timer = Some(timer);
        }
    }

    /// A component that is up and has announced its end has its grace for that.
    pub(super) fn await_announced_end(&mut self, id: NodeId) {
        let ends = |unit: &&Unit| unit.state.is_up() && unit.has_announced_its_end();
        let Some(unit) = self.unit(id).filter(ends).filter(|_| !self.is_frozen(id) && !self.is_away(id))
        else {
            return;
        };
        let grace = unit.component.hotswap.shutdown_grace;
        if !broken(Mutation::ForgetAnnouncedEnd) {
            self.arm_unit(id, grace, Due::Grace(id));
        }
    }

    /// The processes whose time for a sign of life is over at the time `now`. One that has come and
    /// was not read yet is to be given to [`Engine::handle_all`] before the event that is next.
    pub fn watchdogs_due(&self, now: Duration) -> Vec<RunId> {
        let due = self.timers.due(now).filter_map(|due| match due {
            Due::Watchdog(id) => Some(self.unit(id)?.process.as_ref()?.run),
            Due::Handover(id) => self.canary_of(id),
            _ => None,
        });
        due.collect()
    }

    /// The time for a sign of life is over.
    pub(super) fn watchdog_due(&mut self, id: NodeId, key: TimerKey) {
        let Some(unit) = self.unit_mut(id).filter(|unit| unit.watchdog.timer == Some(key)) else {
            return;
        };
        unit.watchdog.timer = None;
        let interval = unit.watchdog_interval().unwrap_or_default();
        let limit_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.feed(id, Input::Hopeless, Cause::WatchdogExpired { limit_ms });
    }

    /// Put the limit of readiness or of a stop off: it is not to end before `by` from now.
    fn extend_limit(&mut self, id: NodeId, by: Duration) {
        if broken(Mutation::IgnoreExtension) {
            return;
        }
        let armed = self.unit(id).and_then(|unit| unit.timer).and_then(|key| self.timers.get(key));
        let Some((at, due @ (Due::Readiness(_) | Due::Grace(_)))) = armed else {
            return;
        };
        let wanted = self.now.saturating_add(by).saturating_sub(at);
        let process = self.unit_mut(id).and_then(|unit| unit.process.as_mut());
        let Some(said) = process.map(|process| &mut process.said) else {
            return;
        };
        let left = EXTENSION_LIMIT.saturating_sub(said.extended);
        let more = if broken(Mutation::ExtendForEver) { wanted } else { wanted.min(left) };
        if more.is_zero() {
            return;
        }
        said.extended = said.extended.saturating_add(more);
        let after = at.saturating_add(more).saturating_sub(self.now);
        self.arm_unit(id, after, due);
    }
}
