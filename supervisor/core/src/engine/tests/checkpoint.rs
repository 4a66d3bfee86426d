//! Checkpoints: who may have one, what follows one that is made or fails, and what is made from it. The rest is the
//! simulation's.

use super::*;
use crate::checkpoint::{After, Made, Origin, Written};
use crate::control::{CheckpointMark, UpgradeLevel};
use crate::journal::{Cause, CheckpointStep};

const ENABLED: &str = "[checkpoint]\nenabled = true\n";
const MOVES: &str = "[lifecycle]\nhandoff = \"checkpoint\"\n[checkpoint]\nenabled = true\n";
const WARM: &str = "[checkpoint]\nenabled = true\nwarm_start = true\n";

fn written(id: &str) -> Written {
    Written { id: id.into(), bytes: 4096, pages: Some(1), frozen_us: Some(2000), took_us: 3000 }
}

fn made(id: &str) -> Made {
    Made { id: id.into(), took_us: 5000 }
}

fn checkpoint(bench: &mut Bench, after: After) -> Option<Answer> {
    bench.ask(0, Request::Checkpoint { name: "a".to_owned(), after, timeout_ms: None })
}

fn restore(bench: &mut Bench, fallback: bool) -> Option<Answer> {
    let id = Some("one".to_owned());
    bench.ask(0, Request::Restore { name: "a".to_owned(), id, fallback, timeout_ms: None })
}

fn upgrade(bench: &mut Bench, fallback: bool) -> Option<Answer> {
    let name = "a".to_owned();
    bench.ask(0, Request::Upgrade { name, fallback, queue: false, strategy: None, timeout_ms: None })
}

fn mark(bench: &Bench) -> Option<CheckpointMark> {
    bench.engine.status_page(None).components[0].checkpoint
}

fn refusal(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

/// What the performer was last asked to write down, and for what.
fn asked(bench: &Bench) -> Option<(RunId, After)> {
    bench.effects.iter().rev().find_map(|effect| match effect {
        Effect::Checkpoint { run, after, .. } => Some((*run, *after)),
        _ => None,
    })
}

/// What the newest process is made from.
fn origin(bench: &Bench) -> Option<String> {
    let spawned = bench.effects.iter().rev().find_map(|effect| match effect {
        Effect::Spawn { origin, .. } => Some(origin.as_ref().and_then(|origin| origin.id.as_deref())),
        _ => None,
    });
    spawned.expect("something was started").map(str::to_owned)
}

fn continued(bench: &Bench, of: RunId) -> usize {
    bench.effects.iter().filter(|effect| matches!(effect, Effect::Continue(run) if *run == of)).count()
}

fn causes(bench: &Bench) -> Vec<Cause> {
    bench.engine.journal().since(0).map(|record| record.cause.clone()).collect()
}

#[test]
fn what_keeps_no_checkpoints_says_where_to_enable_them() {
    let mut bench = executed("");
    let message = refusal(checkpoint(&mut bench, After::Run));
    assert_eq!(message, "checkpoints of a are not enabled: set enabled = true below [checkpoint] in 0.toml");
    assert_eq!(asked(&bench), None);
}

#[test]
fn nothing_is_expected_of_what_is_written_down_and_who_asked_is_told() {
    let mut bench = executed("[lifecycle]\nwatchdog_interval = 5\n[checkpoint]\nenabled = true");
    let (run, deadline) = (bench.run("a"), bench.engine.deadline());
    assert!(deadline.is_some());
    assert_eq!(checkpoint(&mut bench, After::Run), None);
    assert_eq!((asked(&bench), mark(&bench)), (Some((run, After::Run)), Some(CheckpointMark::Making)));
    assert_eq!(bench.engine.deadline(), None);
    assert_eq!(refusal(checkpoint(&mut bench, After::Run)), "a checkpoint of a is being made");
    let freeze = Request::Freeze { name: "a".to_owned(), timeout_ms: None };
    assert_eq!(refusal(bench.ask(0, freeze)), "a checkpoint of a is being made");
    assert_eq!(refusal(upgrade(&mut bench, true)), "a checkpoint of a is being made; --queue waits for that");
    bench.give(Event::Checkpointed(run, Ok(written("one"))));
    assert_eq!((mark(&bench), bench.engine.deadline()), (None, deadline));
    let answered = bench.effects.iter().any(|effect| {
        matches!(effect, Effect::Reply(_, Answer::Checkpointed { written, .. }) if &*written.id == "one")
    });
    assert!(answered);
}

#[test]
fn one_that_fails_loses_nothing() {
    for (after, continued_times) in [(After::Run, 0), (After::Hold, 1)] {
        let mut bench = executed(ENABLED);
        let run = bench.run("a");
        assert_eq!(checkpoint(&mut bench, after), None);
        bench.give(Event::Checkpointed(run, Err("the disk is full".into())));
        assert_eq!(refusal(bench.answer()), "the checkpoint of a failed: the disk is full");
        assert_eq!((mark(&bench), bench.engine.state("a")), (None, State::Active));
        // It may have been stopped before that failed.
        assert_eq!(continued(&bench, run), continued_times);
        assert!(!bench.has_told_anybody());
    }
}

#[test]
fn what_is_held_goes_on_when_told_to_or_by_itself() {
    for by_itself in [false, true] {
        let mut bench = executed(ENABLED);
        let run = bench.run("a");
        assert_eq!(checkpoint(&mut bench, After::Hold), None);
        bench.give(Event::Checkpointed(run, Ok(written("one"))));
        assert_eq!((mark(&bench), continued(&bench, run)), (Some(CheckpointMark::Held), 0));
        assert!(refusal(checkpoint(&mut bench, After::Run)).contains("graphctl continue"));
        if by_itself {
            bench.now += HOLD_LIMIT;
            bench.give(Event::Tick);
        } else {
            let answer = bench.ask(0, Request::Continue);
            assert!(matches!(answer, Some(Answer::Done { message, .. }) if message == "a goes on"));
        }
        assert_eq!((mark(&bench), continued(&bench, run), bench.engine.deadline()), (None, 1, None));
        let step = Cause::Checkpoint(CheckpointStep::Continued { by_itself });
        assert_eq!(causes(&bench).last(), Some(&step));
    }
}

#[test]
fn what_is_told_to_end_is_not_held() {
    for told_before in [false, true] {
        let mut bench = executed(ENABLED);
        let run = bench.run("a");
        assert_eq!(checkpoint(&mut bench, After::Hold), None);
        if told_before {
            bench.stop("a");
        }
        bench.give(Event::Checkpointed(run, Ok(written("one"))));
        if !told_before {
            bench.stop("a");
        }
        assert!(bench.has_told(run));
        assert_eq!((mark(&bench), continued(&bench, run)), (None, 1), "told before: {told_before}");
    }
}

#[test]
fn a_moved_process_goes_on_as_another_one_and_its_component_stays_up() {
    let mut bench = executed(MOVES);
    let old = bench.run("a");
    assert_eq!(upgrade(&mut bench, false), None);
    assert_eq!(asked(&bench), Some((old, After::End)));
    bench.now += Duration::from_millis(50);
    bench.give(Event::Checkpointed(old, Ok(written("one"))));
    bench.give(Event::Ended(old, Exit::Signal(9)));
    let new = bench.run("a");
    assert_ne!(new, old);
    assert_eq!((origin(&bench), mark(&bench)), (Some("one".to_owned()), Some(CheckpointMark::Restoring)));
    assert_eq!(bench.engine.state("a"), State::Active);
    bench.now += Duration::from_millis(30);
    bench.give(Event::Restored { run: new, pid: 8, made: made("one") });
    match bench.answer() {
        // It stood still for two milliseconds before it was written down.
        Some(Answer::Upgraded(done)) => {
            assert_eq!((done.level, done.gap_us), (UpgradeLevel::Checkpoint, Some(32_000)));
            assert_eq!((done.passed_over, done.generation), (Vec::new(), 2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((mark(&bench), bench.engine.pid("a"), bench.engine.deadline()), (None, Some(8), None));
    assert!(!bench.has_told_anybody());
}

#[test]
fn an_upgrade_that_queues_begins_when_the_checkpoint_is_over() {
    for made in [true, false] {
        let mut bench = executed(MOVES);
        let run = bench.run("a");
        checkpoint(&mut bench, After::Run);
        let name = "a".to_owned();
        let request =
            Request::Upgrade { name, fallback: true, queue: true, strategy: None, timeout_ms: None };
        bench.give(Event::Request { client: ClientId(2), peer: Peer::new(0, 1), request });
        assert_eq!(asked(&bench), Some((run, After::Run)));
        let outcome = if made { Ok(written("one")) } else { Err("a device is open".into()) };
        bench.give(Event::Checkpointed(run, outcome));
        assert_eq!(asked(&bench), Some((run, After::End)), "made: {made}");
    }
}

#[test]
fn the_next_way_is_gone_when_nothing_could_be_written_down() {
    let mut bench = executed(MOVES);
    let old = bench.run("a");
    assert_eq!(upgrade(&mut bench, true), None);
    bench.give(Event::Checkpointed(old, Err("a device is open".into())));
    assert!(bench.has_told(old), "it is restarted");
    bench.end("a");
    bench.execute("a");
    match bench.answer() {
        Some(Answer::Upgraded(done)) => {
            let [first, second] = &done.passed_over[..] else { panic!("{:?}", done.passed_over) };
            assert_eq!((first.level, &*first.reason), (UpgradeLevel::Checkpoint, "a device is open"));
            assert_eq!((second.level, done.level), (UpgradeLevel::FdPassing, UpgradeLevel::Restart));
        }
        other => panic!("{other:?}"),
    }
    let mut bench = executed(MOVES);
    let old = bench.run("a");
    assert_eq!(upgrade(&mut bench, false), None);
    bench.give(Event::Checkpointed(old, Err("a device is open".into())));
    assert!(refusal(bench.answer()).contains("the checkpoint of a failed: a device is open"));
    assert!(!bench.has_told(old));
}

#[test]
fn what_cannot_be_made_again_is_started_anew() {
    for fallback in [true, false] {
        let mut bench = executed(MOVES);
        let old = bench.run("a");
        assert_eq!(upgrade(&mut bench, fallback), None);
        bench.give(Event::Checkpointed(old, Ok(written("one"))));
        bench.give(Event::Ended(old, Exit::Signal(9)));
        let lost = bench.run("a");
        bench.give(Event::NotRestored(lost, "the port is taken".into()));
        assert_eq!((bench.engine.state("a"), origin(&bench)), (State::Starting, None));
        bench.execute("a");
        match bench.answer() {
            Some(Answer::Upgraded(done)) if fallback => {
                let reasons: Vec<_> = done.passed_over.iter().map(|over| over.reason.as_str()).collect();
                assert_eq!(reasons, ["the port is taken", "its process is gone"]);
            }
            Some(Answer::Refused { message, .. }) if !fallback => {
                assert!(message.contains("the port is taken; it is started anew"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_move_that_a_stop_meets_ends_with_the_process() {
    let mut bench = executed(MOVES);
    let old = bench.run("a");
    assert_eq!(upgrade(&mut bench, true), None);
    bench.give(Event::Checkpointed(old, Ok(written("one"))));
    bench.give(Event::Request {
        client: ClientId(2),
        peer: Peer::new(0, 1),
        request: Request::Stop { name: "a".to_owned(), timeout_ms: None },
    });
    assert!(refusal(bench.answer()).contains("was called off"));
    bench.give(Event::Ended(old, Exit::Signal(9)));
    assert_eq!((bench.engine.state("a"), bench.run("a")), (State::Inactive, old));
}

#[test]
fn what_is_made_again_is_told_to_end_when_it_is_there() {
    let mut bench = executed(MOVES);
    let old = bench.run("a");
    upgrade(&mut bench, true);
    bench.give(Event::Checkpointed(old, Ok(written("one"))));
    bench.give(Event::Ended(old, Exit::Signal(9)));
    let new = bench.run("a");
    bench.stop("a");
    assert!(!bench.has_told(new));
    bench.give(Event::Restored { run: new, pid: 8, made: made("one") });
    assert!(bench.has_told(new));
    bench.give(Event::Ended(new, Exit::Code(0)));
    assert_eq!(bench.engine.state("a"), State::Inactive);
}

#[test]
fn what_takes_too_long_to_be_made_is_ended() {
    let mut bench = executed(MOVES);
    let old = bench.run("a");
    upgrade(&mut bench, true);
    bench.give(Event::Checkpointed(old, Ok(written("one"))));
    bench.give(Event::Ended(old, Exit::Signal(9)));
    let new = bench.run("a");
    bench.now = bench.engine.deadline().expect("a limit");
    bench.give(Event::Tick);
    assert!(bench.has_killed(new));
    bench.give(Event::Ended(new, Exit::Signal(9)));
    assert_eq!((bench.engine.state("a"), origin(&bench)), (State::Starting, None));
    let late =
        |cause: &Cause| matches!(cause, Cause::NotRestored { reason } if reason.contains("within 60s"));
    assert!(causes(&bench).iter().any(late));
}

#[test]
fn a_restore_replaces_what_runs() {
    let mut bench = executed(ENABLED);
    let old = bench.run("a");
    assert_eq!(restore(&mut bench, true), None);
    assert!(bench.has_told(old));
    bench.end("a");
    let new = bench.run("a");
    assert_eq!((origin(&bench), bench.engine.state("a")), (Some("one".to_owned()), State::Starting));
    bench.give(Event::Restored { run: new, pid: 9, made: made("one") });
    match bench.answer() {
        Some(Answer::Restored { made, passed_over, pid, .. }) => {
            assert_eq!((made.map(|made| made.id), passed_over, pid), (Some("one".into()), None, Some(9)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.engine.state("a"), State::Active);
    bench.end("a");
    assert_eq!(origin(&bench), None, "it is asked for once");
}

#[test]
fn a_restore_that_fails_is_a_new_start_or_none() {
    let mut bench = executed(ENABLED);
    restore(&mut bench, true);
    bench.end("a");
    let lost = bench.run("a");
    bench.give(Event::NotRestored(lost, "no such checkpoint".into()));
    assert_eq!((bench.engine.state("a"), origin(&bench)), (State::Starting, None));
    bench.execute("a");
    match bench.answer() {
        Some(Answer::Restored { made: None, passed_over: Some(reason), .. }) => {
            assert_eq!(&*reason, "no such checkpoint");
        }
        other => panic!("{other:?}"),
    }
    let mut bench = executed(ENABLED);
    restore(&mut bench, false);
    bench.end("a");
    let lost = bench.run("a");
    bench.give(Event::NotRestored(lost, "no such checkpoint".into()));
    assert!(refusal(bench.answer()).contains("a is FAILED: not made from a checkpoint: no such checkpoint"));
    assert_eq!(bench.engine.deadline(), None, "it stays so");
}

#[test]
fn warm_starts_are_made_from_the_first_one_of_a_declaration() {
    let mut bench = executed(WARM);
    let first = bench.run("a");
    assert_eq!(asked(&bench), Some((first, After::Run)));
    bench.give(Event::Checkpointed(first, Ok(written("warm"))));
    bench.now += 100 * SECOND;
    bench.end("a");
    let second = bench.run("a");
    assert_eq!(origin(&bench), Some("warm".to_owned()));
    bench.give(Event::Restored { run: second, pid: 8, made: made("warm") });
    assert_eq!(asked(&bench), Some((first, After::Run)), "it is not made twice");
    bench.declare("0.toml", &service("a", &format!("args = [\"new\"]\n{WARM}")));
    bench.end("a");
    assert_eq!(origin(&bench), None, "another declaration");
    bench.execute("a");
    assert_eq!(asked(&bench), Some((bench.run("a"), After::Run)));
}

#[test]
fn a_start_that_could_not_be_written_down_has_the_next_take_its_place_up_to_three() {
    let mut bench = executed(WARM);
    for _ in 0..3 {
        let run = bench.run("a");
        assert_eq!(asked(&bench), Some((run, After::Run)));
        bench.give(Event::Checkpointed(run, Err("it was called off".into())));
        bench.now += 100 * SECOND;
        bench.end("a");
        assert_eq!(origin(&bench), None);
        bench.execute("a");
    }
    assert_ne!(asked(&bench), Some((bench.run("a"), After::Run)), "it is given up");
    let mut bench = executed(WARM);
    let run = bench.run("a");
    bench.give(Event::Checkpointed(run, Err("it was called off".into())));
    bench.now += 100 * SECOND;
    bench.end("a");
    bench.execute("a");
    bench.give(Event::Checkpointed(bench.run("a"), Ok(written("warm"))));
    bench.now += 100 * SECOND;
    bench.end("a");
    assert_eq!(origin(&bench), Some("warm".to_owned()));
}

#[test]
fn an_image_of_no_use_is_not_tried_again() {
    for fails_later in [false, true] {
        let mut bench = executed(WARM);
        let first = bench.run("a");
        bench.give(Event::Checkpointed(first, Ok(written("warm"))));
        bench.now += 100 * SECOND;
        bench.end("a");
        let second = bench.run("a");
        if fails_later {
            bench.give(Event::Restored { run: second, pid: 8, made: made("warm") });
            bench.end("a");
        } else {
            bench.give(Event::NotRestored(second, "damaged".into()));
        }
        assert_eq!(
            (bench.engine.state("a"), origin(&bench)),
            (State::Starting, None),
            "later: {fails_later}"
        );
        bench.execute("a");
        assert_eq!(asked(&bench), Some((first, After::Run)), "nor is another one made");
        bench.now += 100 * SECOND;
        bench.end("a");
        assert_eq!(origin(&bench), None);
    }
}

#[test]
fn what_is_carried_over_is_made_from_that_once() {
    let mut bench = Bench::new(&[]);
    bench.give(Event::Carried(vec![("a".into(), Origin { id: Some("old".into()) })]));
    bench.declare("0.toml", &service("a", ""));
    assert_eq!(origin(&bench), Some("old".to_owned()));
    let run = bench.run("a");
    bench.give(Event::NotRestored(run, "another kernel".into()));
    assert_eq!((origin(&bench), bench.engine.state("a")), (None, State::Starting));
    let said =
        |cause: &Cause| matches!(cause, Cause::NotRestored { reason } if &**reason == "another kernel");
    assert!(causes(&bench).iter().any(said));
}

#[test]
fn what_is_held_is_left_as_it_is_before_another_kernel() {
    let below = service("b", "[capabilities]\nprovides = [\"disk\"]");
    let held = service("a", "[capabilities]\nrequires = [\"disk\"]\n[checkpoint]\nenabled = true");
    let mut bench = Bench::new(&[&held, &below]);
    bench.execute("b");
    bench.execute("a");
    let (run, other) = (bench.run("a"), bench.run("b"));
    checkpoint(&mut bench, After::Hold);
    bench.give(Event::Checkpointed(run, Ok(written("one"))));
    bench.ask(0, Request::Kexec);
    assert!(bench.has_told(other) && !bench.has_told(run));
    assert_eq!(bench.states(["a", "b"]), [State::Active, State::Stopping]);
    assert!(!bench.effects.iter().any(|effect| matches!(effect, Effect::Halt(_))));
    bench.give(Event::Ended(other, Exit::Code(0)));
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Halt(Halt::Kexec))));
    bench.now += 2 * HOLD_LIMIT;
    bench.give(Event::Tick);
    assert_eq!((continued(&bench, run), bench.has_killed(run)), (0, false));
}

#[test]
fn what_is_held_is_stopped_before_the_machine_goes_down() {
    let mut bench = executed(ENABLED);
    let run = bench.run("a");
    checkpoint(&mut bench, After::Hold);
    bench.give(Event::Checkpointed(run, Ok(written("one"))));
    bench.ask(0, Request::Poweroff);
    assert!(bench.has_told(run));
    assert_eq!(continued(&bench, run), 1);
}

#[test]
fn a_checkpoint_that_does_not_survive_the_performer_has_failed() {
    let mut bench = executed(ENABLED);
    let run = bench.run("a");
    checkpoint(&mut bench, After::Run);
    let snapshot = serde_json::to_vec(&bench.engine.snapshot()).expect("bytes");
    let snapshot: Snapshot = serde_json::from_slice(&snapshot).expect("a snapshot");
    bench.engine = Engine::restore(Config::default(), snapshot).expect("an engine");
    let facts = bench.engine.agreeing_facts();
    assert_eq!((facts.checkpoints.clone(), mark(&bench)), (vec![run], Some(CheckpointMark::Making)));
    bench.give(Event::Resumed(Facts { checkpoints: Vec::new(), ..facts }));
    assert!(refusal(bench.answer()).contains("interrupted"));
    assert_eq!(mark(&bench), None);
}
