//! From the start of the second process until it serves.

use std::rc::Rc;
use std::time::Duration;

use yakiros_handoff::message::{Order, Part};

use super::beside::form_of;
use super::canary::Manner;
use super::table::{Step, Turn};
use super::{GIVE_LIMIT, Heir, LIMIT, Second};
use crate::component::Strategy;
use crate::control::{Answer, UpgradeForm, UpgradeLevel, Upgraded};
use crate::engine::unit::Process;
use crate::engine::{Effect, Engine, Input, RunId};
use crate::graph::NodeId;
use crate::journal::{Cause, Progress, State};
use crate::mutation::{Mutation, broken};

impl Engine {
    /// Begin a hot swap; or say why there cannot be one.
    pub(in crate::engine) fn begin_handover(
        &mut self,
        id: NodeId,
        cause: Cause,
        manner: Manner,
    ) -> Result<RunId, String> {
        let unit = self.unit(id).ok_or("it is not declared")?;
        if unit.handover.second().is_some() {
            return Err("the upgrade before is not over".to_owned());
        }
        if !matches!(unit.state, State::Active | State::Degraded) {
            return Err(format!("it is {}", unit.state));
        }
        if !self.graph.requirements_up(id) || self.halting.is_some() {
            return Err("it is about to stop".to_owned());
        }
        let process = unit.process.as_ref().ok_or("it has no process")?;
        if process.freezer.is_some() {
            return Err("it is frozen".to_owned());
        }
        if process.checkpoint_mark().is_some() {
            return Err("a checkpoint of it is under way".to_owned());
        }
        if process.heir.is_some() {
            return Err("its process has taken over and does not serve yet".to_owned());
        }
        let form = form_of(unit, process.greeting)?;
        let Manner { fallback, strategy, passed_over } = self.manner_of(id, manner);
        self.last_run += 1;
        let run = RunId(self.last_run);
        self.seconds.insert(run, id);
        let timer = self.arm_second(id, self.readiness_limit_of(id));
        let Some(unit) = self.unit_mut(id) else {
            return Err("it is not declared".to_owned());
        };
        unit.generation += 1;
        let (generation, component) = (unit.generation, Rc::clone(&unit.component));
        let process = Process::new(run, Rc::clone(&component));
        let second = Second {
            process,
            step: Second::first_step(form),
            form,
            timer: Some(timer),
            generation,
            asked: None,
            offered: None,
            taken: None,
            ready: false,
            gap_us: None,
            probation_ms: None,
            failure: None,
            failed_at: None,
            strategy,
            watchdog: None,
            fallback,
            end: None,
            cause: cause.clone(),
            passed_over,
        };
        unit.handover.begin(second);
        self.remark(id, cause, None);
        self.progress(id, generation, Progress::Started);
        let place = Second::place(form);
        self.effects.push(Effect::Spawn { run, component, generation, place, origin: None });
        Ok(run)
    }

    /// The declaration of a component that hands over has changed: begin a hot swap, now or when
    /// the one under way is over, or what is frozen is thawed; or say why there cannot be one.
    pub(in crate::engine) fn hand_over_changed(&mut self, id: NodeId, cause: &Cause) -> Result<(), String> {
        let unit = self.unit_mut(id).ok_or("it is not declared")?;
        let inherits = unit.process.as_ref().is_some_and(|process| process.heir.is_some());
        let marked = unit.process.as_ref().is_some_and(|process| process.checkpoint_mark().is_some());
        let under_way = unit.handover.second().is_some() || inherits || unit.is_frozen() || marked;
        if under_way && matches!(unit.state, State::Active | State::Degraded) {
            unit.handover.repeat(cause.clone());
            return Ok(());
        }
        let manner = Manner::declared(&unit.component);
        self.begin_handover(id, cause.clone(), manner).map(drop)
    }

    fn readiness_limit_of(&self, id: NodeId) -> Duration {
        self.unit(id).map_or(Duration::ZERO, |unit| unit.component.lifecycle.readiness_timeout)
    }

    /// The second is prepared: have the first give, everything or its listeners first.
    pub(super) fn connect(&mut self, id: NodeId) {
        match self.strategy_now(id) {
            Ok(Strategy::AllAtOnce) => self.transfer(id, Step::Move, Progress::Asked),
            Ok(Strategy::Canary) => self.transfer(id, Step::Lend, Progress::Lending),
            Err(why) => self.turn(id, Turn::Failed, &why),
        }
    }

    /// Have the first give and the second take. What moves nobody serves from here on, so nobody is probed either.
    pub(super) fn transfer(&mut self, id: NodeId, step: Step, progress: Progress) {
        let now = self.now;
        self.end_watch(id);
        self.end_watchdog(id);
        let timer = self.arm_second(id, LIMIT);
        let Some(giver) = self.run_of(id) else { return };
        let Some(second) = self.second_of(id) else {
            return;
        };
        second.step = step;
        second.asked = Some(now);
        (second.offered, second.taken, second.ready) = (None, None, false);
        second.timer = Some(timer);
        let (taker, generation) = (second.process.run, second.generation);
        self.progress(id, generation, progress);
        let part = step.part();
        self.effects.push(Effect::Connect { giver, taker, generation, limit: GIVE_LIMIT, part });
    }

    pub(super) fn compare(&mut self, id: NodeId) {
        let Some(second) = self.second_of(id) else {
            return;
        };
        let (Some(offered), Some(taken)) = (second.offered, second.taken) else {
            return;
        };
        if offered != taken && !broken(Mutation::TrustTaker) {
            let reason = format!("the old process gave {offered}, the new one got {taken}");
            return self.turn(id, Turn::Failed, &reason);
        }
        second.step = second.step.next();
        let (generation, ready) = (second.generation, second.ready);
        let moved = Progress::Moved { descriptors: offered.descriptors, state_bytes: offered.state };
        self.progress(id, generation, moved);
        if ready {
            self.commit(id);
        }
    }

    pub(super) fn commit(&mut self, id: NodeId) {
        let Some(second) = self.second_of(id) else {
            return;
        };
        second.step = second.step.next();
        let run = second.process.run;
        self.effects.push(Effect::Order(run, Order::Commit));
    }

    /// The second serves: it is the component's process from now on. With a probation the old one is kept
    /// for that time.
    pub(super) fn promote(&mut self, id: NodeId) {
        let Some(unit) = self.unit(id) else { return };
        let (up, declared) = (unit.state.is_up(), unit.component.hotswap.probation);
        // A canary has had its time, unless it is being killed for something: then the old one is kept to go on.
        let second = unit.handover.second();
        let proved =
            second.is_some_and(|second| second.strategy == Strategy::Canary && second.step != Step::Withdraw);
        let probation = if proved { Duration::ZERO } else { declared };
        if !up {
            // It was called off too late: the new one is being killed, and the old one need not go on.
            if self.take_place(id, None) {
                self.dismiss(id, "it served before it could be called off");
            }
            return;
        }
        let probation = Some(probation).filter(|time| !time.is_zero() && !broken(Mutation::SkipProbation));
        if !self.take_place(id, probation) {
            return;
        }
        let Some(probation) = probation else {
            return self.release(id);
        };
        let timer = self.arm_second(id, probation);
        if let Some(second) = self.second_of(id) {
            second.timer = Some(timer);
        }
    }

    /// The first is gone, and the second has everything: what it says next comes from the
    /// component's process.
    pub(super) fn inherit(&mut self, id: NodeId, why: &str) {
        let Some(second) = self.second_of(id) else { return };
        // A canary serves already.
        let waits = second.step != Step::Canary;
        let alone = second.step.part() == Part::Listeners;
        let heir = waits.then(|| Heir { untold: second.step.has_moved(), alone, timer: second.timer.take() });
        let run = second.process.run;
        let generation = second.generation;
        if !waits {
            self.progress(id, generation, Progress::Unreserved { reason: why.into() });
        }
        if !self.take_place(id, None) {
            return;
        }
        self.answer_upgraded(id);
        if !waits {
            self.effects.push(Effect::Order(run, Order::Commit));
            return self.settle_handover(id);
        }
        self.drop_second(id);
        if let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) {
            process.heir = heir;
        }
        if let Some(name) = self.unit(id).map(|unit| Rc::clone(&unit.name)) {
            self.begin_next_upgrades(&name);
        }
    }

    /// Who took the place of one that died says that it serves.
    pub(super) fn acknowledge(&mut self, id: NodeId) {
        if self.heir_of(id).is_some_and(|heir| heir.untold) {
            return self.disown(id, "it said SERVING out of turn");
        }
        let process = self.unit_mut(id).and_then(|unit| unit.process.as_mut());
        let Some(heir) = process.and_then(|process| process.heir.take()) else { return };
        if let Some(timer) = heir.timer {
            self.timers.disarm(timer);
        }
        if let Some(run) = self.run_of(id).filter(|_| heir.alone) {
            self.effects.push(Effect::Order(run, Order::Commit));
        }
        self.follow_change(id);
    }

    /// Who took the place of one that died does not serve: nobody does, so it is ended, and the component
    /// started again by its rule.
    pub(super) fn disown(&mut self, id: NodeId, why: &str) {
        let cause = Cause::NotServing { reason: why.into() };
        if !broken(Mutation::ForgetHeir) {
            self.feed(id, Input::Hopeless, cause);
        }
    }

    /// The second takes the place of the first, which is kept for a time if there is a probation.
    fn take_place(&mut self, id: NodeId, probation: Option<Duration>) -> bool {
        let now = self.now;
        let Some(second) = self.second_of(id) else {
            return false;
        };
        let gap_us = match second.form {
            UpgradeForm::Protocol if second.step == Step::Canary => second.gap_us,
            // Of a canary new connections have waited before, and those of the old process now.
            UpgradeForm::Protocol => {
                second.asked.map(|asked| micros(now.saturating_sub(asked))).max(second.gap_us)
            }
            // Two that serve side by side leave none.
            UpgradeForm::Listeners | UpgradeForm::Signal => Some(0),
        };
        second.gap_us = gap_us;
        let probation_ms = probation.map(millis);
        second.probation_ms = probation_ms.or(second.probation_ms);
        second.step = if probation.is_some() { Step::Probation } else { Step::Leave };
        let generation = second.generation;
        if !self.change_places(id) {
            return false;
        }
        self.note_heir_of_signal(id);
        if let Some(run) = self.run_of(id).filter(|_| !broken(Mutation::KeepConfined)) {
            self.effects.push(Effect::Unconfine(run));
        }
        if self.unit(id).is_some_and(|unit| unit.state.is_up()) {
            self.begin_watch(id);
            self.arm_watchdog(id);
            self.catch_up_with_limits(id);
            // A canary may have announced its end.
            self.await_announced_end(id);
        }
        self.progress(id, generation, Progress::Committed { gap_us, probation_ms });
        true
    }

    /// First and second change places.
    pub(super) fn change_places(&mut self, id: NodeId) -> bool {
        let Some(unit) = self.unit_mut(id) else { return false };
        let (Some(second), Some(first)) = (unit.handover.second_mut(), unit.process.as_mut()) else {
            return false;
        };
        std::mem::swap(first, &mut second.process);
        let (comes, goes) = (first.run, second.process.run);
        unit.last_words = None;
        // If the one before has announced its end, that is not the other's.
        self.disarm_unit(id);
        self.seconds.remove(&comes);
        self.runs.remove(&goes);
        self.runs.insert(comes, id);
        self.seconds.insert(goes, id);
        self.end_watch(id);
        self.end_watchdog(id);
        true
    }

    /// The new one has served for its probation.
    pub(super) fn confirm(&mut self, id: NodeId) {
        let Some(second) = self.second_of(id) else { return };
        let generation = second.generation;
        self.progress(id, generation, Progress::Confirmed);
        self.release(id);
    }

    /// Nothing leads back any more: the old one, which is the second, is told to end, and who waits for
    /// the upgrade is answered.
    fn release(&mut self, id: NodeId) {
        self.answer_upgraded(id);
        self.order_release(id);
    }

    pub(super) fn order_release(&mut self, id: NodeId) {
        let grace = self.unit(id).map_or(Duration::ZERO, |unit| unit.component.hotswap.shutdown_grace);
        let timer = self.arm_second(id, grace);
        let Some(second) = self.second_of(id) else { return };
        second.timer = Some(timer);
        let farewell = second.farewell(second.process.run);
        second.step = Step::Leave;
        if !broken(Mutation::KeepPredecessor) {
            self.effects.push(farewell);
        }
    }

    /// The old one is gone within the probation: the new one goes on without a way back.
    pub(super) fn go_on_bare(&mut self, id: NodeId, why: &str) {
        let Some(second) = self.second_of(id) else { return };
        let generation = second.generation;
        self.progress(id, generation, Progress::Unreserved { reason: why.into() });
        self.answer_upgraded(id);
        self.settle_handover(id);
    }

    /// Tell who waits for the upgrade that the component's process is the new one.
    fn answer_upgraded(&mut self, id: NodeId) {
        let Some(unit) = self.unit_mut(id) else { return };
        let (name, revision) = (Rc::clone(&unit.name), unit.revision);
        let Some(run) = unit.process.as_ref().map(|process| process.run) else { return };
        let Some(second) = unit.handover.second_mut() else { return };
        let held = unit.held_descriptors.iter().flat_map(|held| held.iter()).map(|held| held.count).sum();
        let (descriptors, state_bytes) = match (second.form, second.offered.unwrap_or_default()) {
            (UpgradeForm::Protocol, moved) => (moved.descriptors, Some(moved.state)),
            (UpgradeForm::Listeners, _) => (held, None),
            (UpgradeForm::Signal, moved) => (moved.descriptors, None),
        };
        let upgraded = Upgraded {
            component: name,
            level: UpgradeLevel::FdPassing,
            passed_over: std::mem::take(&mut second.passed_over),
            gap_us: second.gap_us,
            generation: second.generation,
            form: Some(second.form),
            strategy: second.strategy,
            descriptors: Some(descriptors),
            state_bytes,
            probation_ms: second.probation_ms,
            revision,
        };
        self.answer_handover(run, &Answer::Upgraded(upgraded));
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
