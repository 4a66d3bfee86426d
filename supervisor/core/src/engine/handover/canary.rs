//! A canary: for the time of its probation the new process takes only new connections, and the old one serves those that it
//! has, with its state. Then the old one gives the rest, or, if the new one did badly, accepts again.
//!
//! All that time the old process is the component's, and the new one is the second: whatever fails until the second has
//! everything leaves the first with all that it had, and the rows of the table are those of an ordinary hot swap. What is
//! different is that the second serves while it may still fail, so the first goes on only once it is gone.
//!
//! A probe connects anew, so it meets the new process: one that fails speaks against that. Signs of life are of one
//! process, so both have a watchdog.

use super::ending::Failure;
use super::steps::{micros, millis};
use super::table::{Step, Turn};
use crate::component::{Component, Strategy};
use crate::control::{PassedOver, UpgradeForm, UpgradeLevel};
use crate::engine::timers::Due;
use crate::engine::unit::Unit;
use crate::engine::upgrade::Wish;
use crate::engine::{Engine, RunId};
use crate::graph::NodeId;
use crate::journal::{Cause, Progress};
use crate::mutation::{Mutation, broken};
use crate::notify::{Notification, Watchdog};

/// How a hot swap is to go.
pub(in crate::engine) struct Manner {
    /// A lesser way will do.
    pub(in crate::engine) fallback: bool,
    /// How much the new process takes over at once.
    pub(in crate::engine) strategy: Strategy,
    /// Ways that were not gone.
    pub(in crate::engine) passed_over: Vec<PassedOver>,
}

impl Manner {
    /// As the component declares, for nobody who would wait for it.
    pub(super) fn declared(component: &Component) -> Self {
        Self { fallback: true, strategy: component.hotswap.strategy, passed_over: Vec::new() }
    }

    /// All at once in place of a canary.
    fn pass_over(&mut self, reason: String) {
        self.strategy = Strategy::AllAtOnce;
        self.passed_over.push(passed_over(reason));
    }
}

fn passed_over(reason: String) -> PassedOver {
    PassedOver { level: UpgradeLevel::FdPassing, strategy: Some(Strategy::Canary), reason }
}

/// Why the process that serves cannot give its listeners first.
fn obstacle(unit: &Unit) -> Option<String> {
    let process = unit.process.as_ref()?;
    let form = super::beside::form_of(unit, process.greeting).ok()?;
    if form != UpgradeForm::Protocol {
        return Some("its process speaks no protocol of hot swaps".to_owned());
    }
    (!process.splits)
        .then(|| "its process has not said that it gives listeners first (HELLO parts=2)".to_owned())
}

impl Engine {
    /// Why an upgrade that is to be a canary is none, whatever else would do.
    pub(in crate::engine) fn canary_refusal(&self, id: NodeId, wish: Wish) -> Option<String> {
        let unit = self.unit(id)?;
        let (name, hotswap) = (&unit.name, &unit.component.hotswap);
        let passes = unit.component.lifecycle.handoff.passes_descriptors();
        let wished = wish.strategy.unwrap_or(hotswap.strategy) == Strategy::Canary;
        if wish.strategy == Some(Strategy::Canary) && !passes {
            return Some(format!(
                "{name} cannot be upgraded as a canary: that needs lifecycle.handoff = \"fd-passing\" in its file"
            ));
        }
        if wished && passes && hotswap.probation.is_zero() {
            return Some(format!(
                "{name} cannot be upgraded as a canary: hotswap.probation says for how long, and is not in its file"
            ));
        }
        let reason = obstacle(unit).filter(|_| wished && passes && !wish.fallback)?;
        Some(format!(
            "{name} cannot be upgraded as a canary: {reason}; without --no-fallback it would be all at once"
        ))
    }

    /// The same with the strategy that the process which serves can go.
    pub(super) fn manner_of(&self, id: NodeId, mut manner: Manner) -> Manner {
        if manner.strategy == Strategy::Canary
            && let Some(reason) = self.unit(id).and_then(obstacle)
        {
            manner.pass_over(reason);
        }
        manner
    }

    /// Now that both have said what they can: how much moves at once; or why nothing does.
    pub(super) fn strategy_now(&mut self, id: NodeId) -> Result<Strategy, String> {
        let Some(second) = self.second_of(id) else { return Ok(Strategy::AllAtOnce) };
        if second.strategy == Strategy::AllAtOnce || second.process.splits {
            return Ok(second.strategy);
        }
        let reason = "the new process has not said that it takes listeners first (HELLO parts=2)";
        if !second.fallback {
            return Err(reason.to_owned());
        }
        second.strategy = Strategy::AllAtOnce;
        second.passed_over.push(passed_over(reason.to_owned()));
        Ok(Strategy::AllAtOnce)
    }

    /// The second serves new connections.
    pub(super) fn begin_canary(&mut self, id: NodeId) {
        let now = self.now;
        let Some(probation) = self.unit(id).map(|unit| unit.component.hotswap.probation) else { return };
        let timer = self.arm_second(id, probation);
        let Some(second) = self.second_of(id) else { return };
        second.step = Step::Canary;
        second.timer = Some(timer);
        second.gap_us = second.asked.map(|asked| micros(now.saturating_sub(asked)));
        second.probation_ms = Some(millis(probation));
        let generation = second.generation;
        self.begin_watch(id);
        self.arm_watchdog(id);
        self.arm_canary_watchdog(id);
        self.progress(id, generation, Progress::Canary { probation_ms: millis(probation) });
    }

    /// The second has served new connections for its time, and is to have the rest.
    pub(super) fn complete(&mut self, id: NodeId) {
        self.end_canary_watch(id);
        if broken(Mutation::ForgetRest) {
            return self.promote(id);
        }
        self.transfer(id, Step::Rest, Progress::Completing);
    }

    /// The second, which serves new connections or may, is ended: the first goes on with everything once it is gone.
    pub(super) fn recall(&mut self, id: NodeId, why: &str) {
        self.end_watch(id);
        self.end_watchdog(id);
        self.end_canary_watch(id);
        let Some(second) = self.second_of(id) else { return };
        let (step, generation) = (second.step, second.generation);
        second.failed_at = Some(step);
        second.failure = Some(why.into());
        second.step = Step::Revert;
        self.progress(id, generation, Progress::Recalled { reason: why.into() });
        if broken(Mutation::AcceptEarly) {
            let failure = Failure { step, reason: why.into(), by_first: false };
            return self.abort(id, &failure, Turn::Failed);
        }
        self.kill_second(id);
    }

    /// The process that serves new connections for a time.
    pub(in crate::engine) fn canary_of(&self, id: NodeId) -> Option<RunId> {
        let second = self.unit(id)?.handover.second();
        second.filter(|second| second.step == Step::Canary).map(|second| second.process.run)
    }

    /// A second process that serves has said something about itself.
    pub(super) fn take_notification_of_canary(&mut self, id: NodeId, said: Notification) {
        let now = self.now;
        let Some(second) = self.second_of(id) else { return };
        let (call, moved) = (said.watchdog, said.watchdog_interval.is_some() || said.stopping);
        second.process.said.take(said, now);
        if second.step != Step::Canary {
            return;
        }
        match call {
            Some(Watchdog::Trigger) => self.blame_canary(id, &Cause::WatchdogTriggered),
            Some(Watchdog::Beat) => self.arm_canary_watchdog(id),
            None if moved => self.arm_canary_watchdog(id),
            None => {}
        }
    }

    /// The time for its sign of life is over.
    pub(super) fn canary_silent(&mut self, id: NodeId) {
        let Some(second) = self.second_of(id) else { return };
        second.watchdog = None;
        let limit = second.process.watchdog_interval().unwrap_or_default();
        self.blame_canary(id, &Cause::WatchdogExpired { limit_ms: millis(limit) });
    }

    fn blame_canary(&mut self, id: NodeId, cause: &Cause) {
        self.turn(id, Turn::Unwell, &format!("the new process: {cause}"));
    }

    /// From now on it has an interval until its next sign of life.
    fn arm_canary_watchdog(&mut self, id: NodeId) {
        self.end_canary_watch(id);
        let interval = self.second_of(id).and_then(|second| second.process.watchdog_interval());
        let Some(interval) = interval.filter(|_| !broken(Mutation::DropWatchdog)) else { return };
        let timer = self.timers.arm(self.now.saturating_add(interval), Due::Handover(id));
        if let Some(second) = self.second_of(id) {
            second.watchdog = Some(timer);
        }
    }

    /// It is no canary any more.
    pub(super) fn end_canary_watch(&mut self, id: NodeId) {
        if let Some(timer) = self.second_of(id).and_then(|second| second.watchdog.take()) {
            self.timers.disarm(timer);
        }
    }
}
