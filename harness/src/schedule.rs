//! When each scenario begins: the longest first, as many at a time as the host has processors and memory for.
//!
//! A scenario takes one place, or half a place if earlier runs have shown that it waits more than it works. Retries are
//! only made when they are asked for, and what passes by one is flaky.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use yakiros_reports::event::{Level, Outcome};

use crate::attempt::Attempt;
use crate::events::Events;
use crate::host;
use crate::options::Options;
use crate::timings::Timings;

/// What QEMU itself needs beside the guest's memory; clones share most of the guest's.
const QEMU_MEMORY_MB: u64 = 150;
/// Parts of a place: what works takes all of them, what waits takes one.
const PARTS: u32 = 2;

/// What there is for scenarios to run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Scenarios that work, at a time.
    pub workers: u32,
    /// Memory in MiB for all guests together.
    pub memory_mb: u32,
    /// Whether what waits takes less than a place.
    pub shared: bool,
}

/// What a scenario takes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    parts: u32,
    memory_mb: u32,
}

impl Places {
    /// As asked for, else what the host has. Who asks for a number gets no more at a time, whatever they do.
    pub fn of(options: &Options) -> Self {
        let memory_mb = u32::try_from(host::available_memory_mb()).unwrap_or(u32::MAX).max(1);
        let asked = options.jobs.map(|jobs| jobs as u32);
        let workers = asked.unwrap_or(host::describe().cpus).max(1);
        // What was asked for is given, whatever memory there seems to be.
        let memory_mb =
            if asked.is_some() { Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u32 } else { memory_mb };
        Self { workers, memory_mb, shared: asked.is_none() }
    }

    /// What a scenario takes. One that needs more memory than there is runs alone.
    pub fn need(&self, id: &str, memory_mb: u32, timings: &Timings) -> Need {
        let parts = if self.shared && timings.is_idle(id) { 1 } else { PARTS };
        let memory = u64::from(memory_mb) + QEMU_MEMORY_MB;
        Need { parts, memory_mb: memory.min(self.memory_mb.into()) as u32 }
    }

    /// How long scenarios of these needs and times will take, begun in this order.
    pub fn expected(&self, scenarios: impl Iterator<Item = (Need, Duration)>) -> Duration {
        let (mut free, mut memory) = (self.workers * PARTS, self.memory_mb);
        let mut running: Vec<(Duration, Need)> = Vec::new();
        let mut now = Duration::ZERO;
        for (need, time) in scenarios {
            while need.parts > free || need.memory_mb > memory {
                let Some(first) = (0..running.len()).min_by_key(|&place| running[place].0) else { break };
                let (end, done) = running.swap_remove(first);
                now = now.max(end);
                free += done.parts;
                memory += done.memory_mb;
            }
            free = free.saturating_sub(need.parts);
            memory = memory.saturating_sub(need.memory_mb);
            running.push((now + time, need));
        }
        running.into_iter().map(|(end, _)| end).max().unwrap_or_default()
    }
}

/// Puts ids into the order in which they begin: the longest first.
pub fn longest_first<T>(items: &mut [T], timings: &Timings, id: impl Fn(&T) -> String) {
    items.sort_by_key(|item| std::cmp::Reverse(timings.expected(&id(item))));
}

/// A run's scenarios in their order.
pub struct Schedule {
    /// Each with how often it was tried.
    attempts: Vec<(Attempt, Need, Rc<Cell<u32>>)>,
    places: Places,
    rounds: Option<u32>,
    until_fail: bool,
    fail_fast: bool,
    retries: u32,
}

impl Schedule {
    /// Of what is to be tried.
    pub fn new(mut attempts: Vec<Attempt>, timings: &Timings, places: &Places, options: &Options) -> Self {
        longest_first(&mut attempts, timings, Attempt::id);
        let memory_mb = |attempt: &Attempt| attempt.machine.memory_mb() * attempt.scenario.guests;
        let need = |attempt: &Attempt| places.need(&attempt.id(), memory_mb(attempt), timings);
        Self {
            attempts: attempts
                .into_iter()
                .map(|attempt| (attempt.clone(), need(&attempt), Rc::default()))
                .collect(),
            places: *places,
            rounds: rounds(options),
            until_fail: options.until_fail,
            fail_fast: options.fail_fast,
            retries: options.retries,
        }
    }

    /// Tries all of them, in as many rounds as are asked for.
    pub async fn run(&self, events: &Events) {
        // The first that failed, where nothing is to begin after that.
        let failed: Rc<RefCell<Option<String>>> = Rc::default();
        let mut round = 0;
        while self.rounds.is_none_or(|rounds| round < rounds) {
            round += 1;
            if self.rounds != Some(1) {
                let of = self.rounds.map(|rounds| format!(" of {rounds}")).unwrap_or_default();
                events.log(Level::Info, format!("round {round}{of}"));
            }
            self.round(round, &failed, events).await;
            if failed.borrow().is_some() {
                return;
            }
        }
    }

    async fn round(&self, round: u32, failed: &Rc<RefCell<Option<String>>>, events: &Events) {
        let parts = Arc::new(Semaphore::new((self.places.workers * PARTS) as usize));
        let memory = Arc::new(Semaphore::new(self.places.memory_mb as usize));
        let mut running = JoinSet::new();
        for (attempt, need, count) in &self.attempts {
            let (attempt, need, count) = (attempt.clone(), *need, Rc::clone(count));
            let failed = Rc::clone(failed);
            let (parts, memory) = (Arc::clone(&parts), Arc::clone(&memory));
            let (retries, stops) = (self.retries, self.fail_fast || self.until_fail);
            running.spawn_local(async move {
                // The semaphores are never closed, so these cannot fail; they are fair, so the order is kept.
                let _memory = memory.acquire_many(need.memory_mb).await;
                let _place = parts.acquire_many(need.parts).await;
                let stopped = failed.borrow().clone();
                match stopped {
                    Some(by) if round == 1 => attempt.skip(format!("not begun: {by} failed before")),
                    Some(_) => {}
                    None => {
                        let good = tried(&attempt, &count, retries).await;
                        if stops && !good {
                            failed.borrow_mut().get_or_insert_with(|| attempt.id());
                        }
                    }
                }
            });
        }
        while let Some(result) = running.join_next().await {
            if let Err(error) = result {
                events.log(Level::Error, format!("error: a scenario's task ended: {error}"));
            }
        }
    }
}

/// Tries a scenario, again while it fails and there are retries left; whether it was good at once.
async fn tried(attempt: &Attempt, count: &Cell<u32>, retries: u32) -> bool {
    let mut was_good = true;
    for _ in 0..=retries {
        count.set(count.get() + 1);
        if matches!(attempt.run(count.get()).await, Outcome::Passed | Outcome::Skipped) {
            break;
        }
        was_good = false;
    }
    was_good
}

/// How many rounds there are; none for as many as it takes until something fails.
fn rounds(options: &Options) -> Option<u32> {
    match options.repeat {
        Some(repeat) => Some(repeat.max(1)),
        None if options.until_fail => None,
        None => Some(options.profile.repeat.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    const SECOND: Duration = Duration::from_secs(1);

    fn places(workers: u32, memory_mb: u32) -> Places {
        Places { workers, memory_mb, shared: true }
    }

    #[test]
    fn the_longest_begins_first_and_what_waits_takes_half_a_place() {
        let timings = Timings::of(&[("a/short", 1.0, 0.9), ("a/sleeps", 30.0, 0.1), ("a/works", 20.0, 0.9)]);
        let mut ids = ["a/short", "a/new", "a/works", "a/sleeps"];
        longest_first(&mut ids, &timings, ToString::to_string);
        assert_eq!(ids, ["a/sleeps", "a/works", "a/new", "a/short"]);
        let two = places(2, 10_000);
        let parts = ids.map(|id| two.need(id, 512, &timings).parts);
        assert_eq!(parts, [1, PARTS, PARTS, PARTS]);
        let asked = Places { shared: false, ..two };
        assert_eq!(asked.need("a/sleeps", 512, &timings).parts, PARTS);
        assert_eq!(places(2, 100).need("a/works", 512, &timings).memory_mb, 100);
    }

    #[test]
    fn what_is_expected_of_a_plan() {
        let working = Need { parts: PARTS, memory_mb: 600 };
        let waiting = Need { parts: 1, memory_mb: 600 };
        let expected = |places: Places, needs: &[(Need, u32)]| {
            places.expected(needs.iter().map(|&(need, seconds)| (need, SECOND * seconds)))
        };
        let three = [(working, 4), (working, 3), (working, 2)];
        assert_eq!(expected(places(2, 10_000), &three), SECOND * 5);
        assert_eq!(expected(places(1, 10_000), &three), SECOND * 9);
        // Memory for one alone.
        assert_eq!(expected(places(2, 1_000), &three), SECOND * 9);
        // Memory for two, which is free again when one of them has ended.
        assert_eq!(expected(places(3, 1_300), &three), SECOND * 5);
        assert_eq!(expected(places(2, 10_000), &[(waiting, 5), (waiting, 5), (working, 4)]), SECOND * 5);
        assert_eq!(expected(places(2, 10_000), &[]), Duration::ZERO);
    }

    #[test]
    fn rounds_by_the_command_line_or_the_profile() {
        let of = |repeat, until_fail, profile| {
            let profile = Profile { repeat: profile, ..Profile::default() };
            rounds(&Options { profile, repeat, until_fail, ..Options::default() })
        };
        assert_eq!(of(None, false, 3), Some(3));
        assert_eq!(of(Some(2), false, 3), Some(2));
        assert_eq!(of(None, true, 1), None);
        assert_eq!(of(Some(9), true, 1), Some(9));
        assert_eq!(of(None, false, 0), Some(1));
    }
}
