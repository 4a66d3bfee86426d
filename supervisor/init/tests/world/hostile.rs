//! Clients that mean harm, or just do not care.

use std::fs;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use yakiros_core::control::{Request, Until, encode_request};
use yakiros_core::journal::State;

use crate::guest::{Guest, PATIENCE, unshare_flags, until, write_script};

/// The most memory that a flood of clients may leave behind in process 1.
const GROWTH_LIMIT: u64 = 4 * 1024;

fn resident_kib(guest: &Guest) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", guest.init_pid());
    let text = fs::read_to_string(path).expect("smaps_rollup");
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words.and_then(|kib| kib.parse().ok()).expect("a size")
}

#[test]
fn hostile_clients_harm_nobody() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    let before = resident_kib(&guest);
    let connect = || UnixStream::connect(guest.socket()).expect("connection");
    // Idle ones, more of them than there is room for.
    let idle: Vec<_> = (0..500).map(|_| connect()).collect();
    // Garbage, half a line, an endless line, a line without an end.
    for bytes in [&b"\x00\xff\xfe garbage\n"[..], b"{\"version\":1,", b"\n\n\n\n"] {
        let mut stream = connect();
        let _ = stream.write_all(bytes);
        drop(stream);
    }
    let mut endless = connect();
    endless.set_write_timeout(Some(PATIENCE)).expect("timeout");
    let block = vec![b'x'; 64 * 1024];
    let cut_off = (0..64).any(|_| endless.write_all(&block).is_err());
    assert!(cut_off, "4 MB without a newline were taken");
    // One that asks and never reads.
    let mut deaf = connect();
    deaf.set_write_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let line = encode_request(Request::Status { name: None, after: None }).expect("request");
    while deaf.write_all(&line).is_ok() {}
    // Waiters that hang up.
    for _ in 0..500 {
        let until = Until::State { name: "nobody".to_owned(), state: State::Active, since: None };
        let timeout_ms = None;
        let line = encode_request(Request::Wait { until, timeout_ms }).expect("request");
        let _ = connect().write_all(&line);
    }
    assert_eq!(guest.component("steady").state, State::Active);
    guest.settle();
    drop(idle);
    let after = resident_kib(&guest);
    let growth = after.saturating_sub(before);
    assert!(growth < GROWTH_LIMIT, "{before} KiB grew by {growth} KiB");
}

#[test]
fn the_control_socket_takes_no_descriptors() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let send = || {
        let stream = UnixStream::connect(guest.socket()).expect("connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let descriptors = [stream.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let text = [IoSlice::new(b"{")];
        (sendmsg::<()>(stream.as_raw_fd(), &text, &control, MsgFlags::empty(), None), stream)
    };
    // The kernel refuses it, or before Linux 6.16 the supervisor.
    let check = |(sent, mut stream): (nix::Result<usize>, UnixStream)| {
        if sent != Err(nix::errno::Errno::EPERM) {
            assert_eq!(sent, Ok(1));
            let read = stream.read(&mut [0]).map_err(|error| error.kind());
            // What it had sent is not read, so the kernel may tell it of that.
            assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)), "not cut off: {read:?}");
        }
    };
    check(send());
    // Before the connection is accepted, too.
    guest.freeze();
    let early = send();
    guest.thaw();
    check(early);
    guest.settle();
}

#[test]
fn a_loose_umask_opens_nothing_to_others() {
    let Some(flags) = unshare_flags() else {
        return;
    };
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    let file =
        "[component]\nname = \"writer\"\nbinary = \"/bin/echo\"\nargs = [\"done\"]\ntype = \"oneshot\"\n";
    fs::write(dir.path().join("graph.d/writer.toml"), file).expect("component file");
    let program = dir.path().join("loose");
    let script = format!("#!/bin/sh\numask 0\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_graph-resolver"));
    write_script(&program, &script);
    let guest = Guest::start_program(dir, flags, &program);
    guest.wait("writer", State::Done, None);
    let state = guest.dir.path().join("state");
    let log = until("the log", || state.join("writer.log").exists().then(|| state.join("writer.log")));
    for path in [state, log] {
        let mode = fs::metadata(&path).expect("a mode").mode();
        assert_eq!(mode & 0o022, 0, "{} has the mode {mode:o}", path.display());
    }
}

#[test]
fn a_wrong_request_gets_a_reason() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let mut stream = UnixStream::connect(guest.socket()).expect("connection");
    stream.write_all(b"{\"version\":99,\"request\":\"status\"}\n").expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    assert!(answer.contains("this supervisor speaks 1"), "{answer}");
}
