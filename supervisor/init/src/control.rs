//! The control socket: JSON lines, one request one answer, as many as the client likes.
//!
//! Nothing a client does stops or grows the supervisor: connections, request lengths and times are
//! limited, answers come in pages, and a client that does not read its answer is cut off. Who may
//! change things, and who gets a place when there are too many (see [`crate::admission`]), is
//! decided by the kernel's word on the peer, not the client's.
//!
//! Memory: an answer is a page of about 64 KiB, so clients that ask and do not read hold about
//! 20 MiB together ([`crate::admission::LIMIT`] × 64 KiB), each for [`ANSWER_TIME`] at most.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tracing::warn;
use yakiros_core::control::{Answer, REQUEST_LIMIT, decode_request, encode_answer};
use yakiros_core::engine::Peer;

use crate::admission::{Admission, Verdict};
use crate::supervisor::Supervisor;

/// Time from the connection, or the last answer, to a complete request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Time for a client to take an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Pause after the kernel refused a connection (no descriptors left): it would refuse at once
/// again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All connections, and how to end them.
type Connections = Rc<RefCell<Admission<AbortHandle>>>;

/// Open the socket. A left-over one is replaced.
pub fn open(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Everybody may ask; what changes things is refused by the peer's user id.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Accept for ever.
pub async fn serve(supervisor: Rc<Supervisor>, listener: UnixListener) {
    let connections = Connections::new(RefCell::new(Admission::new(supervisor.config())));
    let mut last = 0;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("failed to accept a control connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without the kernel's word on it there is no telling who it is.
        let Ok(peer) = peer_of(&stream) else { continue };
        let verdict = connections.borrow_mut().judge(peer.uid);
        match verdict {
            Verdict::Enter => {}
            Verdict::Instead(other) => other.abort(),
            Verdict::Refuse => continue,
        }
        last += 1;
        let id = last;
        let (supervisor, all) = (Rc::clone(&supervisor), Rc::clone(&connections));
        let task = spawn_local(async move {
            // A client that breaks the connection off has done so for its own reasons.
            let _ = converse(supervisor, stream, peer, &all, id).await;
            all.borrow_mut().leave(id);
        });
        connections.borrow_mut().enter(id, peer.uid, task.abort_handle());
    }
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or(0) })
}

/// Request, answer, request, answer, until the client has enough or breaks a limit.
async fn converse(
    supervisor: Rc<Supervisor>,
    stream: UnixStream,
    peer: Peer,
    connections: &Connections,
    id: u64,
) -> io::Result<()> {
    let mut pending = Vec::new();
    loop {
        let line = timeout(REQUEST_TIME, read_line(&stream, &mut pending)).await??;
        let Some(line) = line else { return Ok(()) };
        connections.borrow_mut().set_busy(id, true);
        let (answer, last) = match decode_request(&line) {
            Err(refusal) => (refusal, true),
            Ok(request) => {
                let (client, receiver) = supervisor.request(peer, request);
                let guard = ClientGuard { supervisor: &supervisor, client };
                let answer = answer_or_hangup(&stream, receiver).await?;
                drop(guard);
                (answer, false)
            }
        };
        timeout(ANSWER_TIME, write_all(&stream, &encode_answer(answer))).await??;
        connections.borrow_mut().set_busy(id, false);
        if last {
            return Ok(());
        }
    }
}

/// Takes a client's pending request back when its connection ends, however it ends.
struct ClientGuard<'a> {
    supervisor: &'a Rc<Supervisor>,
    client: yakiros_core::engine::ClientId,
}

impl Drop for ClientGuard<'_> {
    fn drop(&mut self) {
        self.supervisor.forget_client(self.client);
    }
}

/// The answer, or an error when the client hangs up first.
async fn answer_or_hangup(
    stream: &UnixStream,
    receiver: tokio::sync::oneshot::Receiver<Answer>,
) -> io::Result<Answer> {
    let mut receiver = std::pin::pin!(receiver);
    let mut hangup = std::pin::pin!(hangup(stream));
    std::future::poll_fn(|context| {
        use std::task::Poll;
        if let Poll::Ready(answer) = receiver.as_mut().poll(context) {
            return Poll::Ready(answer.map_err(io::Error::other));
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
    use std::os::fd::AsRawFd as _;
    stream.try_io(tokio::io::Interest::READABLE, || {
        recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK).map_err(io::Error::from)
    })
}

/// The next line without its newline; `None` at the end.
async fn read_line(stream: &UnixStream, pending: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = pending.drain(..=end).collect();
            line.pop();
            return Ok(Some(line));
        }
        if pending.len() > REQUEST_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.readable().await?;
        let mut chunk = [0_u8; 2048];
        match stream.try_read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(count) => pending.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
