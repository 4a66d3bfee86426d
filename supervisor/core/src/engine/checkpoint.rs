//! Checkpoints: a component's processes are written down, and made again from what was written.
//!
//! That one is made is no state of a component but a mark of its process, like being frozen: what it provides stays up.
//!
//! * From the question until the performer's answer, and while the processes are held or are made again, nothing is
//!   expected of them: no probe is sent, no sign of life and no announced end is waited for. All of that begins anew
//!   afterwards.
//! * There is one at a time of each component, and none of what is frozen, is upgraded or starts.
//! * One that fails loses nothing: everything runs on.
//! * What was left held goes on when it is told to, and by itself after [`HOLD_LIMIT`](super::HOLD_LIMIT); what is told to
//!   end goes on right after it is told. Only a halt that executes another kernel leaves it as it is: see [`Engine::is_kept`].
//!
//! See [`moving`] for the upgrade, [`origin`] for processes that are made from a checkpoint, [`warm`] for starts.

mod mending;
mod moving;
mod origin;
mod warm;

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use self::moving::Move;
pub use self::origin::RESTORE_LIMIT;
pub(super) use self::origin::{From, Restore, Restoring, Wanted};
pub(super) use self::warm::Warm;
use super::request::Goal;
use super::timers::{Due, TimerKey};
use super::{ClientId, Effect, Engine, HOLD_LIMIT, Halt, RunId};
use crate::checkpoint::{After, Written};
use crate::component::Kind;
use crate::control::{Answer, CheckpointMark};
use crate::graph::NodeId;
use crate::journal::{Cause, CheckpointStep, State};
use crate::mutation::{Mutation, broken};

/// The longest time for a checkpoint. The images of a process of some gigabytes are on a disk by then; what takes longer
/// is undone.
pub const CHECKPOINT_LIMIT: Duration = Duration::from_secs(120);

/// What a checkpoint is made for.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Purpose {
    /// A client asked for it.
    Asked,
    /// Later starts are made from it.
    Warm,
    /// The process is to go on as another one.
    Move(Box<Move>),
}

/// How far it has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Stage {
    /// The performer was asked for it.
    Making,
    /// It is made, and the processes stand still.
    Held,
    /// It is made at this time, and the processes end.
    Leaving(Written, Duration),
}

/// The checkpoint of a process that is being made, or that has left it held.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Dump {
    stage: Stage,
    after: After,
    purpose: Purpose,
    /// When the performer was asked.
    began: Duration,
    /// Until when it is held at most.
    pub(super) timer: Option<TimerKey>,
}

impl Engine {
    /// A client wants a component's processes written down.
    pub(super) fn checkpoint(
        &mut self,
        client: ClientId,
        uid: u32,
        name: &str,
        after: After,
        timeout_ms: Option<u64>,
        cause: Cause,
    ) {
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        if after == After::End {
            let message = format!("only an upgrade ends what it writes down: graphctl upgrade {name}");
            return self.refuse(client, message);
        }
        if let Some(message) = self.checkpoint_refusal(id) {
            return self.refuse(client, message);
        }
        let Some(run) = self.run_of(id) else { return };
        let limit = timeout_ms.map_or(CHECKPOINT_LIMIT, Duration::from_millis).min(CHECKPOINT_LIMIT);
        self.remark(id, cause, None);
        self.begin_dump(id, after, Purpose::Asked, limit);
        self.wait(client, uid, Goal::Checkpointed { name: name.into(), run }, None);
    }

    /// Why no checkpoint of a component can be made as it stands.
    fn checkpoint_refusal(&self, id: NodeId) -> Option<String> {
        let unit = self.unit(id)?;
        let name = &unit.name;
        if self.halting.is_some() {
            return Some("everything is being stopped".to_owned());
        }
        let process = unit.process.as_ref().filter(|_| unit.state != State::Stopping);
        let Some(process) = process.filter(|process| process.restoring.is_none()) else {
            return Some(format!(
                "{name} does not run, so there is nothing to write down: it is {}",
                unit.state
            ));
        };
        if let Some(reason) = self.no_checkpoints(id) {
            return Some(format!("checkpoints of {name} {reason}"));
        }
        let works = unit.component.kind == Kind::Oneshot && process.since.is_some();
        if !unit.state.is_up() && !works {
            return Some(format!(
                "{name} is {}; make a checkpoint of it when it is ready: graphctl wait {name} --state ACTIVE",
                unit.state
            ));
        }
        if unit.handover.second().is_some() || process.heir.is_some() {
            return Some(format!(
                "an upgrade of {name} is under way; make a checkpoint of it when that is over"
            ));
        }
        if process.freezer.is_some() {
            return Some(format!("{name} is frozen; thaw it first: graphctl thaw {name}"));
        }
        self.dump_refusal(id)
    }

    /// Why nothing is kept of a component, to be put after "checkpoints of it".
    fn no_checkpoints(&self, id: NodeId) -> Option<String> {
        let unit = self.unit(id).filter(|unit| !unit.component.checkpoint.enabled)?;
        let file = self.files.file_of(&unit.name).unwrap_or("its file");
        Some(format!("are not enabled: set enabled = true below [checkpoint] in {file}"))
    }

    /// Why something else is to wait for the checkpoint that is made of a component, or made into its process.
    pub(super) fn dump_refusal(&self, id: NodeId) -> Option<String> {
        let unit = self.unit(id)?;
        let name = &unit.name;
        match unit.process.as_ref()?.checkpoint_mark()? {
            CheckpointMark::Making => Some(format!("a checkpoint of {name} is being made")),
            CheckpointMark::Held => {
                Some(format!("{name} is held by a checkpoint; have it go on first: graphctl continue"))
            }
            CheckpointMark::Restoring => Some(format!("{name} is being made from a checkpoint")),
        }
    }

    /// Have the processes of a component written down.
    fn begin_dump(&mut self, id: NodeId, after: After, purpose: Purpose, limit: Duration) {
        let began = self.now;
        let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) else { return };
        let (run, component) = (process.run, Rc::clone(&process.component));
        process.dump = Some(Box::new(Dump { stage: Stage::Making, after, purpose, began, timer: None }));
        if !broken(Mutation::ProbeDumped) {
            self.expect_nothing(id);
        }
        self.effects.push(Effect::Checkpoint { run, component, after, limit });
    }

    /// The performer has written a process down, or has not, and it runs.
    pub(super) fn take_checkpointed(&mut self, run: RunId, outcome: Result<Written, Rc<str>>) {
        let Some(id) = self.runs.get(&run).copied() else { return };
        let Some(dump) = self.dump_of(id).filter(|dump| matches!(dump.stage, Stage::Making)) else { return };
        let (after, purpose) = (dump.after, dump.purpose.clone());
        let step = match &outcome {
            Ok(written) => CheckpointStep::made(written, after),
            Err(reason) => CheckpointStep::Failed { reason: Rc::clone(reason) },
        };
        self.step_of_checkpoint(id, step);
        match (outcome, after) {
            (Err(reason), after) => {
                if after == After::Hold {
                    // Who was to leave it stopped may have done that, and been killed before it could undo it.
                    self.effects.push(Effect::Continue(run));
                }
                self.dump_failed(id, run, &reason, purpose);
            }
            (Ok(written), After::Run) => {
                self.end_dump(id);
                self.dump_made(id, run, &written, &purpose);
                self.expect_again(id);
            }
            (Ok(written), After::Hold) => {
                self.hold(id, run);
                self.dump_made(id, run, &written, &purpose);
            }
            (Ok(written), After::End) => {
                let now = self.now;
                if let Some(dump) = self.dump_of(id) {
                    dump.stage = Stage::Leaving(written, now);
                }
            }
        }
    }

    /// Everything runs on.
    fn dump_failed(&mut self, id: NodeId, run: RunId, reason: &str, purpose: Purpose) {
        let name = self.unit(id).map_or_else(|| "".into(), |unit| Rc::clone(&unit.name));
        let asked = |goal: &Goal| matches!(goal, Goal::Checkpointed { run: of, .. } if *of == run);
        if !broken(Mutation::KeepDump) {
            self.end_dump(id);
        }
        self.look_after_again(id);
        match purpose {
            Purpose::Asked => {
                // Its end may be told next, so nothing is said of what runs on.
                self.refuse_all(asked, &format!("the checkpoint of {name} failed: {reason}"));
            }
            Purpose::Warm => self.spend_warm(id),
            Purpose::Move(way) => self.move_failed(id, run, reason, *way),
        }
        // A hot swap that has just begun in its place is of what is declared now.
        if self.unit(id).is_some_and(|unit| unit.state.is_up() && unit.handover.second().is_none()) {
            self.follow_change(id);
        }
    }

    /// It is there.
    fn dump_made(&mut self, id: NodeId, run: RunId, written: &Written, purpose: &Purpose) {
        let Some(component) = self.unit(id).map(|unit| Rc::clone(&unit.name)) else { return };
        if matches!(purpose, Purpose::Warm) {
            self.keep_warm(id, &written.id);
        }
        let revision = self.journal.revision();
        let answer = Answer::Checkpointed { component, written: written.clone(), revision };
        self.answer_all(|goal| matches!(goal, Goal::Checkpointed { run: of, .. } if *of == run), &answer);
    }

    /// The processes stand still from now on, unless they were told to end meanwhile.
    fn hold(&mut self, id: NodeId, run: RunId) {
        let told = self.unit(id).and_then(|unit| unit.process.as_ref()).is_some_and(|process| process.told);
        if told && !broken(Mutation::HoldTheEnding) {
            self.end_dump(id);
            return self.effects.push(Effect::Continue(run));
        }
        let timer = self.timers.arm(self.now.saturating_add(HOLD_LIMIT), Due::Checkpoint(id));
        if let Some(dump) = self.dump_of(id) {
            (dump.stage, dump.timer) = (Stage::Held, Some(timer));
        }
    }

    /// A client wants everything to go on that is held.
    pub(super) fn continue_all(&mut self, client: ClientId, cause: &Cause) {
        let mut gone_on: Vec<Rc<str>> = Vec::new();
        for id in self.all_ids() {
            if self.is_held(id) && !self.is_kept(id) {
                gone_on.extend(self.unit(id).map(|unit| Rc::clone(&unit.name)));
                self.remark(id, cause.clone(), None);
                self.go_on(id, false);
            }
        }
        match &gone_on[..] {
            [] => self.done(client, "nothing is held by a checkpoint"),
            [one] => self.done(client, format!("{one} goes on")),
            [one, rest @ ..] => self.done(client, format!("{one} and {} more go on", rest.len())),
        }
    }

    /// What is held goes on.
    fn go_on(&mut self, id: NodeId, by_itself: bool) {
        let Some(run) = self.run_of(id).filter(|_| self.is_held(id)) else { return };
        self.step_of_checkpoint(id, CheckpointStep::Continued { by_itself });
        self.end_dump(id);
        self.effects.push(Effect::Continue(run));
        self.expect_again(id);
    }

    /// A process was just told to end: it needs to run for that.
    pub(super) fn continue_told(&mut self, run: RunId) {
        let Some(id) = self.runs.get(&run).copied().filter(|id| self.is_held(*id)) else { return };
        if !broken(Mutation::StopHeld) {
            self.end_dump(id);
            self.effects.push(Effect::Continue(run));
        }
    }

    /// The time is over for which a process is held, or made from a checkpoint.
    pub(super) fn checkpoint_due(&mut self, id: NodeId, key: TimerKey) {
        if let Some(dump) = self.dump_of(id).filter(|dump| dump.timer == Some(key)) {
            dump.timer = None;
            if !broken(Mutation::HoldForEver) {
                self.go_on(id, true);
            }
        } else {
            self.restoring_late(id, key);
        }
    }

    /// Whether a process stands still because a checkpoint has left it so.
    fn is_held(&self, id: NodeId) -> bool {
        let process = self.unit(id).and_then(|unit| unit.process.as_ref());
        let dump = process.and_then(|process| process.dump.as_ref());
        dump.is_some_and(|dump| matches!(dump.stage, Stage::Held))
    }

    /// Whether a process is left as it is while everything else stops: it goes on below the next kernel.
    pub(super) fn is_kept(&self, id: NodeId) -> bool {
        let jumps = self.halting.is_some_and(|halting| halting.halt == Halt::Kexec);
        jumps && self.is_held(id) && !broken(Mutation::StopKept)
    }

    /// The machine is about to execute another kernel: what is held stays so.
    pub(super) fn keep_held(&mut self) {
        for id in self.all_ids() {
            if self.is_kept(id)
                && let Some(timer) = self.dump_of(id).and_then(|dump| dump.timer.take())
            {
                self.timers.disarm(timer);
            }
        }
    }

    /// Whether nothing can be expected of a component for a checkpoint.
    pub(super) fn is_away(&self, id: NodeId) -> bool {
        let Some(process) = self.unit(id).and_then(|unit| unit.process.as_ref()) else { return false };
        let dumped = process.dump.is_some() && !broken(Mutation::ProbeDumped);
        dumped || process.restoring.is_some()
    }

    /// The answer to who waits for a checkpoint of this process.
    pub(super) fn judge_checkpointed(&self, name: &str, run: RunId) -> Option<Answer> {
        let process = self.find(name).and_then(|unit| unit.process.as_ref());
        if process.is_some_and(|process| process.run == run && process.dump.is_some()) {
            return None;
        }
        let message = format!("the process of {name} ended before its checkpoint was made");
        Some(Answer::Refused { message, near: Vec::new() })
    }

    fn dump_of(&mut self, id: NodeId) -> Option<&mut Dump> {
        self.unit_mut(id)?.process.as_mut()?.dump.as_deref_mut()
    }

    /// There is no checkpoint of the process any more that it has to do with.
    fn end_dump(&mut self, id: NodeId) {
        let process = self.unit_mut(id).and_then(|unit| unit.process.as_mut());
        let dump = process.and_then(|process| process.dump.take());
        if let Some(timer) = dump.and_then(|dump| dump.timer) {
            self.timers.disarm(timer);
        }
    }

    /// Write down what has become of a component's checkpoint.
    fn step_of_checkpoint(&mut self, id: NodeId, step: CheckpointStep) {
        let after = self.unit(id).map(|unit| unit.revision);
        self.remark(id, Cause::Checkpoint(step), after);
    }
}

impl super::unit::Process {
    /// For the machine-readable status.
    pub(super) fn checkpoint_mark(&self) -> Option<CheckpointMark> {
        let held = |dump: &Dump| matches!(dump.stage, Stage::Held);
        match (&self.restoring, &self.dump) {
            (Some(_), _) => Some(CheckpointMark::Restoring),
            (None, Some(dump)) if held(dump) => Some(CheckpointMark::Held),
            (None, Some(_)) => Some(CheckpointMark::Making),
            (None, None) => None,
        }
    }
}
