//! Whole messages with descriptors, over unix sockets that keep messages apart.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most descriptors that the kernel lets go with one message (`SCM_MAX_FD`).
pub const DESCRIPTORS_PER_MESSAGE: usize = 253;

/// Pause before a message is sent again that the kernel refused because too many descriptors are
/// on their way (`ETOOMANYREFS`): nothing tells when the other side has taken some.
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(1);

/// Space for the descriptors of one message.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE));

/// A message that came.
pub(crate) struct Received {
    /// Its bytes in the caller's buffer.
    pub(crate) length: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Descriptors came with it that this process may not have (`RLIMIT_NOFILE`), or not now; they
    /// are lost.
    pub(crate) bereft: bool,
}

impl Received {
    /// With everything that was sent.
    pub(crate) fn whole(self) -> io::Result<Self> {
        if self.bereft {
            return Err(io::Error::other(NO_DESCRIPTOR));
        }
        Ok(self)
    }
}

/// Why a descriptor did not come.
pub(crate) const NO_DESCRIPTOR: &str = "this process may not have as many descriptors (see RLIMIT_NOFILE)";

/// Send one message; by the deadline, if there is one.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    loop {
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("more descriptors than fit a message"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(socket, PollFlags::OUT, deadline)?,
            Err(Errno::TOOMANYREFS) => {
                left(deadline)?;
                std::thread::sleep(IN_FLIGHT_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receive one message, by the deadline, if there is one. An end of the connection is
/// [`io::ErrorKind::UnexpectedEof`], also one that the other side made with something unread; a
/// message that does not fit is an error too.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    deadline: Option<Instant>,
) -> io::Result<Received> {
    loop {
        match try_receive(socket, buffer) {
            Ok(Some(received)) => return Ok(received),
            Ok(None) => wait_for(socket, PollFlags::IN, deadline)?,
            Err(error) => return Err(error),
        }
    }
}

/// The same without waiting: `None` when there is no message.
pub(crate) fn try_receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut has_ended = false;
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            // The kernel looks at the queue, and then whether the other side has closed (`unix_dgram_recvmsg`): what
            // that has sent in between is still there, and comes with a second look.
            Ok(message) if message.bytes == 0 && !std::mem::replace(&mut has_ended, true) => {}
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET | Errno::PIPE) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(error.into()),
        }
    };
    let descriptors: Vec<_> = ancillary
        .drain()
        .filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other(format!("a message of more than {} bytes", buffer.len())));
    }
    // Nobody sends an empty message.
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let bereft = message.flags.contains(ReturnFlags::CTRUNC);
    Ok(Some(Received { length: message.bytes, descriptors, bereft }))
}

/// Wait until a descriptor can be read or written, or has no other side.
pub(crate) fn wait_for(descriptor: impl AsFd, what: PollFlags, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = left(deadline)?.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&descriptor, what)], left.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time until the deadline; an error when there is none left.
fn left(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left == Some(Duration::ZERO) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}
