//! What processes say about themselves: signs of life, words about reloads and ends, that they need
//! more time, and much that means nothing.

use std::time::Duration;

use crate::engine::{Event, RunId};
use crate::notify::{Notification, Watchdog, parse};
use crate::sim::world::{Plan, Step, World};

/// Messages besides signs of life.
const MESSAGES: [&str; 9] = [
    READY,
    "STATUS=busy",
    "RELOADING=1",
    "STOPPING=1\nERRNO=5",
    "WATCHDOG=1\nSTATUS=",
    "WATCHDOG=trigger",
    "WATCHDOG_USEC=0",
    "WATCHDOG_USEC=7000000",
    "NONSENSE",
];

/// Sent only where it does not mean that the process is ready: that is planned.
const READY: &str = "READY=1";

/// How processes ask for more time than they have: hardly any, some, much, and for ever.
const EXTENSIONS: [&str; 4] = [
    "EXTEND_TIMEOUT_USEC=1000000",
    "EXTEND_TIMEOUT_USEC=20000000",
    "EXTEND_TIMEOUT_USEC=900000000",
    "EXTEND_TIMEOUT_USEC=18446744073709551615",
];

impl World {
    /// The next sign of life comes within its interval, from half of it on.
    pub(super) fn plan_beat(&mut self, run: RunId, interval: Duration) {
        let half = interval / 2;
        let more = Duration::from_millis(self.random.below(half.as_millis() as u64));
        self.plan_after(half + more, Plan::Beat(run));
    }

    /// A process says that it is alive, or falls silent for ever.
    pub(in crate::sim) fn beat(&mut self, run: RunId) -> Step {
        let Some(process) = self.model.process(run) else { return Ok(()) };
        let Some(interval) = process.declared.component.lifecycle.watchdog else { return Ok(()) };
        if process.executed.is_none() {
            self.plan_beat(run, interval);
            return Ok(());
        }
        if !self.model.calm && self.random.percent(self.options.silences) {
            return Ok(());
        }
        self.plan_beat(run, interval);
        let said = Notification { watchdog: Some(Watchdog::Beat), ..Notification::default() };
        self.tell_of(run, said)
    }

    /// One of the messages, from one of the processes that have a socket and are executed.
    pub(super) fn say_something(&mut self) -> Step {
        let speakers = self.model.processes().filter(|(_, process)| process.can_notify());
        let speakers: Vec<_> = speakers.map(|(_, process)| (process.run, process.reports_itself())).collect();
        let speaker = self.random.below(speakers.len() as u64) as usize;
        let Some((run, reports_itself)) = speakers.get(speaker).copied() else { return Ok(()) };
        let message = MESSAGES[self.random.below(MESSAGES.len() as u64) as usize];
        if reports_itself && message == READY {
            return Ok(());
        }
        self.tell_of(run, parse(message.as_bytes()))
    }

    /// Somebody who has a limit asks for more time.
    pub(super) fn ask_for_time(&mut self) -> Step {
        let limited = self.model.processes().filter(|(_, p)| p.due.is_some() && p.can_notify());
        let limited: Vec<_> = limited.map(|(_, process)| process.run).collect();
        let chosen = self.random.below(limited.len() as u64) as usize;
        let Some(run) = limited.get(chosen).copied() else { return Ok(()) };
        let message = EXTENSIONS[self.random.below(EXTENSIONS.len() as u64) as usize];
        self.tell_of(run, parse(message.as_bytes()))
    }

    /// A process says something about itself.
    fn tell_of(&mut self, run: RunId, said: Notification) -> Step {
        self.model.hear(run, &said);
        self.give(Event::Notified(run, said))
    }
}
