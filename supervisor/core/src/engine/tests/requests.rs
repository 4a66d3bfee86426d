//! What clients ask: who may, what they are answered, and how long they may wait.

use super::*;
use crate::control::{Readiness, Until, UpgradeLevel};

#[test]
fn strangers_may_look_but_not_touch() {
    let mut bench = executed("");
    let stop = || Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert!(matches!(bench.ask(1000, stop()), Some(Answer::Refused { .. })));
    let look = Request::Status { name: None, after: None };
    assert!(matches!(bench.ask(1000, look), Some(Answer::Status(_))));
    assert_eq!(bench.engine.state("a"), State::Active);
    assert_eq!(bench.ask(0, stop()), None, "answered when it is stopped");
    bench.end("a");
    assert!(matches!(bench.answer(), Some(Answer::Done { .. })));
    assert_eq!(bench.engine.state("a"), State::Inactive);
}

#[test]
fn a_wait_that_runs_out_says_what_holds_instead() {
    let mut bench = Bench::new(&[&service("a", "[requires]\ncapabilities = [\"gone\"]")]);
    let until = Until::State { name: "a".to_owned(), state: State::Active, since: None };
    let request = Request::Wait { until, timeout_ms: Some(100) };
    assert_eq!(bench.ask(0, request), None);
    bench.now += SECOND;
    bench.give(Event::Tick);
    match bench.answer() {
        Some(Answer::TimedOut { message, .. }) => {
            assert!(message.contains("a is INACTIVE"), "{message}");
            assert!(message.contains("gone (nobody provides it)"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn waiting_strangers_lock_nobody_out() {
    let mut bench = Bench::new(&[&service("a", "")]);
    let mut last = 0;
    let mut wait = |bench: &mut Bench, uid, request| {
        last += 1;
        bench.effects.retain(|e| !matches!(e, Effect::Reply(..)));
        let client = ClientId(last);
        bench.give(Event::Request { client, peer: Peer::new(uid, 1), request });
        bench.answer().is_none()
    };
    let never = || {
        let until = Until::State { name: "nobody".to_owned(), state: State::Active, since: None };
        Request::Wait { until, timeout_ms: None }
    };
    let mut waits = 0;
    for uid in 1000..1100 {
        let own = (0..WAITERS_PER_USER + 5).filter(|_| wait(&mut bench, uid, never())).count();
        assert!(own <= WAITERS_PER_USER);
        waits += own;
    }
    assert_eq!(waits, WAITER_LIMIT - WAITERS_RESERVED);
    // The owner has the reserved places; when these are full too, nothing is done by halves.
    let owner = (0..WAITER_LIMIT).filter(|_| wait(&mut bench, 0, never())).count();
    assert_eq!(owner, WAITERS_RESERVED);
    bench.execute("a");
    let stop = Request::Stop { name: "a".to_owned(), timeout_ms: None };
    assert!(!wait(&mut bench, 0, stop));
    assert_eq!(bench.engine.state("a"), State::Active, "refused, so not done");
    // A forgotten client leaves no timer behind, and the others' time is limited.
    bench.give(Event::ClientGone(ClientId(1)));
    assert!(wait(&mut bench, 1100, never()));
    bench.now += Duration::from_secs(24 * 3600);
    bench.give(Event::Tick);
    assert_eq!(bench.engine.deadline(), None);
}

#[test]
fn whoever_waits_for_news_is_answered_by_what_is_newer() {
    let mut bench = Bench::new(&[&service("a", ""), &service("b", "")]);
    bench.execute("a");
    let now = bench.engine.journal().revision();
    let wait = |name: Option<&str>, since| {
        let until = Until::Changed { name: name.map(str::to_owned), since };
        Request::Wait { until, timeout_ms: None }
    };
    assert!(matches!(bench.ask(0, wait(None, now - 1)), Some(Answer::Done { .. })), "newer already");
    assert_eq!(bench.ask(0, wait(Some("b"), now)), None);
    bench.end("a");
    assert_eq!(bench.answer(), None, "another's change");
    bench.execute("b");
    assert!(matches!(bench.answer(), Some(Answer::Done { revision, .. }) if revision > now));
}

#[test]
fn a_wait_for_a_rejected_file_is_looked_at_when_files_change_and_only_then() {
    let mut bench = Bench::new(&[&service("a", "")]);
    let until = Until::Rejected { file: "b.toml".to_owned() };
    assert_eq!(bench.ask(1000, Request::Wait { until, timeout_ms: None }), None);
    let looked_at =
        |bench: &Bench| bench.engine.waiters.iter().any(|waiter| bench.engine.may_be_reached(waiter));
    assert!(!looked_at(&bench));
    bench.execute("a");
    assert!(!looked_at(&bench), "a process is no file");
    bench.declare("c.toml", &service("c", ""));
    assert_eq!(bench.answer(), None);
    bench.declare("b.toml", &service("a", ""));
    assert!(matches!(bench.answer(), Some(Answer::Done { .. })), "its name is another file's");
}

#[test]
fn a_wait_for_news_of_what_is_gone_looks_at_what_is_new() {
    let mut bench = Bench::new(&[&service("a", ""), &service("b", "")]);
    bench.change(&[("1.toml", None)]);
    let run = bench.run("b");
    bench.give(Event::Created { run, pid: 8 });
    bench.give(Event::Ended(run, Exit::Code(0)));
    assert_eq!(bench.engine.state("b"), State::Removed);
    let now = bench.engine.journal().revision();
    let until = |since| Request::Wait {
        until: Until::Changed { name: Some("b".to_owned()), since },
        timeout_ms: None,
    };
    assert!(matches!(bench.ask(0, until(now - 1)), Some(Answer::Done { .. })), "its end is newer");
    assert_eq!(bench.ask(0, until(now)), None);
    bench.execute("a");
    assert_eq!(bench.answer(), None, "another's change");
    bench.declare("1.toml", &service("b", ""));
    bench.execute("b");
    assert!(matches!(bench.answer(), Some(Answer::Done { revision, .. }) if revision > now));
}

#[test]
fn a_near_name_is_suggested() {
    let mut bench = Bench::new(&[&service("database", "")]);
    let name = Some("databsae".to_owned());
    let look = Request::Status { name, after: None };
    match bench.ask(0, look) {
        Some(Answer::Refused { near, .. }) => assert_eq!(near, ["database"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_capability_taken_for_a_component_is_told_with_its_provider() {
    let mut bench = Bench::new(&[&service("a", "[provides]\ncapabilities = [\"net.up\"]")]);
    match bench.ask(0, Request::Stop { name: "net.up".to_owned(), timeout_ms: None }) {
        Some(Answer::Refused { message, near }) => {
            assert_eq!(message, "\"net.up\" is no component but a capability of a");
            assert_eq!(near, ["a"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_join_without_gap_or_overlap() {
    let files: Vec<_> = (0..2000).map(|n| service(&format!("c{n:04}"), "")).collect();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let bench = Bench::new(&files);
    let (mut names, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = bench.engine.status_page(after.as_deref());
        names.extend(page.components.iter().map(|c| c.name.to_string()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    let all: Vec<_> = bench.engine.names().map(ToString::to_string).collect();
    assert_eq!(names, all);
}

#[test]
fn readiness_is_what_is_declared_and_how_far_it_is() {
    let ready = "[lifecycle]\nreadiness_command = \"true\"\nreadiness_timeout = 7\nreadiness_interval = 2";
    let mut bench =
        Bench::new(&[&service("a", ready), &service("b", ""), &service("c", "type = \"oneshot\"")]);
    bench.execute("a");
    bench.execute("b");
    bench.now += 3 * SECOND;
    let mut look = |name: &str| {
        let request = Request::Readiness { name: Some(name.to_owned()), after: None };
        let Some(Answer::Readiness(page)) = bench.ask(1000, request) else {
            panic!("no answer");
        };
        page.components[0].clone()
    };
    let a = look("a");
    assert_eq!((a.method.as_str(), a.timeout_ms, a.interval_ms), ("command", Some(7000), Some(2000)));
    assert_eq!((a.readiness, a.for_ms), (Readiness::Waiting, Some(3000)));
    let b = look("b");
    assert_eq!((b.method.as_str(), b.timeout_ms, b.interval_ms), ("none", None, None));
    assert_eq!((b.readiness, b.for_ms), (Readiness::Ready, Some(3000)));
    let c = look("c");
    assert_eq!((c.method.as_str(), c.readiness, c.for_ms), ("exit", Readiness::Waiting, None));
    let run = bench.run("a");
    bench.give(Event::Ready(run));
    bench.now += SECOND;
    bench.end("b");
    let request = Request::Readiness { name: None, after: None };
    let Some(Answer::Readiness(page)) = bench.ask(1000, request) else {
        panic!("no answer");
    };
    let seen: Vec<_> = page.components.iter().map(|c| (c.readiness, c.for_ms)).collect();
    assert_eq!(seen[0], (Readiness::Ready, Some(1000)));
    assert_eq!(seen[1].0, Readiness::Waiting, "restarted");
}

#[test]
fn what_is_declared_is_shown_to_its_owner_with_the_process_that_runs() {
    let mut bench = Bench::new(&[&service("a", "")]);
    let request = || Request::Declaration { name: "a".to_owned() };
    assert!(matches!(bench.ask(1000, request()), Some(Answer::Refused { .. })), "it may have secrets in it");
    let look = |bench: &mut Bench| match bench.ask(0, request()) {
        Some(Answer::Declaration(shown)) => shown,
        other => panic!("{other:?}"),
    };
    let before = look(&mut bench);
    assert_eq!((before.pid, before.state), (None, State::Starting), "it is not executed yet");
    bench.execute("a");
    let shown = look(&mut bench);
    assert_eq!((shown.component.name.as_str(), shown.generation, shown.outdated), ("a", 1, None));
    assert!(shown.pid.is_some());
}

#[test]
fn an_upgrade_says_which_way_was_taken_and_how_long_it_took() {
    use UpgradeLevel::{Checkpoint, FdPassing};
    let declared = |handoff: &str| service("a", &format!("[lifecycle]\nhandoff = {handoff:?}"));
    let upgrade = |fallback| Request::Upgrade {
        name: "a".to_owned(),
        fallback,
        queue: false,
        strategy: None,
        timeout_ms: None,
    };
    for (handoff, above) in [
        ("none", &[][..]),
        ("state-file", &[]),
        ("fd-passing", &[FdPassing]),
        ("checkpoint", &[Checkpoint, FdPassing]),
    ] {
        let mut bench = Bench::new(&[&declared(handoff)]);
        bench.execute("a");
        let refused = matches!(bench.ask(0, upgrade(false)), Some(Answer::Refused { message, .. })
            if message.contains("which cannot be"));
        assert_eq!(refused, !above.is_empty(), "{handoff}");
        if refused {
            assert_eq!(bench.engine.state("a"), State::Active, "a refusal changes nothing");
            assert_eq!(bench.ask(0, upgrade(true)), None);
        }
        bench.now += SECOND;
        bench.end("a");
        bench.now += SECOND / 4;
        bench.execute("a");
        let Some(Answer::Upgraded(done)) = bench.answer() else {
            panic!("{handoff}: {:?}", bench.answer());
        };
        assert_eq!(done.level, UpgradeLevel::Restart);
        assert_eq!(done.passed_over.iter().map(|way| way.level).collect::<Vec<_>>(), above, "{handoff}");
        assert_eq!(done.gap_us, Some(1_250_000));
    }
    let mut bench = Bench::new(&[&declared("none")]);
    assert_eq!(bench.ask(0, upgrade(true)), None);
    bench.end("a");
    bench.execute("a");
    assert!(matches!(bench.answer(), Some(Answer::Upgraded(done)) if done.gap_us.is_none()), "it was not up");
    assert!(matches!(bench.ask(1000, upgrade(true)), Some(Answer::Refused { .. })), "only for root");
}

#[test]
fn who_hopes_for_itself_alone_is_not_waited_for() {
    let provides = |own: &str, needs: &str| {
        format!("[provides]\ncapabilities = [\"{own}\"]\n[requires]\ncapabilities = [{needs}]")
    };
    let mut bench = Bench::new(&[
        &service("base", &provides("base", "")),
        &service("other", &provides("six", "\"base\"")),
        &service("own", &provides("six", "\"six\"")),
    ]);
    for name in ["base", "other", "own"] {
        bench.execute(name);
    }
    bench.stop("base");
    for name in ["own", "other", "base"] {
        if bench.engine.process_of(name).is_some() {
            bench.end(name);
        }
    }
    bench.stop("own");
    if bench.engine.process_of("own").is_some() {
        bench.end("own");
    }
    let start = Request::Start { name: "own".to_owned(), timeout_ms: None };
    let answer = bench.ask(0, start);
    assert!(
        matches!(&answer, Some(Answer::Refused { message, .. }) if message.contains("waits for six")),
        "{answer:?}: {:?}",
        bench.states(["base", "other", "own"])
    );
}
