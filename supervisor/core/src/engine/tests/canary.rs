//! Canaries: who is told what, and who is blamed.

use yakiros_handoff::message::{Part, Report, Summary, VERSION};

use super::*;
use crate::component::Strategy;
use crate::notify;

const CANARY: &str = "[lifecycle]\nhandoff = \"fd-passing\"\nwatchdog_interval = 5\n\
                      [hotswap]\nstrategy = \"canary\"\nprobation = 60\n";

const GIVEN: Summary = Summary { descriptors: 1, state: 0, digest: 3 };

const GREETING: Report = Report::Hello { version: VERSION, parts: true };

impl Bench {
    fn says(&mut self, run: RunId, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            self.give(Event::Reported(run, report));
        }
    }

    /// The part that the newest transfer is of.
    fn part(&self) -> Option<Part> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Connect { part, .. } => Some(*part),
            _ => None,
        })
    }

    fn ordered(&self, run: RunId, name: &str) -> bool {
        let is_it = |effect: &Effect| matches!(effect, Effect::Order(to, order) if *to == run && order.to_string().starts_with(name));
        self.effects.iter().any(is_it)
    }

    fn refusal(&self) -> String {
        match self.answer() {
            Some(Answer::Refused { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    fn tick_at(&mut self, now: Duration) {
        self.now = now;
        self.give(Event::Tick);
    }
}

/// A component that is up, and what is asked for.
fn asked(text: &str, greeting: Report, fallback: bool, strategy: Option<Strategy>) -> (Bench, RunId) {
    let mut bench = executed(text);
    let first = bench.run("a");
    bench.says(first, [greeting]);
    let name = "a".to_owned();
    bench.ask(0, Request::Upgrade { name, fallback, queue: false, strategy, timeout_ms: None });
    (bench, first)
}

/// A canary that is about to serve: both processes.
fn lent(fallback: bool) -> (Bench, RunId, RunId) {
    let (mut bench, first) = asked(CANARY, GREETING, fallback, None);
    let second = bench.run("a");
    bench.execute("a");
    bench.says(second, [GREETING, Report::Prepared]);
    assert_eq!(bench.part(), Some(Part::Listeners));
    (bench, first, second)
}

fn serving() -> (Bench, RunId, RunId) {
    let (mut bench, first, second) = lent(false);
    bench.says(first, [Report::Offered { generation: 2, summary: GIVEN }]);
    bench.says(second, [Report::Taken(GIVEN), Report::Ready]);
    assert!(bench.ordered(second, "COMMIT"));
    bench.says(second, [Report::Serving]);
    assert_eq!(bench.engine.handover_step("a"), Some("canary"));
    assert_eq!(bench.engine.process_of("a"), Some(first), "it is the component's until the end");
    bench.effects.clear();
    (bench, first, second)
}

#[test]
fn a_canary_that_lasts_gets_the_rest_and_only_then_is_the_old_one_released() {
    let (mut bench, first, second) = serving();
    let end = bench.now + 60 * SECOND;
    while bench.now < end {
        for run in [first, second] {
            bench.give(Event::Notified(run, notify::parse(b"WATCHDOG=1")));
        }
        assert!(bench.effects.is_empty(), "both serve: {:?}", bench.effects);
        bench.tick_at(bench.now + 4 * SECOND);
    }
    assert_eq!(bench.part(), Some(Part::Rest));
    assert!(!bench.ordered(first, "RELEASE"));
    bench.says(first, [Report::Offered { generation: 2, summary: GIVEN }]);
    bench.says(second, [Report::Taken(GIVEN), Report::Ready, Report::Serving]);
    assert!(bench.ordered(second, "COMMIT") && bench.ordered(first, "RELEASE"));
    assert_eq!(bench.engine.process_of("a"), Some(second));
    assert!(matches!(bench.answer(), Some(Answer::Upgraded(done)) if done.strategy == Strategy::Canary));
}

#[test]
fn a_silent_canary_is_ended_and_the_old_one_accepts_when_it_is_gone() {
    let (mut bench, first, second) = serving();
    bench.now += 4 * SECOND;
    bench.give(Event::Notified(first, notify::parse(b"WATCHDOG=1")));
    assert_eq!(bench.engine.watchdogs_due(bench.now + SECOND), [second]);
    bench.tick_at(bench.now + SECOND);
    assert!(bench.has_killed(second) && !bench.has_aborted(first) && !bench.ordered(first, "ABORT"));
    // A word that comes too late changes nothing.
    bench.says(second, [Report::Serving]);
    bench.give(Event::Ended(second, Exit::Signal(9)));
    assert!(bench.ordered(first, "ABORT"));
    assert!(bench.refusal().contains("no sign of life"), "{}", bench.refusal());
    assert_eq!(bench.engine.state("a"), State::Active);
}

#[test]
fn an_old_process_that_is_silent_is_stopped_with_its_canary() {
    let (mut bench, first, second) = serving();
    bench.now += 4 * SECOND;
    bench.give(Event::Notified(second, notify::parse(b"WATCHDOG=1")));
    bench.tick_at(bench.now + SECOND);
    assert!(bench.has_aborted(first) && bench.has_told(second) && !bench.has_killed(second));
    assert!(bench.refusal().contains("is being stopped"));
}

#[test]
fn who_refuses_to_lend_serves_on_and_who_hangs_is_restarted() {
    let (mut bench, first, second) = lent(true);
    bench.says(first, [Report::Refused { generation: 2, why: "never".into() }]);
    assert!(bench.has_killed(second) && !bench.has_told(first));
    assert!(bench.refusal().contains("\"lend\": never"), "{}", bench.refusal());

    let (mut bench, first, second) = lent(true);
    bench.tick_at(bench.now + HANDOVER_LIMIT);
    assert!(bench.has_killed(second) && bench.has_told(first));
}

#[test]
fn what_cannot_be_a_canary_is_said_before_anything_begins() {
    let canary = Some(Strategy::Canary);
    let whole = || Report::Hello { version: VERSION, parts: false };
    let passes = "[lifecycle]\nhandoff = \"fd-passing\"\n";
    for (text, fallback, part) in [
        ("", true, "lifecycle.handoff"),
        (passes, true, "hotswap.probation"),
        (CANARY, false, "without --no-fallback"),
    ] {
        let (bench, _) = asked(text, whole(), fallback, canary);
        assert!(bench.refusal().contains(part), "{}", bench.refusal());
    }
    // The new one says what it can when it is there.
    for fallback in [false, true] {
        let (mut bench, first) = asked(CANARY, GREETING, fallback, None);
        let second = bench.run("a");
        bench.execute("a");
        bench.says(second, [whole(), Report::Prepared]);
        if fallback {
            assert_eq!(bench.part(), Some(Part::All));
        } else {
            assert!(bench.has_killed(second) && !bench.ordered(first, "ABORT"));
            assert!(bench.refusal().contains("parts=2"), "{}", bench.refusal());
        }
    }
}

#[test]
fn a_canary_whose_old_process_ends_is_told_that_it_is_alone() {
    let (mut bench, first, second) = serving();
    bench.give(Event::Ended(first, Exit::Signal(11)));
    assert_eq!((bench.engine.process_of("a"), bench.engine.state("a")), (Some(second), State::Active));
    assert!(bench.ordered(second, "COMMIT"));
    assert!(matches!(bench.answer(), Some(Answer::Upgraded(_))));
}
