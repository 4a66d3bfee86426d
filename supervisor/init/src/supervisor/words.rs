//! In which order the engine hears what processes have said, and what happens to them.
//!
//! Every channel keeps its own order, and none says anything about that of another. Where it matters, what waits in the
//! others is read first.

use std::time::Duration;

use nix::sys::signal::Signal;
use yakiros_core::engine::{Event, RunId};
use yakiros_handoff::message::Report;

use super::{Supervisor, upgraded_by};
use crate::sys;

impl Supervisor {
    /// An event, among what was said before it and not read yet, and what belongs to it.
    pub(super) fn with_what_was_said(&self, now: Duration, event: Event) -> Vec<Event> {
        let mut events = self.said_before(now, &event);
        // What a process said was read before what still waited; everything else comes after it.
        let is_word = matches!(event, Event::Notified(..) | Event::Reported(..) | Event::Garbled(..));
        let is_word = is_word && !self.may_follow_another(&event);
        let place = if is_word { 0 } else { events.len() };
        events.insert(place, event);
        tell_both_reasons(&mut events, |run| self.engine.borrow().giver_of(run));
        events
    }

    /// What processes have said whose watchdogs, or steps of a hot swap, would otherwise be late now, those that
    /// the event may upgrade, and the one whose word may be the reason for the event or decide about it.
    fn said_before(&self, now: Duration, event: &Event) -> Vec<Event> {
        let (due, handing_over, upgraded) = {
            let engine = self.engine.borrow();
            let upgraded: Vec<_> = upgraded_by(event).filter_map(|name| engine.process_of(name)).collect();
            // Who has died may leave everything to one that has said more than was read, and what a process says of
            // itself counts from SERVING on.
            let other = match event {
                Event::Reported(run, Report::Failed { .. }) | Event::Ended(run, _) => engine.other_of(*run),
                Event::Notified(run, _) if engine.is_about_to_serve(*run) => Some(*run),
                _ => None,
            };
            let due = engine.handovers_due(now).into_iter();
            let handing_over: Vec<_> = due.chain(upgraded.iter().copied()).chain(other).collect();
            (engine.watchdogs_due(now), handing_over, upgraded)
        };
        let socket = |run| Some((run, self.processes.borrow().socket(run)?));
        let sockets: Vec<_> = due.into_iter().filter_map(socket).collect();
        let said = sockets.iter().flat_map(|(run, socket)| socket.take_waiting(self, *run));
        let spoken = handing_over.iter().flat_map(|run| self.handovers.take_waiting(*run));
        let mut said: Vec<_> = said.chain(spoken).collect();
        said.extend(upgraded.into_iter().filter(|run| self.listens(*run)).map(Event::Listens));
        said
    }

    /// Whether a process has a channel and is not ended by the signal that asks for what it serves.
    fn listens(&self, run: RunId) -> bool {
        let Some(pid) = self.processes.borrow().number(run).filter(|_| self.handovers.has(run)) else {
            return false;
        };
        sys::handles(pid, Signal::SIGUSR1)
    }

    /// Whether a word may have been said after another that is not read yet: that a process failed, after the other one's
    /// that it does not give or take; or what one says of itself, after that it serves.
    fn may_follow_another(&self, event: &Event) -> bool {
        match event {
            Event::Reported(_, Report::Failed { .. }) => true,
            Event::Notified(run, _) => self.engine.borrow().is_about_to_serve(*run),
            _ => false,
        }
    }
}

/// When one of the two processes of a hot swap fails, the other finds the connection between them broken and fails too;
/// nothing says which was first. So the one that was to take over is heard first, with the reasons of both.
fn tell_both_reasons(events: &mut [Event], giver_of: impl Fn(RunId) -> Option<RunId>) {
    let pair = events.iter().enumerate().find_map(|(taker, event)| {
        let (run, generation, _) = failure(event)?;
        let from = giver_of(run)?;
        let of_giver =
            |event: &Event| failure(event).is_some_and(|(run, of, _)| (run, of) == (from, generation));
        Some((taker, events.iter().position(of_giver)?))
    });
    let Some((taker, giver)) = pair else { return };
    let also = failure(&events[giver]).map(|(_, _, why)| format!("; the old process: {why}"));
    if let Event::Reported(_, Report::Failed { why, .. }) = &mut events[taker] {
        why.extend(also);
    }
    if giver < taker {
        // It is the last that the giver has to say of this.
        events[giver..=taker].rotate_left(1);
    }
}

/// Of which process a word is that it failed, in whose hot swap, and why.
fn failure(event: &Event) -> Option<(RunId, u64, &str)> {
    match event {
        Event::Reported(run, Report::Failed { generation, why }) => Some((*run, *generation, why)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: RunId = RunId(1);
    const NEW: RunId = RunId(2);

    fn failed(run: RunId, generation: u64, why: &str) -> Event {
        Event::Reported(run, Report::Failed { generation, why: why.to_owned() })
    }

    fn told(mut events: Vec<Event>) -> Vec<(RunId, String)> {
        tell_both_reasons(&mut events, |run| (run == NEW).then_some(OLD));
        let reasons = events.iter().filter_map(failure).map(|(run, _, why)| (run, why.to_owned()));
        reasons.collect()
    }

    #[test]
    fn whoever_is_read_first_the_reasons_of_both_are_told() {
        let both = || [failed(OLD, 2, "broken pipe"), failed(NEW, 2, "too many open files")];
        let expected = vec![
            (NEW, "too many open files; the old process: broken pipe".to_owned()),
            (OLD, "broken pipe".to_owned()),
        ];
        assert_eq!(told(both().into()), expected);
        assert_eq!(told(both().into_iter().rev().collect()), expected);
    }

    #[test]
    fn what_one_of_them_says_alone_or_of_another_time_stays_as_it_is() {
        let alone = vec![failed(OLD, 2, "no memory")];
        assert_eq!(told(alone), [(OLD, "no memory".to_owned())]);
        let apart = vec![failed(OLD, 1, "late"), failed(NEW, 2, "no memory")];
        assert_eq!(told(apart), [(OLD, "late".to_owned()), (NEW, "no memory".to_owned())]);
    }

    #[test]
    fn what_the_old_one_gave_before_stays_before() {
        let mut events = vec![
            Event::Reported(OLD, Report::Ready),
            failed(OLD, 2, "broken pipe"),
            failed(NEW, 2, "too many open files"),
        ];
        tell_both_reasons(&mut events, |run| (run == NEW).then_some(OLD));
        assert!(matches!(events[0], Event::Reported(OLD, Report::Ready)), "{events:?}");
    }
}
