//! Hot swaps of a program that speaks no protocol of ours and is asked by SIGUSR1 for what it listens on: this very test
//! program in another role.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use yakiros_core::control::{Answer, Request, UpgradeForm, UpgradeLevel, Upgraded};
use yakiros_core::journal::State;

use crate::guest::{Guest, PATIENCE, answer, begin, until};
use crate::reexec::reexecute;

const VARIABLE: &str = "SIGNALLED";

const ROLE: [&str; 5] =
    ["--exact", "signalled::as_a_component", "--ignored", "--nocapture", "--test-threads=1"];

/// What ends the list of what is given.
const END: &[u8] = b"HANDOFF_COMPLETE";

fn start() -> Option<(Guest, u16)> {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    let binary = std::env::current_exe().expect("this program").display().to_string();
    let file = format!(
        "[component]\nname = \"plain\"\nbinary = {binary:?}\nargs = {ROLE:?}\n\
         [lifecycle]\nhandoff = \"fd-passing\"\nreadiness = \"notify\"\n\
         [hotswap]\nenv_vars = [\"{VARIABLE}={}\"]\n",
        dir.path().display()
    );
    fs::write(dir.path().join("graph.d/plain.toml"), file).expect("file");
    let guest = Guest::start_in(dir)?;
    guest.wait("plain", State::Active, None);
    let port = fs::read_to_string(guest.dir.path().join("port")).expect("a port");
    Some((guest, port.parse().expect("a number")))
}

fn upgrade(guest: &Guest) -> Answer {
    let name = "plain".to_owned();
    answer(&mut begin(
        guest,
        Request::Upgrade { name, fallback: false, queue: false, strategy: None, timeout_ms: None },
    ))
}

/// What the server says to who connects: its process, by its own number of it.
fn ask(port: u16) -> String {
    let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).expect("an answer");
    assert!(line.ends_with('\n'), "{line:?}");
    line
}

fn pid(guest: &Guest) -> Option<i32> {
    guest.component("plain").pid
}

fn plan(guest: &Guest, who: &str, what: &str) {
    fs::write(guest.dir.path().join(who), what).expect("a plan");
}

/// Ends the clients, also of a test that fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_asked_for_by_a_signal_is_passed_on_and_nobody_waits() {
    let Some((guest, port)) = start() else { return };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                ask(port);
                answers += 1;
            }
            answers
        });
        let over_at_the_end = Over(&over);
        for generation in 2..7 {
            let before = pid(&guest);
            // As long as the one before the old one is there, it waits.
            let done = until("an upgrade", || match upgrade(&guest) {
                Answer::Upgraded(done) => Some(done),
                Answer::Refused { message, .. } if message.contains("is not over") => None,
                other => panic!("{other:?}"),
            });
            let Upgraded { level, form, gap_us, descriptors, generation: told, .. } = done;
            let expected = (UpgradeLevel::FdPassing, Some(UpgradeForm::Signal), Some(0), Some(1), generation);
            assert_eq!((level, form, gap_us, descriptors, told), expected);
            assert_ne!(pid(&guest), before);
        }
        drop(over_at_the_end);
        assert_ne!(clients.join().expect("no client is turned away"), 0);
    });
    let changes = guest.records(0).into_iter().filter(|record| record.from != record.to);
    assert_eq!(changes.filter(|record| record.to == State::Active).count(), 1, "the start");
}

#[test]
fn a_new_one_that_gets_nothing_or_ends_leaves_the_old_one_serving() {
    let Some((guest, port)) = start() else { return };
    let before = pid(&guest);
    let fails = |why: &str| {
        let Answer::Refused { message, .. } = upgrade(&guest) else { panic!("upgraded, not {why}") };
        assert!(message.contains(why) && message.contains("the old process serves on"), "{message}");
        assert_eq!((pid(&guest), guest.component("plain").state), (before, State::Active));
        ask(port);
        // It was asked for what it serves, and is told that nobody took it.
        let told = guest.dir.path().join("told");
        let told = until("the verdict", || fs::read_to_string(&told).ok());
        assert!(told.starts_with("ABORT "), "{told}");
        fs::remove_file(guest.dir.path().join("told")).expect("file");
    };
    plan(&guest, "new", "die");
    fails("the new process exited with status 3");
    plan(&guest, "new", "");
    plan(&guest, "old", "give much");
    fails("the old process: it gives more than 512 bytes at once");
    // In the middle the supervisor executes itself again.
    plan(&guest, "old", "wait");
    let request = Request::Upgrade {
        name: "plain".to_owned(),
        fallback: false,
        queue: false,
        strategy: None,
        timeout_ms: None,
    };
    let mut client = begin(&guest, request);
    until("the question", || guest.dir.path().join("asked").exists().then_some(()));
    reexecute(&guest);
    plan(&guest, "go", "");
    let Answer::Refused { message, .. } = answer(&mut client) else { panic!("upgraded") };
    assert!(message.contains("the supervisor executed itself again meanwhile"), "{message}");
    assert_eq!((pid(&guest), guest.component("plain").state), (before, State::Active));
    ask(port);
    // What it gave too late is not taken for the answer to the next question.
    plan(&guest, "old", "");
    assert!(matches!(upgrade(&guest), Answer::Upgraded(Upgraded { descriptors: Some(1), .. })));
    assert_ne!(pid(&guest), before);
    ask(port);
}

/// Where the handler writes what signal came.
static CAME: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: libc::c_int) {
    let byte = [signal as u8];
    // SAFETY: a call that a handler may make, on a local.
    unsafe { libc::write(CAME.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
}

/// Not a test: what the component runs.
#[test]
#[ignore = "the role of a component in other tests"]
fn as_a_component() {
    let Ok(dir) = std::env::var(VARIABLE) else { return };
    let dir = PathBuf::from(dir);
    let planned = |who: &str| fs::read_to_string(dir.join(who)).unwrap_or_default();
    let (came, write) = nix::unistd::pipe().expect("a pipe");
    CAME.store(write.into_raw_fd(), Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGUSR1, Signal::SIGTERM] {
        // SAFETY: the handler does only what it may.
        unsafe { sigaction(signal, &action) }.expect("a handler");
    }
    let number = std::env::var("HANDOFF_FD").expect("a channel").parse().expect("a number");
    // SAFETY: it was given to this program, and nothing else of it knows of it.
    let channel = unsafe { OwnedFd::from_raw_fd(number) };
    let listener = receive(&channel).map(TcpListener::from);
    if planned("new") == "die" && listener.is_some() {
        // SAFETY: nothing is left to be done on the way out.
        unsafe { libc::_exit(3) }
    }
    let listener = listener.unwrap_or_else(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        fs::write(dir.join("port"), port.to_string()).expect("the port");
        listener
    });
    let ready = std::env::var("NOTIFY_FD").expect("a channel").parse().expect("a number");
    // SAFETY: as above.
    unsafe { File::from_raw_fd(ready) }.write_all(b"\n").expect("said");
    let mut came = File::from(came);
    loop {
        let looks = [channel.as_fd(), came.as_fd(), listener.as_fd()];
        let mut looks = looks.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if poll(&mut looks, PollTimeout::NONE) == Err(nix::Error::EINTR) {
            continue;
        }
        let [told, asked, client] = looks.map(|look| look.any().unwrap_or(false));
        if told {
            let mut text = [0; 512];
            let length = nix::sys::socket::recv(channel.as_raw_fd(), &mut text, MsgFlags::empty());
            fs::write(dir.join("told.new"), &text[..length.expect("a word")]).expect("file");
            fs::rename(dir.join("told.new"), dir.join("told")).expect("file");
        }
        if client {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.write_all(format!("{}\n", std::process::id()).as_bytes()).expect("answered");
        }
        let mut signal = [0];
        if asked && came.read(&mut signal).is_ok() {
            if i32::from(signal[0]) == Signal::SIGTERM as i32 {
                // SAFETY: nothing is left to be done on the way out.
                unsafe { libc::_exit(0) }
            }
            give(&channel, listener.as_raw_fd(), &planned("old"), &dir);
        }
    }
}

/// What it is given, if anything, until it is told that this is all.
fn receive(channel: &OwnedFd) -> Option<OwnedFd> {
    let mut given = None;
    loop {
        let mut bytes = [0; 64];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let message = recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let message = message.expect("a message");
        for part in message.cmsgs().expect("descriptors") {
            if let ControlMessageOwned::ScmRights(fds) = part {
                // SAFETY: they have just come, and are nobody else's.
                given = fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
            }
        }
        let length = message.bytes;
        if &bytes[..length] == END {
            return given;
        }
    }
}

fn give(channel: &OwnedFd, listener: RawFd, plan: &str, dir: &Path) {
    let send = |bytes: &[u8], fds: &[RawFd]| {
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        // Where it cannot be sent, the upgrade has failed, and this one serves on.
        let flags = MsgFlags::MSG_NOSIGNAL;
        let _ = sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None);
    };
    match plan {
        "give much" => return send(&[b'x'; 4096], &[]),
        "wait" => {
            fs::write(dir.join("asked"), "").expect("file");
            until("the word to go on", || dir.join("go").exists().then_some(()));
        }
        _ => {}
    }
    send(b"f", &[listener]);
    send(END, &[]);
}
