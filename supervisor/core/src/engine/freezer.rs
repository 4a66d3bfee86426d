//! Freezing: a component is kept from running, with everything that it has, until it is thawed.
//!
//! It is no state of a component but a mark of its process: what it provides stays up, for those that need it would
//! otherwise be stopped for a pause that they may not even notice, and it ends with the process, however that ends. So
//! the table of states knows nothing of it; [`next`] is all there is.
//!
//! * From the request to freeze until the kernel says that it is thawed, nothing is expected of the process: no probe is
//!   sent, no sign of life and no announced end is waited for. All of that begins anew with the thaw.
//! * What is told to end is thawed right after it is told, not before: it does nothing but end. Its grace counts from
//!   there.
//! * Nothing takes over from what is frozen. A changed declaration that calls for that is followed at the thaw.
//! * A start is not interrupted: what is not ready yet cannot be frozen, for its limit would have to stand still too.

use std::rc::Rc;
use std::time::Duration;

use super::request::Goal;
use super::{ClientId, Effect, Engine, RunId};
use crate::component::Kind;
use crate::control::{Answer, Freezer};
use crate::graph::NodeId;
use crate::journal::{Cause, State};
use crate::mutation::{Mutation, broken};

/// The longest time for a process to be frozen or thawed. It stops when it leaves the kernel: at once, or when the disk
/// has answered that it waits for. All others of its group stand still meanwhile, and so does whoever asks them: what
/// takes longer than a slow disk is undone.
pub const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// What can happen to the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It is to be frozen.
    Freeze,
    /// It is to be thawed.
    Thaw,
    /// The kernel says that it is frozen.
    Frozen,
    /// It could not be frozen, and runs.
    NotFrozen,
    /// The kernel says that it is thawed.
    Thawed,
    /// It could not be thawed.
    NotThawed,
}

/// The mark after a turn; `None` for a process that runs.
fn next(mark: Option<Freezer>, turn: Turn) -> Option<Freezer> {
    use Freezer::{Freezing, Frozen, Thawing};
    match (mark, turn) {
        (None | Some(Freezing | Thawing), Turn::Freeze) => Some(Freezing),
        (Some(Freezing | Frozen | Thawing), Turn::Thaw) => Some(Thawing),
        // One that runs was found so by a supervisor that knew nothing of it.
        (None | Some(Freezing), Turn::Frozen) | (Some(Thawing), Turn::NotThawed) => Some(Frozen),
        (Some(Freezing), Turn::NotFrozen) | (Some(Thawing), Turn::Thawed) => None,
        (mark, _) => mark,
    }
}

impl Engine {
    /// A client wants a component frozen.
    pub(super) fn freeze(
        &mut self,
        client: ClientId,
        uid: u32,
        name: &str,
        timeout_ms: Option<u64>,
        cause: Cause,
    ) {
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        if let Some(message) = self.freeze_refusal(id) {
            return self.refuse(client, message);
        }
        let Some(run) = self.run_of(id) else { return };
        let mark = self.freezer_of(run);
        if mark == Some(Freezer::Frozen) {
            return self.done(client, format!("{name} is frozen already"));
        }
        if mark != Some(Freezer::Freezing) {
            let asked = timeout_ms.map_or(FREEZE_LIMIT, Duration::from_millis);
            self.remark(id, cause, None);
            self.turn_freezer(run, Turn::Freeze);
            self.effects.push(Effect::Freeze { run, limit: asked.min(FREEZE_LIMIT) });
        }
        self.wait(client, uid, Goal::Frozen { name: name.into(), run }, None);
    }

    /// A client wants a component thawed.
    pub(super) fn thaw(&mut self, client: ClientId, uid: u32, name: &str, cause: Cause) {
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        let marked = self.run_of(id).and_then(|run| Some((run, self.freezer_of(run)?)));
        let Some((run, mark)) = marked else {
            return self.done(client, format!("{name} is not frozen"));
        };
        if mark != Freezer::Thawing {
            self.remark(id, cause, None);
            self.turn_freezer(run, Turn::Thaw);
            self.effects.push(Effect::Thaw(run));
        }
        self.wait(client, uid, Goal::Thawed { name: name.into(), run }, None);
    }

    /// Why a component cannot be frozen as it stands.
    fn freeze_refusal(&self, id: NodeId) -> Option<String> {
        let unit = self.unit(id)?;
        let name = &unit.name;
        if self.halting.is_some() {
            return Some("everything is being stopped".to_owned());
        }
        let Some(process) = unit.process.as_ref().filter(|_| unit.state != State::Stopping) else {
            return Some(format!("{name} does not run, so there is nothing to freeze: it is {}", unit.state));
        };
        let works = unit.component.kind == Kind::Oneshot && process.since.is_some();
        if !unit.state.is_up() && !works {
            return Some(format!(
                "{name} is {}, and its start is not interrupted; freeze it when it is ready: graphctl wait {name} \
                 --state ACTIVE",
                unit.state
            ));
        }
        if unit.handover.second().is_some() || process.heir.is_some() {
            return Some(format!("an upgrade of {name} is under way; freeze it when that is over"));
        }
        self.dump_refusal(id)
    }

    /// The kernel has frozen everything of a process's component, or that could not be, and it runs.
    pub(super) fn take_frozen(&mut self, run: RunId, outcome: Result<(), Rc<str>>) {
        match outcome {
            Ok(()) => self.take_turn(run, Turn::Frozen, Some(Cause::Frozen)),
            Err(reason) => {
                let asked = |goal: &Goal| matches!(goal, Goal::Frozen { run: of, .. } if *of == run);
                if self.turns(run, Turn::NotFrozen) {
                    self.refuse_all(asked, &reason);
                }
                self.take_turn(run, Turn::NotFrozen, Some(Cause::NotFrozen { reason }));
            }
        }
    }

    /// The kernel has thawed it, or that could not be.
    pub(super) fn take_thawed(&mut self, run: RunId, outcome: Result<(), Rc<str>>) {
        match outcome {
            Ok(()) => self.take_turn(run, Turn::Thawed, None),
            Err(reason) => {
                let asked = |goal: &Goal| matches!(goal, Goal::Thawed { run: of, .. } if *of == run);
                if self.turns(run, Turn::NotThawed) {
                    self.refuse_all(asked, &reason);
                }
                self.take_turn(run, Turn::NotThawed, Some(Cause::NotThawed { reason }));
            }
        }
    }

    /// Whether the mark of a process changes with this.
    fn turns(&self, run: RunId, turn: Turn) -> bool {
        let mark = self.freezer_of(run);
        self.runs.contains_key(&run) && next(mark, turn) != mark
    }

    /// What the performer says of a process counts if it changes the mark: it is written down before anything follows.
    fn take_turn(&mut self, run: RunId, turn: Turn, cause: Option<Cause>) {
        let Some(id) = self.runs.get(&run).copied().filter(|_| self.turns(run, turn)) else { return };
        if let Some(cause) = cause {
            let after = self.unit(id).map(|unit| unit.revision);
            self.remark(id, cause, after);
        }
        self.turn_freezer(run, turn);
    }

    /// A process was just told to end: it needs to run for that.
    pub(super) fn thaw_told(&mut self, run: RunId) {
        if self.freezer_of(run).is_some() && !broken(Mutation::StopFrozen) {
            self.turn_freezer(run, Turn::Thaw);
            self.effects.push(Effect::Thaw(run));
        }
    }

    /// What the performer before was asked for and has not reported is asked for again.
    pub(super) fn freeze_again(&mut self, under_way: &[RunId]) {
        for run in self.freezing().into_iter().filter(|run| !under_way.contains(run)) {
            self.effects.push(match self.freezer_of(run) {
                Some(Freezer::Freezing) => Effect::Freeze { run, limit: FREEZE_LIMIT },
                _ => Effect::Thaw(run),
            });
        }
    }

    /// Processes that the performer freezes or thaws.
    pub(super) fn freezing(&self) -> Vec<RunId> {
        let processes = self.units.iter().flatten().filter_map(|unit| unit.process.as_ref());
        let under_way = |mark| matches!(mark, Some(Freezer::Freezing | Freezer::Thawing));
        processes.filter(|process| under_way(process.freezer)).map(|process| process.run).collect()
    }

    /// Whether nothing can be expected of a component.
    pub(super) fn is_frozen(&self, id: NodeId) -> bool {
        self.unit(id).and_then(|unit| unit.process.as_ref()).is_some_and(|process| process.freezer.is_some())
    }

    /// The answer to who waits for it to be frozen.
    pub(super) fn judge_frozen(&self, name: &str, run: RunId) -> Option<Answer> {
        let refused = |message| Some(Answer::Refused { message, near: Vec::new() });
        if self.run_of_name(name) != Some(run) {
            return refused(format!("the process of {name} ended before it was frozen"));
        }
        let done = Answer::Done { message: format!("{name} is frozen"), revision: self.journal.revision() };
        match self.freezer_of(run) {
            Some(Freezer::Frozen) => Some(done),
            Some(Freezer::Freezing) if broken(Mutation::AnswerUnfrozen) => Some(done),
            Some(Freezer::Freezing) => None,
            Some(Freezer::Thawing) | None => {
                refused(format!("{name} was thawed before all of it was frozen"))
            }
        }
    }

    /// The answer to who waits for it to be thawed.
    pub(super) fn judge_thawed(&self, name: &str, run: RunId) -> Option<Answer> {
        let mark = self.run_of_name(name).filter(|other| *other == run).and_then(|run| self.freezer_of(run));
        match mark {
            None => {
                let message = format!("{name} is thawed");
                Some(Answer::Done { message, revision: self.journal.revision() })
            }
            Some(Freezer::Thawing) => None,
            Some(Freezer::Freezing | Freezer::Frozen) => {
                let message = format!("{name} was frozen again before it was thawed");
                Some(Answer::Refused { message, near: Vec::new() })
            }
        }
    }

    fn run_of_name(&self, name: &str) -> Option<RunId> {
        self.run_of(*self.names.get(name)?)
    }

    fn freezer_of(&self, run: RunId) -> Option<Freezer> {
        self.unit(*self.runs.get(&run)?)?.process.as_ref()?.freezer
    }

    /// Change the mark of a process. With the first one all that is expected of it is called off, and begins anew with the
    /// end of the last.
    fn turn_freezer(&mut self, run: RunId, turn: Turn) {
        let Some(id) = self.runs.get(&run).copied() else { return };
        let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) else { return };
        let before = process.freezer;
        process.freezer = next(before, turn);
        let after = process.freezer;
        match (before, after) {
            (None, Some(_)) => self.expect_nothing(id),
            (Some(_), None) => self.expect_again(id),
            _ => {}
        }
    }

    pub(super) fn expect_nothing(&mut self, id: NodeId) {
        let Some(state) = self.unit(id).map(|unit| unit.state) else { return };
        if !matches!(state, State::Active | State::Degraded) {
            return;
        }
        if !broken(Mutation::ProbeFrozen) {
            self.end_watch(id);
        }
        if !broken(Mutation::WatchFrozen) {
            self.end_watchdog(id);
        }
        // That of an announced end: what is up has no other.
        self.disarm_unit(id);
    }

    /// Begin anew with all that is expected of a component, and follow what was declared meanwhile.
    pub(super) fn expect_again(&mut self, id: NodeId) {
        self.look_after_again(id);
        if self.unit(id).is_some_and(|unit| matches!(unit.state, State::Active | State::Degraded)) {
            self.follow_change(id);
        }
    }

    /// Begin anew with all that is expected of a component.
    pub(super) fn look_after_again(&mut self, id: NodeId) {
        let Some(state) = self.unit(id).map(|unit| unit.state) else { return };
        if !matches!(state, State::Active | State::Degraded) {
            return;
        }
        self.end_watch(id);
        self.begin_watch(id);
        self.rearm_watchdog(id);
        self.await_announced_end(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_word_of_the_performer_changes_nothing() {
        use Freezer::{Freezing, Frozen, Thawing};
        let rows = [
            (None, [Some(Freezing), None, Some(Frozen), None, None, None]),
            (
                Some(Freezing),
                [Some(Freezing), Some(Thawing), Some(Frozen), None, Some(Freezing), Some(Freezing)],
            ),
            (
                Some(Frozen),
                [Some(Frozen), Some(Thawing), Some(Frozen), Some(Frozen), Some(Frozen), Some(Frozen)],
            ),
            (
                Some(Thawing),
                [Some(Freezing), Some(Thawing), Some(Thawing), Some(Thawing), None, Some(Frozen)],
            ),
        ];
        let turns = [Turn::Freeze, Turn::Thaw, Turn::Frozen, Turn::NotFrozen, Turn::Thawed, Turn::NotThawed];
        for (mark, expected) in rows {
            assert_eq!(turns.map(|turn| next(mark, turn)), expected, "{mark:?}");
        }
    }
}
