//! `NOTIFY_SOCKET`: a component says something about itself (sd_notify(3)).
//!
//! The socket is there for the whole life of a run. Who speaks is the kernel's word (SO_PASSCRED):
//! only the component's own process, one in its cgroup, or one in its session counts; whatever
//! anybody else sends is dropped. What the component's own process said is read before it is reaped. Any
//! other sender that was reaped before its message was read cannot be told from a stranger: one that
//! ends at once waits for `BARRIER=1` first, as systemd-notify does.
//!
//! Nothing that comes can hold up or cost the supervisor what the sender chooses:
//!
//! * Strangers do not reach the socket: only the component's environment has its name, which is
//!   random. A full queue would keep the component's own messages out.
//! * Descriptors are never received here (see [`queue`]): a child takes each message that carries
//!   some, once it has been acted on, and closes all of them. For `BARRIER=1` that is the answer. What the component
//!   stores by `FDSTORE=1` is copied before (see [`crate::store`]). What stands behind such a message is read all the same.
//! * Messages are read at a rate ([`Budget`]). A component that floods is held up by the kernel
//!   once its budget is spent. Messages of others have a budget of their own, far larger, so that
//!   they do not stand in front of the component's for long; what costs more than a system call or
//!   two has a third.
//! * Before a watchdog is taken for silent, what waits in the socket is read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
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

pub mod queue;

use queue::Held;
pub use queue::reaped;

/// Where the sockets are, below the state directory.
const DIRECTORY: &str = "notify";

/// Random bytes in the name of a socket: enough that nobody meets one by trying.
const SECRET_BYTES: usize = 16;

/// The time in which a spent budget is full again, and the pause when one is spent.
pub const PAUSE: Duration = Duration::from_millis(100);

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
const LAST_LOOK: usize = 1024;

/// So much in [`PAUSE`], and as much again only when that is over.
#[derive(Debug)]
pub struct Budget {
    size: u32,
    left: u32,
    /// Up to when `left` has been refilled.
    counted: Duration,
}

impl Budget {
    /// So much at once.
    pub const fn new(size: u32) -> Self {
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
    pub fn take(&mut self, now: Duration) -> bool {
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
    /// Messages that were acted on and are still at the head of the queue: the first carries
    /// descriptors.
    acted: VecDeque<Acted>,
    /// Bytes of all of them.
    behind: usize,
    /// A child is about to take the first; until it has said so, where the next begins is not known.
    taking: bool,
}

/// A message that was acted on and is still in the queue.
struct Acted {
    length: usize,
    laden: bool,
}

impl Reading {
    fn keep(&mut self, message: Acted) {
        self.behind += message.length;
        self.acted.push_back(message);
    }

    /// The first of them has left the queue.
    fn first_is_gone(&mut self) {
        self.behind -= self.acted.pop_front().map_or(0, |message| message.length);
    }

    /// What has left the queue is not known: what is in it is acted on again.
    fn begin_anew(&mut self) {
        self.acted.clear();
        self.behind = 0;
    }
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
        if closed.is_ok() && queue::look(self.messages.as_raw_fd(), 0, &mut [0]).is_err() {
            return;
        }
        match queue::outlive(self.messages.as_raw_fd(), Held::Messages) {
            Ok(gate) => self.gate = Some(gate),
            Err(error) => queue::leave_open(&self.messages, self.path.display(), &error),
        }
    }
}

/// What became of a look at the queue.
enum Next {
    /// A message was read; what it says, unless it is a stranger's.
    Said(Option<Notification>),
    /// The head carries descriptors and was acted on, and there is nothing more to read.
    Laden,
    /// A budget is spent.
    Later,
}

/// End what a supervisor before this one has left: nobody serves it.
pub fn clear(state_dir: &Path) {
    if let Err(error) = fs::remove_dir_all(state_dir.join(DIRECTORY))
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!("failed to remove sockets of a supervisor before this one: {error}");
    }
}

impl Socket {
    /// Bind the socket of a run.
    pub fn open(run: RunId, state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join(DIRECTORY);
        fs::create_dir_all(&directory)?;
        // Whoever knows a name may use it, and nobody can list them.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711))?;
        let path = directory.join(secret()?);
        // Too long a name would be of no use to anybody.
        SocketAddr::from_pathname(&path)?;
        // For ever shown to everybody (/proc/net/unix) is the name that a socket was bound to.
        let bound = directory.join(run.0.to_string());
        let _ = fs::remove_file(&bound);
        let mut own = Self::new(UnixDatagram::bind(&bound)?, bound);
        setsockopt(&own.messages, sockopt::PassCred, &true)?;
        fs::rename(&own.path, &path)?;
        own.path = path;
        // A component that runs as another user reports too. Until here the umask kept others out.
        fs::set_permissions(&own.path, fs::Permissions::from_mode(0o666))?;
        Ok(own)
    }

    /// Bind the socket of a run whose process knows it by this path already.
    pub fn open_at(run: RunId, state_dir: &Path, path: &Path) -> io::Result<Self> {
        if path.parent() != Some(&state_dir.join(DIRECTORY)) {
            let message = format!("{} is not in {}", path.display(), state_dir.join(DIRECTORY).display());
            return Err(io::Error::other(message));
        }
        let mut own = Self::open(run, state_dir)?;
        fs::rename(&own.path, path)?;
        path.clone_into(&mut own.path);
        Ok(own)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
            acted: VecDeque::new(),
            behind: 0,
            taking: false,
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
            let read = || self.next(&supervisor, run);
            let next = readable.and_then(|()| self.messages.try_io(Interest::READABLE, read));
            match next {
                Ok(Next::Said(said)) => dispatch(said),
                Ok(Next::Laden) => {
                    if self.hand_over().await.is_err() {
                        // Too many children, or none to be had: they end, and then it goes on.
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An error never comes with a socket of ours; a pause keeps it from becoming a loop.
                Ok(Next::Later) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// What waits in the socket, whatever its budgets.
    pub fn take_waiting(&self, supervisor: &Supervisor, run: RunId) -> Vec<Event> {
        let reading = &mut *self.reading.borrow_mut();
        if reading.taking {
            return Vec::new();
        }
        let read = || self.read(reading, supervisor, run).ok();
        let said = std::iter::repeat_with(read).take(LAST_LOOK).map_while(|said| said);
        said.flatten().map(|said| Event::Notified(run, said)).collect()
    }

    /// Have a child remove the head of the queue.
    async fn hand_over(&self) -> io::Result<()> {
        self.reading.borrow_mut().taking = true;
        let taken = queue::hand_over(self.messages.as_raw_fd()).await;
        let mut reading = self.reading.borrow_mut();
        reading.taking = false;
        match taken {
            Ok(true) => reading.first_is_gone(),
            Ok(false) => reading.begin_anew(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Read one message, as far as the budgets go; else see to the head of the queue.
    fn next(&self, supervisor: &Supervisor, run: RunId) -> io::Result<Next> {
        let reading = &mut *self.reading.borrow_mut();
        let now = sys::now();
        if reading.own.has(now) && reading.others.has(now) {
            match self.read(reading, supervisor, run) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !reading.acted.is_empty() => {}
                said => return said.map(Next::Said),
            }
        }
        match reading.acted.front() {
            Some(Acted { laden: true, .. }) if reading.costly.take(now) => Ok(Next::Laden),
            Some(Acted { laden: false, .. }) => {
                queue::remove(self.messages.as_raw_fd());
                reading.first_is_gone();
                Ok(Next::Said(None))
            }
            _ => Ok(Next::Later),
        }
    }

    /// Read the first message that was not acted on. It leaves the queue unless it, or one in front
    /// of it, carries descriptors.
    fn read(
        &self,
        reading: &mut Reading,
        supervisor: &Supervisor,
        run: RunId,
    ) -> io::Result<Option<Notification>> {
        let now = sys::now();
        // One more than is read of a message tells that it is longer.
        let mut bytes = [0_u8; MESSAGE_LIMIT + 1];
        let fd = self.messages.as_raw_fd();
        let head = queue::look(fd, reading.behind, &mut bytes)?;
        let heard = head
            .sender
            .is_some_and(|pid| supervisor.processes.borrow().belongs(run, pid, || reading.costly.take(now)));
        let budget = if heard { &mut reading.own } else { &mut reading.others };
        budget.take(now);
        let said = heard.then(|| parse(&bytes[..head.length.min(bytes.len())]));
        if let Some(store) = said.as_ref().and_then(|said| said.store.as_ref()) {
            let copies = || queue::copies(fd, reading.behind);
            supervisor.store(run, store, if head.laden { copies()? } else { Vec::new() });
        }
        if head.laden || !reading.acted.is_empty() {
            reading.keep(Acted { length: head.length, laden: head.laden });
        } else {
            queue::remove(fd);
        }
        Ok(said.filter(|said| *said != Notification::default()))
    }
}

/// A name that nobody can guess. The kernel is asked in the one way that never waits.
fn secret() -> io::Result<String> {
    let mut bytes = [0_u8; SECRET_BYTES];
    // SAFETY: the pointer is to a local of that size.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), SECRET_BYTES, libc::GRND_INSECURE) };
    if usize::try_from(count) != Ok(SECRET_BYTES) {
        return Err(io::Error::last_os_error());
    }
    let mut name = String::new();
    for byte in bytes {
        let _infallible = write!(name, "{byte:02x}");
    }
    Ok(name)
}

/// Whether `pid` is in the session that `leader` began: its children, unless they left it.
pub fn in_session(leader: Pid, pid: i32) -> bool {
    // 0 stands for the caller itself, and for a sender outside of this process's namespace.
    pid > 0 && getsid(Some(Pid::from_raw(pid))) == Ok(leader)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::FromRawFd as _;
    use std::time::Instant;

    /// For so long a closed connection waits for its data to be taken.
    pub const LINGER: Duration = Duration::from_secs(100);

    /// A connection whose last close waits for [`LINGER`], and the side that does not read.
    pub fn lingering() -> (TcpStream, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        // A child of another test may have both for a moment, and close them in their order. If the listener is the first,
        // it does not wait for longer than this test has the other one.
        let above = FcntlArg::F_DUPFD_CLOEXEC(listener.as_raw_fd());
        let above = fcntl(&stream, above).expect("a number above that of the listener");
        // SAFETY: it was just made, and nobody else owns it.
        let mut stream = unsafe { TcpStream::from_raw_fd(above) };
        let linger = libc::linger { l_onoff: 1, l_linger: LINGER.as_secs() as i32 };
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

    pub fn in_event_loop(test: impl AsyncFnOnce()) {
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
            let head = queue::look(fd, 0, &mut bytes).expect("a message");
            let said = (&bytes[..head.length], head.laden, head.sender);
            assert_eq!(said, (&b"BARRIER=1"[..], true, Some(nix::unistd::getpid().as_raw())));
            assert!(queue::hand_over(fd).await.expect("a child"), "it says so");
            assert!(queue::look(fd, 0, &mut bytes).is_err(), "it was taken");
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
    fn nobody_is_told_where_a_socket_is_but_the_component() {
        in_event_loop(async || {
            let dir = tempfile::tempdir().expect("temporary directory");
            let [one, other] = [7, 8].map(|run| Socket::open(RunId(run), dir.path()).expect("a socket"));
            let directory = dir.path().join(DIRECTORY);
            let mode = fs::metadata(&directory).expect("the directory").permissions().mode();
            assert_eq!(mode & 0o777, 0o711, "others go through it by name, and list nothing");
            let listed = fs::read_to_string("/proc/net/unix").expect("the sockets of the machine");
            for (socket, run) in [(&one, "7"), (&other, "8")] {
                assert!(listed.contains(&directory.join(run).display().to_string()), "it is there: {listed}");
                assert!(
                    !listed.contains(&socket.path.display().to_string()),
                    "and tells no more than its run"
                );
            }
            let name = |socket: &Socket| socket.path.file_name().expect("a name").to_owned();
            assert_eq!([name(&one).len(), name(&other).len()], [2 * SECRET_BYTES; 2]);
            assert_ne!(name(&one), name(&other));
            drop((one, other));
            assert_eq!(fs::read_dir(&directory).expect("the directory").count(), 0);
        });
    }

    #[test]
    fn a_name_that_no_client_could_use_is_refused() {
        in_event_loop(async || {
            let dir = tempfile::tempdir().expect("temporary directory");
            let deep = dir.path().join("a".repeat(80));
            let refused = Socket::open(RunId(1), &deep).err().expect("too long for an address");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            fs::create_dir_all(deep.join(DIRECTORY)).expect("directory");
            assert_eq!(fs::read_dir(deep.join(DIRECTORY)).expect("the directory").count(), 0);
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
