//! What the processes of a hot swap say.

use yakiros_handoff::message::{Order, Report};

use super::Greeting;
use super::table::{Step, Turn};
use crate::engine::{Effect, Engine, RunId};
use crate::graph::NodeId;
use crate::mutation::{Mutation, broken};

impl Engine {
    /// A process has spoken on its channel.
    pub(in crate::engine) fn take_report(&mut self, run: RunId, report: Report) {
        if let Some(id) = self.seconds.get(&run).copied() {
            return self.take_report_of_second(id, report);
        }
        let Some(id) = self.runs.get(&run).copied() else {
            return;
        };
        if self.is_of_another_upgrade(id, &report) {
            return;
        }
        match report {
            Report::Hello { version, parts } => {
                if let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) {
                    (process.greeting, process.splits) = (Greeting::of(version), parts);
                }
            }
            Report::Offered { summary, .. } => {
                if let Some(second) = self.second_of(id).filter(|second| second.step.moves())
                    && second.offered.replace(summary).is_some()
                {
                    return self.turn(id, Turn::Refused, "it said OFFERED twice");
                }
                self.turn(id, Turn::Offered, "");
            }
            Report::Refused { why, .. } => self.turn(id, Turn::Refused, &why),
            Report::Ready => {
                if self.heir_of(id).is_some_and(|heir| std::mem::take(&mut heir.untold)) {
                    self.effects.push(Effect::Order(run, Order::Commit));
                }
            }
            Report::Serving => self.acknowledge(id),
            Report::Failed { why, .. } if self.heir_of(id).is_some() => self.disown(id, &why),
            Report::Failed { why, .. } if self.is_asked(id) => {
                let turn = if broken(Mutation::BlameTheOld) { Turn::Refused } else { Turn::Failed };
                self.turn(id, turn, &format!("the old process: {why}"));
            }
            // That is the old one.
            Report::Failed { .. } if self.unit(id).is_some_and(|unit| unit.handover.is_canary()) => {}
            Report::Failed { why, .. } => self.turn(id, Turn::Unwell, &format!("it says: {why}")),
            Report::Prepared | Report::Taken(_) => {}
        }
    }

    fn is_preparing(&self, id: NodeId) -> bool {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.step == Step::Prepare)
    }

    fn has_greeted(&self, id: NodeId) -> bool {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.process.greeting == Greeting::Understood)
    }

    /// Whether it answers a question that is not the one of now: it was read late, and the upgrade was
    /// over by then.
    fn is_of_another_upgrade(&self, id: NodeId, report: &Report) -> bool {
        let (Report::Offered { generation, .. }
        | Report::Refused { generation, .. }
        | Report::Failed { generation, .. }) = report
        else {
            return false;
        };
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.generation != *generation) && !broken(Mutation::TakeStaleWords)
    }

    /// Whether the first was asked to give, and the second is not told to serve yet.
    fn is_asked(&self, id: NodeId) -> bool {
        let second = self.unit(id).and_then(|unit| unit.handover.second());
        second.is_some_and(|second| second.step.moves() || second.step.has_moved())
    }

    fn take_report_of_second(&mut self, id: NodeId, report: Report) {
        match report {
            Report::Hello { version, parts } => {
                let greeting = Greeting::of(version);
                if let Some(second) = self.second_of(id) {
                    (second.process.greeting, second.process.splits) = (greeting, parts);
                }
                if greeting != Greeting::Understood && self.is_preparing(id) {
                    self.turn(id, Turn::Failed, &format!("it speaks version {version} of the protocol"));
                }
            }
            Report::Prepared if self.is_preparing(id) && !self.has_greeted(id) => {
                self.turn(id, Turn::Failed, "it said PREPARED without HELLO");
            }
            // It was told to begin as ever; that it is ready is said elsewhere.
            _ if self.second_of(id).is_some_and(|second| second.step == Step::Beside) => {}
            Report::Prepared => self.turn(id, Turn::Prepared, "PREPARED"),
            Report::Taken(summary) => {
                if let Some(second) = self.second_of(id).filter(|second| second.step.moves())
                    && second.taken.replace(summary).is_some()
                {
                    return self.turn(id, Turn::Failed, "it said TAKEN twice");
                }
                self.turn(id, Turn::Taken, "TAKEN");
            }
            Report::Ready => self.turn(id, Turn::Ready, "READY"),
            Report::Serving => self.turn(id, Turn::Serving, "SERVING"),
            Report::Failed { why, .. } => self.turn(id, Turn::Failed, &why),
            // Words of who serves.
            Report::Offered { .. } | Report::Refused { .. } => {
                self.turn(id, Turn::Failed, "it offers what it has not");
            }
        }
    }

    /// A process said what makes no sense, or cannot be spoken with. It is a failure of the hot swap
    /// under way, if there is one, and of nothing else.
    pub(in crate::engine) fn take_garbage(&mut self, run: RunId, why: &str) {
        if let Some(id) = self.seconds.get(&run).copied() {
            self.turn(id, Turn::Failed, why);
        } else if let Some(id) = self.runs.get(&run).copied() {
            if self.heir_of(id).is_some() {
                return self.disown(id, why);
            }
            self.turn(id, Turn::Refused, why);
        }
    }
}
