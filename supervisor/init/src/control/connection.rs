//! One connection and how far its conversation has come, in a form that can be passed to the next
//! process image at any moment: no request, and no answer, is lost on the way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;

use base64::display::Base64Display;
use base64::prelude::{BASE64_STANDARD as STANDARD, Engine as _};
use nix::sys::socket::{setsockopt, sockopt};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use yakiros_core::control::{Answer, REQUEST_LIMIT, encode_answer};
use yakiros_core::engine::{ClientId, Peer};

use crate::notify::queue;
use crate::reexec::Luggage;

/// An answer that is due.
#[derive(Default)]
pub struct Pending {
    answer: RefCell<Option<Answer>>,
    came: Notify,
}

impl Pending {
    /// Here it is.
    pub fn give(&self, answer: Answer) {
        self.answer.replace(Some(answer));
        self.came.notify_one();
    }

    /// Wait for it.
    pub async fn answer(&self) -> Answer {
        loop {
            if let Some(answer) = self.answer.take() {
                return answer;
            }
            self.came.notified().await;
        }
    }
}

/// A client and the answer that is due.
pub type Due = (ClientId, Rc<Pending>);

/// How far a conversation has come.
pub(super) enum Phase {
    /// The client is to send a request.
    Reading,
    /// Its answer is due.
    Waiting(ClientId, Rc<Pending>),
    /// It is being sent its answer.
    Writing {
        bytes: Rc<[u8]>,
        sent: Cell<usize>,
        /// The conversation ends with it.
        last: bool,
    },
}

/// The stream of a client. Closing it waits for nobody, whatever the client has sent.
pub(super) struct Stream {
    stream: UnixStream,
    /// See [`queue::before_close`]. Closed after the stream, by its place in this list.
    gate: Option<OwnedFd>,
}

impl Stream {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        setsockopt(&stream, sockopt::OobInline, &true)?;
        Ok(Self { stream, gate: None })
    }
}

impl Deref for Stream {
    type Target = UnixStream;

    fn deref(&self) -> &UnixStream {
        &self.stream
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.gate = queue::before_close(&self.stream);
    }
}

/// See the module documentation.
pub struct Connection {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    /// Bytes of requests that are not taken yet.
    unread: RefCell<Vec<u8>>,
    pub(super) phase: RefCell<Phase>,
}

/// A [`Connection`] for the next process image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passed {
    fd: RawFd,
    unread: Bytes,
    phase: PassedPhase,
}

impl Passed {
    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Whether there is an answer that the client has not taken yet.
    pub fn is_unread(&self) -> bool {
        matches!(self.phase, PassedPhase::Writing { .. })
    }
}

/// A [`Phase`] for the next process image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PassedPhase {
    Reading,
    Waiting(ClientId),
    Writing { bytes: Bytes, last: bool },
}

/// Any bytes as text: a third more than they are, where an array of numbers takes four times as much.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// All connections.
#[derive(Default)]
pub struct Connections {
    all: BTreeMap<u64, Rc<Connection>>,
    last: u64,
}

impl Connections {
    pub(super) fn enter(&mut self, connection: &Rc<Connection>) -> u64 {
        self.last += 1;
        self.all.insert(self.last, Rc::clone(connection));
        self.last
    }

    pub(super) fn leave(&mut self, id: u64) -> Option<Rc<Connection>> {
        self.all.remove(&id)
    }

    /// For the next process image.
    pub fn pass(&self) -> Vec<Passed> {
        self.all.values().map(|connection| connection.pass()).collect()
    }
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: Peer) -> Self {
        Self { stream, peer, unread: RefCell::default(), phase: RefCell::new(Phase::Reading) }
    }

    fn pass(&self) -> Passed {
        let writing = |bytes: &[u8], last| PassedPhase::Writing { bytes: Bytes(bytes.to_vec()), last };
        let phase = match &*self.phase.borrow() {
            Phase::Reading => PassedPhase::Reading,
            Phase::Waiting(client, pending) => match &*pending.answer.borrow() {
                Some(answer) => writing(&encode_answer(answer.clone()), false),
                None => PassedPhase::Waiting(*client),
            },
            Phase::Writing { bytes, sent, last } => writing(&bytes[sent.get().min(bytes.len())..], *last),
        };
        Passed { fd: self.stream.as_raw_fd(), unread: Bytes(self.unread.borrow().clone()), phase }
    }

    /// From the process image before, with the client whose answer is due.
    pub fn take(passed: Passed, luggage: &mut Luggage) -> io::Result<(Self, Option<Due>)> {
        let stream = std::os::unix::net::UnixStream::from(luggage.socket(passed.fd)?);
        let stream = Stream::new(UnixStream::from_std(stream)?)?;
        let peer = super::peer_of(&stream)?;
        let connection = Self::new(stream, peer);
        connection.unread.replace(passed.unread.0);
        let mut client = None;
        connection.phase.replace(match passed.phase {
            PassedPhase::Reading => Phase::Reading,
            PassedPhase::Waiting(id) => {
                let pending = Rc::new(Pending::default());
                client = Some((id, Rc::clone(&pending)));
                Phase::Waiting(id, pending)
            }
            PassedPhase::Writing { bytes: Bytes(bytes), last } => {
                Phase::Writing { bytes: bytes.into(), sent: Cell::new(0), last }
            }
        });
        Ok((connection, client))
    }

    /// What is to be sent next.
    pub(super) fn answer(&self, answer: Answer, last: bool) {
        let bytes = encode_answer(answer).into();
        self.phase.replace(Phase::Writing { bytes, sent: Cell::new(0), last });
    }

    /// Send the answer. Whether it was the last.
    pub(super) async fn write_all(&self) -> io::Result<bool> {
        loop {
            let left = match &*self.phase.borrow() {
                Phase::Writing { bytes, sent, last } if sent.get() >= bytes.len() => return Ok(*last),
                Phase::Writing { bytes, sent, .. } => (Rc::clone(bytes), sent.get()),
                _ => return Ok(true),
            };
            self.stream.writable().await?;
            match self.stream.try_write(&left.0[left.1..]) {
                Ok(count) => self.note_sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn note_sent(&self, count: usize) {
        if let Phase::Writing { sent, .. } = &*self.phase.borrow() {
            sent.set(sent.get() + count);
        }
    }

    /// The next line without its newline; `None` at the end.
    pub(super) async fn read_line(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.take_line()? {
                return Ok(Some(line));
            }
            self.stream.readable().await?;
            let mut chunk = [0_u8; 2048];
            let read = || queue::read_bare(self.stream.as_raw_fd(), &mut chunk);
            match self.stream.try_io(Interest::READABLE, read) {
                Ok(0) => return Ok(None),
                Ok(count) => self.unread.borrow_mut().extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_line(&self) -> io::Result<Option<Vec<u8>>> {
        let mut unread = self.unread.borrow_mut();
        if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = unread.drain(..=end).collect();
            line.pop();
            return Ok(Some(line));
        }
        if unread.len() > REQUEST_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{LINGER, in_event_loop, lingering};
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::time::Instant;

    /// A connection that the kernel was not told to protect, as before Linux 6.16, and its client.
    fn connection() -> (Connection, std::os::unix::net::UnixStream) {
        let (own, client) = std::os::unix::net::UnixStream::pair().expect("sockets");
        own.set_nonblocking(true).expect("non-blocking");
        let stream = UnixStream::from_std(own).and_then(Stream::new).expect("a stream");
        (Connection::new(stream, Peer::new(0, 0)), client)
    }

    /// Send a byte with the only descriptor of what takes long to close.
    fn send_lingering(client: &std::os::unix::net::UnixStream, flags: MsgFlags) -> std::net::TcpListener {
        let (stream, listener) = lingering();
        let descriptors = [stream.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let sent = sendmsg::<()>(client.as_raw_fd(), &[io::IoSlice::new(b"{")], &control, flags, None);
        assert_eq!(sent, Ok(1));
        listener
    }

    #[test]
    fn a_request_with_a_descriptor_is_cut_off_without_a_wait() {
        use std::io::Write as _;
        for flags in [MsgFlags::empty(), MsgFlags::MSG_OOB] {
            in_event_loop(async || {
                let begun = Instant::now();
                let (connection, mut client) = connection();
                client.write_all(b"a line\n").expect("written");
                let read = connection.read_line().await;
                assert_eq!(read.expect("a line").as_deref(), Some(&b"a line"[..]));
                client.write_all(b"half of one").expect("written");
                // It, and what was not read before it.
                let _listener = send_lingering(&client, flags);
                let refused = connection.read_line().await.expect_err("a descriptor came");
                assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
                drop(connection);
                assert!(begun.elapsed() < LINGER / 2, "{flags:?}: {:?}", begun.elapsed());
            });
        }
    }

    #[test]
    fn a_connection_is_closed_without_a_wait_whatever_nobody_read() {
        for flags in [MsgFlags::empty(), MsgFlags::MSG_OOB] {
            in_event_loop(async || {
                let begun = Instant::now();
                let (connection, client) = connection();
                let _listener = send_lingering(&client, flags);
                drop(connection);
                assert!(begun.elapsed() < LINGER / 2, "{flags:?}: {:?}", begun.elapsed());
            });
        }
    }
}
