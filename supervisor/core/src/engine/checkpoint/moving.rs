//! The highest rung of an upgrade: the process itself goes on, as another one.
//!
//! It is written down and ended, and made again from that at once. The component stays as it is meanwhile, for the
//! performer keeps what it listens on: clients wait. A failure before the end loses nothing, and the next way is gone.
//! After it the component is started anew, as after a restart: there is nothing else left.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::origin::{From, Restoring, Why};
use super::{CHECKPOINT_LIMIT, Purpose, Stage};
use crate::checkpoint::{After, Made, Origin, Written};
use crate::component::{Kind, Strategy};
use crate::control::{Answer, PassedOver, UpgradeLevel, Upgraded};
use crate::engine::request::Goal;
use crate::engine::timers::Due;
use crate::engine::unit::Process;
use crate::engine::upgrade::{Upgrade, Wish};
use crate::engine::{Effect, Engine, Place, RunId};
use crate::graph::NodeId;
use crate::journal::{Cause, CheckpointStep, State};
use crate::mutation::{Mutation, broken};

/// Why the way below is passed over when there is no process any more.
const GONE: &str = "its process is gone";

/// An upgrade by a checkpoint that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) struct Move {
    /// A lesser way will do.
    fallback: bool,
    strategy: Option<Strategy>,
    passed_over: Vec<PassedOver>,
    cause: Cause,
}

/// What is known of a process that was written down and ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Moved {
    way: Move,
    written: Written,
    /// When the performer was asked to write it down.
    began: Duration,
    /// When it had.
    made: Duration,
}

impl Moved {
    /// For how long nobody serves, up to now, in microseconds: since the processes stood still.
    fn gap_us(&self, now: Duration) -> u64 {
        let rest = now.saturating_sub(self.made);
        let still = self.written.frozen_us.map(Duration::from_micros);
        // What the performer has measured cannot have begun before it was asked.
        let all = now.saturating_sub(self.began);
        let gap = still.map_or(all, |still| still.saturating_add(rest).min(all));
        u64::try_from(gap.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Engine {
    /// Begin to move a process, and return which; or say why it cannot be.
    pub(in crate::engine) fn begin_move(
        &mut self,
        id: NodeId,
        wish: Wish,
        passed_over: Vec<PassedOver>,
        cause: Cause,
    ) -> Result<RunId, String> {
        let unit = self.unit(id).ok_or("it is not declared")?;
        if let Some(reason) = self.no_checkpoints(id) {
            return Err(format!("checkpoints of it {reason}"));
        }
        if unit.component.kind != Kind::Service {
            return Err("it is no service".to_owned());
        }
        if !matches!(unit.state, State::Active | State::Degraded) {
            return Err(format!("it is {}", unit.state));
        }
        if !self.graph.requirements_up(id) {
            return Err("it is about to stop".to_owned());
        }
        let run = self.run_of(id).ok_or("it has no process")?;
        let Wish { fallback, strategy, .. } = wish;
        self.remark(id, cause.clone(), None);
        let way = Box::new(Move { fallback, strategy, passed_over, cause });
        self.begin_dump(id, After::End, Purpose::Move(way), CHECKPOINT_LIMIT);
        Ok(run)
    }

    /// It could not be written down, and runs on: go the next way.
    pub(super) fn move_failed(&mut self, id: NodeId, run: RunId, reason: &str, way: Move) {
        let Some(unit) = self.unit(id) else { return };
        let name = Rc::clone(&unit.name);
        let is_it = |goal: &Goal| matches!(goal, Goal::Moved { run: of, .. } if *of == run);
        if !unit.state.is_up() {
            // Who waits is told by the state that it is in.
            return;
        }
        let Move { fallback, strategy, mut passed_over, cause } = way;
        if !fallback {
            let message = format!("the checkpoint of {name} failed: {reason}");
            return self.refuse_all(is_it, &message);
        }
        passed_over.push(passed_over_for(UpgradeLevel::Checkpoint, reason));
        let wish = Wish { fallback, queue: false, strategy, timeout_ms: None };
        let below = [UpgradeLevel::FdPassing, UpgradeLevel::Restart];
        match self.climb(id, &below, wish, passed_over, cause) {
            Ok(goal) => self.change_goals(is_it, &goal),
            Err(message) => self.refuse_all(is_it, &message),
        }
    }

    /// The process of a run has ended. Whether it was written down for that, and is made again now.
    pub(in crate::engine) fn moves_on(&mut self, id: NodeId) -> bool {
        let Some(unit) = self.unit(id).filter(|unit| unit.state.is_up()) else { return false };
        let dump = unit.process.as_ref().and_then(|process| process.dump.as_deref());
        let Some(dump) = dump else { return false };
        let (Stage::Leaving(written, made), Purpose::Move(way)) = (&dump.stage, &dump.purpose) else {
            return false;
        };
        if broken(Mutation::ForgetMoved) {
            return true;
        }
        let moved = Moved { way: Move::clone(way), written: written.clone(), began: dump.began, made: *made };
        self.make_again(id, moved);
        true
    }

    /// Start a process from what the one before was written down as. Nothing is known of it that was not of that one.
    fn make_again(&mut self, id: NodeId, moved: Moved) {
        self.last_run += 1;
        let run = RunId(self.last_run);
        let origin = Origin { id: Some(Rc::clone(&moved.written.id)) };
        let limit =
            self.timers.arm(self.now.saturating_add(super::origin::RESTORE_LIMIT), Due::Checkpoint(id));
        let Some(unit) = self.unit_mut(id) else { return };
        let Some(before) = unit.process.take() else { return };
        unit.generation += 1;
        let (generation, component) = (unit.generation, Rc::clone(&before.component));
        let why = Why::Moved(Box::new(moved));
        unit.process = Some(Process {
            pid: None,
            since: before.since,
            said: before.said,
            answer: before.answer,
            limits: before.limits.of_next(),
            greeting: before.greeting,
            splits: before.splits,
            from: From::Image,
            restoring: Some(Box::new(Restoring::new(why, origin.id.clone(), Some(limit)))),
            ..Process::new(run, Rc::clone(&component))
        });
        self.runs.remove(&before.run);
        self.runs.insert(run, id);
        for waiter in &mut self.waiters {
            if let Goal::Moved { run: of, .. } = &mut waiter.goal
                && *of == before.run
            {
                *of = run;
            }
        }
        self.effects.push(Effect::Spawn {
            run,
            component,
            generation,
            place: Place::Alone,
            origin: Some(origin),
        });
    }

    /// It is there again, and serves.
    pub(super) fn moved(&mut self, id: NodeId, run: RunId, made: &Made, moved: &Moved) {
        let Some(unit) = self.unit(id) else { return };
        let (component, generation) = (Rc::clone(&unit.name), unit.generation);
        let gap_us = moved.gap_us(self.now);
        let step = CheckpointStep::Moved { id: Rc::clone(&made.id), took_us: made.took_us, gap_us };
        self.step_of_checkpoint(id, step);
        let answer = Answer::Upgraded(Upgraded {
            component,
            level: UpgradeLevel::Checkpoint,
            form: None,
            strategy: Strategy::AllAtOnce,
            passed_over: moved.way.passed_over.clone(),
            gap_us: Some(gap_us),
            generation,
            descriptors: None,
            state_bytes: Some(moved.written.bytes),
            probation_ms: None,
            revision: self.journal.revision(),
        });
        self.answer_all(|goal| matches!(goal, Goal::Moved { run: of, .. } if *of == run), &answer);
        self.catch_up_with_limits(id);
        self.expect_again(id);
    }

    /// It could not be made again: the component is started anew.
    pub(super) fn not_moved(&mut self, id: NodeId, run: RunId, reason: &Rc<str>, moved: Moved) {
        let Some(name) = self.unit(id).map(|unit| Rc::clone(&unit.name)) else { return };
        let is_it = |goal: &Goal| matches!(goal, Goal::Moved { run: of, .. } if *of == run);
        let Moved { way, written, began, .. } = moved;
        if way.fallback {
            let mut passed_over = way.passed_over;
            passed_over.push(passed_over_for(UpgradeLevel::Checkpoint, reason));
            passed_over.push(passed_over_for(UpgradeLevel::FdPassing, GONE));
            let goal = Goal::Upgraded(Upgrade { name, not: Some(run), down: Some(began), passed_over });
            self.change_goals(is_it, &goal);
        } else {
            let message = format!(
                "{name} could not be made again from its checkpoint {}: {reason}; it is started anew",
                written.id
            );
            self.refuse_all(is_it, &message);
        }
        self.call_off_handover(id, reason);
        self.runs.remove(&run);
        self.process_gone(id);
        self.rest(id, Cause::NotRestored { reason: Rc::clone(reason) });
    }

    /// How far a component's process has come that is moved, for who tests that: `dump`, `dumped`, `restore`, and
    /// `restored` from then on.
    pub fn move_step(&self, name: &str) -> Option<&'static str> {
        let process = self.find(name)?.process.as_ref()?;
        let dump = process.dump.as_ref().filter(|dump| matches!(dump.purpose, Purpose::Move(_)));
        match (&process.restoring, dump.map(|dump| &dump.stage)) {
            (Some(restoring), _) => restoring.is_move().then_some("restore"),
            (None, Some(Stage::Leaving(..))) => Some("dumped"),
            (None, Some(_)) => Some("dump"),
            (None, None) => (process.from == From::Image).then_some("restored"),
        }
    }

    /// The answer to who waits for a process to go on as another one, when it does not.
    pub(in crate::engine) fn judge_moved(&self, name: &str, run: RunId) -> Option<Answer> {
        let unit = self.find(name);
        let goes_on = unit.is_some_and(|unit| {
            let process = unit.process.as_ref().filter(|process| process.run == run);
            unit.state.is_up() && process.is_some_and(|process| process.checkpoint_mark().is_some())
        });
        let message = || format!("the upgrade of {name} was called off: {}", self.describe(name));
        (!goes_on).then(|| Answer::Refused { message: message(), near: Vec::new() })
    }
}

fn passed_over_for(level: UpgradeLevel, reason: &str) -> PassedOver {
    PassedOver { level, strategy: None, reason: reason.to_owned() }
}
