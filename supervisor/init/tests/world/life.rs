//! Starting, restarting, reaping, stopping.

mod frugal;
mod health;
mod memory;
mod notify;

use std::fs;
use std::process::Command;

use yakiros_core::control::{Answer, Request};
use yakiros_core::journal::State;

use crate::guest::{Guest, until};
use crate::speaker::{BURST_LINE, start};

#[test]
fn start_order_follows_the_requirements() {
    let Some(guest) = Guest::start("start-order") else {
        return;
    };
    guest.wait("web", State::Active, None);
    guest.settle();
    assert_eq!(guest.component("mounts").state, State::Done);
    let order: Vec<_> = guest
        .records(0)
        .into_iter()
        .filter(|record| record.to.is_up())
        .map(|record| record.component.to_string())
        .collect();
    assert_eq!(order, ["mounts", "database", "web"]);
}

#[test]
fn restart_after_kill() {
    let Some(guest) = Guest::start("restart-after-kill") else {
        return;
    };
    let mut revision = guest.wait("victim", State::Active, None);
    for round in 0..50 {
        let pid = guest.component("victim").pid.expect("running");
        guest.kill(pid, "KILL");
        revision = guest.wait("victim", State::Active, Some(revision));
        let after = guest.component("victim");
        assert_ne!(after.pid, Some(pid), "round {round}");
        assert_eq!(after.restarts, round + 1);
    }
}

#[test]
fn orphans_are_reaped() {
    let Some(guest) = Guest::start("orphan") else {
        return;
    };
    guest.wait("parent", State::Active, None);
    until("the orphan's end", || guest.dir.path().join("orphan-done").exists().then_some(()));
    // The orphan ends right after its file; then no dead process may be left inside.
    until("the reaping", || (guest.zombies() == 0).then_some(()));
    assert_eq!(guest.component("parent").restarts, 0);
}

#[test]
fn everything_that_was_written_before_the_end_is_kept() {
    // As much as anybody may make a pipe hold; the two files of a log keep half of it.
    const LINES: usize = 1000;
    const KEPT: usize = LINES / 4;
    let Some((guest, mut speaker)) = start("") else {
        return;
    };
    // It has ended when it no longer answers; the next one is met after its log is complete.
    assert_eq!(speaker.tell(&format!("burst {LINES}")), "");
    speaker.meet();
    let read = |name: &str| fs::read_to_string(guest.dir.path().join("state").join(name)).unwrap_or_default();
    let log = read("speaker.log.1") + &read("speaker.log");
    let line = |number| format!("{number:0width$}", width = BURST_LINE - 1);
    for number in LINES - KEPT..=LINES {
        assert!(log.contains(&line(number)), "line {number} is lost");
    }
}

#[test]
fn a_child_inherits_nothing() {
    let Some(guest) = Guest::start("clean-child") else {
        return;
    };
    let revision = guest.wait("probe", State::Active, None);
    guest.wait("probe", State::Active, Some(revision - 1));
    let report = guest.dir.path().join("report");
    let text = until("the report", || fs::read_to_string(&report).ok().filter(|text| text.contains("end")));
    let fds = text.lines().find(|line| line.starts_with("fds:"));
    // 3 is the descriptor with which `ls` reads the directory.
    assert_eq!(fds, Some("fds: 0 1 2 3 "), "{text}");
    for line in [
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "session leader",
        "GRAPH_COMPONENT=probe",
        "GRAPH_GENERATION=1",
        "0022",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn stop_start_and_restart_by_request() {
    let Some(guest) = Guest::start("requirement-lost") else {
        return;
    };
    guest.wait("top", State::Active, None);
    let name = || "middle".to_owned();
    let timeout_ms = Some(10_000);
    let stop = Request::Stop { name: name(), timeout_ms };
    assert!(matches!(guest.ask(stop), Answer::Done { .. }));
    assert_eq!(guest.component("middle").state, State::Inactive);
    guest.settle();
    assert_eq!(guest.component("top").state, State::Inactive);
    assert_eq!(guest.component("base").state, State::Active);
    let start = Request::Start { name: "top".to_owned(), timeout_ms };
    match guest.ask(start) {
        Answer::Refused { message, .. } => {
            assert!(message.contains("its provider middle was stopped"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let start = Request::Start { name: name(), timeout_ms };
    assert!(matches!(guest.ask(start), Answer::Done { .. }));
    let before = guest.component("middle").pid;
    let restart = Request::Restart { name: name(), timeout_ms };
    assert!(matches!(guest.ask(restart), Answer::Done { .. }));
    assert_ne!(guest.component("middle").pid, before);
    guest.wait("top", State::Active, None);
}

#[test]
fn a_stubborn_process_is_killed_after_its_grace() {
    let Some(guest) = Guest::start("stubborn") else {
        return;
    };
    guest.wait("stubborn", State::Active, None);
    until("the trap", || guest.dir.path().join("deaf").exists().then_some(()));
    let stop = Request::Stop { name: "stubborn".to_owned(), timeout_ms: Some(10_000) };
    let begun = std::time::Instant::now();
    assert!(matches!(guest.ask(stop), Answer::Done { .. }));
    let took = begun.elapsed().as_millis();
    assert!(took >= 500, "{took} ms for a grace of 500 ms");
}

#[test]
fn shutdown_stops_in_reverse_order() {
    let Some(guest) = Guest::start("shutdown-order") else {
        return;
    };
    guest.wait("top", State::Active, None);
    until("the traps", || {
        let armed = |name: &&str| guest.dir.path().join(format!("{name}-armed")).exists();
        ["base", "middle", "top"].iter().all(armed).then_some(())
    });
    let order = guest.dir.path().join("order");
    let init = guest.init_pid();
    let kill = Command::new("kill").args(["-TERM", &init.to_string()]).status();
    assert!(kill.expect("kill").success());
    let text = until("the order", || {
        let text = fs::read_to_string(&order).ok()?;
        (text.lines().count() == 3).then_some(text)
    });
    assert_eq!(text, "top\nmiddle\nbase\n");
    let (signal, log) = guest.ended();
    // In a namespace the kernel turns power-off into the end of process 1 by SIGINT.
    assert_eq!(signal, Some(2), "{log}");
    assert!(log.contains("power off"), "{log}");
}

#[test]
fn signals_from_inside_do_not_end_process_one() {
    let Some(guest) = Guest::start("restart-after-kill") else {
        return;
    };
    guest.wait("victim", State::Active, None);
    for signal in ["KILL", "SEGV", "ABRT", "BUS", "ILL", "FPE", "QUIT", "HUP", "PIPE", "STOP"] {
        guest.kill(1, signal);
        guest.kill(1, signal);
        assert_eq!(guest.component("victim").state, State::Active, "after {signal}");
    }
}
