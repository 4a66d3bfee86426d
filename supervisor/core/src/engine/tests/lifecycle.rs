//! Starts, ends and stops: pauses, late events, who is waited for, shutdown.

use super::*;

#[test]
fn pauses_grow_and_are_forgotten_after_a_healthy_window() {
    let mut bench = Bench::new(&[&service("a", "[lifecycle]\nrestart_max = 1")]);
    bench.execute("a");
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
fn late_events_of_an_old_process_are_ignored() {
    let mut bench = Bench::new(&[&service("a", "")]);
    bench.execute("a");
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
fn who_lets_go_in_the_same_batch_is_not_waited_for() {
    let provider = service("base", "[provides]\ncapabilities = [\"base\"]");
    let mut bench = Bench::new(&[&provider, &service("user", "[requires]\ncapabilities = [\"base\"]")]);
    bench.execute("base");
    bench.execute("user");
    let base = bench.run("base");
    let component = parse(&service("user", "")).component.expect("a component");
    let content = FileContent::Component(Box::new(component));
    bench.give(Event::Files(vec![
        FileChange { file: "0.toml".to_owned(), content: FileContent::Gone },
        FileChange { file: "1.toml".to_owned(), content },
    ]));
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Terminate(run) if *run == base)));
    assert_eq!(bench.engine.state("user"), State::Active, "nothing that it needs has gone");
}

#[test]
fn who_finds_it_elsewhere_in_the_same_batch_is_not_waited_for() {
    let provides = "[provides]\ncapabilities = [\"x\"]";
    let user = service("user", "[requires]\ncapabilities = [\"x\"]");
    let mut bench = Bench::new(&[&service("old", provides), &service("new", ""), &user]);
    for name in ["old", "new", "user"] {
        bench.execute(name);
    }
    let old = bench.run("old");
    let component = parse(&service("new", provides)).component.expect("a component");
    let content = FileContent::Component(Box::new(component));
    bench.give(Event::Files(vec![
        FileChange { file: "0.toml".to_owned(), content: FileContent::Gone },
        FileChange { file: "1.toml".to_owned(), content },
    ]));
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Terminate(run) if *run == old)));
    assert_eq!(bench.engine.state("user"), State::Active, "nothing that it needs has gone");
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
    let mut bench = Bench::new(&[&service("a", "")]);
    bench.execute("a");
    bench.give(Event::Halt(Halt::PowerOff));
    while !bench.effects.iter().any(|e| matches!(e, Effect::Halt(_))) {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
    }
    assert!(bench.now <= 70 * SECOND, "{:?}", bench.now);
}
