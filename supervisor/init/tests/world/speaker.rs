//! A component that says what it is told to: this very test program in another role.
//!
//! The test listens on a socket, the component connects to it, takes a line at a time, says it on
//! its `NOTIFY_SOCKET` and answers when it has.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};

use crate::guest::{Guest, PATIENCE};

/// Where the component finds its test.
const VARIABLE: &str = "SPEAKER";

/// The arguments that make this program the component.
const ROLE: [&str; 5] =
    ["--exact", "speaker::as_a_component", "--ignored", "--nocapture", "--test-threads=1"];

/// Bytes of each line of a burst.
pub const BURST_LINE: usize = 1000;

/// Stands for a newline in a line.
const NEWLINE: &str = "|";

/// The test's end.
pub struct Speaker {
    listener: UnixListener,
    stream: Option<BufReader<UnixStream>>,
}

impl Speaker {
    pub fn new(dir: &Path) -> Self {
        let listener = UnixListener::bind(dir.join("speaker")).expect("the speaker's socket");
        Self { listener, stream: None }
    }

    /// The text of a component file with this program as `@SPEAKER@` and what it needs to know.
    pub fn file(text: &str, dir: &Path) -> String {
        let binary = std::env::current_exe().expect("this program").display().to_string();
        let program = format!("binary = {binary:?}\nargs = {ROLE:?}");
        let variable = format!("{VARIABLE}={}", dir.join("speaker").display());
        text.replace("binary = \"@SPEAKER@\"", &program).replace("@VARIABLE@", &variable)
    }

    /// Wait for the next process of the component.
    pub fn meet(&mut self) {
        let (stream, _) = self.listener.accept().expect("the speaker");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        self.stream = Some(BufReader::new(stream));
    }

    /// Keep the process that was met last apart from the next one that is.
    pub fn leave(&mut self) -> Self {
        let listener = self.listener.try_clone().expect("the listener");
        Self { listener, stream: self.stream.take() }
    }

    /// Wait until the process is gone.
    pub fn await_end(&mut self) {
        let stream = self.stream.as_mut().expect("met before");
        // It may end by a reset if it was told something that it never read.
        let ended = stream.read_line(&mut String::new());
        assert!(!matches!(ended, Ok(1..)), "it says something");
    }

    /// Have a command carried out that has no answer.
    pub fn order(&mut self, line: &str) {
        let stream = self.stream.as_mut().expect("met before");
        writeln!(stream.get_mut(), "{line}").expect("the speaker listens");
    }

    /// Have something said, or another command of [`obey`] carried out, and return the answer.
    pub fn tell(&mut self, line: &str) -> String {
        self.order(line);
        let stream = self.stream.as_mut().expect("met before");
        let mut answer = String::new();
        stream.read_line(&mut answer).expect("an answer");
        answer.trim_end().to_owned()
    }
}

/// A supervisor with the speaker as its only component, with more lines of its file, and met.
pub fn start(more: &str) -> Option<(Guest, Speaker)> {
    let (guest, mut speaker) = start_unmet(more)?;
    speaker.meet();
    Some((guest, speaker))
}

/// The same before it is met.
pub fn start_unmet(more: &str) -> Option<(Guest, Speaker)> {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    fs::write(dir.path().join("graph.d/speaker.toml"), file(dir.path(), more)).expect("file");
    let speaker = Speaker::new(dir.path());
    Some((Guest::start_in(dir)?, speaker))
}

/// The speaker's component file with more lines, of which `@DIR@` is the test's directory.
pub fn file(dir: &Path, more: &str) -> String {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/notify/graph.d/speaker.toml");
    let text = fs::read_to_string(case).expect("component file") + more;
    Speaker::file(&text, dir).replace("@DIR@", &dir.display().to_string())
}

/// Say one thing from a process of its own, which then ends.
pub fn once(message: &str, socket: &str) -> Vec<String> {
    let program = std::env::current_exe().expect("this program").display().to_string();
    let mut words = vec!["env".to_owned(), format!("{VARIABLE}="), format!("SAY={message}")];
    words.extend([format!("NOTIFY_SOCKET={socket}"), program]);
    words.extend(ROLE.map(str::to_owned));
    words
}

/// Carry a line out. What is no command is said.
fn obey(line: &str) -> String {
    let path = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
    let own = || UnixDatagram::unbound().expect("a socket");
    match line.split_once(' ') {
        Some(("variable", name)) => std::env::var(name).unwrap_or_default(),
        Some(("child", message)) => {
            let words = once(message, &path);
            let status = Command::new(&words[0]).args(&words[1..]).status().expect("a child");
            status.success().to_string()
        }
        Some(("flood", count)) => {
            let socket = own();
            let begun = std::time::Instant::now();
            for number in 0..count.parse::<u32>().expect("a number") {
                socket.send_to(format!("STATUS={number}").as_bytes(), &path).expect("sent");
            }
            begun.elapsed().as_millis().to_string()
        }
        Some(("flood-until", end)) => {
            let socket = own();
            while !Path::new(end).exists() {
                socket.send_to(b"STATUS=flood", &path).expect("sent");
            }
            "said".to_owned()
        }
        Some(("given", _)) => given(),
        Some(("accept", fd)) => accept(fd.parse().expect("a number")),
        Some(("keep", name)) => keep(&path, name).to_string(),
        Some(("keep-and-end", name)) => {
            keep(&path, name);
            std::process::exit(1);
        }
        Some(("end", status)) => std::process::exit(status.parse().expect("a number")),
        Some(("write", fd)) => {
            let fd = fd.parse().expect("a number");
            // SAFETY: the descriptor was passed to this process, which never closes it.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            format!("{:?}", nix::unistd::write(fd, b"\n"))
        }
        Some(("barrier", _)) => barrier(&path),
        Some(("burst", lines)) => burst(lines.parse().expect("a number")),
        Some(("laden", message)) => {
            send_descriptor(&path, message.as_bytes(), std::io::stderr().as_fd());
            "said".to_owned()
        }
        _ => match own().send_to(line.replace(NEWLINE, "\n").as_bytes(), &path) {
            Ok(_) => "said".to_owned(),
            Err(error) => error.to_string(),
        },
    }
}

/// Write numbered lines of [`BURST_LINE`] bytes to the output, all into a pipe that was made large enough, and end at once.
fn burst(lines: usize) -> ! {
    let mut out = std::io::stdout();
    let line = |number| format!("{number:0width$}\n", width = BURST_LINE - 1);
    let all: String = (1..=lines).map(line).collect();
    let size = i32::try_from(all.len()).expect("a pipe's size");
    fcntl(&out, FcntlArg::F_SETPIPE_SZ(size)).expect("a larger pipe");
    out.write_all(all.as_bytes()).and_then(|()| out.flush()).expect("the output");
    // SAFETY: nothing is left to be done on the way out.
    unsafe { nix::libc::_exit(0) }
}

/// Have a new listener stored under a name, and nothing else know of it. Returns its port.
fn keep(path: &str, name: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    send_descriptor(path, format!("FDSTORE=1\nFDNAME={name}").as_bytes(), listener.as_fd());
    listener.local_addr().expect("an address").port()
}

/// The listener of this number, which was passed to this process.
fn listener(fd: i32) -> ManuallyDrop<TcpListener> {
    // SAFETY: it is never dropped.
    ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(fd) })
}

/// What this process was given: whose it is said to be, and name and port of each.
fn given() -> String {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let count: i32 = variable("LISTEN_FDS").parse().unwrap_or(0);
    let own = variable("LISTEN_PID") == std::process::id().to_string();
    let names = variable("LISTEN_FDNAMES");
    let port = |fd| listener(fd).local_addr().map_or(0, |address| address.port());
    let all = names.split(':').zip(3..3 + count).map(|(name, fd)| format!(" {name}={}", port(fd)));
    format!("{count} {own}{}", all.collect::<String>())
}

/// Answer the next connection of a listener.
fn accept(fd: i32) -> String {
    let (mut stream, _) = listener(fd).accept().expect("a connection");
    stream.write_all(b"served\n").expect("the client reads");
    "served".to_owned()
}

/// Send the writing end of a pipe and wait until the other side has closed it.
fn barrier(path: &str) -> String {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    send_descriptor(path, b"BARRIER=1", write.as_fd());
    drop(write);
    let count = nix::unistd::read(&read, &mut [0_u8; 1]).expect("the pipe");
    format!("closed {count}")
}

/// Send a message with a descriptor.
pub fn send_descriptor(path: &str, message: &[u8], descriptor: BorrowedFd<'_>) {
    let own: OwnedFd =
        socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let address = UnixAddr::new(path).expect("an address");
    let parts = [std::io::IoSlice::new(message)];
    let descriptors = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg(own.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&address)).expect("sent");
}

/// Not a test: what the component runs.
#[test]
#[ignore = "the role of a component in other tests"]
fn as_a_component() {
    let Ok(place) = std::env::var(VARIABLE) else {
        return;
    };
    if let Ok(message) = std::env::var("SAY") {
        assert_eq!(obey(&message), "said");
        return;
    }
    let stream = UnixStream::connect(place).expect("the test");
    let mut answers = stream.try_clone().expect("the stream");
    for line in BufReader::new(stream).lines() {
        let answer = obey(&line.expect("a line"));
        writeln!(answers, "{answer}").expect("the test listens");
    }
}
