//! Hot swaps: a process is told to serve only when it has got what was given, and is ready; who was
//! asked to give gets one verdict within its time: to end, when the other serves, or to go on, when
//! the other does not and never will; and somebody serves: who takes over from one that died does so
//! within its time, or is ended. Where a probation is declared, who gave is kept for exactly that time, and
//! goes on if the other fails within it: nobody sees the component fail then. As a canary the other has new connections
//! only for that time, and then everything: each connection is served by exactly one. What is said about one upgrade
//! is nothing to another, and who serves is not ended because another one does not take.
//! One that serves beside another takes its place when it is ready.

use std::collections::BTreeSet;
use std::time::Duration;

use yakiros_handoff::message::{Order, Part, Report, Summary};

use super::{Checker, Verdict};
use crate::component::Readiness;
use crate::engine::{Effect, Engine, Event, HANDOVER_LIMIT, Place, RunId};
use crate::journal::{Cause, Progress, Record, State};
use crate::sim::faults::handovers::WHY;
use crate::sim::model::Model;

/// One hot swap, from the question to the verdict.
#[derive(Debug)]
struct Swap {
    giver: RunId,
    taker: RunId,
    generation: u64,
    asked: Duration,
    offered: Option<Summary>,
    taken: Option<Summary>,
    ready: bool,
    /// The taker was told to serve.
    committed: bool,
    /// It does, since then.
    serves: Option<Duration>,
    /// What moves now: of a canary the listeners first.
    part: Part,
    /// For so long the giver is kept.
    probation: Duration,
    /// The giver was told what is to become of it.
    judged: bool,
}

impl Swap {
    /// Whether the giver lives and waits for its verdict.
    fn keeps(&self, model: &Model) -> bool {
        !self.judged && model.process(self.giver).is_some()
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    open: Vec<Swap>,
    /// Who was asked by a signal to give, and has not been told what became of it.
    signalled: BTreeSet<RunId>,
    /// Who was released before its time in this step: the component is about to stop.
    early: Option<usize>,
    /// Who has said in this step that it fails.
    unwell: Option<RunId>,
    /// Who has just said that the upgrade under way fails, and that it serves on.
    serves_on: Option<RunId>,
}

impl Checker for Handovers {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        self.unwell = match event {
            Event::Reported(run, Report::Failed { .. }) | Event::Garbled(run, _) => Some(*run),
            _ => None,
        };
        self.serves_on = None;
        match event {
            Event::Reported(run, report) => self.hear(model, *run, report),
            // Two that are gone have nothing to decide.
            Event::Ended(run, ..) | Event::NotExecuted { run, .. } | Event::Unsupported { run, .. } => {
                self.signalled.remove(run);
                let lives = |run| model.process(run).is_some();
                self.open.retain(|swap| lives(swap.giver) || lives(swap.taker));
            }
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Connect { giver, taker, part: Part::Rest, .. } => self.complete(model, *giver, *taker),
            Effect::Connect { giver, taker, generation, part, .. } => {
                self.begin(model, *giver, *taker, *generation, *part)
            }
            Effect::Terminate(run) if self.serves_on == Some(*run) => {
                Err(format!("run {} serves on, and is ended for that", run.0))
            }
            Effect::Order(run, Order::Commit) => {
                // Twice if there is no rest any more.
                let alone = |swap: &Swap| {
                    swap.part == Part::Listeners
                        && swap.serves.is_some()
                        && model.process(swap.giver).is_none()
                };
                if self.open.iter().any(|swap| swap.taker == *run && alone(swap)) {
                    return Ok(());
                }
                let swap = self.open.iter_mut().find(|swap| swap.taker == *run && !swap.committed);
                let swap = swap.ok_or("a process is told to serve that takes nothing over")?;
                swap.committed = true;
                let complete = swap.offered.is_some() && swap.offered == swap.taken && swap.ready;
                complete.then_some(()).ok_or_else(|| format!("run {} is told to serve too early", run.0))
            }
            Effect::Order(run, Order::Release) => {
                let swap = self.judge(*run)?;
                let Some(since) = swap.serves.filter(|_| swap.part != Part::Listeners) else {
                    return Err(format!("run {} is released, and nobody serves what it has", run.0));
                };
                if model.now < since + swap.probation {
                    self.early = model.owner(*run);
                }
                Ok(())
            }
            Effect::Relay { giver, .. } => {
                self.signalled.insert(*giver);
                Ok(())
            }
            Effect::Order(run, Order::Abort(_)) if self.signalled.remove(run) => Ok(()),
            Effect::Order(run, Order::Abort(text)) => {
                let swap = self.judge(*run)?;
                let about = text.split_once(WHY).and_then(|(_, number)| number.parse().ok());
                if about.is_some_and(|about: u64| about != swap.generation) {
                    return Err(format!("the upgrade to generation {} fails: {text}", swap.generation));
                }
                let may_serve =
                    (swap.committed || swap.part == Part::Rest) && model.process(swap.taker).is_some();
                (!may_serve).then_some(()).ok_or_else(|| format!("run {} goes on beside another", run.0))
            }
            Effect::Changed(record) => {
                take_place(model, record)?;
                self.change(model, record)
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        if let Some(number) = self.early.take()
            && model.slots[number].state.is_up()
        {
            return Err(format!("{} loses its way back within its probation", model.slots[number].name));
        }
        let failing =
            |swap: &&Swap| Some(swap.taker) == self.unwell && swap.serves.is_some() && swap.keeps(model);
        if let Some(swap) = self.open.iter().find(failing)
            // A canary that is told to end with its component fails nobody.
            && model
                .process(swap.taker)
                .is_some_and(|taker| taker.killed.is_none() && taker.released.is_none())
        {
            return Err(format!(
                "run {} says that it fails on probation, and is not rolled back",
                swap.taker.0
            ));
        }
        if let Some((slot, wrong)) = model.slots.iter().find_map(|slot| Some((slot, slot.disagree()?))) {
            return Err(format!("of {} {wrong}", slot.name));
        }
        let kept = |swap: &&Swap| {
            let over = swap.serves.is_some_and(|since| model.now > since + swap.probation);
            // One that is being killed may yet take its time.
            let serves = model
                .process(swap.taker)
                .is_some_and(|taker| taker.killed.is_none() && taker.released.is_none());
            over && serves && swap.keeps(model)
        };
        if let Some(swap) = self.open.iter().find(kept) {
            return Err(format!("run {} is kept beyond the probation", swap.giver.0));
        }
        // What has served new connections is gone before another is to accept those.
        let ends = |swap: &Swap| {
            let taker = model.process(swap.taker);
            swap.part == Part::Rest && taker.is_some_and(|taker| taker.killed.is_some())
        };
        let waits = |swap: &&Swap| {
            !swap.judged && !swap.committed && model.process(swap.giver).is_some() && !ends(swap)
        };
        match self.open.iter().find(waits) {
            Some(swap) if model.now > swap.asked + HANDOVER_LIMIT => {
                return Err(format!(
                    "run {} was asked to give, and is not told what came of it",
                    swap.giver.0
                ));
            }
            _ => {}
        }
        match self.open.iter().find(|swap| is_idle(model, swap)) {
            Some(swap) => {
                Err(format!("nobody serves: not run {}, which is gone, nor {}", swap.giver.0, swap.taker.0))
            }
            None => Ok(()),
        }
    }

    fn rest(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        let left = self.open.iter().find(|swap| swap.keeps(model));
        left.map_or(Ok(()), |swap| Err(format!("run {} has given and is never told more", swap.giver.0)))
    }
}

/// Whether somebody died giving, and the other has had its time to serve, and has neither done so nor been told to end.
fn is_idle(model: &Model, swap: &Swap) -> bool {
    let heir = model.process(swap.taker).filter(|_| model.process(swap.giver).is_none());
    let alive = heir.is_some_and(|heir| heir.told.is_none() && heir.killed.is_none());
    // What needs it is stopped first.
    let up = model.owner(swap.taker).is_some_and(|number| model.slots[number].state.is_up());
    alive && up && swap.serves.is_none() && model.now > swap.asked + HANDOVER_LIMIT
}

impl Handovers {
    /// A canary that has lasted gets the rest.
    fn complete(&mut self, model: &Model, giver: RunId, taker: RunId) -> Verdict {
        let is_it = |swap: &&mut Swap| swap.giver == giver && swap.taker == taker && !swap.judged;
        let swap = self.open.iter_mut().find(is_it).filter(|swap| swap.part == Part::Listeners);
        let swap = swap.ok_or("a process is to have the rest that has no listeners")?;
        if swap.serves.is_none_or(|since| model.now < since + swap.probation) {
            return Err(format!("run {} is a canary for less than its time", taker.0));
        }
        swap.asked = model.now;
        (swap.offered, swap.taken, swap.ready) = (None, None, false);
        (swap.committed, swap.serves, swap.part) = (false, None, Part::Rest);
        Ok(())
    }

    fn begin(&mut self, model: &Model, giver: RunId, taker: RunId, generation: u64, part: Part) -> Verdict {
        if model.process(giver).is_none() || model.process(taker).is_none() {
            return Err("a process that is gone is connected to another".to_owned());
        }
        if self.open.iter().any(|swap| swap.giver == giver && !swap.judged) {
            return Err(format!("run {} is asked again before it knows what came of it", giver.0));
        }
        self.open.retain(|swap| swap.giver != giver);
        self.open.push(Swap {
            giver,
            taker,
            generation,
            asked: model.now,
            offered: None,
            taken: None,
            ready: false,
            committed: false,
            serves: None,
            part,
            probation: Duration::ZERO,
            judged: false,
        });
        Ok(())
    }

    fn hear(&mut self, model: &Model, run: RunId, report: &Report) {
        let probation = probation(model, run);
        for swap in self.open.iter_mut().filter(|swap| !swap.judged) {
            match report {
                Report::Failed { generation, .. }
                    if swap.giver == run && *generation == swap.generation && !swap.committed =>
                {
                    self.serves_on = Some(run);
                }
                Report::Offered { generation, summary }
                    if swap.giver == run && *generation == swap.generation =>
                {
                    swap.offered.get_or_insert(*summary);
                }
                Report::Taken(summary) if swap.taker == run => {
                    swap.taken.get_or_insert(*summary);
                }
                Report::Ready if swap.taker == run => swap.ready = true,
                Report::Serving if swap.taker == run && swap.committed => {
                    swap.serves.get_or_insert(model.now);
                    // A canary has had its time before.
                    swap.probation = if swap.part == Part::Rest { Duration::ZERO } else { probation };
                }
                _ => {}
            }
        }
    }

    /// A component whose new process fails while the old one is kept does not show it.
    fn change(&self, model: &Model, record: &Record) -> Verdict {
        let Some(number) = model.number(&record.component) else { return Ok(()) };
        let bad = matches!(
            record.cause,
            Cause::Unhealthy { .. }
                | Cause::WatchdogExpired { .. }
                | Cause::WatchdogTriggered
                | Cause::NotEnded
        );
        let of = |swap: &&Swap| model.owner(swap.giver) == Some(number) && swap.serves.is_some();
        let kept = self.open.iter().filter(of).any(|swap| swap.keeps(model));
        let fails = matches!(record.to, State::Degraded | State::Failed) && record.from != record.to;
        if (fails && kept) || (bad && self.early == Some(number)) {
            return Err(format!(
                "{} goes {} on probation, and is not rolled back",
                record.component, record.to
            ));
        }
        Ok(())
    }

    /// The swap in which this one gives, and gets its verdict now.
    fn judge(&mut self, giver: RunId) -> Result<&mut Swap, String> {
        let swap = self.open.iter_mut().find(|swap| swap.giver == giver && !swap.judged);
        let swap = swap.ok_or_else(|| format!("run {} is judged, and was not asked", giver.0))?;
        swap.judged = true;
        Ok(swap)
    }
}

/// The probation that is in force for the component of a process.
fn probation(model: &Model, run: RunId) -> Duration {
    let declared = model.owner(run).and_then(|number| model.slots[number].declared.as_ref());
    declared.map_or(Duration::ZERO, |declared| declared.component.hotswap.probation)
}

/// One that serves beside another takes its place only when it is ready as it declares.
fn take_place(model: &Model, record: &Record) -> Verdict {
    let Cause::Handover { progress: Progress::Committed { .. }, .. } = record.cause else { return Ok(()) };
    let slot = model.number(&record.component).map(|number| &model.slots[number]);
    let second = slot.and_then(|slot| slot.second.as_ref());
    let Some(second) = second.filter(|second| second.place != Place::Successor) else { return Ok(()) };
    if second.place == Place::Receiver && !second.given {
        return Err(format!("run {} takes the place of another without what that one gives", second.run.0));
    }
    let plain = second.declared.component.lifecycle.readiness == Readiness::None;
    if second.ready || (plain && second.executed.is_some()) {
        return Ok(());
    }
    Err(format!("run {} takes the place of another before it is ready", second.run.0))
}
