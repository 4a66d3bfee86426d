//! Canaries: the new process of a real server takes new connections only, then everything or nothing.

use std::fs;
use std::thread;

use yakiros_core::component::Strategy;
use yakiros_core::control::{Answer, Request, UpgradeLevel};
use yakiros_core::journal::{Cause, Progress, State};

use crate::guest::{Guest, answer, begin, until};
use crate::handover::{Client, children, done, probation_file, refused, until_processes};
use crate::heir::plan;
#[cfg(debug_assertions)]
use crate::reexec::FAIL_NOW;

/// For what no test waits for: a canary that ends because of something that happens.
const LONG: &str = "1h";

/// For what a test waits for: a canary that comes to its end.
const SHORT: &str = "0.3";

fn start(probation: &str) -> Option<Guest> {
    start_after(probation, |_| ())
}

/// The same with something in its directory beforehand.
fn start_after(probation: &str, prepare: impl FnOnce(&std::path::Path)) -> Option<Guest> {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    fs::write(dir.path().join("graph.d/heir.toml"), probation_file(dir.path(), probation)).expect("file");
    prepare(dir.path());
    let guest = Guest::start_in(dir)?;
    guest.wait("heir", State::Active, None);
    Some(guest)
}

fn canary(fallback: bool) -> Request {
    let strategy = Some(Strategy::Canary);
    Request::Upgrade { name: "heir".to_owned(), fallback, queue: false, strategy, timeout_ms: None }
}

/// Every step of hot swaps so far.
fn steps(guest: &Guest) -> Vec<Progress> {
    let records = guest.records(0).into_iter();
    let step = |cause| match cause {
        Cause::Handover { progress, .. } => Some(progress),
        _ => None,
    };
    records.filter_map(|record| step(record.cause)).collect()
}

/// Wait until the new process serves new connections.
fn until_canary(guest: &Guest) {
    until("the canary", || matches!(steps(guest).last(), Some(Progress::Canary { .. })).then_some(()));
}

#[test]
fn a_canary_serves_new_connections_and_the_old_process_those_that_it_has() {
    let Some(guest) = start(LONG) else { return };
    let before = guest.component("heir");
    let mut old = Client::new(&guest, 1);
    assert_eq!(old.ask("before"), (1, 1));
    old.send("half");
    let mut waiting = begin(&guest, canary(false));
    until_canary(&guest);
    for number in 1..=3 {
        assert_eq!(Client::new(&guest, 1).ask("new"), (number, 2), "a new connection");
    }
    old.send("-half\n");
    assert_eq!(old.receive("half-half"), (2, 1), "a connection of the old process");
    until_processes(&guest, 2);
    assert_eq!(guest.component("heir").pid, before.pid, "the old one is the component's until the end");
    assert!(refused(guest.ask(canary(false))).contains("it is a canary"));
    guest.ask(Request::Stop { name: "heir".to_owned(), timeout_ms: None });
    assert!(refused(answer(&mut waiting)).contains("is being stopped"));
    guest.wait("heir", State::Inactive, None);
    until_processes(&guest, 0);
}

#[test]
fn a_canary_that_lasts_gets_everything_and_nothing_is_lost() {
    let Some(guest) = start(SHORT) else { return };
    let mut idle = Client::new(&guest, 1);
    idle.send("half");
    // Each asks on its connection until that is served by the new process, and is there before the upgrade begins.
    let asks = || {
        let mut client = Client::new(&guest, 1);
        client.ask("begin");
        client
    };
    let clients: Vec<_> = (0..4).map(|_| asks()).collect();
    thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                let (mut last, mut count) = (0, 0);
                until("the new process", || {
                    count += 1;
                    let (_, generation) = client.ask(&format!("line{count}"));
                    assert!(generation >= last, "served by {generation} after {last}");
                    last = generation;
                    (generation == 2).then_some(())
                });
            });
        }
        let done = done(guest.ask(canary(false)));
        assert_eq!((done.level, done.strategy), (UpgradeLevel::FdPassing, Strategy::Canary), "{done:?}");
        assert_eq!((done.generation, done.probation_ms), (2, Some(300)), "{done:?}");
        assert!(done.passed_over.is_empty() && done.descriptors == Some(5), "{done:?}");
    });
    idle.send("-half\n");
    assert_eq!(idle.receive("half-half").1, 2, "and so is what was half said");
    assert_eq!(Client::new(&guest, 1).ask("new").1, 2);
    until_processes(&guest, 1);
    let names: Vec<_> = steps(&guest).iter().map(|step| format!("{step:?}")).collect();
    let begin = |wanted: &str| names.iter().position(|name| name.starts_with(wanted)).expect(wanted);
    let order = ["Started", "Lending", "Canary", "Completing", "Committed"].map(begin);
    assert!(order.is_sorted(), "{names:?}");
}

#[test]
fn a_canary_that_fails_leaves_the_old_process_with_everything() {
    let cases = [
        ("die serving", "the new process exited with status 10"),
        ("fail serving", "the index is broken"),
        ("ill", "2 health probes in a row failed"),
    ];
    for (what, reason) in cases {
        let Some(guest) = start(LONG) else { return };
        let before = guest.component("heir");
        let mut old = Client::new(&guest, 1);
        old.ask("before");
        plan(guest.dir.path(), "new", what);
        let mut waiting = begin(&guest, canary(true));
        until_canary(&guest);
        let mut new = Client::new(&guest, 1);
        assert_eq!(new.ask("new"), (1, 2), "{what}");
        new.send("break down\n");
        let message = refused(answer(&mut waiting));
        assert!(message.contains("\"canary\"") && message.contains(reason), "{what}: {message}");
        assert!(message.ends_with("; the old process serves on"), "{what}: {message}");
        assert_eq!(old.ask("after"), (2, 1), "{what}: its connection");
        assert_eq!(Client::new(&guest, 1).ask("next"), (3, 1), "{what}: it accepts again");
        let after = guest.component("heir");
        assert_eq!((after.pid, after.state, after.restarts), (before.pid, State::Active, 0), "{what}");
        until_processes(&guest, 1);
    }
}

#[test]
fn a_canary_that_cannot_take_the_rest_leaves_the_old_process_with_everything() {
    let Some(guest) = start(SHORT) else { return };
    let mut old = Client::new(&guest, 1);
    old.ask("before");
    plan(guest.dir.path(), "new", "die taking the rest");
    let message = refused(guest.ask(canary(true)));
    assert!(message.contains("at the step \"rest"), "{message}");
    assert_eq!(old.ask("after"), (2, 1));
    assert_eq!(Client::new(&guest, 1).ask("next"), (3, 1));
    until_processes(&guest, 1);
}

#[test]
fn an_old_process_that_ends_leaves_the_canary_alone() {
    let Some(guest) = start(LONG) else { return };
    // It has begun, and said what it can.
    Client::new(&guest, 1).ask("before");
    let old = children(&guest)[0];
    let mut waiting = begin(&guest, canary(false));
    until_canary(&guest);
    let mut new = Client::new(&guest, 1);
    new.ask("new");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
    assert_eq!(done(answer(&mut waiting)).generation, 2);
    assert_eq!(new.ask("on"), (2, 2));
    until_processes(&guest, 1);
    // It is a process like any other from then on.
    guest.declare("heir.toml", &probation_file(guest.dir.path(), "0"));
    guest.settle();
    let strategy = None;
    let all = Request::Upgrade {
        name: "heir".to_owned(),
        fallback: false,
        queue: false,
        strategy,
        timeout_ms: None,
    };
    assert_eq!(done(guest.ask(all)).generation, 3);
    assert_eq!(new.ask("and-on"), (3, 3));
}

#[test]
fn a_supervisor_that_executes_itself_again_knows_of_its_canary() {
    for failure in [false, true] {
        if failure && !cfg!(debug_assertions) {
            continue;
        }
        let Some(guest) = start(LONG) else { return };
        let mut old = Client::new(&guest, 1);
        old.ask("before");
        plan(guest.dir.path(), "new", "die serving");
        let mut waiting = begin(&guest, canary(false));
        until_canary(&guest);
        #[cfg(debug_assertions)]
        if failure {
            guest.kill(1, FAIL_NOW);
            until("the failure", || {
                let taken =
                    |record: &yakiros_core::journal::Record| matches!(record.cause, Cause::TookOver { .. });
                guest.records(0).iter().any(taken).then_some(())
            });
        }
        if !failure {
            assert!(matches!(guest.ask(Request::Reexec), Answer::Done { .. }));
        }
        assert_eq!(old.ask("during"), (2, 1), "after a failure: {failure}");
        let mut new = Client::new(&guest, 1);
        assert_eq!(new.ask("new"), (1, 2), "after a failure: {failure}");
        new.send("break down\n");
        assert!(refused(answer(&mut waiting)).contains("canary"), "after a failure: {failure}");
        assert_eq!(old.ask("after"), (3, 1), "after a failure: {failure}");
        assert_eq!(Client::new(&guest, 1).ask("next"), (4, 1), "after a failure: {failure}");
    }
}

#[test]
fn what_cannot_be_a_canary_is_upgraded_at_once_or_not_at_all_and_says_why() {
    let whole = |dir: &std::path::Path| fs::write(dir.join("whole"), "").expect("a file");
    let Some(guest) = start_after("0.1", whole) else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("before");
    let message = refused(guest.ask(canary(false)));
    assert!(message.contains("HELLO parts=2") && message.contains("--no-fallback"), "{message}");
    let upgraded = done(guest.ask(canary(true)));
    let passed: Vec<_> = upgraded.passed_over.iter().map(|passed| passed.strategy).collect();
    assert_eq!((upgraded.strategy, passed), (Strategy::AllAtOnce, vec![Some(Strategy::Canary)]));
    assert_eq!(client.ask("after"), (2, 2));
    // One that could, and refuses when it is asked.
    fs::remove_file(guest.dir.path().join("whole")).expect("the file");
    assert_eq!(done(guest.ask(canary(true))).generation, 3);
    plan(guest.dir.path(), "old", "refuse");
    let message = refused(guest.ask(canary(true)));
    assert!(message.contains("\"lend\": a backup is under way"), "{message}");
    assert_eq!(client.ask("again"), (3, 3));
    // One that says for how long nowhere.
    guest.declare("heir.toml", &probation_file(guest.dir.path(), "0"));
    guest.settle();
    assert!(refused(guest.ask(canary(true))).contains("hotswap.probation"));
}
