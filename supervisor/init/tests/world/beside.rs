//! Hot swaps of a program that speaks no protocol of ours: it takes its listener from the supervisor, so the next process
//! serves beside the one before.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use yakiros_core::control::{Answer, Request, UpgradeForm, UpgradeLevel, Upgraded};
use yakiros_core::journal::{Cause, Exit, State};

use crate::guest::{Guest, PATIENCE, answer, begin, until};
use crate::reexec::reexecute;
use crate::speaker::{Speaker, start};

/// The speaker with a listener, up. Its port is free, and taken before anybody is told of it.
fn serving(more: &str) -> Option<(Guest, Speaker, u16)> {
    let lifecycle = "[lifecycle]\nhandoff = \"fd-passing\"\nreadiness = \"notify\"\n";
    let (guest, mut speaker) = start(&format!("fd_store_max = 1\n{more}{lifecycle}"))?;
    let port = speaker.tell("keep http").parse().expect("a port");
    speaker.tell("READY=1");
    guest.wait("speaker", State::Active, None);
    until("the listener", || (!guest.component("speaker").descriptors.is_empty()).then_some(()));
    // So that it has the listener as its next process will.
    let revision = guest.revision();
    guest.ask(Request::Restart { name: "speaker".to_owned(), timeout_ms: Some(0) });
    speaker.meet();
    speaker.tell("READY=1");
    guest.wait("speaker", State::Active, Some(revision));
    Some((guest, speaker, port))
}

/// Begin an upgrade, and meet the new process. Who waits for the answer, and the old one.
fn begin_upgrade(guest: &Guest, speaker: &mut Speaker) -> (BufReader<UnixStream>, Speaker) {
    let request = Request::Upgrade {
        name: "speaker".to_owned(),
        fallback: false,
        queue: false,
        strategy: None,
        timeout_ms: None,
    };
    let client = begin(guest, request);
    let old = speaker.leave();
    speaker.meet();
    (client, old)
}

fn assert_serves(speaker: &mut Speaker, port: u16) {
    let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    assert_eq!(speaker.tell("accept 3"), "served");
    client.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).expect("an answer");
    assert_eq!(line, "served\n");
}

fn pid(guest: &Guest) -> i32 {
    guest.component("speaker").pid.expect("a process")
}

#[test]
fn both_serve_until_the_new_one_is_ready_and_then_the_old_one_is_told_to_end() {
    let Some((guest, mut speaker, port)) = serving("") else {
        return;
    };
    for generation in 3..8 {
        let before = pid(&guest);
        let (mut client, mut old) = begin_upgrade(&guest, &mut speaker);
        assert_serves(&mut old, port);
        assert_serves(&mut speaker, port);
        if generation == 4 {
            reexecute(&guest);
        }
        assert_eq!((pid(&guest), guest.component("speaker").state), (before, State::Active));
        speaker.tell("READY=1");
        let Answer::Upgraded(Upgraded { level, form, gap_us, descriptors, generation: told, .. }) =
            answer(&mut client)
        else {
            panic!("no upgrade");
        };
        let expected = (UpgradeLevel::FdPassing, Some(UpgradeForm::Listeners), Some(0), Some(1), generation);
        assert_eq!((level, form, gap_us, descriptors, told), expected);
        assert_ne!(pid(&guest), before);
        old.await_end();
        assert_serves(&mut speaker, port);
    }
    let changes = guest.records(0).into_iter().filter(|record| record.from != record.to);
    assert_eq!(changes.filter(|record| record.to == State::Active).count(), 2, "the two starts");
}

#[test]
fn a_new_one_that_ends_leaves_the_old_one_serving() {
    let Some((guest, mut speaker, port)) = serving("") else {
        return;
    };
    let before = pid(&guest);
    let (mut client, mut old) = begin_upgrade(&guest, &mut speaker);
    speaker.order("end 3");
    let Answer::Refused { message, .. } = answer(&mut client) else { panic!("upgraded") };
    let told = "the new process exited with status 3; the old process serves on";
    assert!(message.contains("failed at the step \"start\"") && message.contains(told), "{message}");
    assert_eq!((pid(&guest), guest.component("speaker").state), (before, State::Active));
    assert_serves(&mut old, port);
}

#[test]
fn the_declared_signal_ends_it() {
    let Some((guest, _speaker)) = start("[lifecycle]\nstop_signal = \"SIGUSR2\"\n") else {
        return;
    };
    guest.wait("speaker", State::Active, None);
    guest.ask(Request::Stop { name: "speaker".to_owned(), timeout_ms: None });
    let ended = guest.records(0).into_iter().map(|record| record.cause);
    let ends: Vec<_> = ended.filter(|cause| matches!(cause, Cause::Ended(_))).collect();
    assert_eq!(ends, [Cause::Ended(Exit::Signal(nix::libc::SIGUSR2))]);
}
