//! Health, by the world's own count of what it answered: only what is up is probed, one probe at a
//! time; DEGRADED comes exactly when its threshold is reached, ACTIVE when a probe passes again, a
//! restart when the second threshold is reached.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Checker, Verdict};
use crate::component::{Component, Health};
use crate::engine::{Effect, Engine, Event, ProbeId, RunId};
use crate::journal::{Cause, Progress, Record, State};
use crate::sim::model::{Model, Slot};

/// A probe of the fake world.
#[derive(Debug)]
struct Probe {
    number: usize,
    sent: Duration,
    timeout: Duration,
    /// It asks by a declaration that is no longer in force: whatever comes of it counts for nobody.
    outdated: bool,
}

/// One component by the world's own count.
#[derive(Clone, Debug, Default)]
struct Count {
    health: Option<Health>,
    /// Failures in a row that count.
    failures: u32,
    /// When the component came up.
    since: Duration,
    /// A probe has passed since then.
    passed: bool,
}

impl Count {
    /// A probe has passed or failed.
    fn take(&mut self, passed: bool, now: Duration) {
        self.passed |= passed;
        let grace = self.health.as_ref().map_or(Duration::ZERO, |health| health.start_grace);
        if passed {
            self.failures = 0;
        } else if self.passed || now.saturating_sub(self.since) >= grace {
            self.failures += 1;
        }
    }
}

/// All probes under way, and all counts.
#[derive(Debug, Default)]
pub(super) struct Probes {
    open: BTreeMap<ProbeId, Probe>,
    counts: Vec<Count>,
    /// Whose probe ended in this step, and whether it passed: its state has to fit the count afterwards.
    answered: Option<(usize, bool)>,
}

impl Checker for Probes {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        self.counts.resize_with(model.slots.len(), Count::default);
        match event {
            Event::Files(_) => self.declare(model),
            Event::Probed { probe, outcome } => {
                // One that was cancelled has counted when its time was over.
                if let Some(open) = self.open.remove(probe) {
                    self.counts[open.number].take(outcome.is_ok(), model.now);
                    self.answered = Some((open.number, outcome.is_ok()));
                }
            }
            // All begins anew when it runs again.
            Event::Thawed(run, Ok(())) | Event::Frozen(run, Err(_)) => {
                if let Some(number) = model.owner(*run) {
                    let count = &mut self.counts[number];
                    (count.failures, count.since, count.passed) = (0, model.now, false);
                }
            }
            Event::Checkpointed(run, _) | Event::Restored { run, .. } => self.begin_anew(model, *run),
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Probe { probe, run, component } => self.begin(model, *probe, *run, component),
            Effect::Continue(run) => {
                self.begin_anew(model, *run);
                Ok(())
            }
            Effect::CancelProbe(probe) => self.cancel(*probe, model.now),
            Effect::Changed(record) => self.change(model, record),
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        match self.answered.take() {
            Some((number, passed)) => judge(&self.counts[number], passed, &model.slots[number]),
            None => Ok(()),
        }
    }
}

impl Probes {
    /// What was probed by nobody is looked at again.
    fn begin_anew(&mut self, model: &Model, run: RunId) {
        if let Some(number) = model.owner(run) {
            let count = &mut self.counts[number];
            (count.failures, count.since, count.passed) = (0, model.now, false);
        }
    }

    /// Another probe begins a new count.
    fn declare(&mut self, model: &Model) {
        for (number, (count, slot)) in self.counts.iter_mut().zip(&model.slots).enumerate() {
            let health = slot.declared.as_ref().and_then(|d| d.component.lifecycle.health.as_ref());
            if slot.declared.is_some() && count.health.as_ref() != health {
                // The start grace goes on from the start.
                *count = Count { health: health.cloned(), failures: 0, ..count.clone() };
                let open = self.open.values_mut().filter(|open| open.number == number);
                open.for_each(|open| open.outdated = true);
            }
        }
    }

    fn begin(&mut self, model: &Model, probe: ProbeId, run: RunId, component: &Component) -> Verdict {
        let name = &component.name;
        let Some(health) = &component.lifecycle.health else {
            return Err(format!("{name} is probed without a declaration"));
        };
        let number = model.owner(run).ok_or_else(|| format!("{name} is probed before it was started"))?;
        let slot = &model.slots[number];
        if !matches!(slot.state, State::Active | State::Degraded) {
            return Err(format!("{name} is probed while it is {}", slot.state));
        }
        if slot.process.as_ref().is_none_or(|process| process.run != run) {
            return Err(format!("{name} is probed without a process"));
        }
        if self.open.values().any(|open| open.number == number) {
            return Err(format!("{name} is probed twice at once"));
        }
        self.open.insert(probe, Probe { number, sent: model.now, timeout: health.timeout, outdated: false });
        Ok(())
    }

    /// One that is cancelled at its limit has failed; an earlier end means that nobody asks any
    /// more, and so does the end of one whose declaration is no longer in force.
    fn cancel(&mut self, probe: ProbeId, now: Duration) -> Verdict {
        let Some(open) = self.open.remove(&probe) else {
            return Err("a probe that is over is cancelled".to_owned());
        };
        if !open.outdated && now.saturating_sub(open.sent) >= open.timeout {
            self.counts[open.number].take(false, now);
        }
        Ok(())
    }

    /// Changes of state that speak of health have the count behind them.
    fn change(&mut self, model: &Model, record: &Record) -> Verdict {
        let Some(number) = model.number(&record.component) else { return Ok(()) };
        let count = &mut self.counts[number];
        // A remark on a component that stays where it is, such as limits that do not hold. After a
        // hot swap, whatever came of it, the count begins anew.
        if record.from == record.to {
            if let Cause::Handover { progress, .. } = &record.cause
                && has_paused_probes(progress)
            {
                (count.failures, count.since, count.passed) = (0, model.now, false);
            }
            return Ok(());
        }
        let failures = count.failures;
        let thresholds = count.health.as_ref().map(|h| (h.fail_threshold, h.restart_threshold));
        let right = match (record.from, record.to, &record.cause, thresholds) {
            (_, State::Degraded, _, Some((fail, _))) => failures >= fail,
            (_, State::Degraded, _, None) => false,
            (State::Degraded, State::Active, _, Some(_)) => failures == 0,
            (_, State::Stopping, Cause::Unhealthy { .. }, Some((_, restart))) => failures >= restart,
            _ => true,
        };
        if !record.to.is_up() {
            count.failures = 0;
        } else if !record.from.is_up() {
            (count.since, count.passed) = (model.now, false);
        }
        if right {
            return Ok(());
        }
        Err(format!("{} goes {} after {failures} failed probes in a row", record.component, record.to))
    }
}

/// Whether nothing was probed before this, because nobody served.
fn has_paused_probes(progress: &Progress) -> bool {
    match progress {
        Progress::Committed { .. }
        | Progress::Reverting { .. }
        | Progress::Canary { .. }
        | Progress::Recalled { .. } => true,
        Progress::Failed { step, .. } => !matches!(&**step, "prepare" | "start"),
        Progress::Started
        | Progress::Asked
        | Progress::Lending
        | Progress::Completing
        | Progress::Moved { .. }
        | Progress::Confirmed
        | Progress::Unreserved { .. } => false,
    }
}

/// After an outcome the state fits the count.
fn judge(count: &Count, passed: bool, slot: &Slot) -> Verdict {
    let Some(health) = &count.health else { return Ok(()) };
    let wrong = match slot.state {
        State::Active => count.failures >= health.fail_threshold,
        // A failure within the start grace does not count, but makes nothing well either.
        State::Degraded => passed || count.failures >= health.restart_threshold,
        _ => false,
    };
    if wrong {
        let failures = count.failures;
        return Err(format!("{} stays {} after {failures} failed probes in a row", slot.name, slot.state));
    }
    Ok(())
}
