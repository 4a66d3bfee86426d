//! What is frozen: who may be, what is refused meanwhile, and how a new supervisor finds it. The rest is the simulation's.

use super::*;
use crate::control::Freezer;

fn freeze(bench: &mut Bench) -> Option<Answer> {
    bench.ask(0, Request::Freeze { name: "a".to_owned(), timeout_ms: Some(3000) })
}

fn frozen(more: &str) -> Bench {
    let mut bench = executed(more);
    assert_eq!(freeze(&mut bench), None);
    let run = bench.run("a");
    bench.give(Event::Frozen(run, Ok(())));
    assert!(matches!(bench.answer(), Some(Answer::Done { .. })));
    bench
}

fn mark(bench: &Bench) -> Option<Freezer> {
    bench.engine.status_page(None).components[0].freezer
}

fn refusal(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_is_not_interrupted_but_for_a_oneshot_that_runs() {
    let mut bench = Bench::new(&[&service("a", "[lifecycle]\nreadiness_file = \"/r\"")]);
    assert!(refusal(freeze(&mut bench)).contains("a is STARTING, and its start is not interrupted"));
    bench.execute("a");
    assert!(refusal(freeze(&mut bench)).contains("graphctl wait a --state ACTIVE"));
    let run = bench.run("a");
    bench.give(Event::Ready(run));
    assert_eq!(freeze(&mut bench), None);
    let mut once = Bench::new(&[&service("a", "type = \"oneshot\"")]);
    assert!(refusal(freeze(&mut once)).contains("is not interrupted"), "it has not executed yet");
    once.execute("a");
    assert_eq!(freeze(&mut once), None);
    once.end("a");
    assert!(refusal(once.answer()).contains("ended before it was frozen"));
    assert!(refusal(freeze(&mut once)).contains("does not run"));
}

#[test]
fn an_announced_end_and_the_watchdog_begin_anew_with_the_thaw() {
    let mut bench = frozen("[lifecycle]\nwatchdog_interval = 5\n[hotswap]\nshutdown_grace = 3");
    let run = bench.run("a");
    bench.give(Event::Notified(run, crate::notify::parse(b"STOPPING=1")));
    bench.now += 100 * SECOND;
    bench.give(Event::Tick);
    assert_eq!((bench.engine.state("a"), bench.engine.deadline()), (State::Active, None));
    assert_eq!(bench.ask(0, Request::Thaw { name: "a".to_owned() }), None);
    assert_eq!((mark(&bench), bench.engine.deadline()), (Some(Freezer::Thawing), None));
    bench.give(Event::Thawed(run, Ok(())));
    assert!(matches!(bench.answer(), Some(Answer::Done { .. })));
    assert_eq!((mark(&bench), bench.engine.deadline()), (None, Some(bench.now + 3 * SECOND)));
}

#[test]
fn what_cannot_be_frozen_runs_on_and_what_cannot_be_thawed_stays() {
    let mut bench = executed("[lifecycle]\nwatchdog_interval = 5");
    let run = bench.run("a");
    let deadline = bench.engine.deadline();
    assert_eq!(freeze(&mut bench), None);
    assert_eq!(bench.engine.deadline(), None, "nothing is expected as soon as it is asked for");
    bench.give(Event::Frozen(run, Err("7 (dd) hangs".into())));
    assert_eq!(refusal(bench.answer()), "7 (dd) hangs");
    assert_eq!((mark(&bench), bench.engine.deadline()), (None, deadline));
    let mut bench = frozen("");
    let run = bench.run("a");
    bench.ask(0, Request::Thaw { name: "a".to_owned() });
    bench.give(Event::Thawed(run, Err("still frozen".into())));
    assert_eq!((refusal(bench.answer()).as_str(), mark(&bench)), ("still frozen", Some(Freezer::Frozen)));
}

#[test]
fn what_is_frozen_is_neither_upgraded_nor_told_to_reload() {
    let mut bench = frozen("[lifecycle]\nreload_signal = \"SIGHUP\"");
    let name = || "a".to_owned();
    let upgrade =
        Request::Upgrade { name: name(), fallback: true, queue: true, strategy: None, timeout_ms: None };
    for request in [upgrade, Request::Reload { name: Some(name()) }] {
        assert_eq!(refusal(bench.ask(0, request)), "a is frozen; thaw it first: graphctl thaw a");
    }
    assert!(matches!(bench.ask(1000, Request::Thaw { name: name() }), Some(Answer::Refused { .. })));
    match bench.ask(0, Request::Start { name: name(), timeout_ms: None }) {
        Some(Answer::Done { message, .. }) => assert_eq!(message, "a runs and is frozen: graphctl thaw a"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_found_frozen_stays_so() {
    let mut bench = Bench::new(&[&service("a", "[lifecycle]\nwatchdog_interval = 5")]);
    let run = bench.run("a");
    bench.give(Event::Adopted { run, pid: 7 });
    bench.give(Event::Frozen(run, Ok(())));
    assert_eq!((mark(&bench), bench.engine.deadline()), (Some(Freezer::Frozen), None));
}
