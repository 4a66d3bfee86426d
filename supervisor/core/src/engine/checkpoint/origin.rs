//! Processes that are made from a checkpoint: because a client wants that, because they were carried over from another
//! kernel, because a start is quicker so, or because theirs is moved. What cannot be made so is started anew, unless the
//! client has said otherwise.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::moving::Moved;
use crate::checkpoint::{Made, Origin};
use crate::component::Kind;
use crate::control::Answer;
use crate::engine::request::Goal;
use crate::engine::timers::{Due, TimerKey};
use crate::engine::{ClientId, Effect, Engine, Input, RunId};
use crate::graph::NodeId;
use crate::journal::{Cause, State};
use crate::mutation::{Mutation, broken};

/// The longest time for processes to be made from a checkpoint: some gigabytes are read and mapped by then, and who has
/// waited for longer has given up.
pub const RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// After a kill, the time until it is tried again; see the same of the ordinary stop.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Where a process has come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum From {
    /// From its program.
    #[default]
    New,
    /// From what a start before it had come to.
    Warm,
    /// From another checkpoint.
    Image,
    /// It was found running.
    Found,
}

impl From {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
    pub(in crate::engine) fn is_new(&self) -> bool {
        *self == Self::New
    }
}

/// Why a process is made from a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Why {
    /// A client wants it.
    Asked {
        /// A new start will do.
        fallback: bool,
    },
    /// It was carried over from another kernel.
    Carried,
    /// It starts as it was when it was ready for the first time.
    Warm,
    /// It goes on as this process.
    Moved(Box<Moved>),
}

/// A process that is being made from a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) struct Restoring {
    why: Why,
    /// The checkpoint; the newest without.
    pub(super) id: Option<Rc<str>>,
    /// Until when it has to be there; then, until it is killed again.
    pub(in crate::engine) timer: Option<TimerKey>,
    /// It was not.
    late: bool,
}

impl Restoring {
    pub(super) fn new(why: Why, id: Option<Rc<str>>, timer: Option<TimerKey>) -> Self {
        Self { why, id, timer, late: false }
    }

    pub(super) fn is_move(&self) -> bool {
        matches!(self.why, Why::Moved(_))
    }
}

/// The next process is to be made from a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Wanted {
    origin: Origin,
    fallback: bool,
}

/// What a client that wants it made so waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Restore {
    pub(in crate::engine) name: Rc<str>,
    /// The process that is replaced.
    not: Option<RunId>,
    made: Option<Made>,
    /// Why it was started anew.
    passed_over: Option<Rc<str>>,
}

impl Engine {
    /// A client wants a component's processes made from a checkpoint.
    pub(in crate::engine) fn restore_request(
        &mut self,
        client: ClientId,
        uid: u32,
        (name, id): (&str, Option<&str>),
        fallback: bool,
        timeout_ms: Option<u64>,
        cause: Cause,
    ) {
        let Some(node) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        if self.halting.is_some() {
            return self.refuse(client, "everything is being stopped".to_owned());
        }
        let stopping = self.unit(node).is_some_and(|unit| unit.state == State::Stopping);
        if let Some(message) = self.dump_refusal(node).filter(|_| !stopping) {
            return self.refuse(client, message);
        }
        let origin = Origin { id: id.map(Rc::from) };
        if let Some(unit) = self.unit_mut(node) {
            unit.wanted = Some(Box::new(Wanted { origin, fallback }));
        }
        let not = self.renew_as_wanted(node, cause);
        let goal = Goal::Restored(Restore { name: name.into(), not, made: None, passed_over: None });
        self.wait(client, uid, goal, timeout_ms);
    }

    /// A client wants a component to run: a new start will do, whatever was said of one from a checkpoint.
    pub(in crate::engine) fn allow_new_start(&mut self, id: NodeId) {
        if let Some(wanted) = self.unit_mut(id).and_then(|unit| unit.wanted.as_mut()) {
            wanted.fallback = true;
        }
        if let Some(Why::Asked { fallback }) = self.restoring_of(id).map(|restoring| &mut restoring.why) {
            *fallback = true;
        }
    }

    /// Who wanted the next process made from a checkpoint was refused: nothing is left of that.
    pub(in crate::engine) fn forget_wanted(&mut self, name: &str) {
        let id = self.names.get(name).copied();
        if let Some(unit) = id.and_then(|id| self.unit_mut(id)) {
            unit.wanted = None;
        }
    }

    /// What the next process of a component is made from, if not from its program; asked for once.
    pub(in crate::engine) fn next_origin(&mut self, id: NodeId) -> Option<(Origin, From, Restoring)> {
        let limit = self.now.saturating_add(RESTORE_LIMIT);
        let unit = self.unit_mut(id)?;
        let name = Rc::clone(&unit.name);
        let wanted = unit.wanted.take();
        let carried = self.carried.remove(&name);
        let (origin, from, why) = if let Some(wanted) = wanted {
            (wanted.origin, From::Image, Why::Asked { fallback: wanted.fallback })
        } else if let Some(origin) = carried {
            (origin, From::Image, Why::Carried)
        } else {
            (self.warm_origin(id)?, From::Warm, Why::Warm)
        };
        let timer = self.timers.arm(limit, Due::Checkpoint(id));
        let restoring = Restoring::new(why, origin.id.clone(), Some(timer));
        Some((origin, from, restoring))
    }

    /// What a supervisor before this one has written down, on a kernel before this one.
    pub(in crate::engine) fn take_carried(&mut self, origins: Vec<(Rc<str>, Origin)>) {
        self.carried = origins.into_iter().collect::<BTreeMap<_, _>>();
    }

    /// A process was made from a checkpoint: it is as ready as it was.
    pub(in crate::engine) fn take_restored(&mut self, run: RunId, pid: i32, made: &Made) {
        let now = self.now;
        let Some(id) = self.runs.get(&run).copied() else { return };
        let Some(restoring) = self.end_restoring(id) else { return };
        self.note_pid(run, pid);
        let Some(unit) = self.unit_mut(id) else { return };
        let (state, waits, oneshot) = (unit.state, unit.waits_for > 0, unit.component.kind == Kind::Oneshot);
        if let Some(process) = &mut unit.process {
            process.since.get_or_insert(now);
        }
        match (state, restoring.why) {
            // It was to be told to end before it was there.
            (State::Stopping, _) if !waits => self.tell(id),
            (State::Stopping, _) => {}
            (_, Why::Moved(moved)) => self.moved(id, run, made, &moved),
            (State::Starting, why) => {
                if matches!(why, Why::Asked { .. }) {
                    self.change_restores(id, |restore| restore.made = Some(made.clone()));
                }
                let cause = Cause::Restored { id: Rc::clone(&made.id), took_us: made.took_us };
                // What runs to its end is ready when it has ended.
                let input = if oneshot { Input::Executed } else { Input::Ready };
                self.feed(id, input, cause);
            }
            _ => {}
        }
    }

    /// It could not be, and is gone.
    pub(in crate::engine) fn take_not_restored(&mut self, run: RunId, reason: &Rc<str>) {
        let Some(id) = self.runs.get(&run).copied() else { return };
        let Some(restoring) = self.end_restoring(id) else { return };
        let reason = if restoring.late { late_text() } else { Rc::clone(reason) };
        let Some(state) = self.unit(id).map(|unit| unit.state) else { return };
        let cause = Cause::NotRestored { reason: Rc::clone(&reason) };
        let stays =
            matches!(restoring.why, Why::Asked { fallback: false }) && !broken(Mutation::StartUnwanted);
        match (state, restoring.why) {
            (State::Starting, Why::Asked { .. }) if stays => {
                self.forget_process(id, run);
                self.stay_failed(id, cause);
            }
            (State::Starting, why) => {
                if matches!(why, Why::Warm) && !broken(Mutation::RetryWarm) {
                    self.spend_warm(id);
                }
                let after = self.unit(id).map(|unit| unit.revision);
                self.remark(id, cause.clone(), after);
                if matches!(why, Why::Asked { .. }) {
                    self.change_restores(id, |restore| restore.passed_over = Some(Rc::clone(&reason)));
                }
                self.forget_process(id, run);
                self.launch_anew(id, cause);
            }
            (state, Why::Moved(moved)) if state.is_up() => self.not_moved(id, run, &reason, *moved),
            _ => {
                self.forget_process(id, run);
                self.feed(id, Input::NotExecuted, cause);
            }
        }
    }

    fn forget_process(&mut self, id: NodeId, run: RunId) {
        self.runs.remove(&run);
        self.process_gone(id);
    }

    /// The process of a run has ended. Whether it was to be made from a checkpoint, and what follows is done.
    pub(in crate::engine) fn ended_unmade(&mut self, id: NodeId, run: RunId, cause: &Cause) -> bool {
        let process = self.unit(id).and_then(|unit| unit.process.as_ref());
        let unmade = process.is_some_and(|process| process.run == run && process.restoring.is_some());
        if unmade {
            self.take_not_restored(run, &cause.to_string().into());
        }
        unmade
    }

    /// It takes too long: it is ended, again and again while it does not go.
    pub(super) fn restoring_late(&mut self, id: NodeId, key: TimerKey) {
        let again = self.now.saturating_add(KILL_PATIENCE);
        let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) else { return };
        let run = process.run;
        let Some(restoring) = process.restoring.as_mut().filter(|one| one.timer == Some(key)) else { return };
        (restoring.timer, restoring.late) = (None, true);
        if broken(Mutation::RestoreForEver) {
            return;
        }
        self.effects.push(Effect::Kill(run));
        let timer = self.timers.arm(again, Due::Checkpoint(id));
        if let Some(restoring) = self.restoring_of(id) {
            restoring.timer = Some(timer);
        }
    }

    pub(super) fn restoring_of(&mut self, id: NodeId) -> Option<&mut Restoring> {
        self.unit_mut(id)?.process.as_mut()?.restoring.as_deref_mut()
    }

    fn end_restoring(&mut self, id: NodeId) -> Option<Restoring> {
        let restoring = self.unit_mut(id)?.process.as_mut()?.restoring.take()?;
        if let Some(timer) = restoring.timer {
            self.timers.disarm(timer);
        }
        Some(*restoring)
    }

    /// Note something for who waits for this.
    fn change_restores(&mut self, id: NodeId, note: impl Fn(&mut Restore)) {
        let Some(name) = self.unit(id).map(|unit| Rc::clone(&unit.name)) else { return };
        for waiter in &mut self.waiters {
            match &mut waiter.goal {
                Goal::Restored(restore) if restore.name == name => note(restore),
                _ => {}
            }
        }
    }

    /// The answer once the new process runs, or can not.
    pub(in crate::engine) fn judge_restored(&self, restore: &Restore) -> Option<Answer> {
        let Restore { name, not, made, passed_over } = restore;
        let answer = self.judge_running(name, *not)?;
        let Answer::Done { revision, .. } = answer else {
            return Some(answer);
        };
        // Somebody else has had it started meanwhile, if what runs is not what was made. What has done its work is gone.
        let process = self.find(name).and_then(|unit| unit.process.as_ref());
        let made = made.as_ref().filter(|_| process.is_none_or(|process| process.from == From::Image));
        let other = || Rc::from("another request came between");
        Some(Answer::Restored {
            component: Rc::clone(name),
            made: made.cloned(),
            passed_over: passed_over.clone().or_else(|| made.is_none().then(other)),
            pid: self.pid(name),
            revision,
        })
    }
}

fn late_text() -> Rc<str> {
    format!("it was not there within {RESTORE_LIMIT:?}").into()
}
