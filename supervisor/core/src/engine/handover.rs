//! Hot swap: the next generation of a component takes over from the one that serves.
//!
//! For a while a component has two processes: the *first*, which is its process to all the rest
//! of the engine, and the *second*, which is known only here. What is done about either is decided
//! by [`TABLE`]: the step × what happened. When the second serves, the two change places.
//!
//! Guarantees, checked by [`crate::sim`]:
//! * The second serves only after it has said that it got exactly what the first gave, and that it
//!   is ready. The first, once it has stopped to serve for that, is told either to end or to go on,
//!   never both; to go on only while the second has not served, and never will.
//! * Until the second serves, any failure of it leaves the first serving.
//! * The component's state does not change by a hot swap, whether it succeeds or not.
//! * There is never a third process: the next start waits for the second to be gone.
//!
//! What stops the component, for whatever reason, first calls the hot swap off.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use yakiros_handoff::message::{Order, Report, Summary, VERSION};

use super::timers::{Due, TimerKey};
use super::unit::{Process, Unit};
use super::{Effect, Engine, Facts, Input, RunId};
use crate::control::{Answer, PassedOver, UpgradeLevel, Upgraded};
use crate::graph::NodeId;
use crate::journal::{Cause, Progress, State};
use crate::mutation::{Mutation, broken};

/// From the question to the first process until the second one serves: nobody serves meanwhile,
/// and clients that wait longer than this have given up (the prototype's limit).
pub const LIMIT: Duration = Duration::from_secs(10);

/// What the answer to a failed upgrade ends with.
const SERVES_ON: &str = "; the old process serves on";

/// After a kill, the time until it is tried again; see the same of the ordinary stop.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Where a hot swap stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// The second makes its preparations; the first serves.
    Prepare,
    /// The first gives, the second takes.
    Move,
    /// The second has everything and is not ready yet.
    Ready,
    /// The second was told to serve, and has not said that it does.
    Commit,
    /// The second failed after it was told to serve, and was killed. Once it is gone the first may
    /// go on.
    Withdraw,
    /// The second is what remains of a hot swap: a generation that was released, or one that
    /// failed.
    Leave,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Move => "move",
            Self::Ready => "ready",
            Self::Commit | Self::Withdraw => "commit",
            Self::Leave => "leave",
        }
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The second is prepared.
    Prepared,
    /// The first has given everything.
    Offered,
    /// The second has got everything.
    Taken,
    /// The first does not give.
    Refused,
    /// The second cannot go on.
    Failed,
    /// The second could serve.
    Ready,
    /// The second serves.
    Serving,
    /// The second's process is gone.
    SecondGone,
    /// The first's process is gone.
    FirstGone,
    /// A limit has passed.
    Late,
    /// The component is to stop, or to start anew.
    CallOff,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Nothing.
    Keep,
    /// Have the first give and the second take.
    Connect,
    /// See whether both speak of the same.
    Compare,
    /// Keep in mind that the second is ready, if it has got everything: what the first says on its own channel may be
    /// heard later.
    Note,
    /// Tell the second to serve.
    Commit,
    /// The two change places; the old one is told to end.
    Promote,
    /// The second takes the place of the first, which died after it had given everything.
    Inherit,
    /// The second is killed, the first goes on.
    Abort,
    /// The second is killed; the first goes on when it is gone.
    Withdraw,
    /// Kill the second, once more if it was.
    Kill,
    /// The second is gone, and with it the last of the hot swap.
    Settle,
    /// It makes no sense there.
    Stray,
}

const STEPS: usize = 6;
const TURNS: usize = 11;

/// Step × turn → act.
#[rustfmt::skip]
const TABLE: [[Act; TURNS]; STEPS] = {
    use Act::{Abort, Commit, Compare, Connect, Inherit, Keep, Kill, Note, Promote, Settle, Stray, Withdraw};
    [
        //              Prepared Offered  Taken    Refused Failed    Ready   Serving  SecondGone FirstGone Late      CallOff
        /* PREPARE  */ [Connect, Keep,    Stray,   Keep,   Abort,    Stray,  Stray,   Abort,     Abort,    Abort,    Abort],
        /* MOVE     */ [Stray,   Compare, Compare, Abort,  Abort,    Note,   Stray,   Abort,     Abort,    Abort,    Abort],
        /* READY    */ [Stray,   Keep,    Stray,   Abort,  Abort,    Commit, Stray,   Abort,     Inherit,  Abort,    Abort],
        /* COMMIT   */ [Stray,   Keep,    Stray,   Keep,   Withdraw, Stray,  Promote, Abort,     Inherit,  Withdraw, Withdraw],
        /* WITHDRAW */ [Keep,    Keep,    Keep,    Keep,   Keep,     Keep,   Promote, Abort,     Abort,    Kill,     Keep],
        /* LEAVE    */ [Keep,    Keep,    Keep,    Keep,   Keep,     Keep,   Keep,    Settle,    Kill,     Kill,     Keep],
    ]
};

/// Whether a process has said that it can hand over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Greeting {
    /// It has not.
    #[default]
    None,
    /// By this version of the protocol.
    Understood,
    /// By another one.
    Foreign,
}

impl Greeting {
    fn of(version: u32) -> Self {
        if version == VERSION { Self::Understood } else { Self::Foreign }
    }
}

/// The second process of a component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Second {
    pub(super) process: Process,
    pub(super) step: Step,
    pub(super) timer: Option<TimerKey>,
    /// Its generation.
    generation: u64,
    /// When the first was asked to give.
    asked: Option<Duration>,
    /// What the first said that it gave.
    #[serde(with = "summary")]
    offered: Option<Summary>,
    /// What the second said that it got.
    #[serde(with = "summary")]
    taken: Option<Summary>,
    /// It has said that it is ready.
    #[serde(default)]
    ready: bool,
    /// A restart follows when the first does not give.
    fallback: bool,
    /// How it ended.
    #[serde(default)]
    end: Option<Cause>,
    /// Why all this.
    cause: Cause,
    passed_over: Vec<PassedOver>,
}

/// Hot swaps of one component. Most have none, now or ever, and it takes them no more than a pointer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Handover(Option<Box<Open>>);

/// What there is of a hot swap.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Open {
    second: Option<Second>,
    /// The declaration changed while one was under way: another follows.
    again: Option<Cause>,
}

impl Handover {
    pub(super) fn second(&self) -> Option<&Second> {
        self.0.as_ref()?.second.as_ref()
    }

    pub(super) fn second_mut(&mut self) -> Option<&mut Second> {
        self.0.as_mut()?.second.as_mut()
    }

    fn begin(&mut self, second: Second) {
        self.0.get_or_insert_default().second = Some(second);
    }

    fn repeat(&mut self, cause: Cause) {
        self.0.get_or_insert_default().again = Some(cause);
    }

    fn take_second(&mut self) -> Option<Second> {
        let second = self.0.as_mut()?.second.take();
        self.tidy();
        second
    }

    fn take_again(&mut self) -> Option<Cause> {
        let again = self.0.as_mut()?.again.take();
        self.tidy();
        again
    }

    fn tidy(&mut self) {
        self.0.take_if(|open| open.second.is_none() && open.again.is_none());
    }

    /// Whether the second is only what remains of a hot swap.
    pub(super) fn is_leaving(&self) -> bool {
        self.second().is_some_and(|second| second.step == Step::Leave)
    }

    /// Whether the first serves, and is to be looked after.
    pub(super) fn is_over(&self) -> bool {
        self.second().is_none_or(|second| matches!(second.step, Step::Prepare | Step::Leave))
    }
}

/// Why a hot swap ended without success.
struct Failure {
    step: Step,
    reason: Rc<str>,
    /// The first is at fault: the next version is as good as it was.
    by_first: bool,
}

impl Engine {
    /// Begin a hot swap; or say why there cannot be one.
    pub(super) fn begin_handover(
        &mut self,
        id: NodeId,
        cause: Cause,
        fallback: bool,
        passed_over: Vec<PassedOver>,
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
        if process.awaits_commit {
            return Err("its process has taken over and is not ready yet".to_owned());
        }
        match process.greeting {
            Greeting::None => {
                return Err("its process has not said that it can hand over (HELLO)".to_owned());
            }
            Greeting::Understood => {}
            Greeting::Foreign => return Err("its process speaks another version of the protocol".to_owned()),
        }
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
            step: Step::Prepare,
            timer: Some(timer),
            generation,
            asked: None,
            offered: None,
            taken: None,
            ready: false,
            fallback,
            end: None,
            cause: cause.clone(),
            passed_over,
        };
        unit.handover.begin(second);
        self.remark(id, cause, None);
        self.progress(id, generation, Progress::Started);
        self.effects.push(Effect::Spawn { run, component, generation, successor: true });
        Ok(run)
    }

    /// The declaration of a component that hands over has changed: begin a hot swap, now or when
    /// the one under way is over; or say why there cannot be one.
    pub(super) fn hand_over_changed(&mut self, id: NodeId, cause: &Cause) -> Result<(), String> {
        let unit = self.unit_mut(id).ok_or("it is not declared")?;
        let awaits_commit = unit.process.as_ref().is_some_and(|process| process.awaits_commit);
        let under_way = unit.handover.second().is_some() || awaits_commit;
        if under_way && matches!(unit.state, State::Active | State::Degraded) {
            unit.handover.repeat(cause.clone());
            return Ok(());
        }
        self.begin_handover(id, cause.clone(), true, Vec::new()).map(drop)
    }

    fn readiness_limit_of(&self, id: NodeId) -> Duration {
        self.unit(id).map_or(Duration::ZERO, |unit| unit.component.lifecycle.readiness_timeout)
    }

    /// A process has spoken on its channel.
    pub(super) fn take_report(&mut self, run: RunId, report: Report) {
        if let Some(id) = self.seconds.get(&run).copied() {
            return self.take_report_of_second(id, report);
        }
        let Some(id) = self.runs.get(&run).copied() else {
            return;
        };
        match report {
            Report::Hello { version } => {
                if let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) {
                    process.greeting = Greeting::of(version);
                }
            }
            Report::Offered(summary) => {
                if let Some(second) = self.second_of(id).filter(|second| second.step == Step::Move) {
                    second.offered = Some(summary);
                }
                self.turn(id, Turn::Offered, "");
            }
            Report::Refused(reason) => self.turn(id, Turn::Refused, &reason),
            Report::Ready => {
                let process = self.unit_mut(id).and_then(|unit| unit.process.as_mut());
                if process.is_some_and(|process| std::mem::take(&mut process.awaits_commit)) {
                    self.effects.push(Effect::Order(run, Order::Commit));
                    self.follow_change(id);
                }
            }
            Report::Prepared | Report::Taken(_) | Report::Serving | Report::Failed(_) => {}
        }
    }

    fn take_report_of_second(&mut self, id: NodeId, report: Report) {
        match report {
            Report::Hello { version } => {
                if let Some(second) = self.second_of(id) {
                    second.process.greeting = Greeting::of(version);
                }
            }
            Report::Prepared => self.turn(id, Turn::Prepared, "PREPARED"),
            Report::Taken(summary) => {
                if let Some(second) = self.second_of(id).filter(|second| second.step == Step::Move) {
                    second.taken = Some(summary);
                }
                self.turn(id, Turn::Taken, "TAKEN");
            }
            Report::Ready => self.turn(id, Turn::Ready, "READY"),
            Report::Serving => self.turn(id, Turn::Serving, "SERVING"),
            Report::Failed(reason) => self.turn(id, Turn::Failed, &reason),
            // Words of who serves.
            Report::Offered(_) | Report::Refused(_) => {
                self.turn(id, Turn::Failed, "it offers what it has not");
            }
        }
    }

    /// A process said what makes no sense, or cannot be spoken with. It is a failure of the hot swap
    /// under way, if there is one, and of nothing else.
    pub(super) fn take_garbage(&mut self, run: RunId, why: &str) {
        if let Some(id) = self.seconds.get(&run).copied() {
            self.turn(id, Turn::Failed, why);
        } else if let Some(id) = self.runs.get(&run).copied() {
            self.turn(id, Turn::Refused, why);
        }
    }

    /// From whom a process is to take over.
    pub fn giver_of(&self, taker: RunId) -> Option<RunId> {
        self.run_of(*self.seconds.get(&taker)?)
    }

    /// The processes of hot swaps with a step whose time is over at the time `now`. What has come
    /// from them and was not read yet is to be given to [`Engine::handle_all`] before the event that
    /// is next.
    pub fn handovers_due(&self, now: Duration) -> Vec<RunId> {
        let due = self.timers.due(now).filter_map(|due| match due {
            Due::Handover(id) => self.unit(id),
            _ => None,
        });
        let both = |unit: &Unit| {
            let second = unit.handover.second().map(|second| second.process.run);
            unit.process.as_ref().map(|process| process.run).into_iter().chain(second).collect::<Vec<_>>()
        };
        due.flat_map(both).collect()
    }

    /// Look a turn up in the table and act. The text says what happened, for a person.
    fn turn(&mut self, id: NodeId, turn: Turn, text: &str) {
        let Some(step) = self.unit(id).and_then(|unit| Some(unit.handover.second()?.step)) else {
            return;
        };
        let by_first = turn == Turn::Refused || (turn == Turn::Late && self.owes_offer(id));
        let failure = |reason: String| Failure { step, reason: reason.into(), by_first };
        match TABLE[step as usize][turn as usize] {
            Act::Keep => {}
            Act::Connect => self.connect(id),
            Act::Compare => self.compare(id),
            Act::Note if self.has_taken(id) => {
                if let Some(second) = self.second_of(id) {
                    second.ready = true;
                }
            }
            Act::Commit => self.commit(id),
            Act::Promote => self.promote(id),
            Act::Inherit => self.inherit(id),
            Act::Abort => self.abort(id, &failure(text.to_owned()), turn),
            Act::Withdraw => self.withdraw(id, &failure(text.to_owned())),
            Act::Note | Act::Stray => {
                let failure = failure(format!("it said {text} out of turn"));
                if step == Step::Commit {
                    self.withdraw(id, &failure);
                } else {
                    self.abort(id, &failure, turn);
                }
            }
            Act::Kill => self.kill_second(id),
            Act::Settle => self.settle_handover(id),
        }
    }

    /// Whether the first was asked, and has not given everything.
    fn owes_offer(&self, id: NodeId) -> bool {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.step == Step::Move && second.offered.is_none())
    }

    fn has_taken(&self, id: NodeId) -> bool {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.taken.is_some())
    }

    /// Have the first give and the second take. The first serves no more from here on, so it is
    /// not probed either.
    fn connect(&mut self, id: NodeId) {
        let now = self.now;
        self.end_watch(id);
        self.end_watchdog(id);
        let timer = self.arm_second(id, LIMIT);
        let Some(giver) = self.run_of(id) else { return };
        let Some(second) = self.second_of(id) else {
            return;
        };
        second.step = Step::Move;
        second.asked = Some(now);
        second.timer = Some(timer);
        let (taker, generation) = (second.process.run, second.generation);
        self.progress(id, generation, Progress::Asked);
        self.effects.push(Effect::Connect { giver, taker, generation, limit: LIMIT });
    }

    fn compare(&mut self, id: NodeId) {
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
        second.step = Step::Ready;
        let (generation, ready) = (second.generation, second.ready);
        let moved = Progress::Moved { descriptors: offered.descriptors, state_bytes: offered.state };
        self.progress(id, generation, moved);
        if ready {
            self.commit(id);
        }
    }

    fn commit(&mut self, id: NodeId) {
        let Some(second) = self.second_of(id) else {
            return;
        };
        second.step = Step::Commit;
        let run = second.process.run;
        self.effects.push(Effect::Order(run, Order::Commit));
    }

    /// The second serves: it is the component's process from now on.
    fn promote(&mut self, id: NodeId) {
        let Some(leaving) = self.change_places(id) else {
            return;
        };
        if !broken(Mutation::KeepPredecessor) {
            self.effects.push(Effect::Order(leaving, Order::Release));
        }
        let grace = self.unit(id).map_or(Duration::ZERO, |unit| unit.component.hotswap.shutdown_grace);
        let timer = self.arm_second(id, grace);
        if let Some(second) = self.second_of(id) {
            second.timer = Some(timer);
        }
    }

    /// The first is gone, and the second has everything: what it says next comes from the
    /// component's process.
    fn inherit(&mut self, id: NodeId) {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        let untold = second.is_some_and(|second| second.step == Step::Ready);
        if self.change_places(id).is_none() {
            return;
        }
        if !untold {
            return self.settle_handover(id);
        }
        self.drop_second(id);
        if let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) {
            process.awaits_commit = true;
        }
    }

    /// First and second change places, and what waits for that is answered. Returns who was first.
    fn change_places(&mut self, id: NodeId) -> Option<RunId> {
        let now = self.now;
        let unit = self.units.get_mut(id.index())?.as_mut()?;
        let second = unit.handover.second_mut()?;
        let first = unit.process.as_mut()?;
        std::mem::swap(first, &mut second.process);
        let gap = second.asked.map(|asked| now.saturating_sub(asked));
        let gap_us = gap.map(|gap| u64::try_from(gap.as_micros()).unwrap_or(u64::MAX));
        second.step = Step::Leave;
        let (new, old) = (first.run, second.process.run);
        let generation = second.generation;
        let moved = second.offered.unwrap_or_default();
        let upgraded = Upgraded {
            component: Rc::clone(&unit.name),
            level: UpgradeLevel::FdPassing,
            passed_over: std::mem::take(&mut second.passed_over),
            gap_us,
            generation,
            descriptors: Some(moved.descriptors),
            state_bytes: Some(moved.state),
            revision: 0,
        };
        unit.last_words = None;
        // If the old one has announced its end, that is not the new one's.
        self.disarm_unit(id);
        self.seconds.remove(&new);
        self.runs.remove(&old);
        self.runs.insert(new, id);
        self.seconds.insert(old, id);
        self.end_watch(id);
        self.end_watchdog(id);
        self.begin_watch(id);
        self.arm_watchdog(id);
        self.catch_up_with_limits(id);
        let revision = self.progress(id, generation, Progress::Committed { gap_us });
        self.answer_handover(new, &Answer::Upgraded(Upgraded { revision, ..upgraded }));
        Some(old)
    }

    /// The second does not take over.
    fn abort(&mut self, id: NodeId, failure: &Failure, turn: Turn) {
        let first = if turn == Turn::FirstGone { None } else { self.run_of(id) };
        let Some(second) = self.second_of(id) else {
            return;
        };
        let asked = second.asked.is_some();
        let run = second.process.run;
        if let Some(first) = first.filter(|_| asked && !broken(Mutation::ForgetAbort)) {
            self.effects.push(Effect::Order(first, Order::Abort(failure.reason.to_string())));
        }
        let reason = match turn {
            Turn::Late => late_text(failure),
            _ => Rc::clone(&failure.reason),
        };
        self.conclude(id, run, &Failure { reason, ..*failure }, turn);
        if turn == Turn::SecondGone { self.settle_handover(id) } else { self.kill_second(id) }
    }

    /// The same after it was told to serve: only when it is gone is it sure that it never will.
    fn withdraw(&mut self, id: NodeId, failure: &Failure) {
        if broken(Mutation::ResumeEarly) {
            return self.abort(id, failure, Turn::Failed);
        }
        self.kill_second(id);
        if let Some(second) = self.second_of(id) {
            second.step = Step::Withdraw;
        }
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
        if asked && stays {
            self.begin_watch(id);
            self.arm_watchdog(id);
        }
        if stays {
            self.catch_up_with_limits(id);
        }
        // What was declared meanwhile may be what it was started with.
        let wanted = matches!(cause, Cause::Request { .. }) || self.is_outdated(id);
        if failure.by_first && fallback && wanted {
            return self.fall_back(id, run, failure, passed_over, cause);
        }
        let name = self.unit(id).map_or_else(|| "".into(), |unit| Rc::clone(&unit.name));
        let step = failure.step.name();
        let mut message = format!("the upgrade of {name} failed at the step {step:?}: {}", failure.reason);
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
        passed_over.push(PassedOver { level: UpgradeLevel::FdPassing, reason });
        let goal = self.restart_as_upgrade(id, passed_over, cause);
        for waiter in &mut self.waiters {
            if waiter.goal.is_handover(run)
                && let Some(goal) = &goal
            {
                waiter.goal = goal.clone();
            }
        }
    }

    fn answer_handover(&mut self, run: RunId, answer: &Answer) {
        let waiting = self.waiters.iter().filter(|waiter| waiter.goal.is_handover(run));
        let clients: Vec<_> = waiting.map(|waiter| waiter.client).collect();
        for client in clients {
            self.forget_waiter(client);
            self.reply(client, answer.clone());
        }
    }

    fn kill_second(&mut self, id: NodeId) {
        let timer = self.arm_second(id, KILL_PATIENCE);
        let Some(second) = self.second_of(id) else {
            return;
        };
        second.timer = Some(timer);
        let run = second.process.run;
        self.effects.push(Effect::Kill(run));
    }

    /// The second is gone: whatever waited for that goes on.
    fn settle_handover(&mut self, id: NodeId) {
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
    fn follow_change(&mut self, id: NodeId) {
        let again = self.unit_mut(id).and_then(|unit| unit.handover.take_again());
        if let Some(cause) = again
            && self.is_outdated(id)
            && self.begin_handover(id, cause.clone(), true, Vec::new()).is_err()
        {
            self.feed(id, Input::Renew, cause);
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
    fn catch_up_with_limits(&mut self, id: NodeId) {
        let Some(unit) = self.unit(id) else { return };
        let differ = |process: &Process| {
            process.component.resources != unit.component.resources || !process.limits.are_original()
        };
        if unit.process.as_ref().is_some_and(differ) {
            self.change_limits(id);
        }
    }

    fn drop_second(&mut self, id: NodeId) {
        let Some(second) = self.unit_mut(id).and_then(|unit| unit.handover.take_second()) else {
            return;
        };
        self.seconds.remove(&second.process.run);
        if let Some(timer) = second.timer {
            self.timers.disarm(timer);
        }
    }

    /// The component is to stop or to start anew.
    pub(super) fn call_off_handover(&mut self, id: NodeId, why: &str) {
        if let Some(unit) = self.unit_mut(id) {
            drop(unit.handover.take_again());
        }
        self.turn(id, Turn::CallOff, why);
    }

    /// The first is gone. Whether the second has taken its place, so that the component goes on.
    pub(super) fn first_gone(&mut self, id: NodeId, run: RunId, cause: &Cause) -> bool {
        self.turn(id, Turn::FirstGone, &end_of("the old process", cause));
        self.run_of(id) != Some(run)
    }

    /// A second process is gone, if it is one.
    pub(super) fn second_gone(&mut self, run: RunId, cause: &Cause) {
        if let Some(id) = self.seconds.get(&run).copied() {
            if let Some(second) = self.second_of(id) {
                second.end = Some(cause.clone());
            }
            self.turn(id, Turn::SecondGone, &end_of("the new process", cause));
        }
    }

    /// A second process was executed, if it is one.
    pub(super) fn second_executed(&mut self, run: RunId) {
        let now = self.now;
        if let Some(process) = self.second_mut(run) {
            process.since = Some(now);
        }
    }

    /// A process that is a component's second.
    pub(super) fn second(&self, run: RunId) -> Option<&Process> {
        let unit = self.unit(*self.seconds.get(&run)?)?;
        Some(&unit.handover.second()?.process)
    }

    pub(super) fn second_mut(&mut self, run: RunId) -> Option<&mut Process> {
        let id = self.seconds.get(&run).copied()?;
        Some(&mut self.second_of(id)?.process)
    }

    pub(super) fn handover_due(&mut self, id: NodeId, key: TimerKey) {
        let Some(second) = self.second_of(id).filter(|second| second.timer == Some(key)) else {
            return;
        };
        second.timer = None;
        self.turn(id, Turn::Late, "it took too long");
    }

    /// After a failure of the supervisor: what is not known to have come to its end is called off.
    pub(super) fn mend_handover(&mut self, id: NodeId, facts: &Facts) {
        let Some(second) = self.second_of(id) else {
            return;
        };
        let run = second.process.run;
        match facts.processes.get(&run) {
            Some(alive) => second.process.pid = alive.pid,
            None => return self.second_gone(run, &Cause::Interrupted),
        }
        match second.step {
            Step::Leave | Step::Withdraw => self.kill_second(id),
            Step::Commit => {
                let (step, reason) = (Step::Commit, Cause::Interrupted.to_string().into());
                self.withdraw(id, &Failure { step, reason, by_first: false });
            }
            Step::Prepare | Step::Move | Step::Ready => {
                self.turn(id, Turn::Failed, &Cause::Interrupted.to_string());
            }
        }
    }

    fn arm_second(&mut self, id: NodeId, after: Duration) -> TimerKey {
        if let Some(timer) = self.second_of(id).and_then(|second| second.timer.take()) {
            self.timers.disarm(timer);
        }
        self.timers.arm(self.now.saturating_add(after), Due::Handover(id))
    }

    fn second_of(&mut self, id: NodeId) -> Option<&mut Second> {
        self.unit_mut(id)?.handover.second_mut()
    }

    /// Whether a process of the component is left that a start has to wait for.
    pub(super) fn second_lives(&self, id: NodeId) -> bool {
        self.unit(id).is_some_and(|unit| unit.handover.second().is_some())
    }

    fn progress(&mut self, id: NodeId, generation: u64, progress: Progress) -> u64 {
        let after = self.unit(id).map(|unit| unit.revision);
        self.remark(id, Cause::Handover { generation, progress }, after);
        self.unit(id).map_or(0, |unit| unit.revision)
    }
}

fn end_of(who: &str, cause: &Cause) -> String {
    match cause {
        Cause::Ended(exit) => format!("{who} {exit}"),
        other => format!("{who}: {other}"),
    }
}

fn late_text(failure: &Failure) -> Rc<str> {
    let (who, what) = match (failure.step, failure.by_first) {
        (Step::Prepare, _) => ("the new process", "is not prepared"),
        (Step::Move, true) => ("the old process", "has not given everything"),
        (Step::Move, false) => ("the new process", "has not got everything"),
        (Step::Ready, _) => ("the new process", "is not ready"),
        (Step::Commit | Step::Withdraw | Step::Leave, _) => ("the new process", "does not serve"),
    };
    format!("{who} {what} within its time").into()
}

/// A summary as three numbers.
mod summary {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use yakiros_handoff::message::Summary;

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(super) fn serialize<S: Serializer>(summary: &Option<Summary>, to: S) -> Result<S::Ok, S::Error> {
        summary.map(|summary| (summary.descriptors, summary.state, summary.digest)).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Summary>, D::Error> {
        let numbers = Option::<(u32, u64, u64)>::deserialize(from)?;
        Ok(numbers.map(|(descriptors, state, digest)| Summary { descriptors, state, digest }))
    }
}
