//! A component that hands over: this very test program in another role, an echo server that numbers its answers.
//!
//! The number of answers and what was read of unfinished lines are its state, so whoever serves after it goes on with
//! the next number, in the middle of a line. Where it is to go wrong is written to a file by the test before it begins.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use yakiros_handoff::message::Part;
use yakiros_handoff::{Channel, Inheritance, Offer, Request, Start, State, Successor, Verdict};

/// Where the component finds its directory.
const VARIABLE: &str = "HEIR";

/// The arguments that make this program the component.
const ROLE: [&str; 5] = ["--exact", "heir::as_a_component", "--ignored", "--nocapture", "--test-threads=1"];

/// Descriptors that do not fit the queue of a connection, so that who gives them waits for who takes them.
const BALLAST: usize = 8 * yakiros_handoff::DESCRIPTORS_PER_MESSAGE * 4;

/// The version of its state.
const VERSION: u32 = 1;

/// The lines of its component file, with `more` in `[lifecycle]`.
pub fn file(dir: &Path, more: &str) -> String {
    handing_over("fd-passing", dir, more)
}

/// The same with another way to hand over.
pub fn handing_over(way: &str, dir: &Path, more: &str) -> String {
    let binary = std::env::current_exe().expect("this program").display().to_string();
    format!(
        "[component]\nname = \"heir\"\nbinary = {binary:?}\nargs = {ROLE:?}\n[provides]\ncapabilities = [\"echo\"]\n\
         [lifecycle]\nhandoff = {way:?}\n{more}\n[hotswap]\nenv_vars = [\"{VARIABLE}={}\"]\n",
        dir.display()
    )
}

/// How a process is to go wrong: who is to take over reads `new`, who is asked to give reads `old`. Both do well
/// without.
pub fn plan(dir: &Path, who: &str, what: &str) {
    let path = dir.join(who);
    if what.is_empty() {
        let _ = fs::remove_file(path);
    } else {
        fs::write(path, what).expect("a plan");
    }
}

struct Connection {
    stream: TcpStream,
    /// What was read of a line.
    part: Vec<u8>,
}

/// The server between two looks at what has come.
struct Server {
    listener: TcpListener,
    connections: Vec<Connection>,
    answers: u64,
    generation: String,
}

impl Server {
    fn state(&self) -> State {
        let mut bytes = self.answers.to_le_bytes().to_vec();
        for connection in &self.connections {
            bytes.extend((connection.part.len() as u64).to_le_bytes());
            bytes.extend(&connection.part);
        }
        State::new(VERSION, &bytes).expect("a state")
    }

    fn inherit(mut inheritance: Inheritance, listener: TcpListener, generation: String) -> Self {
        assert_eq!(inheritance.state.version(), VERSION);
        let bytes = inheritance.state.bytes().expect("the state");
        let mut rest = bytes.as_slice();
        let answers = number(&mut rest);
        let mut connections = Vec::new();
        for (_, stream) in inheritance.remove_all("connection ") {
            let (part, after) = {
                let length = number(&mut rest) as usize;
                rest.split_at(length)
            };
            rest = after;
            connections.push(Connection { stream: stream.into(), part: part.to_vec() });
        }
        Self { listener, connections, answers, generation }
    }

    /// What a version that served new connections gets later.
    fn merge(&mut self, inheritance: Inheritance) {
        let listener = self.listener.try_clone().expect("a duplicate");
        let kept = Self::inherit(inheritance, listener, String::new());
        self.answers += kept.answers;
        self.connections.extend(kept.connections);
    }

    fn connections(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let connections = self.connections.iter().enumerate();
        connections.map(|(at, one)| (format!("connection {at}"), one.stream.as_fd()))
    }

    fn items(&self) -> Vec<(String, BorrowedFd<'_>)> {
        self.connections().chain([("listener".to_owned(), self.listener.as_fd())]).collect()
    }

    /// Wait for something to come, and answer it. Whether the supervisor has said something.
    fn turn(&mut self, channel: &Channel, dir: &Path) -> bool {
        let accepts = if channel.accepts() { PollFlags::POLLIN } else { PollFlags::empty() };
        let served = self.connections().map(|(_, fd)| PollFd::new(fd, PollFlags::POLLIN));
        let served = served.chain([PollFd::new(self.listener.as_fd(), accepts)]);
        let asked = channel.descriptor().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let mut all: Vec<_> = served.chain(asked).collect();
        // Who is written into a checkpoint is interrupted in it.
        while poll(&mut all, PollTimeout::NONE).map_or_else(|error| error == Errno::EINTR, |_| false) {}
        let came: Vec<bool> = all.iter().map(|one| one.any().unwrap_or(false)).collect();
        drop(all);
        let (connections, others) = came.split_at(self.connections.len());
        if others[0] {
            let (stream, _) = self.listener.accept().expect("a client");
            self.connections.push(Connection { stream, part: Vec::new() });
        }
        let mut ended = Vec::new();
        for at in connections.iter().enumerate().filter(|(_, came)| **came).map(|(at, _)| at) {
            if !self.answer(at, dir) {
                ended.push(at);
            }
        }
        for at in ended.into_iter().rev() {
            self.connections.remove(at);
        }
        others.get(1).copied().unwrap_or(false)
    }

    /// Answer what has come over a connection. Whether it goes on.
    fn answer(&mut self, at: usize, dir: &Path) -> bool {
        let connection = &mut self.connections[at];
        let mut bytes = [0; 4096];
        let Ok(count @ 1..) = connection.stream.read(&mut bytes) else { return false };
        connection.part.extend(&bytes[..count]);
        while let Some(end) = connection.part.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = connection.part.drain(..=end).collect();
            self.answers += 1;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if line == "break down" {
                fail_serving(&planned(dir, "new"), dir);
                continue;
            }
            let answer = format!("{line} {} {}\n", self.answers, self.generation);
            if connection.stream.write_all(answer.as_bytes()).is_err() {
                return false;
            }
        }
        true
    }
}

fn number_of(entry: &fs::DirEntry) -> i32 {
    entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number")
}

fn number(rest: &mut &[u8]) -> u64 {
    let (bytes, after) = rest.split_first_chunk().expect("a number");
    *rest = after;
    u64::from_le_bytes(*bytes)
}

/// Not a test: what the component runs.
#[test]
#[ignore = "the role of a component in other tests"]
fn as_a_component() {
    let Ok(dir) = std::env::var(VARIABLE) else {
        return;
    };
    let dir = PathBuf::from(dir);
    // Nothing of the supervisor's but the channel: 3 is what the directory is read by.
    let mut open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .expect("descriptors")
        .flatten()
        .map(|entry| number_of(&entry))
        .collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, 3, 4]);
    let generation = std::env::var("GRAPH_GENERATION").expect("a number");
    let whole = dir.join("whole").exists();
    let start = if whole { yakiros_handoff::start } else { yakiros_handoff::start_in_parts };
    let (mut server, mut channel) = match start().expect("a start") {
        Start::Fresh(channel) => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            let port = listener.local_addr().expect("an address").port().to_string();
            fs::write(dir.join("port"), port).expect("the port");
            fs::rename(dir.join("port"), dir.join(format!("port-{generation}"))).expect("the port");
            (Server { listener, connections: Vec::new(), answers: 0, generation }, channel)
        }
        Start::Successor(successor) => take_over(successor, &dir, generation),
    };
    loop {
        if server.turn(&channel, &dir) {
            hear(&mut server, &mut channel, &dir);
        }
    }
}

fn planned(dir: &Path, who: &str) -> String {
    fs::read_to_string(dir.join(who)).unwrap_or_default()
}

fn take_over(successor: Successor, dir: &Path, generation: String) -> (Server, Channel) {
    let plan = planned(dir, "new");
    match plan.as_str() {
        "die" => end(3),
        "hang" => hang(),
        "wait" => wait_for(dir, "go"),
        "garbage" => say(b"\xffwhat"),
        "too early" => say(b"SERVING"),
        "fail" => {
            successor.fail("the configuration is wrong").expect("said");
            hang()
        }
        "fail and end" => {
            successor.fail("the database is of another version").expect("said");
            end(9)
        }
        _ => {}
    }
    if matches!(plan.as_str(), "die receiving" | "never receive") {
        say(b"PREPARED");
        receive();
        if plan == "die receiving" { end(10) } else { hang() }
    }
    let (mut inheritance, ready) = successor.take().unwrap_or_else(|_| end(4));
    match plan.as_str() {
        "die taking" => end(5),
        "fail taking" => {
            ready.fail("no room").expect("said");
            hang()
        }
        "hang taking" => hang(),
        _ => {}
    }
    let listener = inheritance.remove("listener").expect("a listener").into();
    let server = match inheritance.part {
        Part::Listeners => Server { listener, connections: Vec::new(), answers: 0, generation },
        Part::All | Part::Rest => Server::inherit(inheritance, listener, generation),
    };
    let channel = ready.serve().unwrap_or_else(|_| end(6));
    (server, channel)
}

/// The supervisor has said something.
fn hear(server: &mut Server, channel: &mut Channel, dir: &Path) {
    if planned(dir, "old") == "ignore" {
        hang();
    }
    match channel.requested().expect("the supervisor") {
        Some(Request::Give(offer)) => hand_over(server, offer, dir),
        Some(Request::Lend(loan)) if planned(dir, "old") == "refuse" => {
            loan.refuse("a backup is under way");
        }
        Some(Request::Lend(loan)) => loan.lend([("listener", &server.listener)]).expect("lent"),
        Some(Request::Take(_)) if planned(dir, "new") == "die taking the rest" => end(11),
        Some(Request::Take(rest)) => {
            let (inheritance, merge) = rest.take().unwrap_or_else(|_| end(12));
            server.merge(inheritance);
            merge.serve().unwrap_or_else(|_| end(13));
        }
        Some(Request::End) => end(0),
        Some(Request::Accept(_)) | None => {}
    }
}

fn hand_over(server: &Server, offer: Offer<'_>, dir: &Path) {
    let plan = planned(dir, "old");
    match plan.as_str() {
        "die" => end(7),
        "garbage" => say(b"OFFERED all"),
        "wait" => wait_for(dir, "go"),
        "refuse" => {
            offer.refuse("a backup is under way");
            return;
        }
        _ => {}
    }
    let mut items = if offer.is_rest() { server.connections().collect() } else { server.items() };
    if plan == "much" {
        items.extend(std::iter::repeat_n(("ballast".to_owned(), server.listener.as_fd()), BALLAST));
    }
    let given = offer.give(items.iter().map(|(name, fd)| (name.as_str(), fd)), || Ok(server.state()));
    match given {
        Ok(Verdict::Released) if plan == "stay" => hang(),
        Ok(Verdict::Released) => end(0),
        Ok(Verdict::Resume(_)) => {}
        Err(_) => end(8),
    }
}

/// A line that brings out what is wrong with a new version, once it serves; none of it is answered.
fn fail_serving(plan: &str, dir: &Path) {
    match plan {
        "ill" => {
            fs::write(dir.join("pid"), std::process::id().to_string()).expect("the illness");
            fs::rename(dir.join("pid"), dir.join("ill")).expect("the illness");
        }
        "die serving" => end(10),
        "fail serving" => {
            let generation = std::env::var("GRAPH_GENERATION").expect("a number");
            say(format!("FAILED generation={generation} the index is broken").as_bytes());
        }
        _ => {}
    }
}

/// Say something to the supervisor past the library.
fn say(bytes: &[u8]) {
    let fd = std::env::var("HANDOFF_FD").expect("a channel").parse().expect("a number");
    nix::sys::socket::send(fd, bytes, nix::sys::socket::MsgFlags::empty()).expect("said");
}

/// Wait for something from the supervisor, and take it past the library with the descriptor that comes with it, which
/// stays open.
fn receive() {
    let fd = std::env::var("HANDOFF_FD").expect("a channel").parse().expect("a number");
    let mut bytes = [0; 512];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!([i32; 1]);
    let flags = nix::sys::socket::MsgFlags::empty();
    nix::sys::socket::recvmsg::<()>(fd, &mut parts, Some(&mut control), flags).expect("a message");
}

fn wait_for(dir: &Path, file: &str) {
    while !dir.join(file).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn end(status: i32) -> ! {
    // SAFETY: nothing is left to be done on the way out.
    unsafe { nix::libc::_exit(status) }
}
