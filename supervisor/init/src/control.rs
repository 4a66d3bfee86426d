//! The control socket: JSON lines, one request one answer, as many as the client likes.
//!
//! Nothing a client does stops or grows the supervisor: connections, request lengths and times are
//! limited, answers come in pages, and a client that does not read its answer is cut off. Who may
//! change things, and who gets a place when there are too many (see [`crate::admission`]), is
//! decided by the kernel's word on the peer, not the client's. Descriptors, whose last close takes as
//! long as their sender likes, are refused by the kernel since Linux 6.16; before, who sends some is
//! cut off, and a child closes them (see [`crate::notify::queue`]).
//!
//! Memory: an answer is a page of about 64 KiB, so clients that ask and do not read hold about
//! 20 MiB together ([`crate::admission::LIMIT`] × 64 KiB), each for [`ANSWER_TIME`] at most.

mod connection;

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use nix::sys::stat::{Mode, umask};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tracing::{error, warn};
use yakiros_core::control::{Answer, decode_request};
use yakiros_core::engine::{COMM_BYTES, Peer};

use crate::admission::{Admission, Verdict};
use crate::notify::queue;
use crate::supervisor::Supervisor;
use crate::sys;

use connection::{Phase, Stream};

pub use connection::{Connection, Connections, Passed, Pending};

/// Time from the connection, or the last answer, to a complete request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Time for a client to take an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Pause after the kernel refused a connection (no descriptors left): it would refuse at once
/// again. And between two looks at whether connections that are being closed are.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who has a place, and how to end it.
type Places = Rc<RefCell<Admission<AbortHandle>>>;

/// Open the socket. A left-over one is replaced; one at which another process listens is not, but by
/// process 1, without which there is no machine.
///
/// Without a group everybody may connect; with one, only root and its members. A group that does
/// not exist leaves the socket to root: what was meant to be closed is not opened to everybody.
pub fn open(path: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if let Some(other) = listening(path)? {
        let message = format!("{other} listens there already; end it, or name another --control-socket");
        if std::process::id() != 1 {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        warn!("{} is taken over: {other} listened there", path.display());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Closed to everybody until it is known who may connect.
    let mask = umask(Mode::from_bits_truncate(0o777));
    let listener = UnixListener::bind(path);
    umask(mask);
    let listener = listener?;
    // Before Linux 6.16 it cannot; then connections are read and closed with more care.
    let _ = sys::refuse_descriptors(&listener);
    let mode = match group.map(group_id) {
        // Everybody may ask; what changes things is refused by the peer's user id.
        None => 0o666,
        Some(Ok(group)) => {
            chown(path, None, Some(group))?;
            0o660
        }
        Some(Err(error)) => {
            error!("--control-group: {error}: only root may connect to {}", path.display());
            0o600
        }
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Remove the socket, unless it is another process's by now.
pub fn close(path: &Path) {
    if listening(path).is_ok_and(|listener| listener == Some(Listener(std::process::id() as i32))) {
        // What cannot be removed is replaced by the next supervisor.
        let _ = fs::remove_file(path);
    }
}

/// A process that listens at a socket, by its number; 0 if that cannot be told.
#[derive(Debug, PartialEq, Eq)]
struct Listener(i32);

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(0) => f.write_str("another process"),
            Self(pid) => write!(f, "process {pid}"),
        }
    }
}

/// Who listens at the socket of a path, if anybody does.
fn listening(path: &Path) -> io::Result<Option<Listener>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => Some(Listener(getsockopt(&socket, sockopt::PeerCredentials)?.pid())),
        // Others wait to be let in.
        Err(Errno::EAGAIN) => Some(Listener(0)),
        Err(_) => None,
    })
}

/// A group's number, given as that or as its name in `/etc/group`. The C library is not asked: it
/// would load others to answer, which may wait for a network.
fn group_id(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let text = sys::read_small(Path::new("/etc/group")).map_err(|error| format!("/etc/group: {error}"))?;
    find_group(&text, group).ok_or_else(|| format!("there is no group {group:?} in /etc/group"))
}

/// The number of a group in lines of `name:password:number:members`.
fn find_group(text: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Accept for ever; `carried` connections are from the process image before.
pub async fn serve(supervisor: Rc<Supervisor>, listener: Rc<UnixListener>, carried: Vec<Rc<Connection>>) {
    let admission = Rc::new(RefCell::new(Admission::new(supervisor.config())));
    for connection in carried {
        begin(&supervisor, &admission, connection);
    }
    loop {
        while queue::is_crowded() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        let stream = match listener.accept().await.and_then(|(stream, _)| Stream::new(stream)) {
            Ok(stream) => stream,
            Err(error) => {
                warn!("failed to accept a control connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without the kernel's word on it there is no telling who it is.
        let Ok(peer) = peer_of(&stream) else { continue };
        let verdict = admission.borrow_mut().judge(peer.uid);
        match verdict {
            Verdict::Enter => {}
            Verdict::Instead(other) => other.abort(),
            Verdict::Refuse => continue,
        }
        begin(&supervisor, &admission, Rc::new(Connection::new(stream, peer)));
    }
}

fn begin(supervisor: &Rc<Supervisor>, admission: &Places, connection: Rc<Connection>) {
    let id = supervisor.connections.borrow_mut().enter(&connection);
    let uid = connection.peer.uid;
    let busy = !matches!(*connection.phase.borrow(), Phase::Reading);
    let (supervisor, all) = (Rc::clone(supervisor), Rc::clone(admission));
    let task = spawn_local(async move {
        let place = Place { supervisor: &supervisor, admission: &all, id };
        // A client that breaks the connection off has done so for its own reasons.
        let _ = converse(&place, &connection).await;
        all.borrow_mut().leave(id);
    });
    let mut admission = admission.borrow_mut();
    admission.enter(id, uid, task.abort_handle());
    admission.set_busy(id, busy);
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer::new(credentials.uid(), credentials.pid().unwrap_or(0)))
}

/// The same with what the process calls itself now. The kernel keeps only its number: the process that
/// connected may have handed the connection on, or be gone.
fn named(peer: Peer) -> Peer {
    let comm = || {
        // 0 is for a process outside of this one's namespace.
        let mut file = fs::File::open(format!("/proc/{}/comm", (peer.pid > 0).then_some(peer.pid)?)).ok()?;
        let mut line = [0; COMM_BYTES + 1];
        let length = file.read(&mut line).ok()?;
        let end = line[..length].strip_suffix(b"\n").unwrap_or(&line[..length]).len().min(COMM_BYTES);
        let mut comm = [0; COMM_BYTES];
        comm[..end].copy_from_slice(&line[..end]);
        Some(comm)
    };
    Peer { comm: comm(), ..peer }
}

/// A connection's place among all, given back however it ends.
struct Place<'a> {
    supervisor: &'a Rc<Supervisor>,
    admission: &'a Places,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let connection = self.supervisor.connections.borrow_mut().leave(self.id);
        if let Some(connection) = connection
            && let Phase::Waiting(client, _) = &*connection.phase.borrow()
        {
            self.supervisor.forget_client(*client);
        }
    }
}

/// Request, answer, request, answer, until the client has enough or breaks a limit.
async fn converse(place: &Place<'_>, connection: &Connection) -> io::Result<()> {
    loop {
        let waiting = match &*connection.phase.borrow() {
            Phase::Waiting(_, pending) => Some(Rc::clone(pending)),
            _ => None,
        };
        if let Some(pending) = waiting {
            let answer = answer_or_hangup(&connection.stream, &pending).await?;
            connection.answer(answer, false);
        }
        if matches!(*connection.phase.borrow(), Phase::Writing { .. }) {
            let last = timeout(ANSWER_TIME, connection.write_all()).await??;
            connection.phase.replace(Phase::Reading);
            place.admission.borrow_mut().set_busy(place.id, false);
            if last {
                return Ok(());
            }
        }
        let line = timeout(REQUEST_TIME, connection.read_line()).await??;
        let Some(line) = line else { return Ok(()) };
        place.admission.borrow_mut().set_busy(place.id, true);
        match decode_request(&line) {
            Err(refusal) => connection.answer(refusal, true),
            Ok(request) => {
                // First: if it leads to an internal error, the next process image answers it.
                let (client, pending) = place.supervisor.next_client();
                connection.phase.replace(Phase::Waiting(client, Rc::clone(&pending)));
                let peer = if request.is_privileged() { named(connection.peer) } else { connection.peer };
                place.supervisor.request(client, pending, peer, request);
            }
        }
    }
}

/// The answer, or an error when the client hangs up first.
async fn answer_or_hangup(stream: &UnixStream, pending: &Pending) -> io::Result<Answer> {
    let mut answer = std::pin::pin!(pending.answer());
    let mut hangup = std::pin::pin!(hangup(stream));
    std::future::poll_fn(|context| {
        use std::task::Poll;
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(Ok(answer));
        }
        hangup.as_mut().poll(context).map(Err)
    })
    .await
}

/// Until the client closes its side. One that sends more before it has its answer is cut off
/// too: its hang-up could not be seen behind what it sent.
async fn hangup(stream: &UnixStream) -> io::Error {
    let mut peek = [0_u8; 1];
    loop {
        if let Err(error) = stream.readable().await {
            return error;
        }
        match peek_now(stream, &mut peek) {
            Ok(0) => return io::ErrorKind::ConnectionAborted.into(),
            Ok(_) => return io::ErrorKind::InvalidData.into(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
    }
}

fn peek_now(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    use nix::sys::socket::{MsgFlags, recv};
    stream.try_io(tokio::io::Interest::READABLE, || {
        recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK).map_err(io::Error::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\nwheels:x:7:\nwheel:x:10:me,you\nbroken\n:x:3:\n";
        for (name, number) in [("wheel", Some(10)), ("whee", None), ("broken", None), ("root", Some(0))] {
            assert_eq!(find_group(text, name), number, "{name}");
        }
        assert_eq!(group_id("12"), Ok(12));
    }

    #[test]
    fn the_socket_is_open_to_whom_it_is_meant_for() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _inside = runtime.enter();
        let own = nix::unistd::getegid().as_raw();
        let own_text = own.to_string();
        for (group, mode) in [(None, 0o666), (Some(own_text.as_str()), 0o660), (Some("no such group"), 0o600)]
        {
            let path = dir.path().join("sock");
            let listener = open(&path, group).expect("a socket");
            let meta = fs::metadata(&path).expect("the socket");
            assert_eq!((meta.mode() & 0o777, meta.gid()), (mode, own), "{group:?}");
            drop(listener);
        }
    }

    #[test]
    fn a_socket_at_which_somebody_listens_is_left_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _inside = runtime.enter();
        let path = dir.path().join("sock");
        let first = open(&path, None).expect("a socket");
        let refused = open(&path, None).expect_err("somebody listens");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let own = format!("process {} listens there already", std::process::id());
        assert!(refused.to_string().starts_with(&own), "{refused}");
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "it still does");
        drop(first);
        close(&path);
        assert!(path.exists(), "nobody's, so not removed as one's own");
        let second = open(&path, None).expect("a left-over one is replaced");
        close(&path);
        assert!(!path.exists());
        drop(second);
    }
}
