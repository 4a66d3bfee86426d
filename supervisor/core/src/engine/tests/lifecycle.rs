//! Starts, ends and stops: pauses, late events, who is waited for, shutdown.

use super::*;
use crate::engine::unit::RECENT_LIMIT;

#[test]
fn pauses_grow_and_are_forgotten_after_a_healthy_window() {
    let mut bench = executed("[lifecycle]\nrestart_max = 1");
    bench.end("a");
    bench.execute("a");
    for pause in [30, 60, 120, 300, 300] {
        bench.end("a");
        assert_eq!(bench.engine.state("a"), State::Backoff);
        let due = bench.engine.deadline().expect("a deadline");
        assert_eq!(due.saturating_sub(bench.now).as_secs(), pause);
        bench.now = due;
        bench.give(Event::Tick);
        bench.execute("a");
        assert_eq!(bench.engine.state("a"), State::Active);
    }
    bench.now += 31 * SECOND;
    bench.end("a");
    assert_eq!(bench.engine.state("a"), State::Starting, "at once again");
}

#[test]
fn a_rule_that_allows_many_restarts_keeps_few_times() {
    for (most, counted) in [(2, 2..=2), (1024, 1024..=1024), (3000, 2998..=3000)] {
        let more = format!("[lifecycle]\nrestart_max = {most}\nrestart_window = \"100h\"");
        let mut bench = executed(&more);
        for _ in 0..=most {
            let run = bench.run("a");
            bench.effects.clear();
            bench.give(Event::Ended(run, Exit::Code(1)));
            if bench.engine.state("a") == State::Backoff {
                break;
            }
            assert!(bench.engine.find("a").is_some_and(|unit| unit.recent.len() <= RECENT_LIMIT));
            bench.execute("a");
        }
        // The last one is that which comes after a pause.
        let restarts = bench.engine.find("a").map_or(0, |unit| unit.restarts - 1);
        assert!(counted.contains(&restarts), "{restarts} of {most}");
    }
}

#[test]
fn late_events_of_an_old_process_are_ignored() {
    let mut bench = executed("");
    let old = bench.run("a");
    bench.end("a");
    bench.execute("a");
    bench.give(Event::Ended(old, Exit::Code(0)));
    bench.give(Event::NotExecuted { run: old, step: "test".into(), errno: 1 });
    assert_eq!(bench.engine.state("a"), State::Active);
}

#[test]
fn what_is_not_supported_fails_with_its_name() {
    let mut bench = Bench::new(&[&service("a", "")]);
    let run = bench.run("a");
    bench.give(Event::Unsupported { run, what: "isolation.root".into() });
    assert_eq!(bench.engine.state("a"), State::Failed);
    let detail = health_of(&bench, "a").1.expect("a reason");
    assert!(detail.starts_with("isolation.root is not supported by this version"), "{detail}");
}

#[test]
fn who_needs_nothing_that_goes_in_the_same_batch_is_not_waited_for() {
    let provides = "[provides]\ncapabilities = [\"x\"]";
    let requires = "[requires]\ncapabilities = [\"x\"]";
    for (how, file, text) in [
        ("it lets go", "2.toml", service("user", "")),
        ("it finds it elsewhere", "1.toml", service("other", provides)),
    ] {
        let files = [service("base", provides), service("other", ""), service("user", requires)];
        let mut bench = Bench::new(&files.each_ref().map(String::as_str));
        for name in ["base", "other", "user"] {
            bench.execute(name);
        }
        bench.change(&[("0.toml", None), (file, Some(&text))]);
        assert!(bench.has_told(bench.run("base")), "{how}");
        assert_eq!(
            bench.states(["base", "other", "user"]),
            [State::Stopping, State::Active, State::Active],
            "{how}"
        );
    }
}

#[test]
fn nobody_waits_in_a_ring_that_a_change_makes_while_a_stop_begins() {
    let a = service("a", "[provides]\ncapabilities = [\"x\"]");
    let b = service("b", "[requires]\ncapabilities = [\"x\"]");
    let mut bench = Bench::new(&[&a, &b]);
    bench.execute("a");
    bench.execute("b");
    let [run_a, run_b] = ["a", "b"].map(|name| bench.run(name));
    // What came together: `a` gives itself up and waits for `b`, which needs it; then it is `a` that
    // needs `b`, which is started anew.
    let a = format!("{a}\n[requires]\ncapabilities = [\"y\"]");
    let b = service("b", "args = [\"new\"]\n[provides]\ncapabilities = [\"y\"]");
    let together = [
        Event::Notified(run_a, crate::notify::parse(b"WATCHDOG=trigger")),
        changed(&[("0.toml", Some(&a)), ("1.toml", Some(&b))]),
    ];
    let effects = bench.engine.handle_all(bench.now, together);
    bench.effects.extend(effects);
    assert_eq!(bench.states(["a", "b"]), [State::Stopping; 2]);
    assert!(bench.has_told(run_b) && !bench.has_aborted(run_a));
    bench.end("b");
    assert!(bench.has_aborted(run_a));
}

#[test]
fn what_fails_while_a_cycle_catches_it_ends_up_in_the_cycle() {
    let ready = "[lifecycle]\nreadiness = \"notify\"\nreadiness_timeout = 1";
    let a = |more: &str| service("a", &format!("{ready}\n[provides]\ncapabilities = [\"x\"]\n{more}"));
    let mut bench = Bench::new(&[&a("")]);
    bench.execute("a");
    bench.now += SECOND;
    bench.give(Event::Tick);
    assert_eq!(bench.engine.state("a"), State::Stopping, "not ready in time");
    bench.declare("0.toml", &a("[requires]\ncapabilities = [\"x\"]"));
    bench.end("a");
    assert_eq!(bench.engine.state("a"), State::Cycle);
    bench.declare("0.toml", &a(""));
    assert_eq!(bench.engine.state("a"), State::Starting);
}

#[test]
fn a_hung_shutdown_ends_regardless() {
    let mut bench = executed("");
    bench.give(Event::Halt(Halt::PowerOff));
    while !bench.effects.iter().any(|e| matches!(e, Effect::Halt(_))) {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
    }
    assert!(bench.now <= 70 * SECOND, "{:?}", bench.now);
}
