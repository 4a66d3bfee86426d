//! Hot swaps: a process is told to serve only when it has got what was given, and is ready; who was
//! asked to give gets one verdict within its time: to end, when the other serves, or to go on, when
//! the other does not and never will.

use std::time::Duration;

use yakiros_handoff::message::{Order, Report, Summary};

use super::{Checker, Verdict};
use crate::engine::{Effect, Engine, Event, HANDOVER_LIMIT, RunId};
use crate::sim::model::Model;

/// One hot swap, from the question to the verdict.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that come in any order")]
struct Swap {
    giver: RunId,
    taker: RunId,
    asked: Duration,
    offered: Option<Summary>,
    taken: Option<Summary>,
    ready: bool,
    /// The taker was told to serve.
    committed: bool,
    /// It does.
    serves: bool,
    /// The giver was told what is to become of it.
    judged: bool,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    open: Vec<Swap>,
}

impl Checker for Handovers {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        match event {
            Event::Reported(run, report) => self.hear(*run, report),
            // Two that are gone have nothing to decide.
            Event::Ended(..) | Event::NotExecuted { .. } | Event::Unsupported { .. } => {
                let lives = |run| model.process(run).is_some();
                self.open.retain(|swap| lives(swap.giver) || lives(swap.taker));
            }
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        match effect {
            Effect::Connect { giver, taker, .. } => self.begin(model, *giver, *taker),
            Effect::Order(run, Order::Commit) => {
                let swap = self.open.iter_mut().find(|swap| swap.taker == *run && !swap.committed);
                let swap = swap.ok_or("a process is told to serve that takes nothing over")?;
                swap.committed = true;
                let complete = swap.offered.is_some() && swap.offered == swap.taken && swap.ready;
                complete.then_some(()).ok_or_else(|| format!("run {} is told to serve too early", run.0))
            }
            Effect::Order(run, Order::Release) => {
                let swap = self.judge(*run)?;
                swap.serves
                    .then_some(())
                    .ok_or_else(|| format!("run {} is released, and nobody serves", run.0))
            }
            Effect::Order(run, Order::Abort(_)) => {
                let swap = self.judge(*run)?;
                let may_serve = swap.serves || (swap.committed && model.process(swap.taker).is_some());
                (!may_serve).then_some(()).ok_or_else(|| format!("run {} goes on beside another", run.0))
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        let waits = |swap: &&Swap| !swap.judged && !swap.committed && model.process(swap.giver).is_some();
        match self.open.iter().find(waits) {
            Some(swap) if model.now > swap.asked + HANDOVER_LIMIT => {
                Err(format!("run {} was asked to give, and is not told what came of it", swap.giver.0))
            }
            _ => Ok(()),
        }
    }

    fn rest(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        let left = self.open.iter().find(|swap| !swap.judged && model.process(swap.giver).is_some());
        left.map_or(Ok(()), |swap| Err(format!("run {} has given and is never told more", swap.giver.0)))
    }
}

impl Handovers {
    fn begin(&mut self, model: &Model, giver: RunId, taker: RunId) -> Verdict {
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
            asked: model.now,
            offered: None,
            taken: None,
            ready: false,
            committed: false,
            serves: false,
            judged: false,
        });
        Ok(())
    }

    fn hear(&mut self, run: RunId, report: &Report) {
        for swap in self.open.iter_mut().filter(|swap| !swap.judged) {
            match report {
                Report::Offered(summary) if swap.giver == run => {
                    swap.offered.get_or_insert(*summary);
                }
                Report::Taken(summary) if swap.taker == run => {
                    swap.taken.get_or_insert(*summary);
                }
                Report::Ready if swap.taker == run => swap.ready = true,
                Report::Serving if swap.taker == run => swap.serves |= swap.committed,
                _ => {}
            }
        }
    }

    /// The swap in which this one gives, and gets its verdict now.
    fn judge(&mut self, giver: RunId) -> Result<&mut Swap, String> {
        let swap = self.open.iter_mut().find(|swap| swap.giver == giver && !swap.judged);
        let swap = swap.ok_or_else(|| format!("run {} is judged, and was not asked", giver.0))?;
        swap.judged = true;
        Ok(swap)
    }
}
