//! What the processes of a hot swap say.

use yakiros_handoff::message::{Order, Report};

use super::Greeting;
use super::table::{Step, Turn};
use crate::engine::{Effect, Engine, RunId};
use crate::graph::NodeId;

impl Engine {
    /// A process has spoken on its channel.
    pub(in crate::engine) fn take_report(&mut self, run: RunId, report: Report) {
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
                if let Some(second) = self.second_of(id).filter(|second| second.step == Step::Move)
                    && second.offered.replace(summary).is_some()
                {
                    return self.turn(id, Turn::Refused, "it said OFFERED twice");
                }
                self.turn(id, Turn::Offered, "");
            }
            Report::Refused(reason) => self.turn(id, Turn::Refused, &reason),
            Report::Ready => {
                let process = self.unit_mut(id).and_then(|unit| unit.process.as_mut());
                if process.is_some_and(|process| std::mem::take(&mut process.awaits_commit)) {
                    // While it is being stopped the timer is that of its grace.
                    if self.unit(id).is_some_and(|unit| unit.state.is_up()) {
                        self.disarm_unit(id);
                        self.await_announced_end(id);
                    }
                    self.effects.push(Effect::Order(run, Order::Commit));
                    self.follow_change(id);
                }
            }
            Report::Failed(reason) => self.turn(id, Turn::Unwell, &format!("it says: {reason}")),
            Report::Prepared | Report::Taken(_) | Report::Serving => {}
        }
    }

    fn take_report_of_second(&mut self, id: NodeId, report: Report) {
        match report {
            Report::Hello { version } => {
                if let Some(second) = self.second_of(id) {
                    second.process.greeting = Greeting::of(version);
                }
            }
            // It was told to begin as ever; that it is ready is said elsewhere.
            _ if self.second_of(id).is_some_and(|second| second.step == Step::Beside) => {}
            Report::Prepared => self.turn(id, Turn::Prepared, "PREPARED"),
            Report::Taken(summary) => {
                if let Some(second) = self.second_of(id).filter(|second| second.step == Step::Move)
                    && second.taken.replace(summary).is_some()
                {
                    return self.turn(id, Turn::Failed, "it said TAKEN twice");
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
    pub(in crate::engine) fn take_garbage(&mut self, run: RunId, why: &str) {
        if let Some(id) = self.seconds.get(&run).copied() {
            self.turn(id, Turn::Failed, why);
        } else if let Some(id) = self.runs.get(&run).copied() {
            self.turn(id, Turn::Refused, why);
        }
    }
}
