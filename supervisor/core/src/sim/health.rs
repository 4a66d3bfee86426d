//! What must hold of health, judged by the world's own count of what it answered.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::component::{Component, Health};
use crate::engine::{ProbeId, RunId};
use crate::journal::{Cause, Record, State};

/// A probe of the fake world.
#[derive(Debug)]
struct Probe {
    name: String,
    run: RunId,
    sent: Duration,
    timeout: Duration,
}

/// One component by the world's own count.
#[derive(Debug, Default)]
struct Count {
    health: Option<Health>,
    /// Failures in a row.
    failures: u32,
}

/// All probes under way, and all counts.
#[derive(Debug, Default)]
pub(super) struct Probes {
    open: BTreeMap<ProbeId, Probe>,
    counts: BTreeMap<String, Count>,
}

impl Probes {
    /// A declaration comes into force. Another probe begins a new count.
    pub(super) fn declare(&mut self, component: &Component) {
        let count = self.counts.entry(component.name.clone()).or_default();
        if count.health != component.lifecycle.health {
            *count = Count { health: component.lifecycle.health.clone(), failures: 0 };
        }
    }

    /// There is one probe at a time.
    pub(super) fn begin(
        &mut self,
        probe: ProbeId,
        run: RunId,
        component: &Component,
        now: Duration,
    ) -> Result<(), String> {
        let name = component.name.clone();
        let Some(health) = &component.lifecycle.health else {
            return Err(format!("{name} is probed without a declaration"));
        };
        if self.open.values().any(|open| open.run == run) {
            return Err(format!("{name} is probed twice at once"));
        }
        self.open.insert(probe, Probe { name, run, sent: now, timeout: health.timeout });
        Ok(())
    }

    /// The answer of an open probe counts. Returns whose it is.
    pub(super) fn answer(&mut self, probe: ProbeId, passes: bool) -> Option<String> {
        let open = self.open.remove(&probe)?;
        let count = self.counts.entry(open.name.clone()).or_default();
        count.failures = if passes { 0 } else { count.failures + 1 };
        Some(open.name)
    }

    /// One that is cancelled at its limit has failed; an earlier end means that nobody asks any more.
    pub(super) fn cancel(&mut self, probe: ProbeId, now: Duration) -> Result<(), String> {
        let Some(open) = self.open.remove(&probe) else {
            return Err("a probe that is over is cancelled".to_owned());
        };
        if now.saturating_sub(open.sent) >= open.timeout {
            self.counts.entry(open.name).or_default().failures += 1;
        }
        Ok(())
    }

    /// Changes of state that speak of health have the count behind them.
    pub(super) fn change(&mut self, record: &Record) -> Result<(), String> {
        let count = self.counts.entry(record.component.to_string()).or_default();
        let failures = count.failures;
        let thresholds = count.health.as_ref().map(|h| (h.fail_threshold, h.restart_threshold));
        let name = &record.component;
        let right = match (record.from, record.to, &record.cause, thresholds) {
            (_, State::Degraded, _, Some((fail, _))) => failures >= fail,
            (_, State::Degraded, _, None) => false,
            (State::Degraded, State::Active, _, Some(_)) => failures == 0,
            (_, State::Stopping, Cause::Unhealthy { .. }, Some((_, restart))) => failures >= restart,
            _ => true,
        };
        if !record.to.is_up() {
            count.failures = 0;
        }
        if right {
            return Ok(());
        }
        Err(format!("{name} goes {} after {failures} failed probes in a row", record.to))
    }

    /// After an outcome the state fits the count.
    pub(super) fn judge(&self, name: &str, states: &BTreeMap<String, State>) -> Result<(), String> {
        let (Some(count), Some(state)) = (self.counts.get(name), states.get(name)) else {
            return Ok(());
        };
        let Some(health) = &count.health else { return Ok(()) };
        let wrong = match state {
            State::Active => count.failures >= health.fail_threshold,
            State::Degraded => count.failures == 0 || count.failures >= health.restart_threshold,
            _ => false,
        };
        if wrong {
            return Err(format!("{name} stays {state} after {} failed probes in a row", count.failures));
        }
        Ok(())
    }
}
