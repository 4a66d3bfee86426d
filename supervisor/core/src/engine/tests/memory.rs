//! Want of memory: what follows the kill of a process by the policy, in which state.

use super::*;
use crate::journal::{Cause, OutOfMemory, Victim};

fn killed(main: bool) -> OutOfMemory {
    let victim = Some(Victim { pid: 7, name: "hog".into() });
    OutOfMemory {
        kills: 1,
        limit: Some(64 << 20),
        usage: Some(50 << 20 | 1),
        victim,
        main,
        ..OutOfMemory::default()
    }
}

fn on_oom(policy: &str) -> String {
    format!("[resources]\non_oom = {policy:?}\n")
}

/// The records of out of memory: whether the state changed with each.
fn told(bench: &Bench) -> Vec<(State, State)> {
    let records = bench.engine.journal().since(0);
    records.filter(|r| matches!(r.cause, Cause::OutOfMemory(_))).map(|r| (r.from, r.to)).collect()
}

#[test]
fn a_kill_says_limit_usage_and_victim() {
    let texts = [
        (killed(true), "out of memory: memory.max 64M, usage 50.0M, victim 7 (hog)"),
        (killed(false), "out of memory: memory.max 64M, usage 50.0M, victim 7 (hog), not its first process"),
        (
            OutOfMemory { kills: 3, main: true, ..OutOfMemory::default() },
            "out of memory: victim its first process, 3 processes killed",
        ),
        (
            OutOfMemory {
                kills: 1,
                scope: Some("the machine".into()),
                limit: Some(1),
                shared: true,
                ..OutOfMemory::default()
            },
            "out of memory: no room in the machine, victim one that it has started, in a group that it shares",
        ),
    ];
    for (what, text) in texts {
        assert_eq!(what.to_string(), text);
    }
}

#[test]
fn what_follows_a_kill_by_table() {
    use State::{Active, Failed, ReadyWait, Starting, Stopping};
    // Policy, whether it was the component's own process, and the state just after it and after the end that follows.
    let cases = [
        ("restart", false, Stopping, Starting),
        ("stop", false, Stopping, Failed),
        ("continue", false, Active, Active),
        ("restart", true, Active, Starting),
        ("stop", true, Active, Failed),
        ("continue", true, Active, Starting),
    ];
    for (policy, main, after, then) in cases {
        let mut bench = executed(&on_oom(policy));
        let run = bench.run("a");
        bench.give(Event::OutOfMemory(run, killed(main)));
        assert_eq!(bench.engine.state("a"), after, "{policy} {main}");
        assert_eq!(told(&bench), [(Active, after)], "{policy} {main}: told at once, once");
        if after == Stopping || main {
            let exit = if main { Exit::Signal(9) } else { Exit::Signal(15) };
            bench.give(Event::Ended(run, exit));
        }
        assert_eq!(bench.engine.state("a"), then, "{policy} {main}");
        let failed = bench.engine.journal().since(0).find(|record| record.to == Failed);
        let named = failed.is_none_or(|record| matches!(record.cause, Cause::OutOfMemory(_)));
        assert!(named, "{policy} {main}: {failed:?}");
        assert_eq!(bench.engine.status_page(None).components[0].oom_kills, 1);
    }
    // Before it is ready, and not when it is on its way down.
    let mut bench = executed("[lifecycle]\nreadiness_file = \"/r\"\n");
    let run = bench.run("a");
    assert_eq!(bench.engine.state("a"), ReadyWait);
    bench.give(Event::OutOfMemory(run, killed(false)));
    assert_eq!(bench.engine.state("a"), Stopping);
    bench.give(Event::OutOfMemory(run, killed(false)));
    assert_eq!(told(&bench), [(ReadyWait, Stopping), (Stopping, Stopping)]);
}

#[test]
fn what_stays_failed_comes_back_when_it_is_asked_for() {
    let fall = || {
        let mut bench = executed(&on_oom("stop"));
        let run = bench.run("a");
        bench.give(Event::OutOfMemory(run, killed(false)));
        (bench, run)
    };
    let (mut bench, run) = fall();
    bench.give(Event::Ended(run, Exit::Signal(15)));
    bench.now += 1000 * SECOND;
    bench.give(Event::Tick);
    let (_, detail) = health_of(&bench, "a");
    assert!(detail.is_some_and(|detail| detail.ends_with("not started again until it is asked for")));
    bench.ask(0, Request::Start { name: "a".into(), timeout_ms: None });
    assert_eq!(bench.engine.state("a"), State::Starting);
    // Asked for while it is being stopped.
    let (mut bench, run) = fall();
    bench.ask(0, Request::Start { name: "a".into(), timeout_ms: None });
    bench.give(Event::Ended(run, Exit::Signal(15)));
    assert_eq!(bench.engine.state("a"), State::Starting);
}

#[test]
fn a_oneshot_that_loses_a_process_has_failed_and_is_not_run_again() {
    let mut bench = Bench::new(&["[component]\nname = \"a\"\nbinary = \"/a\"\ntype = \"oneshot\"\n"]);
    bench.execute("a");
    let run = bench.run("a");
    bench.give(Event::OutOfMemory(run, killed(false)));
    assert_eq!(bench.engine.state("a"), State::Stopping);
    bench.give(Event::Ended(run, Exit::Code(0)));
    assert_eq!(bench.engine.state("a"), State::Failed);
}

#[test]
fn a_kill_in_a_shared_group_is_told_only() {
    let mut bench = executed("");
    let run = bench.run("a");
    bench.give(Event::OutOfMemory(run, OutOfMemory { shared: true, ..killed(false) }));
    assert_eq!(told(&bench), [(State::Active, State::Active)]);
}
