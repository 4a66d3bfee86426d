//! Hot swaps of a real server under a client that never connects twice, with everything going wrong that can.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use yakiros_core::control::{Answer, Request, UpgradeLevel, Upgraded};
use yakiros_core::journal::{Cause, Progress, State};

use crate::guest::{Guest, PATIENCE, answer, begin, until};
use crate::heir::{self, plan};
#[cfg(debug_assertions)]
use crate::reexec::{FAIL_NOW, FAIL_STATELESS};

fn start(more: &str) -> Option<Guest> {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    fs::write(dir.path().join("graph.d/heir.toml"), heir::file(dir.path(), more)).expect("file");
    let guest = Guest::start_in(dir)?;
    guest.wait("heir", State::Active, None);
    Some(guest)
}

/// A client of the server.
pub struct Client(BufReader<TcpStream>);

/// An answer: the number of all answers so far, and the generation that gave it.
pub type Served = (u64, u64);

impl Client {
    /// To the listener that this generation has opened.
    pub fn new(guest: &Guest, generation: u64) -> Self {
        let path = guest.dir.path().join(format!("port-{generation}"));
        let port = until("the port", || fs::read_to_string(&path).ok());
        let stream = TcpStream::connect(("127.0.0.1", port.parse().expect("a port"))).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("the server listens");
    }

    pub fn receive(&mut self, line: &str) -> Served {
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("an answer");
        let mut words = answer.split_whitespace();
        assert_eq!(words.next(), Some(line), "{answer:?}");
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        (number(), number())
    }

    /// Whether the server has gone away: it says so, or what is sent finds nobody.
    pub fn is_over(&mut self) -> bool {
        let _ = self.0.get_mut().write_all(b"line\n");
        let mut answer = String::new();
        match self.0.read_line(&mut answer) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub fn ask(&mut self, line: &str) -> Served {
        self.send(&format!("{line}\n"));
        self.receive(line)
    }
}

fn upgrade(fallback: bool) -> Request {
    Request::Upgrade { name: "heir".to_owned(), fallback, queue: false, strategy: None, timeout_ms: None }
}

pub fn done(answer: Answer) -> Upgraded {
    match answer {
        Answer::Upgraded(done) => done,
        other => panic!("{other:?}"),
    }
}

pub fn refused(answer: Answer) -> String {
    match answer {
        Answer::Refused { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// Wait until the newest hot swap has come so far.
fn until_progress(guest: &Guest, wanted: &Progress) {
    until("the step", || {
        let mut records = guest.records(0).into_iter().rev();
        let newest = records.find_map(|record| match record.cause {
            Cause::Handover { progress, .. } => Some(progress),
            _ => None,
        });
        (newest.as_ref() == Some(wanted)).then_some(())
    });
}

/// There are so many processes of the component.
pub fn until_processes(guest: &Guest, count: usize) {
    until("the processes", || (children(guest).len() == count).then_some(()));
}

/// The processes of the component, by their numbers outside.
pub fn children(guest: &Guest) -> Vec<i32> {
    let init = guest.init_pid();
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("process 1");
    children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

#[test]
fn a_client_sees_nothing_of_ten_upgrades() {
    let Some(guest) = start("") else { return };
    let mut idle = Client::new(&guest, 1);
    let before = guest.component("heir");
    let first = idle.ask("first");
    // It may be read before the first upgrade or after the last.
    idle.send("half");
    let stop = AtomicBool::new(false);
    let newest = AtomicU64::new(0);
    let fds = || fs::read_dir(format!("/proc/{}/fd", guest.init_pid())).expect("descriptors").count();
    let count = fds();
    let total = thread::scope(|scope| {
        let stopper = Stop(&stop);
        let client = scope.spawn(|| {
            let mut client = Client::new(&guest, 1);
            let mut last = first;
            while !stop.load(Ordering::Relaxed) {
                let next = client.ask("line");
                assert_eq!(next.0, last.0 + 1, "every answer once, and in order");
                assert!(next.1 >= last.1, "nobody serves beside the newest: {next:?} after {last:?}");
                last = next;
                newest.store(next.1, Ordering::Relaxed);
            }
            last
        });
        let served_by = |generation| {
            until("an answer", || (newest.load(Ordering::Relaxed) == generation).then_some(()));
        };
        served_by(1);
        for generation in 2..=11 {
            let done = done(guest.ask(upgrade(false)));
            let level = (done.level, done.generation, done.passed_over.len());
            assert_eq!(level, (UpgradeLevel::FdPassing, generation, 0), "{done:?}");
            assert!(done.descriptors == Some(3) && done.state_bytes >= Some(16), "{done:?}");
            assert!(done.gap_us.is_some());
            served_by(generation);
        }
        drop(stopper);
        client.join().expect("a client that saw nothing")
    });
    idle.send("way\n");
    assert_eq!(idle.receive("halfway"), (total.0 + 1, 11));
    let after = guest.component("heir");
    assert_ne!(after.pid, before.pid);
    assert_eq!((after.state, after.restarts), (State::Active, 0));
    assert_eq!(after.since_revision(&guest), before.since_revision(&guest), "its state never changed");
    // Those before it are gone, and nothing of them is left.
    until_processes(&guest, 1);
    until("as many descriptors as before", || (fds() <= count).then_some(()));
}

/// Ends a client, also when its test fails: that waits for the client.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The revision of the last change of its state.
trait SinceRevision {
    fn since_revision(&self, guest: &Guest) -> u64;
}

impl SinceRevision for yakiros_core::control::ComponentStatus {
    fn since_revision(&self, guest: &Guest) -> u64 {
        let records = guest.records(0).into_iter();
        let changes = records.filter(|record| record.component == self.name && record.from != record.to);
        changes.last().map_or(0, |record| record.revision)
    }
}

#[test]
fn a_new_version_that_fails_leaves_the_old_one_serving() {
    let Some(guest) = start("") else { return };
    let dir = guest.dir.path();
    let mut client = Client::new(&guest, 1);
    let mut answers = client.ask("first").0;
    let pid = guest.component("heir").pid;
    let fds = || fs::read_dir(format!("/proc/{}/fd", guest.init_pid())).expect("descriptors").count();
    let count = fds();
    let cases = [
        ("die", "the step \"prepare\": the new process exited with status 3"),
        ("garbage", "the step \"prepare\": it said what is no text"),
        ("too early", "the step \"prepare\": it said SERVING out of turn"),
        ("fail", "the step \"prepare\": the configuration is wrong"),
        ("fail and end", "the step \"prepare\": the database is of another version"),
        ("die taking", "the new process exited with status 5"),
        ("fail taking", "no room"),
    ];
    for (what, expected) in cases {
        plan(dir, "new", what);
        let message = refused(guest.ask(upgrade(true)));
        let serves_on = [" the old process serves on", " the old process is told to serve on"];
        let said = serves_on.iter().any(|end| message.ends_with(end));
        assert!(message.contains(expected) && said, "{what}: {message}");
        answers += 1;
        assert_eq!(client.ask(&what.replace(' ', "-")), (answers, 1), "{what}");
        until_processes(&guest, 1);
    }
    assert_eq!(guest.component("heir").pid, pid);
    // Nothing is left of what has failed.
    until("as many descriptors as before", || (fds() <= count).then_some(()));
    let noted = fs::read_dir(dir.join("state/released")).map_or(0, Iterator::count);
    assert_eq!(noted, 0, "nobody was released");
    plan(dir, "new", "");
    done(guest.ask(upgrade(false)));
    assert_eq!(client.ask("last").0, answers + 1);
}

#[test]
fn a_new_version_that_hangs_is_given_up_after_its_time() {
    let Some(guest) = start("readiness_timeout = 1") else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    plan(guest.dir.path(), "new", "hang");
    let message = refused(guest.ask(upgrade(true)));
    let expected =
        "the step \"prepare\": the new process is not prepared within its time; the old process serves on";
    assert!(message.contains(expected), "{message}");
    assert_eq!(client.ask("second"), (2, 1));
    until_processes(&guest, 1);
}

#[test]
fn a_new_version_that_does_not_take_all_that_is_given_leaves_the_old_one_serving() {
    let Some(guest) = start("") else { return };
    let dir = guest.dir.path();
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    let pid = guest.component("heir").pid;
    plan(dir, "old", "much");
    for (number, what) in [(2, "die receiving"), (3, "never receive")] {
        plan(dir, "new", what);
        let message = refused(guest.ask(upgrade(true)));
        let either =
            ["the old process: the other process does not take", "the new process exited with status 10"];
        assert!(either.iter().any(|reason| message.contains(reason)), "{what}: {message}");
        assert_eq!(client.ask("next"), (number, 1), "{what}");
        until_processes(&guest, 1);
    }
    assert_eq!(guest.component("heir").pid, pid, "it was not restarted");
    plan(dir, "new", "");
    plan(dir, "old", "");
    assert_eq!(done(guest.ask(upgrade(false))).level, UpgradeLevel::FdPassing);
    assert_eq!(client.ask("last"), (4, 4));
}

#[test]
fn a_new_version_that_hangs_with_everything_gives_it_back() {
    let Some(guest) = start("") else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    plan(guest.dir.path(), "new", "hang taking");
    let message = thread::scope(|scope| {
        let upgrade = scope.spawn(|| refused(guest.ask(upgrade(true))));
        // Sent while nobody serves, or before, and answered once.
        assert_eq!(client.ask("second"), (2, 1));
        upgrade.join().expect("an answer")
    });
    assert!(
        message.contains("the step \"ready\": the new process is not ready within its time"),
        "{message}"
    );
    assert_eq!(client.ask("third"), (3, 1));
}

#[test]
fn a_new_program_that_cannot_be_executed_is_a_failure_of_the_upgrade_only() {
    let Some(guest) = start("") else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    let text = heir::file(guest.dir.path(), "");
    let binary = std::env::current_exe().expect("this program").display().to_string();
    guest.declare("heir.toml", &text.replace(&binary, "/nonexistent/program"));
    until("the failure", || {
        let failed = |progress: &Progress| matches!(progress, Progress::Failed { reason, .. } if reason.contains("execute"));
        guest
            .records(0)
            .iter()
            .any(|r| matches!(&r.cause, Cause::Handover { progress, .. } if failed(progress)))
            .then_some(())
    });
    assert_eq!(client.ask("second"), (2, 1));
    assert_eq!(guest.component("heir").state, State::Active);
    // And the way back is no upgrade at all.
    guest.declare("heir.toml", &text);
    guest.settle();
    assert_eq!(client.ask("third"), (3, 1));
}

#[test]
fn an_old_version_that_does_not_give_is_restarted_or_left_as_asked() {
    for (what, reason) in [("refuse", "a backup is under way"), ("garbage", "it said what makes no sense")] {
        let Some(guest) = start("") else { return };
        plan(guest.dir.path(), "old", what);
        let mut client = Client::new(&guest, 1);
        client.ask("before");
        let message = refused(guest.ask(upgrade(false)));
        assert!(message.contains("the step \"move\"") && message.contains(reason), "{what}: {message}");
        assert_eq!(client.ask("after"), (2, 1), "{what}");
        let done = done(guest.ask(upgrade(true)));
        assert_eq!(done.level, UpgradeLevel::Restart, "{what}");
        assert_eq!(done.passed_over[0].level, UpgradeLevel::FdPassing);
        assert!(done.passed_over[0].reason.contains(reason), "{done:?}");
        assert_eq!(Client::new(&guest, done.generation).ask("anew").0, 1, "{what}");
    }
}

#[test]
fn an_old_version_that_ignores_the_question_is_restarted_after_its_time() {
    let Some(guest) = start("") else { return };
    Client::new(&guest, 1).ask("first");
    plan(guest.dir.path(), "old", "ignore");
    let done = done(guest.ask(upgrade(true)));
    assert_eq!(done.level, UpgradeLevel::Restart);
    assert_eq!(&*done.passed_over[0].reason, "the old process has not given everything within its time");
}

#[test]
fn an_old_version_that_dies_when_it_is_asked_is_started_again_by_the_rule() {
    let Some(guest) = start("") else { return };
    Client::new(&guest, 1).ask("first");
    plan(guest.dir.path(), "old", "die");
    let since = guest.revision();
    let message = refused(guest.ask(upgrade(true)));
    // The other one may be heard first.
    let either = ["the old process exited with status 7", "failed to receive: unexpected end of file"];
    assert!(either.iter().any(|reason| message.contains(reason)), "{message}");
    guest.wait("heir", State::Active, Some(since));
    until_processes(&guest, 1);
    assert_eq!(guest.component("heir").restarts, 1);
}

#[test]
fn a_second_upgrade_is_refused_while_one_is_under_way() {
    let Some(guest) = start("") else { return };
    let mut client = Client::new(&guest, 1);
    plan(guest.dir.path(), "new", "wait");
    let mut first = begin(&guest, upgrade(true));
    until_progress(&guest, &Progress::Started);
    assert!(refused(guest.ask(upgrade(true))).contains("is not over"));
    fs::write(guest.dir.path().join("go"), "").expect("the word");
    assert_eq!(done(answer(&mut first)).level, UpgradeLevel::FdPassing);
    assert_eq!(client.ask("first"), (1, 2));
}

#[test]
fn upgrades_that_queue_are_done_one_after_the_other() {
    let Some(guest) = start("") else { return };
    let mut client = Client::new(&guest, 1);
    plan(guest.dir.path(), "new", "wait");
    let queued = || Request::Upgrade {
        name: "heir".to_owned(),
        fallback: false,
        queue: true,
        strategy: None,
        timeout_ms: None,
    };
    let mut first = begin(&guest, upgrade(false));
    until_progress(&guest, &Progress::Started);
    let mut others = [begin(&guest, queued()), begin(&guest, queued())];
    until("both to wait", || (guest.component("heir").detail?.contains("2 upgrades wait")).then_some(()));
    fs::write(guest.dir.path().join("go"), "").expect("the word");
    assert_eq!(done(answer(&mut first)).generation, 2);
    let mut generations: Vec<_> = others.iter_mut().map(|client| done(answer(client)).generation).collect();
    generations.sort_unstable();
    assert_eq!(generations, [3, 4]);
    assert_eq!(client.ask("first"), (1, 4));
}

#[test]
fn a_stop_in_the_middle_ends_both() {
    let Some(guest) = start("") else { return };
    Client::new(&guest, 1).ask("first");
    plan(guest.dir.path(), "old", "wait");
    let mut first = begin(&guest, upgrade(true));
    until_progress(&guest, &Progress::Asked);
    guest.ask(Request::Stop { name: "heir".to_owned(), timeout_ms: None });
    assert!(refused(answer(&mut first)).contains("the step \"move\""));
    guest.wait("heir", State::Inactive, None);
    until_processes(&guest, 0);
}

/// An upgrade that is held where `who` is held, until the file `go` is there.
fn held(guest: &Guest, who: &str) -> BufReader<std::os::unix::net::UnixStream> {
    plan(guest.dir.path(), who, "wait");
    let client = begin(guest, upgrade(false));
    until_progress(guest, if who == "new" { &Progress::Started } else { &Progress::Asked });
    client
}

#[test]
fn the_supervisor_executes_itself_again_in_the_middle() {
    for who in ["new", "old"] {
        let Some(guest) = start("") else { return };
        let mut client = Client::new(&guest, 1);
        client.ask("first");
        let mut waiting = held(&guest, who);
        // Who was asked has ten seconds until the other serves, however busy the machine is.
        for _ in 0..if who == "new" { 3 } else { 1 } {
            assert!(matches!(guest.ask(Request::Reexec), Answer::Done { .. }));
        }
        fs::write(guest.dir.path().join("go"), "").expect("the word");
        let done = done(answer(&mut waiting));
        assert_eq!((done.level, done.generation), (UpgradeLevel::FdPassing, 2), "{who}");
        assert_eq!(client.ask("second"), (2, 2), "{who}");
        until_processes(&guest, 1);
    }
}

#[test]
#[cfg(debug_assertions)]
fn an_internal_error_in_the_middle_calls_it_off_and_leaves_one_that_serves() {
    for who in ["new", "old"] {
        let Some(guest) = start("") else { return };
        let mut client = Client::new(&guest, 1);
        client.ask("first");
        let mut waiting = held(&guest, who);
        guest.kill(1, FAIL_NOW);
        let message = refused(answer(&mut waiting));
        assert!(message.contains("; the old process"), "{who}: {message}");
        fs::write(guest.dir.path().join("go"), "").expect("the word");
        assert_eq!(client.ask("second"), (2, 1), "{who}");
        until_processes(&guest, 1);
        plan(guest.dir.path(), who, "");
        assert_eq!(done(guest.ask(upgrade(false))).level, UpgradeLevel::FdPassing, "{who}");
        assert_eq!(client.ask("third").0, 3, "{who}");
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_lost_state_in_the_middle_leaves_one_that_serves() {
    let Some(guest) = start("") else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    let pid = guest.component("heir").pid;
    let _waiting = held(&guest, "new");
    guest.kill(1, FAIL_STATELESS);
    until("the state to be lost", || guest.log().contains("the state is lost").then_some(()));
    // Not before: it would be asked to go on.
    fs::write(guest.dir.path().join("go"), "").expect("the word");
    guest.wait("heir", State::Active, None);
    assert_eq!(guest.component("heir").pid, pid, "the one that serves is taken");
    assert_eq!(client.ask("second"), (2, 1));
    until_processes(&guest, 1);
    // Its channel went with the state.
    plan(guest.dir.path(), "new", "");
    let done = done(guest.ask(upgrade(true)));
    assert_eq!(done.level, UpgradeLevel::Restart);
    assert!(done.passed_over[0].reason.contains("HELLO"), "{done:?}");
}

#[test]
#[cfg(debug_assertions)]
fn a_lost_state_after_the_commit_leaves_the_new_one() {
    let Some(guest) = start("") else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    plan(guest.dir.path(), "old", "stay");
    done(guest.ask(upgrade(false)));
    let pid = guest.component("heir").pid;
    assert_eq!(client.ask("second"), (2, 2));
    until_processes(&guest, 2);
    guest.kill(1, FAIL_STATELESS);
    until("the state to be lost", || guest.log().contains("the state is lost").then_some(()));
    guest.wait("heir", State::Active, None);
    assert_eq!(guest.component("heir").pid, pid, "the one that serves is taken");
    until_processes(&guest, 1);
    assert_eq!(client.ask("third"), (3, 2));
}

/// Stop the supervisor, and let it go on at the latest with the test.
struct Stopped(nix::unistd::Pid);

impl Stopped {
    fn new(guest: &Guest) -> Self {
        let supervisor = nix::unistd::Pid::from_raw(guest.init_pid());
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGSTOP).expect("stopped");
        let stat = format!("/proc/{supervisor}/stat");
        let state = || fs::read_to_string(&stat).ok()?.rsplit(") ").next()?.chars().next();
        until("the stop", || (state() == Some('T')).then_some(()));
        Self(supervisor)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGCONT);
    }
}

/// Wait until a process has said what it has to say, and waits for an answer.
fn until_it_waits(pid: i32) {
    let waits = [nix::libc::SYS_ppoll.to_string(), nix::libc::SYS_poll.to_string()];
    until("the word of a process", || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let call_of =
            |task: fs::DirEntry| fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        let mut calls = threads.map(call_of);
        calls.any(|call| waits.iter().any(|wait| call.split(' ').next() == Some(wait))).then_some(())
    });
}

/// The process that was created last.
fn newest(guest: &Guest) -> i32 {
    // They are listed as they were created.
    children(guest).pop().expect("a process")
}

#[test]
fn a_stopped_supervisor_is_not_the_fault_of_those_who_hand_over() {
    const LIMIT: Duration = Duration::from_secs(3);
    let Some(guest) = start("readiness = \"none\"\nreadiness_timeout = 3") else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    // Until the supervisor is stopped before the time is over.
    let done = until("a stop in time", || {
        let _ = fs::remove_file(guest.dir.path().join("go"));
        let begun = Instant::now();
        let mut waiting = held(&guest, "new");
        let stopped = Stopped::new(&guest);
        let in_time = begun.elapsed() < LIMIT;
        fs::write(guest.dir.path().join("go"), "").expect("the word");
        if in_time {
            // That it is prepared, it says, and waits; and meanwhile the time for that ends.
            until_it_waits(newest(&guest));
            thread::sleep(LIMIT + Duration::from_millis(500));
        }
        drop(stopped);
        let answer = answer(&mut waiting);
        in_time.then(|| done(answer))
    });
    assert_eq!(done.level, UpgradeLevel::FdPassing);
    assert_eq!(client.ask("second"), (2, done.generation));
}

#[test]
fn who_dies_after_all_was_taken_leaves_it_to_the_new_one_whatever_was_read_by_then() {
    let Some(guest) = start("") else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    let old = newest(&guest);
    let mut waiting = held(&guest, "old");
    let stopped = Stopped::new(&guest);
    fs::write(guest.dir.path().join("go"), "").expect("the word");
    // Each has told the supervisor that everything is given and taken, and waits for what it says.
    until_it_waits(newest(&guest));
    until_it_waits(old);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
    drop(stopped);
    assert_eq!(done(answer(&mut waiting)).generation, 2);
    assert_eq!(client.ask("second"), (2, 2));
    assert_eq!(guest.component("heir").restarts, 0);
}

/// A component whose upgrades have a probation that no test waits for, and a probe that fails while the process lives
/// that is named in the file `ill`.
fn start_on_probation() -> Option<Guest> {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    fs::write(dir.path().join("graph.d/heir.toml"), probation_file(dir.path(), "1h")).expect("file");
    let guest = Guest::start_in(dir)?;
    guest.wait("heir", State::Active, None);
    Some(guest)
}

pub fn probation_file(dir: &Path, probation: &str) -> String {
    let ill = dir.join("ill").display().to_string();
    let probe = format!(
        "health_check = [\"/bin/sh\", \"-c\", \"test ! -e {ill} || ! kill -0 $(cat {ill})\"]\nhealth_interval = 0.2\nhealth_fail_threshold = 2\n\
         health_restart_threshold = 2"
    );
    format!("{}probation = \"{probation}\"\n", heir::file(dir, &probe))
}

/// Wait until the new process serves while the old one is kept.
fn until_on_probation(guest: &Guest) {
    until("the probation", || {
        let mut records = guest.records(0).into_iter().rev();
        records
            .find_map(|record| match record.cause {
                Cause::Handover { progress, .. } => Some(progress),
                _ => None,
            })
            .is_some_and(|progress| {
                matches!(progress, Progress::Committed { probation_ms: Some(3_600_000), .. })
            })
            .then_some(())
    });
}

#[test]
fn a_new_version_that_fails_on_probation_is_rolled_back_and_no_connection_is_lost() {
    let cases = [
        ("die serving", "the new process exited with status 10"),
        ("fail serving", "it says: the index is broken"),
        ("ill", "2 health probes in a row failed"),
    ];
    for (what, reason) in cases {
        let Some(guest) = start_on_probation() else { return };
        let dir = guest.dir.path();
        let mut client = Client::new(&guest, 1);
        client.ask("first");
        let before = guest.component("heir");
        plan(dir, "new", what);
        let mut waiting = begin(&guest, upgrade(true));
        until_on_probation(&guest);
        assert_eq!(client.ask("second"), (2, 2), "{what}: the new one serves");
        until_processes(&guest, 2);
        assert_ne!(guest.component("heir").pid, before.pid, "{what}: and is the component's process");
        client.send("break down\n");
        let message = refused(answer(&mut waiting));
        assert!(
            message.contains("rolled back within its probation") && message.contains(reason),
            "{what}: {message}"
        );
        assert!(message.ends_with("; the old process serves on"), "{what}: {message}");
        // The old one knows what it knew when it gave, and has every connection.
        assert_eq!(client.ask("third"), (2, 1), "{what}");
        let after = guest.component("heir");
        assert_eq!((after.pid, after.state, after.restarts), (before.pid, State::Active, 0), "{what}");
        assert_eq!(
            after.since_revision(&guest),
            before.since_revision(&guest),
            "{what}: its state never changed"
        );
        until_processes(&guest, 1);
        // It is not tried again by itself.
        guest.settle();
        assert_eq!(guest.component("heir").pid, before.pid, "{what}");
    }
}

#[test]
fn a_probation_that_is_passed_lets_the_old_process_go() {
    let Some(guest) = start_on_probation() else { return };
    let dir = guest.dir.path();
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    // In force at once: no process notices it.
    guest.declare("heir.toml", &probation_file(dir, "0.2"));
    guest.settle();
    let done = done(guest.ask(upgrade(false)));
    assert_eq!((done.level, done.generation, done.probation_ms), (UpgradeLevel::FdPassing, 2, Some(200)));
    until_processes(&guest, 1);
    assert_eq!(client.ask("second"), (2, 2));
    let told = guest.records(0).into_iter().any(|record| {
        matches!(record.cause, Cause::Handover { generation: 2, progress: Progress::Confirmed })
    });
    assert!(told, "and the journal has it");
}

#[test]
fn an_old_process_that_ends_on_probation_leaves_everything_to_the_new_one() {
    let Some(guest) = start_on_probation() else { return };
    let mut client = Client::new(&guest, 1);
    client.ask("first");
    let old = children(&guest)[0];
    let mut waiting = begin(&guest, upgrade(false));
    until_on_probation(&guest);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
    assert_eq!(done(answer(&mut waiting)).generation, 2);
    assert_eq!(client.ask("second"), (2, 2));
    until_processes(&guest, 1);
}

#[test]
fn a_stop_on_probation_ends_both() {
    let Some(guest) = start_on_probation() else { return };
    Client::new(&guest, 1).ask("first");
    let mut waiting = begin(&guest, upgrade(false));
    until_on_probation(&guest);
    assert!(refused(guest.ask(upgrade(false))).contains("it is on probation"));
    guest.ask(Request::Stop { name: "heir".to_owned(), timeout_ms: None });
    assert!(refused(answer(&mut waiting)).contains("is being stopped"));
    guest.wait("heir", State::Inactive, None);
    until_processes(&guest, 0);
}

#[test]
fn a_supervisor_that_executes_itself_again_on_probation_can_still_roll_back() {
    for failure in [false, true] {
        let Some(guest) = start_on_probation() else { return };
        let mut client = Client::new(&guest, 1);
        client.ask("first");
        plan(guest.dir.path(), "new", "die serving");
        let mut waiting = begin(&guest, upgrade(false));
        until_on_probation(&guest);
        if failure {
            guest.kill(1, FAIL_NOW);
            until("the failure", || {
                let taken =
                    |record: &yakiros_core::journal::Record| matches!(record.cause, Cause::TookOver { .. });
                guest.records(0).iter().any(taken).then_some(())
            });
        } else {
            assert!(matches!(guest.ask(Request::Reexec), Answer::Done { .. }));
        }
        assert_eq!(client.ask("second"), (2, 2), "after a failure: {failure}");
        client.send("break down\n");
        assert!(refused(answer(&mut waiting)).contains("rolled back"), "after a failure: {failure}");
        assert_eq!(client.ask("third"), (2, 1), "after a failure: {failure}");
    }
}
