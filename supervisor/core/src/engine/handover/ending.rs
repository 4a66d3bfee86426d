//! Hot swaps that do not succeed, and what is left of any.

use std::rc::Rc;
use std::time::Duration;

use yakiros_handoff::message::Order;

use super::table::{Step, Turn};
use super::{Greeting, LIMIT, Manner};
use crate::control::{Answer, PassedOver, UpgradeLevel};
use crate::engine::timers::Due;
use crate::engine::unit::Process;
use crate::engine::{Effect, Engine, Facts, Input, RunId};
use crate::graph::NodeId;
use crate::journal::{Cause, Progress, State};
use crate::mutation::{Mutation, broken};

/// What the answer to a failed upgrade ends with.
const SERVES_ON: &str = "; the old process serves on";

/// After a kill, the time until it is tried again; see the same of the ordinary stop.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Why a hot swap ended without success.
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) reason: Rc<str>,
    /// The first is at fault: the next version is as good as it was.
    pub(super) by_first: bool,
}

impl Engine {
    /// The second does not take over.
    pub(super) fn abort(&mut self, id: NodeId, failure: &Failure, turn: Turn) {
        let first = if turn == Turn::FirstGone { None } else { self.run_of(id) };
        let Some(second) = self.second_of(id) else {
            return;
        };
        let asked = second.has_asked();
        let run = second.process.run;
        // Of one that was killed the reason counts, not its end.
        let reason = second.failure.take().unwrap_or_else(|| Rc::clone(&failure.reason));
        let failure = &Failure { reason, step: second.failed_at.unwrap_or(failure.step), ..*failure };
        if let Some(first) = first.filter(|_| asked && !broken(Mutation::ForgetAbort)) {
            self.effects.push(Effect::Order(first, Order::Abort(failure.reason.to_string())));
        }
        self.conclude(id, run, failure, turn);
        if turn == Turn::SecondGone { self.settle_handover(id) } else { self.kill_second(id) }
    }

    /// The same after it was told to serve: only when it is gone is it sure that it never will.
    pub(super) fn withdraw(&mut self, id: NodeId, failure: &Failure) {
        if broken(Mutation::ResumeEarly) {
            return self.abort(id, failure, Turn::Failed);
        }
        self.kill_second(id);
        if let Some(second) = self.second_of(id) {
            second.step = Step::Withdraw;
            second.failed_at = Some(failure.step);
            second.failure = Some(Rc::clone(&failure.reason));
        }
    }

    /// The new one fails on probation: the old one is the component's process again, and goes on when the
    /// new one is gone.
    pub(super) fn revert(&mut self, id: NodeId, turn: Turn, why: &str) {
        let Some(second) = self.second_of(id) else { return };
        second.step = Step::Revert;
        second.failure = Some(why.into());
        let generation = second.generation;
        if !self.change_places(id) {
            return;
        }
        self.progress(id, generation, Progress::Reverting { reason: why.into() });
        if turn == Turn::FirstGone {
            return self.turn(id, Turn::SecondGone, why);
        }
        if broken(Mutation::RollBackEarly) {
            let failure = Failure { step: Step::Revert, reason: why.into(), by_first: false };
            return self.abort(id, &failure, Turn::Failed);
        }
        self.kill_second(id);
    }

    /// The component's process is found to do badly on probation.
    pub(in crate::engine) fn fail_probation(&mut self, id: NodeId, cause: &Cause) {
        self.turn(id, Turn::Unwell, &format!("the new process: {cause}"));
    }

    /// The component is to stop while its new process serves and the old one is still there: both end. The
    /// component's process is told to as ever, the other one here.
    pub(super) fn dismiss(&mut self, id: NodeId, why: &str) {
        let Some(unit) = self.unit(id) else { return };
        let message = format!("the new process of {} serves and is being stopped: {why}", unit.name);
        self.end_canary_watch(id);
        let canary = self.second_of(id).filter(|second| second.step == Step::Canary);
        if let Some(run) = canary.map(|canary| canary.process.run).or_else(|| self.run_of(id)) {
            self.answer_handover(run, &Answer::Refused { message, near: Vec::new() });
        }
        self.order_release(id);
    }

    /// Say what came of it, and do what follows.
    fn conclude(&mut self, id: NodeId, run: RunId, failure: &Failure, turn: Turn) {
        // The second cannot receive, which may be because the first is dying.
        let unsure = turn == Turn::Failed && self.owes_offer(id);
        let Some(second) = self.second_of(id) else {
            return;
        };
        second.step = Step::Leave;
        let (generation, asked) = (second.generation, second.asked.is_some());
        let (fallback, cause) = (second.fallback, second.cause.clone());
        let passed_over = std::mem::take(&mut second.passed_over);
        let step = failure.step.name().into();
        self.progress(id, generation, Progress::Failed { step, reason: Rc::clone(&failure.reason) });
        let up = self.unit(id).is_some_and(|unit| unit.state.is_up());
        let stays = up && turn != Turn::CallOff && turn != Turn::FirstGone;
        // Of two that have served side by side the first was not asked, and another was looked after.
        if stays && (asked || failure.step == Step::Revert) {
            // As a canary that is gone was, until now.
            self.end_watch(id);
            self.end_watchdog(id);
            self.begin_watch(id);
            self.arm_watchdog(id);
        }
        if stays {
            self.catch_up_with_limits(id);
        }
        if stays && failure.step == Step::Revert {
            // It may have announced its end before it gave: its grace begins anew.
            self.await_announced_end(id);
        }
        // What was declared meanwhile may be what it was started with.
        let wanted = matches!(cause, Cause::Request { .. }) || self.is_outdated(id);
        if failure.by_first && fallback && wanted {
            return self.fall_back(id, run, failure, passed_over, cause);
        }
        let name = self.unit(id).map_or_else(|| "".into(), |unit| Rc::clone(&unit.name));
        let step = failure.step.name();
        let reason = &failure.reason;
        let mut message = match failure.step {
            Step::Revert => format!("the upgrade of {name} was rolled back within its probation: {reason}"),
            _ => format!("the upgrade of {name} failed at the step {step:?}: {reason}"),
        };
        if stays {
            message.push_str(if unsure { "; the old process is told to serve on" } else { SERVES_ON });
        }
        self.answer_handover(run, &Answer::Refused { message, near: Vec::new() });
    }

    /// The first does not give: a restart instead, as it is declared.
    fn fall_back(
        &mut self,
        id: NodeId,
        run: RunId,
        failure: &Failure,
        mut passed_over: Vec<PassedOver>,
        cause: Cause,
    ) {
        let reason = failure.reason.to_string();
        passed_over.push(PassedOver { level: UpgradeLevel::FdPassing, strategy: None, reason });
        let goal = self.restart_as_upgrade(id, passed_over, cause);
        for waiter in &mut self.waiters {
            if waiter.goal.is_handover(run)
                && let Some(goal) = &goal
            {
                waiter.goal = goal.clone();
            }
        }
    }

    pub(super) fn answer_handover(&mut self, run: RunId, answer: &Answer) {
        let waiting = self.waiters.iter().filter(|waiter| waiter.goal.is_handover(run));
        let clients: Vec<_> = waiting.map(|waiter| waiter.client).collect();
        for client in clients {
            self.forget_waiter(client);
            self.reply(client, answer.clone());
        }
    }

    pub(super) fn kill_second(&mut self, id: NodeId) {
        let timer = self.arm_second(id, KILL_PATIENCE);
        let Some(second) = self.second_of(id) else {
            return;
        };
        second.timer = Some(timer);
        let run = second.process.run;
        self.effects.push(Effect::Kill(run));
    }

    /// The second is gone: whatever waited for that goes on.
    pub(super) fn settle_handover(&mut self, id: NodeId) {
        let end = self.second_of(id).and_then(|second| second.end.take());
        self.drop_second(id);
        let Some(unit) = self.unit_mut(id) else { return };
        let name = Rc::clone(&unit.name);
        match (unit.state, unit.process.is_some()) {
            (State::Stopping, false) => self.settle_stop(id, end.unwrap_or(Cause::Interrupted)),
            (_, false) if unit.doomed => self.discard(id, Cause::Undeclared),
            (_, false) => self.reconsider(id),
            (_, true) => self.follow_change(id),
        }
        self.begin_next_upgrades(&name);
    }

    /// If the declaration changed meanwhile, begin another hot swap, or else a restart.
    pub(in crate::engine) fn follow_change(&mut self, id: NodeId) {
        let again = self.unit_mut(id).and_then(|unit| unit.handover.take_again());
        let Some(cause) = again else { return };
        if !self.is_outdated(id) {
            return self.catch_up_with_limits(id);
        }
        let Some(component) = self.unit(id).map(|unit| Rc::clone(&unit.component)) else { return };
        let manner = Manner::declared(&component);
        if !component.hands_over() || self.begin_handover(id, cause.clone(), manner).is_err() {
            self.feed(id, Input::Renew, cause);
        }
    }

    /// What is about to take over is not what is declared any more, and the process is. If that cannot be called off, it
    /// is followed by what is declared.
    pub(in crate::engine) fn end_outdated_handover(&mut self, id: NodeId, cause: Cause) {
        self.turn(id, Turn::Failed, "its declaration has changed");
        if let Some(unit) = self.unit_mut(id).filter(|unit| unit.handover.second().is_some()) {
            unit.handover.repeat(cause);
        }
    }

    /// Whether the process was started with another declaration that it would notice.
    fn is_outdated(&self, id: NodeId) -> bool {
        self.unit(id).is_some_and(|unit| {
            let process = unit.process.as_ref();
            process.is_some_and(|process| unit.component.restart_key(&process.component).is_some())
        })
    }

    /// Limits that were declared while this was under way, or that the one who stays has not got.
    pub(in crate::engine) fn catch_up_with_limits(&mut self, id: NodeId) {
        let Some(unit) = self.unit(id) else { return };
        let differ = |process: &Process| {
            process.component.resources != unit.component.resources || !process.limits.are_original()
        };
        if unit.process.as_ref().is_some_and(differ) {
            self.change_limits(id);
        }
    }

    pub(super) fn drop_second(&mut self, id: NodeId) {
        let Some(second) = self.unit_mut(id).and_then(|unit| unit.handover.take_second()) else {
            return;
        };
        self.seconds.remove(&second.process.run);
        for timer in [second.timer, second.watchdog].into_iter().flatten() {
            self.timers.disarm(timer);
        }
    }

    /// The component is to stop or to start anew.
    pub(in crate::engine) fn call_off_handover(&mut self, id: NodeId, why: &str) {
        if let Some(unit) = self.unit_mut(id) {
            drop(unit.handover.take_again());
        }
        self.turn(id, Turn::CallOff, why);
    }

    /// The first is gone. Whether the second has taken its place, so that the component goes on.
    pub(in crate::engine) fn first_gone(&mut self, id: NodeId, run: RunId, cause: &Cause) -> bool {
        let on_probation = self.unit(id).is_some_and(|unit| unit.handover.is_on_probation());
        let who = if on_probation { "the new process" } else { "the old process" };
        self.turn(id, Turn::FirstGone, &end_of(who, cause));
        self.run_of(id) != Some(run)
    }

    /// A second process is gone, if it is one.
    pub(in crate::engine) fn second_gone(&mut self, run: RunId, cause: &Cause) {
        if let Some(id) = self.seconds.get(&run).copied() {
            if let Some(second) = self.second_of(id) {
                second.end = Some(cause.clone());
            }
            let on_probation = self.unit(id).is_some_and(|unit| unit.handover.is_on_probation());
            let who = if on_probation { "the old process" } else { "the new process" };
            self.turn(id, Turn::SecondGone, &end_of(who, cause));
        }
    }

    /// After a failure of the supervisor: the word to go on, to one that gave and was told nothing more, may be
    /// lost. To one that serves it means nothing, and one that was to take over from a process that is gone,
    /// and still waits for its word to serve, ends and is started anew.
    fn remind_first(&mut self, id: NodeId) {
        let Some(unit) = self.unit(id) else { return };
        let settled = unit.handover.second().is_none_or(|second| second.step == Step::Leave);
        let first = unit.process.as_ref().filter(|process| process.heir.is_none() && settled);
        if let Some(first) = first.filter(|process| process.greeting == Greeting::Understood) {
            let order = Order::Abort(Cause::Interrupted.to_string());
            self.effects.push(Effect::Order(first.run, order));
        }
    }

    /// Who took over from one that died has its time anew, if it was lost.
    fn mend_heir(&mut self, id: NodeId) {
        if self.heir_of(id).is_some_and(|heir| heir.timer.is_none()) {
            let timer = self.timers.arm(self.now.saturating_add(LIMIT), Due::Handover(id));
            if let Some(heir) = self.heir_of(id) {
                heir.timer = Some(timer);
            }
        }
    }

    /// After a failure of the supervisor: what is not known to have come to its end is called off.
    pub(in crate::engine) fn mend_handover(&mut self, id: NodeId, facts: &Facts) {
        self.remind_first(id);
        self.mend_heir(id);
        let Some(second) = self.second_of(id) else {
            return;
        };
        let run = second.process.run;
        match facts.processes.get(&run) {
            Some(alive) => second.process.pid = alive.pid,
            None => return self.second_gone(run, &Cause::Interrupted),
        }
        match second.step {
            Step::Leave | Step::Withdraw | Step::Revert => self.kill_second(id),
            // The new one serves, and the old one waits for its verdict; or both serve.
            Step::Probation | Step::Canary => {}
            _ => self.turn(id, Turn::Failed, &Cause::Interrupted.to_string()),
        }
    }
}

fn end_of(who: &str, cause: &Cause) -> String {
    match cause {
        Cause::Ended(exit) => format!("{who} {exit}"),
        other => format!("{who}: {other}"),
    }
}

/// What has not come within the limit of a step, and from whom.
pub(super) fn late_text(step: Step, by_first: bool) -> String {
    let (who, what) = match (step, by_first) {
        (Step::Prepare, _) => ("the new process", "is not prepared"),
        (step, true) if step.moves() => ("the old process", "has not given everything"),
        (step, false) if step.moves() => ("the new process", "has not got everything"),
        (Step::Ready | Step::LendReady | Step::RestReady | Step::Beside, _) => {
            ("the new process", "is not ready")
        }
        (_, _) => ("the new process", "does not serve"),
    };
    format!("{who} {what} within its time")
}
