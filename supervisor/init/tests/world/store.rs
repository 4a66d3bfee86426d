//! Descriptors that are held for a component come back to each of its processes, and to nobody else.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use yakiros_core::control::Request;
use yakiros_core::journal::State;

use crate::guest::{Guest, PATIENCE, until};
use crate::reexec::reexecute;
use crate::speaker::{Speaker, file, start, start_unmet};

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
    assert_served(client);
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

fn assert_served(client: TcpStream) {
    let mut answer = String::new();
    client.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    BufReader::new(client).read_line(&mut answer).expect("an answer");
    assert_eq!(answer, "served\n");
}

/// A port that nobody listens on. Another test may take it in between, so it is held until it is wanted.
fn port() -> (TcpListener, u16) {
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("an address").port();
    (held, port)
}

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).expect("the socket's file");
    assert!(found.file_type().is_socket());
    found.permissions().mode() & 0o777
}

#[test]
fn declared_sockets_are_open_before_the_first_process_and_for_as_long_as_they_are_declared() {
    let (taken, port) = port();
    let sockets = |mode: &str| {
        format!(
            "fd_store_max = 1\n[[sockets]]\nlisten = \"127.0.0.1:{port}\"\nname = \"http\"\n\
             [[sockets]]\nlisten = \"@DIR@/x.sock\"\nmode = \"{mode}\"\n\
             [[sockets]]\nlisten = \"127.0.0.1:{port}\"\ntype = \"datagram\"\nname = \"udp\"\n"
        )
    };
    let Some((guest, mut speaker)) = start_unmet(&sockets("0600")) else {
        return;
    };
    // The port is taken: no process, and the reason is told.
    let told = "failed to listen on 127.0.0.1";
    until("the failure", || {
        guest.component("speaker").detail.is_some_and(|why| why.contains(told)).then_some(())
    });
    drop(taken);
    guest.ask(Request::Start { name: "speaker".to_owned(), timeout_ms: None });
    speaker.meet();
    assert_eq!(speaker.tell("given -"), format!("3 true http={port} socket=0 udp={port}"));
    await_held(&guest, "http=1 socket=1 udp=1");
    let path = guest.dir.path().join("x.sock");
    assert_eq!(mode(&path), 0o600);
    let stored = speaker.tell("keep mine");
    await_held(&guest, "http=1 socket=1 udp=1 mine=1");

    let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    UnixStream::connect(&path).expect("a connection");
    let pid = guest.component("speaker").pid.expect("a process");
    next(&guest, &mut speaker, || guest.kill(pid, "KILL"));
    reexecute(&guest);
    restart(&guest, &mut speaker);
    assert_eq!(speaker.tell("given -"), format!("4 true http={port} socket=0 udp={port} mine={stored}"));
    assert_eq!(speaker.tell("accept 3"), "served");
    assert_served(client);

    let text = file(guest.dir.path(), &sockets("0660"));
    next(&guest, &mut speaker, || guest.declare("speaker.toml", &text));
    assert_eq!(mode(&path), 0o660);
    UnixStream::connect(&path).expect("a connection");
    guest.undeclare("speaker.toml");
    until("the end of the sockets", || {
        let gone = !path.exists() && TcpStream::connect(("127.0.0.1", port)).is_err();
        gone.then_some(())
    });
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
