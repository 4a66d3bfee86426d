//! What a component says about itself, and its watchdog.

use super::*;
use crate::control::{Announced, ComponentStatus, Health};
use crate::notify;

const NOTIFY: &str = "[lifecycle]\nreadiness = \"notify\"\nreload_signal = \"HUP\"\n";
const WATCHED: &str = "[lifecycle]\nwatchdog_interval = 5\n";
const WATCHED_ONCE_READY: &str = "[lifecycle]\nwatchdog_interval = 5\nreadiness = \"notify\"\n";

impl Bench {
    fn say(&mut self, name: &str, message: &str) {
        let run = self.run(name);
        self.give(Event::Notified(run, notify::parse(message.as_bytes())));
    }

    /// Time passes; everything that is due is done on time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.engine.deadline().filter(|due| *due <= end) {
            self.now = due;
            self.give(Event::Tick);
        }
        self.now = end;
    }

    fn status(&self, name: &str) -> ComponentStatus {
        let all = self.engine.status_page(None).components;
        all.into_iter().find(|c| &*c.name == name).expect("the component")
    }

    fn detail(&self, name: &str) -> String {
        self.status(name).detail.unwrap_or_default()
    }

    fn reload(&mut self) -> Option<Answer> {
        self.ask(0, Request::Reload { name: Some("a".to_owned()) })
    }
}

fn message(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::Done { message, .. } | Answer::TimedOut { message, .. }) => message,
        Some(Answer::Refused { message, .. }) => format!("refused: {message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ready_activates_and_a_status_is_shown() {
    let mut bench = executed(NOTIFY);
    bench.say("a", "STATUS=opening 12 files");
    assert_eq!(bench.engine.state("a"), State::ReadyWait);
    assert_eq!(bench.detail("a"), "says \"opening 12 files\"");
    bench.say("a", "READY=1\nSTATUS=serving");
    assert_eq!(bench.engine.state("a"), State::Active);
    let status = bench.status("a");
    assert_eq!(status.status_text.as_deref(), Some("serving"));
    assert_eq!(status.detail.as_deref(), Some("says \"serving\""));
    bench.say("a", "STATUS=");
    assert_eq!((bench.status("a").status_text, bench.status("a").detail), (None, None));
    let old = bench.run("a");
    bench.end("a");
    bench.execute("a");
    bench.give(Event::Notified(old, notify::parse(b"READY=1\nSTATUS=late")));
    assert_eq!(bench.engine.state("a"), State::ReadyWait, "a process that is gone says nothing");
}

#[test]
fn readiness_that_is_declared_in_another_way_is_not_said() {
    let more = format!("{WATCHED}readiness_file = \"/run/a\"\nreload_signal = \"HUP\"\n");
    let mut bench = executed(&more);
    bench.say("a", "READY=1\nSTATUS=any library says so");
    assert_eq!(bench.engine.state("a"), State::ReadyWait);
    let run = bench.run("a");
    bench.give(Event::Ready(run));
    assert_eq!(bench.engine.state("a"), State::Active);
    // A reload it ends all the same.
    assert_eq!(bench.reload(), None);
    bench.say("a", "RELOADING=1");
    bench.say("a", "READY=1");
    assert_eq!(message(bench.answer()), "a has reloaded");
}

#[test]
fn a_reload_is_shown_and_answered_when_it_is_complete() {
    let user = service("user", "[requires]\ncapabilities = [\"a\"]");
    let mut bench =
        Bench::new(&[&service("a", &format!("[provides]\ncapabilities = [\"a\"]\n{NOTIFY}")), &user]);
    bench.execute("a");
    bench.say("a", "READY=1");
    bench.execute("user");
    assert_eq!(bench.reload(), None);
    assert!(bench.effects.iter().any(|e| matches!(e, Effect::Signal(_, Signal(1)))));
    bench.pass(SECOND / 2);
    // A word of an earlier reload is not the answer to this one.
    let before = bench.now.saturating_sub(SECOND).as_micros();
    bench.say("a", &format!("RELOADING=1\nMONOTONIC_USEC={before}"));
    bench.say("a", "READY=1");
    assert_eq!(bench.answer(), None);
    bench.say("a", "RELOADING=1");
    assert_eq!(bench.status("a").announced, Some(Announced::Reloading));
    assert_eq!(bench.detail("a"), "reloading");
    bench.pass(20 * SECOND);
    assert_eq!(bench.answer(), None);
    assert_eq!([bench.engine.state("a"), bench.engine.state("user")], [State::Active; 2]);
    bench.say("a", "READY=1");
    assert_eq!(message(bench.answer()), "a has reloaded");
    assert_eq!(bench.status("a").announced, None);
    assert!(!bench.has_told_anybody());
}

#[test]
fn a_reload_that_is_not_announced_or_never_ends_is_answered_all_the_same() {
    let mut bench = executed(NOTIFY);
    bench.say("a", "READY=1");
    assert_eq!(bench.reload(), None);
    bench.pass(RELOAD_NOTICE);
    assert!(message(bench.answer()).contains("announced no reload"));
    assert_eq!(bench.reload(), None);
    bench.say("a", "RELOADING=1");
    bench.pass(29 * SECOND);
    assert_eq!(bench.answer(), None);
    bench.pass(SECOND);
    assert_eq!(message(bench.answer()), "timed out: a is ACTIVE: reloading");
    assert_eq!(bench.reload(), None);
    bench.end("a");
    assert_eq!(message(bench.answer()), "refused: a ended before it had reloaded");
    // Without a socket the signal is all there is.
    let mut plain = Bench::new(&[&service("a", "[lifecycle]\nreload_signal = \"HUP\"")]);
    plain.execute("a");
    assert_eq!(message(plain.reload()), "sent SIGHUP to a");
}

#[test]
fn an_end_that_was_announced_follows_the_restart_rule_and_says_so() {
    let once = format!("{NOTIFY}restart_max = 0");
    let mut bench = executed(&once);
    bench.say("a", "READY=1");
    bench.say("a", "STOPPING=1\nERRNO=28");
    assert_eq!(bench.engine.state("a"), State::Active);
    assert_eq!(bench.status("a").announced, Some(Announced::Stopping));
    assert_eq!(bench.detail("a"), "has announced its end");
    let run = bench.run("a");
    bench.give(Event::Ended(run, Exit::Code(0)));
    assert_eq!(bench.engine.state("a"), State::Backoff);
    let detail = bench.detail("a");
    let expected = "last: the process exited with status 0 (as it had announced; it reported errno 28: no space left on device)";
    assert!(detail.ends_with(expected), "{detail}");
}

#[test]
fn an_announced_end_is_not_watched_and_has_the_grace() {
    let grace = format!("{WATCHED}[hotswap]\nshutdown_grace = 20");
    let mut bench = executed(&grace);
    bench.pass(4 * SECOND);
    bench.say("a", "STOPPING=1");
    let run = bench.run("a");
    bench.pass(10 * SECOND);
    // Neither does what it says then bring the watchdog back, nor the announcement itself begin anew.
    bench.say("a", "WATCHDOG=1\nWATCHDOG_USEC=5000000\nSTOPPING=1");
    bench.pass(9 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Active);
    bench.say("a", "EXTEND_TIMEOUT_USEC=6000000");
    bench.pass(5 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Active, "it asked for more time");
    bench.pass(SECOND);
    assert_eq!(bench.engine.state("a"), State::Stopping);
    assert_eq!(
        bench.detail("a"),
        "it announced its end and did not end within its grace; has announced its end"
    );
    assert!(bench.has_told(run));
    bench.give(Event::Ended(run, Exit::Signal(15)));
    assert_eq!(bench.engine.state("a"), State::Starting, "by the restart rule");
    let record = bench.engine.journal().since(0).find(|r| r.to == State::Failed).expect("a record");
    assert_eq!(record.cause, Cause::NotEnded);
    bench.execute("a");
    bench.pass(5 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Stopping, "the next one is watched");
}

#[test]
fn an_end_that_is_announced_before_it_is_ready_counts_from_then() {
    let mut bench = executed(WATCHED_ONCE_READY);
    bench.say("a", "STOPPING=1");
    bench.pass(20 * SECOND);
    assert_eq!(bench.engine.state("a"), State::ReadyWait, "the limit of readiness holds");
    bench.say("a", "READY=1");
    bench.pass(9 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Active);
    bench.pass(SECOND);
    assert_eq!(bench.engine.state("a"), State::Stopping);
}

#[test]
fn a_silent_watchdog_restarts_after_its_dependents_are_gone() {
    let user = service("user", "[requires]\ncapabilities = [\"a\"]");
    let base = service("a", &format!("[provides]\ncapabilities = [\"a\"]\n{WATCHED}"));
    let mut bench = Bench::new(&[&base, &user]);
    bench.execute("a");
    bench.execute("user");
    assert_eq!(bench.status("a").health, Health::None);
    for _ in 0..10 {
        bench.pass(4 * SECOND);
        bench.say("a", "WATCHDOG=1");
        assert_eq!(bench.status("a").health, Health::Healthy);
    }
    let run = bench.run("a");
    bench.pass(5 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Stopping);
    assert!(bench.detail("a").starts_with("no sign of life (WATCHDOG=1) within 5s"), "{}", bench.detail("a"));
    assert!(!bench.has_aborted(run), "its dependent still runs");
    bench.end("user");
    assert!(bench.has_aborted(run));
    bench.pass(9 * SECOND);
    let let_be = !bench.has_told(run) && !bench.has_killed(run);
    assert!(let_be, "what handles SIGABRT has the grace to finish");
    bench.pass(SECOND);
    assert!(bench.has_killed(run));
    bench.give(Event::Ended(run, Exit::Signal(6)));
    assert_eq!(bench.engine.state("a"), State::Starting, "again at once");
    let record = bench.engine.journal().since(0).find(|r| r.to == State::Failed).expect("a record");
    assert_eq!(record.cause, Cause::WatchdogExpired { limit_ms: 5000 });
}

#[test]
fn a_sign_of_life_that_comes_with_the_end_of_its_time_counts() {
    let mut bench = Bench::new(&[&service("a", WATCHED), &service("b", WATCHED)]);
    bench.execute("a");
    bench.execute("b");
    let (a, b) = (bench.run("a"), bench.run("b"));
    let deadline = bench.engine.deadline().expect("a deadline");
    let early = deadline.saturating_sub(Duration::from_nanos(1));
    assert_eq!(bench.engine.watchdogs_due(early), []);
    let mut due = bench.engine.watchdogs_due(deadline + SECOND);
    due.sort_unstable();
    assert_eq!(due, [a, b]);
    let said = |text: &[u8]| Event::Notified(b, notify::parse(text));
    bench.engine.handle_all(deadline + SECOND, [said(b"STATUS=late"), said(b"WATCHDOG=1"), Event::Tick]);
    assert_eq!(bench.engine.state("a"), State::Stopping);
    assert_eq!(bench.engine.state("b"), State::Active);
}

#[test]
fn a_watchdog_counts_only_while_the_component_is_up() {
    let mut bench = executed(WATCHED_ONCE_READY);
    bench.say("a", "WATCHDOG=1");
    bench.pass(20 * SECOND);
    assert_eq!(bench.engine.state("a"), State::ReadyWait);
    bench.say("a", "READY=1");
    bench.pass(4 * SECOND);
    bench.stop("a");
    bench.pass(5 * SECOND);
    assert!(!bench.effects.iter().any(|e| matches!(e, Effect::Signal(..))));
    bench.end("a");
    assert_eq!(bench.engine.state("a"), State::Inactive);
    assert_eq!(bench.engine.deadline(), None);
}

#[test]
fn a_process_sets_its_own_interval_and_may_trigger_its_watchdog() {
    let mut bench = executed(WATCHED);
    bench.say("a", "WATCHDOG_USEC=60000000");
    bench.pass(59 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Active);
    bench.say("a", "WATCHDOG_USEC=1");
    bench.pass(Duration::from_millis(9));
    assert_eq!(bench.engine.state("a"), State::Active, "no process makes the supervisor look all the time");
    bench.say("a", "WATCHDOG_USEC=0");
    bench.pass(1000 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Active);
    let run = bench.run("a");
    bench.say("a", "WATCHDOG=trigger");
    assert_eq!(bench.engine.state("a"), State::Stopping);
    assert!(bench.has_aborted(run));
    assert!(!bench.has_told_anybody(), "as for one that fell silent");
    assert!(bench.detail("a").starts_with("it triggered its watchdog"));
    bench.end("a");
    bench.execute("a");
    bench.pass(5 * SECOND);
    assert_eq!(bench.engine.state("a"), State::Stopping, "the next process has the declared interval");
}

#[test]
fn a_process_may_give_itself_up_before_it_is_ready() {
    let mut bench = executed(WATCHED_ONCE_READY);
    let run = bench.run("a");
    bench.say("a", "WATCHDOG=trigger");
    assert_eq!(bench.engine.state("a"), State::Stopping);
    assert!(bench.has_aborted(run));
    bench.give(Event::Ended(run, Exit::Signal(6)));
    assert_eq!(bench.engine.state("a"), State::Starting, "by the restart rule");
}

#[test]
fn limits_are_put_off_but_not_for_ever() {
    let mut bench = executed(NOTIFY);
    bench.pass(29 * SECOND);
    bench.say("a", "EXTEND_TIMEOUT_USEC=1000000");
    bench.say("a", "EXTEND_TIMEOUT_USEC=500000");
    bench.pass(SECOND);
    assert_eq!(bench.engine.state("a"), State::Stopping, "never shorter, nor longer than it asks for");
    bench.end("a");
    bench.pass(30 * SECOND);
    bench.execute("a");
    let started = bench.now;
    for _ in 0..1000 {
        if bench.engine.state("a") != State::ReadyWait {
            break;
        }
        bench.say("a", "EXTEND_TIMEOUT_USEC=600000000");
        bench.pass(10 * SECOND);
    }
    let took = bench.now.saturating_sub(started);
    assert!((3630..3650).contains(&took.as_secs()), "{took:?}");
    assert!(bench.detail("a").contains("not ready within 3630s"), "{}", bench.detail("a"));
    // The grace of the same process has nothing left to be put off by.
    let deadline = bench.engine.deadline();
    bench.say("a", "EXTEND_TIMEOUT_USEC=600000000");
    assert_eq!(bench.engine.deadline(), deadline);
}
