//! The steps of a hot swap, what can happen at each, and what is done about it.

use serde::{Deserialize, Serialize};
use yakiros_handoff::message::Part;

use super::ending::Failure;
use crate::engine::Engine;
use crate::graph::NodeId;
use crate::mutation::{Mutation, broken};

/// Where a hot swap stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) enum Step {
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
    /// The two have changed places and the first, the new one, serves. The second, the old one, is
    /// kept with all it has given, and waits for its verdict.
    Probation,
    /// The new one failed on probation, and the two have changed places again; or it failed as a canary. The second,
    /// the new one, is being killed; once it is gone the first may go on.
    Revert,
    /// The second is what remains of a hot swap: a generation that was released, or one that
    /// failed.
    Leave,
    /// The second starts, and will serve beside the first (see [`super::beside`]).
    Beside,
    /// Of a canary: the first gives its listeners only, and serves on what it has.
    Lend,
    /// The second has the listeners and is not ready yet.
    LendReady,
    /// The second was told to serve new connections, and has not said that it does.
    LendCommit,
    /// The second serves new connections, the first those that it has.
    Canary,
    /// The canary has lasted: the first gives the rest, the second takes it.
    Rest,
    /// The second has the rest, too, and is not ready yet.
    RestReady,
    /// The second was told to serve all, and has not said that it does.
    RestCommit,
}

impl Step {
    /// The step that is named where it fails: one of those that lead to a new process that serves for good.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Withdraw => Self::Commit.own_name(),
            Self::Revert => Self::Probation.own_name(),
            step => step.own_name(),
        }
    }

    pub(super) fn own_name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Move => "move",
            Self::Ready => "ready",
            Self::Commit => "commit",
            Self::Withdraw => "withdraw",
            Self::Probation => "probation",
            Self::Revert => "revert",
            Self::Leave => "leave",
            Self::Beside => "start",
            Self::Lend => "lend",
            Self::LendReady => "lend-ready",
            Self::LendCommit => "lend-commit",
            Self::Canary => "canary",
            Self::Rest => "rest",
            Self::RestReady => "rest-ready",
            Self::RestCommit => "rest-commit",
        }
    }

    /// What moves at it.
    pub(super) fn part(self) -> Part {
        match self {
            Self::Lend | Self::LendReady | Self::LendCommit => Part::Listeners,
            Self::Rest | Self::RestReady | Self::RestCommit => Part::Rest,
            _ => Part::All,
        }
    }

    /// Whether the first gives and the second takes.
    pub(super) fn moves(self) -> bool {
        matches!(self, Self::Move | Self::Lend | Self::Rest)
    }

    /// Whether the second has what was given, and is not told to serve yet.
    pub(super) fn has_moved(self) -> bool {
        matches!(self, Self::Ready | Self::LendReady | Self::RestReady)
    }

    /// Whether the second was told to serve, and has not said that it does.
    pub(super) fn is_commit(self) -> bool {
        matches!(self, Self::Commit | Self::LendCommit | Self::RestCommit)
    }

    /// Whether the second serves new connections.
    pub(super) fn is_canary(self) -> bool {
        matches!(self, Self::Canary | Self::Rest | Self::RestReady | Self::RestCommit)
    }

    /// What follows when everything that moves at it has moved, and when that is ready.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Move => Self::Ready,
            Self::Ready => Self::Commit,
            Self::Lend => Self::LendReady,
            Self::LendReady => Self::LendCommit,
            Self::Rest => Self::RestReady,
            Self::RestReady => Self::RestCommit,
            step => step,
        }
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
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
    /// The new one, on probation or as a canary, is found to do badly.
    Unwell,
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
    /// The second has passed its probation: the old one is told to end.
    Confirm,
    /// Its probation ends before its time, with the component: the old one is told to end.
    Dismiss,
    /// It goes on without the old one, which is gone.
    Bare,
    /// The two change places again, and the new one is killed.
    Revert,
    /// The second serves new connections from now on.
    Begin,
    /// The canary has lasted: have the first give the rest.
    Complete,
    /// The second, which may serve, is killed; the first goes on with everything when it is gone.
    Recall,
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

const STEPS: usize = 16;
const TURNS: usize = 12;

/// Step × turn → act.
#[rustfmt::skip]
const TABLE: [[Act; TURNS]; STEPS] = {
    use Act::{
        Abort, Bare, Begin, Commit, Compare, Complete, Confirm, Connect, Dismiss, Inherit, Keep, Kill, Note, Promote, Recall,
        Revert, Settle, Stray, Withdraw,
    };
    [
        //               Prepared Offered  Taken    Refused Failed    Ready   Serving  SecondGone FirstGone Late      CallOff   Unwell
        /* PREPARE   */ [Connect, Keep,    Stray,   Keep,   Abort,    Stray,  Stray,   Abort,     Abort,    Abort,    Abort,    Keep],
        /* MOVE      */ [Stray,   Compare, Compare, Abort,  Abort,    Note,   Stray,   Abort,     Abort,    Abort,    Abort,    Keep],
        /* READY     */ [Stray,   Keep,    Stray,   Abort,  Abort,    Commit, Stray,   Abort,     Inherit,  Abort,    Abort,    Keep],
        /* COMMIT    */ [Stray,   Keep,    Stray,   Keep,   Withdraw, Stray,  Promote, Abort,     Inherit,  Withdraw, Withdraw, Keep],
        /* WITHDRAW  */ [Keep,    Keep,    Keep,    Keep,   Keep,     Keep,   Promote, Abort,     Abort,    Kill,     Keep,     Keep],
        /* PROBATION */ [Keep,    Keep,    Keep,    Revert, Keep,     Keep,   Keep,    Bare,      Revert,   Confirm,  Dismiss,  Revert],
        /* REVERT    */ [Keep,    Keep,    Keep,    Keep,   Keep,     Keep,   Keep,    Abort,     Abort,    Kill,     Keep,     Keep],
        /* LEAVE     */ [Keep,    Keep,    Keep,    Keep,   Keep,     Keep,   Keep,    Settle,    Kill,     Kill,     Keep,     Keep],
        /* BESIDE    */ [Keep,    Keep,    Keep,    Keep,   Abort,   Promote, Keep,    Abort,     Abort,    Abort,    Abort,    Keep],
        /* LEND      */ [Stray,   Compare, Compare, Abort,  Abort,    Note,   Stray,   Abort,     Abort,    Abort,    Abort,    Keep],
        /* L. READY  */ [Stray,   Keep,    Stray,   Abort,  Abort,    Commit, Stray,   Abort,     Inherit,  Abort,    Abort,    Keep],
        /* L. COMMIT */ [Stray,   Keep,    Stray,   Keep,   Recall,   Stray,  Begin,   Abort,     Inherit,  Recall,   Recall,   Keep],
        /* CANARY    */ [Stray,   Keep,    Stray,   Keep,   Recall,   Stray,  Stray,   Abort,     Inherit,  Complete, Dismiss,  Recall],
        /* REST      */ [Stray,   Compare, Compare, Recall, Recall,   Note,   Stray,   Abort,     Abort,    Recall,   Recall,   Keep],
        /* R. READY  */ [Stray,   Keep,    Stray,   Recall, Recall,   Commit, Stray,   Abort,     Inherit,  Recall,   Recall,   Keep],
        /* R. COMMIT */ [Stray,   Keep,    Stray,   Keep,   Withdraw, Stray,  Promote, Abort,     Inherit,  Withdraw, Withdraw, Keep],
    ]
};

impl Engine {
    /// Look a turn up in the table and act. The text says what happened, for a person.
    pub(super) fn turn(&mut self, id: NodeId, turn: Turn, text: &str) {
        let Some(step) = self.unit(id).and_then(|unit| Some(unit.handover.second()?.step)) else {
            return;
        };
        // Of a canary only an old process that hangs is restarted instead: one that speaks serves on.
        let hangs = turn == Turn::Late && self.owes_offer(id) && step != Step::Rest;
        let by_first = hangs || (turn == Turn::Refused && step.part() == Part::All);
        let failure = |reason: String| Failure { step, reason: reason.into(), by_first };
        match TABLE[step as usize][turn as usize] {
            Act::Revert if turn == Turn::FirstGone || !broken(Mutation::TrustTheNew) => {
                self.revert(id, turn, text);
            }
            Act::Recall if step == Step::Canary && broken(Mutation::TrustTheCanary) => {}
            Act::Keep | Act::Revert => {}
            Act::Begin => self.begin_canary(id),
            Act::Complete => self.complete(id),
            Act::Recall => self.recall(id, text),
            Act::Connect => self.connect(id),
            Act::Compare => self.compare(id),
            Act::Note if self.has_taken(id) => {
                if let Some(second) = self.second_of(id) {
                    second.ready = true;
                }
            }
            Act::Commit => self.commit(id),
            // What is stopped stays stopped.
            Act::Promote if !self.unit(id).is_some_and(|unit| unit.state.is_up()) => {}
            Act::Promote => self.promote(id),
            Act::Confirm => self.confirm(id),
            Act::Dismiss => self.dismiss(id, text),
            Act::Bare => self.go_on_bare(id, text),
            Act::Inherit => self.inherit(id, text),
            Act::Abort => self.abort(id, &failure(text.to_owned()), turn),
            Act::Withdraw => self.withdraw(id, &failure(text.to_owned())),
            Act::Note | Act::Stray => {
                let failure = failure(format!("it said {text} out of turn"));
                match step {
                    Step::Commit | Step::RestCommit => self.withdraw(id, &failure),
                    step if step.is_canary() || step.is_commit() => self.recall(id, &failure.reason),
                    _ => self.abort(id, &failure, turn),
                }
            }
            Act::Kill => self.kill_second(id),
            Act::Settle => self.settle_handover(id),
        }
    }

    /// Whether the first was asked, and has not given everything.
    pub(super) fn owes_offer(&self, id: NodeId) -> bool {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.step.moves() && second.offered.is_none())
    }

    fn has_taken(&self, id: NodeId) -> bool {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.taken.is_some())
    }
}
