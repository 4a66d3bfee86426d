//! Hot swaps of programs that speak no protocol: two serve side by side.

use super::*;
use crate::control::{UpgradeForm, UpgradeLevel, Upgraded};
use crate::descriptors::{Origin, counted};
use crate::notify;

/// A component that is up, for which a listener is held and whose process never said HELLO.
fn serving(lifecycle: &str) -> Bench {
    let text = service("a", &format!("[lifecycle]\nhandoff = \"fd-passing\"\n{lifecycle}"));
    let mut bench = Bench::new(&[&text]);
    bench.execute("a");
    let run = bench.run("a");
    bench.give(Event::Notified(run, notify::parse(b"READY=1")));
    bench.give(Event::Held("a".into(), counted([(Origin::Socket, "http")])));
    assert_eq!(bench.engine.state("a"), State::Active);
    bench
}

fn upgrade(bench: &mut Bench) -> Option<Answer> {
    bench.ask(
        0,
        Request::Upgrade {
            name: "a".to_owned(),
            fallback: false,
            queue: false,
            strategy: None,
            timeout_ms: None,
        },
    )
}

fn spawned_beside(bench: &Bench, run: RunId) -> bool {
    let beside = |effect: &Effect| matches!(effect, Effect::Spawn { run: spawned, place, .. } if *spawned == run && *place == Place::Beside);
    bench.effects.iter().any(beside)
}

/// How often its state changed.
fn changes(bench: &Bench) -> usize {
    let is_change = |effect: &&Effect| matches!(effect, Effect::Changed(record) if record.from != record.to);
    bench.effects.iter().filter(is_change).count()
}

#[test]
fn the_second_takes_the_place_of_the_first_when_it_is_ready_as_declared() {
    let mut bench = serving("readiness = \"notify\"");
    let (first, before) = (bench.run("a"), changes(&bench));
    assert_eq!(upgrade(&mut bench), None, "it waits");
    let second = bench.run("a");
    assert!(spawned_beside(&bench, second));
    bench.execute("a");
    assert!(!bench.has_told(first), "it is executed and not ready");
    // What belongs to the protocol means nothing here.
    for report in [Report::Prepared, Report::Ready] {
        bench.give(Event::Reported(second, report));
    }
    assert_eq!(bench.engine.process_of("a"), Some(first));
    bench.give(Event::Notified(second, notify::parse(b"STATUS=up\nREADY=1")));
    assert!(bench.has_told(first) && !bench.has_killed(first));
    assert_eq!(bench.engine.process_of("a"), Some(second));
    let Some(Answer::Upgraded(Upgraded { level, form, gap_us, descriptors, state_bytes, .. })) =
        bench.answer()
    else {
        panic!("{:?}", bench.answer());
    };
    let told = (level, form, gap_us, descriptors, state_bytes);
    assert_eq!(told, (UpgradeLevel::FdPassing, Some(UpgradeForm::Listeners), Some(0), Some(1), None));
    assert_eq!(changes(&bench), before, "the state stays as it is");
    // The first has its grace, and is killed after that.
    bench.now += 10 * SECOND;
    bench.give(Event::Tick);
    assert!(bench.has_killed(first));
    bench.give(Event::Ended(first, Exit::Signal(9)));
    assert_eq!(bench.engine.state("a"), State::Active);
}

#[test]
fn one_that_has_nothing_to_say_is_ready_once_it_is_executed() {
    let mut bench = serving("");
    let first = bench.run("a");
    upgrade(&mut bench);
    bench.execute("a");
    assert!(bench.has_told(first));
    assert!(matches!(bench.answer(), Some(Answer::Upgraded(_))));
}

#[test]
fn a_second_that_fails_leaves_the_first_serving() {
    for (is_late, why) in [(true, "is not ready within its time"), (false, "exited with status 1")] {
        let mut bench = serving("readiness = \"notify\"");
        let first = bench.run("a");
        upgrade(&mut bench);
        bench.execute("a");
        let second = bench.run("a");
        if is_late {
            bench.now += 30 * SECOND;
            bench.give(Event::Tick);
        } else {
            bench.give(Event::Ended(second, Exit::Code(1)));
        }
        let Some(Answer::Refused { message, .. }) = bench.answer() else { panic!("{:?}", bench.answer()) };
        assert!(message.contains(why) && message.ends_with("the old process serves on"), "{message}");
        assert_eq!((bench.engine.process_of("a"), bench.engine.state("a")), (Some(first), State::Active));
        let ordered = bench.effects.iter().any(|effect| matches!(effect, Effect::Order(..)));
        assert!(!bench.has_told(first) && !ordered, "it is told nothing");
    }
}

#[test]
fn the_first_that_ends_meanwhile_is_restarted_by_the_rule() {
    let mut bench = serving("readiness = \"notify\"");
    let first = bench.run("a");
    upgrade(&mut bench);
    bench.execute("a");
    let second = bench.run("a");
    bench.give(Event::Ended(first, Exit::Signal(11)));
    assert!(bench.has_killed(second));
    bench.give(Event::Ended(second, Exit::Signal(9)));
    let third = bench.run("a");
    assert!(third != second && !spawned_beside(&bench, third));
}

#[test]
fn without_anything_held_it_is_no_way() {
    let mut bench = serving("");
    bench.give(Event::Held("a".into(), counted([])));
    let Some(Answer::Refused { message, .. }) = upgrade(&mut bench) else { panic!("{:?}", bench.answer()) };
    assert!(message.contains("has not said that it can hand over (HELLO)"), "{message}");
}

/// A component that is up, and whose process listens for the signal that asks it to give.
fn listening() -> (Bench, RunId) {
    let text = service("a", "[lifecycle]\nhandoff = \"fd-passing\"\nreadiness = \"notify\"\n");
    let mut bench = Bench::new(&[&text]);
    bench.execute("a");
    let run = bench.run("a");
    bench.give(Event::Notified(run, notify::parse(b"READY=1")));
    bench.give(Event::Listens(run));
    (bench, run)
}

/// Begin an upgrade of it. Who is to receive what the first gives.
fn ask_by_signal(bench: &mut Bench, first: RunId) -> RunId {
    assert_eq!(upgrade(bench), None, "it waits");
    let second = bench.run("a");
    bench.execute("a");
    let asks = |effect: &Effect| matches!(effect, Effect::Relay { giver, taker, .. } if (*giver, *taker) == (first, second));
    assert!(bench.effects.iter().any(asks));
    second
}

#[test]
fn what_is_asked_for_by_a_signal_has_to_arrive_before_the_first_is_told_to_end() {
    for ready_first in [true, false] {
        let (mut bench, first) = listening();
        let second = ask_by_signal(&mut bench, first);
        let ready = || Event::Notified(second, notify::parse(b"READY=1"));
        let relayed = || Event::Relayed(second, Relayed::Whole(2));
        bench.give(if ready_first { ready() } else { relayed() });
        assert!(!bench.has_told(first));
        bench.give(if ready_first { relayed() } else { ready() });
        assert!(bench.has_told(first) && !bench.has_killed(first));
        assert_eq!(bench.engine.process_of("a"), Some(second));
        let Some(Answer::Upgraded(Upgraded { form, gap_us, descriptors, state_bytes, .. })) = bench.answer()
        else {
            panic!("{:?}", bench.answer());
        };
        let told = (form, gap_us, descriptors, state_bytes);
        assert_eq!(told, (Some(UpgradeForm::Signal), Some(0), Some(2), None));
    }
}

#[test]
fn who_was_asked_by_a_signal_is_told_when_the_other_does_not_take() {
    for (event, why) in [
        (
            Event::Relayed(RunId(2), Relayed::NotGiven("it gives nothing".into())),
            "the old process: it gives nothing",
        ),
        (Event::Relayed(RunId(2), Relayed::NotTaken("nothing is passed on".into())), "nothing is passed on"),
        (Event::Ended(RunId(2), Exit::Code(1)), "the new process exited with status 1"),
    ] {
        let (mut bench, first) = listening();
        assert_eq!(ask_by_signal(&mut bench, first), RunId(2));
        bench.give(event);
        let told = |effect: &Effect| matches!(effect, Effect::Order(run, Order::Abort(_)) if *run == first);
        assert!(bench.effects.iter().any(told), "{why}");
        assert!(!bench.has_told(first) && bench.engine.state("a") == State::Active);
        let Some(Answer::Refused { message, .. }) = bench.answer() else { panic!("{:?}", bench.answer()) };
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn who_gives_nothing_when_it_is_asked_by_a_signal_is_restarted_as_declared() {
    let (mut bench, first) = listening();
    bench.ask(
        0,
        Request::Upgrade {
            name: "a".to_owned(),
            fallback: true,
            queue: false,
            strategy: None,
            timeout_ms: None,
        },
    );
    let second = bench.run("a");
    bench.execute("a");
    bench.give(Event::Relayed(second, Relayed::NotGiven("it gives nothing".into())));
    assert!(bench.has_killed(second) && bench.has_told(first));
    assert_eq!(bench.answer(), None, "it is answered when the new one is there");
}
