//! Descriptors that are held for a component come back to each of its processes, and to nobody else.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;

use yakiros_core::control::Request;
use yakiros_core::journal::State;

use crate::guest::{Guest, PATIENCE, until};
use crate::reexec::reexecute;
use crate::speaker::{Speaker, start};

/// What is held for the speaker: `NAME=COUNT` of each name.
fn held(guest: &Guest) -> String {
    let held = guest.component("speaker").descriptors;
    let held: Vec<_> = held.iter().map(|held| format!("{}={}", held.name, held.count)).collect();
    held.join(" ")
}

fn await_held(guest: &Guest, expected: &str) {
    until(expected, || (held(guest) == expected).then_some(()));
}

/// Have another process of it, by what ends the one before.
fn next(guest: &Guest, speaker: &mut Speaker, end: impl FnOnce()) {
    let revision = guest.revision();
    end();
    speaker.meet();
    guest.wait("speaker", State::Active, Some(revision));
}

fn restart(guest: &Guest, speaker: &mut Speaker) {
    next(guest, speaker, || {
        guest.ask(Request::Restart { name: "speaker".to_owned(), timeout_ms: None });
    });
}

#[test]
fn what_a_component_stores_comes_back_at_every_start() {
    let Some((guest, mut speaker)) = start("fd_store_max = 2\n") else {
        return;
    };
    assert_eq!(speaker.tell("given -"), "0 false");
    let [http, other] = ["http", "other"].map(|name| speaker.tell(&format!("keep {name}")));
    speaker.tell("keep third");
    await_held(&guest, "http=1 other=1");
    // Nobody has the listener but the supervisor, and a connection waits in it for the next process.
    let client = TcpStream::connect(("127.0.0.1", http.parse().expect("a port"))).expect("a connection");
    let expected = format!("2 true http={http} other={other}");
    let pid = guest.component("speaker").pid.expect("a process");
    next(&guest, &mut speaker, || guest.kill(pid, "KILL"));
    assert_eq!(speaker.tell("given -"), expected);
    assert_eq!(speaker.tell("accept 3"), "served");
    let mut answer = String::new();
    client.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    BufReader::new(client).read_line(&mut answer).expect("an answer");
    assert_eq!(answer, "served\n");
    reexecute(&guest);
    assert_eq!(held(&guest), "http=1 other=1");
    restart(&guest, &mut speaker);
    assert_eq!(speaker.tell("given -"), expected);
    speaker.tell("FDSTOREREMOVE=1|FDNAME=other");
    await_held(&guest, "http=1");
    restart(&guest, &mut speaker);
    assert_eq!(speaker.tell("given -"), format!("1 true http={http}"));
    assert!(guest.log().contains("as many as hotswap.fd_store_max allows"), "{}", guest.log());
    guest.undeclare("speaker.toml");
    let port = http.parse().expect("a port");
    until("the end of the listener", || TcpStream::connect(("127.0.0.1", port)).err());
}

#[test]
fn what_is_stored_last_thing_is_kept() {
    let Some((guest, mut speaker)) = start("fd_store_max = 64\n[lifecycle]\nrestart_max = 100\n") else {
        return;
    };
    for round in 1..=20 {
        let revision = guest.revision();
        speaker.order("keep-and-end last");
        speaker.meet();
        guest.wait("speaker", State::Active, Some(revision));
        assert_eq!(held(&guest), format!("last={round}"));
    }
}

#[test]
fn what_is_given_does_not_stand_in_the_way_of_the_other_channels() {
    let more = "fd_store_max = 2\n[lifecycle]\nreadiness = \"notify\"\nhandoff = \"fd-passing\"\n";
    let Some((guest, mut speaker)) = start(more) else {
        return;
    };
    let variables = |speaker: &mut Speaker| {
        ["NOTIFY_FD", "HANDOFF_FD"].map(|name| speaker.tell(&format!("variable {name}")))
    };
    assert_eq!(variables(&mut speaker), ["3", "4"]);
    assert_eq!(speaker.tell("write 3"), "Ok(1)");
    guest.wait("speaker", State::Active, None);
    let port = speaker.tell("keep http");
    await_held(&guest, "http=1");
    let pid = guest.component("speaker").pid.expect("a process");
    let revision = guest.revision();
    guest.kill(pid, "KILL");
    speaker.meet();
    assert_eq!(variables(&mut speaker), ["4", "5"]);
    assert_eq!(speaker.tell("given -"), format!("1 true http={port}"));
    assert_eq!(guest.component("speaker").state, State::ReadyWait);
    assert_eq!(speaker.tell("write 4"), "Ok(1)");
    guest.wait("speaker", State::Active, Some(revision));
}
