//! `NOTIFY_SOCKET`: a component says something about itself (sd_notify(3)).
//!
//! The socket is there for the whole life of a run. Who speaks is the kernel's word (SO_PASSCRED):
//! only the component's own process, one in its cgroup, or one in its session counts; whatever
//! anybody else sends is dropped. A sender that was reaped before its message was read cannot be
//! told from a stranger: one that ends at once waits for `BARRIER=1` first, as systemd-notify does.
//!
//! Nothing that comes can hold up or cost the supervisor what the sender chooses:
//!
//! * Descriptors are never received here (see [`queue`]): a child takes each message that carries
//!   some, once it has been acted on, and closes all of them. For `BARRIER=1` that is the answer;
//!   nothing else is done with any.
//! * Messages are read at a rate ([`Budget`]). A component that floods is held up by the kernel
//!   once its budget is spent. Messages of others have a budget of their own, far larger, so that
//!   they do not stand in front of the component's for long; what costs more than a system call or
//!   two has a third.
//! * Before a watchdog is taken for silent, what waits in the socket is read.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Pid, getsid};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tracing::warn;
use yakiros_core::engine::{Event, RunId};
use yakiros_core::notify::{MESSAGE_LIMIT, Notification, parse};

use crate::reexec::Luggage;
use crate::supervisor::Supervisor;
use crate::sys;

mod queue;

/// The time in which a spent budget is full again, and the pause when one is spent.
const PAUSE: Duration = Duration::from_millis(100);

/// Messages of the component in [`PAUSE`]. A start says a handful of things, a watchdog beats a few
/// times a second at most. 320 messages a second are a few milliseconds of work.
const OWN: u32 = 32;

/// Messages of others in [`PAUSE`]: each is a few system calls, ten thousand a second a few hundredths
/// of a processor.
const OTHERS: u32 = 1024;

/// Looks at the control groups of a sender, and children that take descriptors, in [`PAUSE`]: two
/// for each message of the component.
const COSTLY: u32 = 2 * OWN;

/// The most messages that are read at once for a watchdog that is about to expire: more than a
/// socket holds unless its system was told otherwise (`net.unix.max_dgram_qlen`, 10 or 512).
const LAST_LOOK: u32 = 1024;

/// So much in [`PAUSE`], and as much again only when that is over.
#[derive(Debug)]
struct Budget {
    size: u32,
    left: u32,
    /// Up to when `left` has been refilled.
    counted: Duration,
}

impl Budget {
    const fn new(size: u32) -> Self {
        Self { size, left: size, counted: Duration::ZERO }
    }

    /// Whether there is some left at the time `now`.
    fn has(&mut self, now: Duration) -> bool {
        let one = PAUSE / self.size;
        let gained = now.saturating_sub(self.counted).as_nanos() / one.as_nanos().max(1);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained < self.size - self.left {
            self.left += gained;
            self.counted += one * gained;
        } else {
            (self.left, self.counted) = (self.size, now);
        }
        self.left > 0
    }

    /// Take one if there is one.
    fn take(&mut self, now: Duration) -> bool {
        let has = self.has(now);
        self.left = self.left.saturating_sub(1);
        has
    }
}

/// What reading one socket may cost, and where it stands.
struct Reading {
    own: Budget,
    others: Budget,
    costly: Budget,
    /// The message at the head carries descriptors and was acted on.
    acted: bool,
}

/// One run's socket. Its name in the file system goes with it.
pub struct Socket {
    messages: UnixDatagram,
    path: PathBuf,
    reading: RefCell<Reading>,
    /// Lets a child go that holds the socket until it is closed here. Closed after it, by its place
    /// in this list.
    gate: Option<OwnedFd>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it cannot be removed, the next run of this number removes it before binding.
        let _ = fs::remove_file(&self.path);
        // After this nothing more comes in, and what is in goes with the last one to close it.
        let closed = self.messages.shutdown(std::net::Shutdown::Read);
        if closed.is_ok() && queue::look(self.messages.as_raw_fd(), &mut [0]).is_err() {
            return;
        }
        match queue::outlive(self.messages.as_raw_fd()) {
            Ok(gate) => self.gate = Some(gate),
            Err(error) => self.leave_open(&error),
        }
    }
}

/// What to do about the head of the queue.
enum Next {
    /// It was read; what it says, unless it is a stranger's.
    Said(Option<Notification>),
    /// It carries descriptors, and was read and left there.
    Laden(Option<Notification>),
    /// A budget is spent.
    Later,
}

impl Socket {
    /// Bind the socket of a run.
    pub fn open(run: RunId, state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("notify");
        fs::create_dir_all(&directory)?;
        let path = directory.join(run.0.to_string());
        // Left over from a supervisor before this one.
        let _ = fs::remove_file(&path);
        let own = Self::new(UnixDatagram::bind(&path)?, path);
        setsockopt(&own.messages, sockopt::PassCred, &true)?;
        // A component that runs as another user reports too. Others may write, and are not heard.
        fs::set_permissions(&own.path, fs::Permissions::from_mode(0o666))?;
        Ok(own)
    }

    /// For the next process image.
    pub fn pass(&self) -> (RawFd, PathBuf) {
        (self.messages.as_raw_fd(), self.path.clone())
    }

    /// From the process image before.
    pub fn take((fd, path): (RawFd, PathBuf), luggage: &mut Luggage) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(luggage.socket(fd)?);
        Ok(Self::new(UnixDatagram::from_std(socket)?, path))
    }

    fn new(messages: UnixDatagram, path: PathBuf) -> Self {
        let reading = Reading {
            own: Budget::new(OWN),
            others: Budget::new(OTHERS),
            costly: Budget::new(COSTLY),
            acted: false,
        };
        Self { messages, path, reading: RefCell::new(reading), gate: None }
    }

    /// The variable that tells the process where it is.
    pub fn variable(&self) -> String {
        format!("NOTIFY_SOCKET={}", self.path.display())
    }

    /// Take messages for as long as the run lasts.
    pub async fn serve(self: Rc<Self>, supervisor: Rc<Supervisor>, run: RunId) {
        let dispatch = |said: Option<Notification>| {
            if let Some(said) = said {
                supervisor.dispatch(Event::Notified(run, said));
            }
        };
        loop {
            let readable = self.messages.readable().await;
            let read = || self.next(&supervisor, run, false);
            let next = readable.and_then(|()| self.messages.try_io(Interest::READABLE, read));
            match next {
                Ok(Next::Said(said)) => dispatch(said),
                Ok(Next::Laden(said)) => {
                    dispatch(said);
                    match queue::hand_over(self.messages.as_raw_fd()).await {
                        Ok(()) => self.reading.borrow_mut().acted = false,
                        // Too many children, or none to be had: they end, and then it goes on.
                        Err(_) => tokio::time::sleep(PAUSE).await,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An error never comes with a socket of ours; a pause keeps it from becoming a loop.
                Ok(Next::Later) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// What waits in the socket, up to the first message that carries descriptors.
    pub fn take_waiting(&self, supervisor: &Supervisor, run: RunId) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..LAST_LOOK {
            match self.next(supervisor, run, true) {
                Ok(Next::Said(said)) => events.extend(said.map(|said| Event::Notified(run, said))),
                Ok(Next::Laden(said)) => {
                    events.extend(said.map(|said| Event::Notified(run, said)));
                    break;
                }
                Ok(Next::Later) | Err(_) => break,
            }
        }
        events
    }

    /// Read one message. In a hurry it is read even if that exceeds a budget.
    fn next(&self, supervisor: &Supervisor, run: RunId, hurried: bool) -> io::Result<Next> {
        let mut reading = self.reading.borrow_mut();
        let reading = &mut *reading;
        let now = sys::now();
        let affordable = reading.own.has(now) && reading.others.has(now);
        if !(hurried || affordable) {
            return Ok(Next::Later);
        }
        let mut bytes = [0_u8; MESSAGE_LIMIT];
        let head = queue::look(self.messages.as_raw_fd(), &mut bytes)?;
        if head.laden && reading.acted {
            return Ok(if hurried { Next::Later } else { Next::Laden(None) });
        }
        if head.laden && !reading.costly.take(now) {
            return Ok(Next::Later);
        }
        let heard = head
            .sender
            .is_some_and(|pid| supervisor.processes.borrow().belongs(run, pid, || reading.costly.take(now)));
        let budget = if heard { &mut reading.own } else { &mut reading.others };
        budget.take(now);
        let said = heard.then(|| parse(&bytes[..head.length]));
        let said = said.filter(|said| *said != Notification::default());
        if head.laden {
            reading.acted = true;
            return Ok(Next::Laden(said));
        }
        queue::remove(self.messages.as_raw_fd());
        Ok(Next::Said(said))
    }

    /// Keep a socket for ever that cannot be closed without a wait: the better of two evils, and
    /// only when no child can be made.
    fn leave_open(&self, error: &io::Error) {
        if let Ok(kept) = nix::unistd::dup(&self.messages) {
            std::mem::forget(kept);
        }
        warn!("{} stays open, for no process could be created to close it: {error}", self.path.display());
    }
}

/// Whether `pid` is in the session that `leader` began: its children, unless they left it.
pub fn in_session(leader: Pid, pid: i32) -> bool {
    // 0 stands for the caller itself, and for a sender outside of this process's namespace.
    pid > 0 && getsid(Some(Pid::from_raw(pid))) == Ok(leader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    /// For so long a closed connection waits for its data to be taken.
    const LINGER: Duration = Duration::from_secs(100);

    /// A connection whose last close waits for [`LINGER`], and the side that does not read.
    fn lingering() -> (TcpStream, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut stream =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let linger = nix::libc::linger { l_onoff: 1, l_linger: LINGER.as_secs() as i32 };
        setsockopt(&stream, sockopt::Linger, &linger).expect("linger");
        stream.set_nonblocking(true).expect("non-blocking");
        while stream.write(&[0; 4096]).is_ok() {}
        (stream, listener)
    }

    /// Send a descriptor.
    fn send(path: &Path, stream: &TcpStream) {
        let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        let address = UnixAddr::new(path).expect("an address");
        let descriptors = [stream.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let parts = [io::IoSlice::new(b"BARRIER=1")];
        sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&address)).expect("sent");
    }

    fn in_event_loop(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("event loop");
        tokio::task::LocalSet::new().block_on(&runtime, test());
    }

    #[test]
    fn a_message_that_blocks_whoever_closes_what_it_carries_blocks_nobody() {
        in_event_loop(async || {
            let dir = tempfile::tempdir().expect("temporary directory");
            let socket = Socket::open(RunId(1), dir.path()).expect("a socket");
            let fd = socket.messages.as_raw_fd();
            let (stream, _listener) = lingering();
            let begun = Instant::now();
            send(&socket.path, &stream);
            drop(stream);
            let mut bytes = [0; MESSAGE_LIMIT];
            let head = queue::look(fd, &mut bytes).expect("a message");
            let said = (&bytes[..head.length], head.laden, head.sender);
            assert_eq!(said, (&b"BARRIER=1"[..], true, Some(nix::unistd::getpid().as_raw())));
            queue::hand_over(fd).await.expect("a child");
            assert!(queue::look(fd, &mut bytes).is_err(), "it was taken");
            drop(socket);
            assert!(begun.elapsed() < LINGER / 2, "{:?}", begun.elapsed());
        });
    }

    #[test]
    fn closing_a_socket_with_such_a_message_in_it_blocks_nobody() {
        in_event_loop(async || {
            let dir = tempfile::tempdir().expect("temporary directory");
            let socket = Socket::open(RunId(1), dir.path()).expect("a socket");
            let (stream, _listener) = lingering();
            let begun = Instant::now();
            send(&socket.path, &stream);
            drop(stream);
            drop(socket);
            // What a process has let go of is closed before its next system call returns.
            assert!(begun.elapsed() < LINGER / 2, "{:?}", begun.elapsed());
        });
    }

    #[test]
    fn a_budget_is_for_a_time_and_not_for_a_life() {
        let mut budget = Budget::new(OWN);
        let mut now = Duration::from_secs(7);
        let mut spend = |now| (0..=OTHERS).take_while(|_| budget.take(now)).count();
        assert_eq!(spend(now), 32);
        assert_eq!(spend(now), 0);
        now += PAUSE / 4;
        assert_eq!(spend(now), 8);
        now += PAUSE;
        assert_eq!(spend(now), 32);
        now += PAUSE * 1000;
        assert_eq!(spend(now), 32);
        // One that asks for less than that never has to wait.
        let mut budget = Budget::new(OWN);
        for _ in 0..100 * OWN {
            now += PAUSE / OWN + Duration::from_nanos(1);
            assert!(budget.take(now));
        }
        assert_eq!(budget.left, OWN - 1);
    }
}
