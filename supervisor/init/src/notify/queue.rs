//! Reading a socket to which anybody may send descriptors, without ever holding one: messages of
//! components, and requests of clients where the kernel cannot refuse descriptors.
//!
//! Guarantees: this process never does the last close of what others have sent. That can take as
//! long as they like (a TCP socket that lingers, a huge file that is gone from its directory) or
//! never return (a file system in user space), and the kernel does it in the context of whoever
//! lets the last reference go, also when a message is read without room for its descriptors, and
//! when a socket is closed with messages in it. So
//!
//! * a message is looked at in the queue ([`look`]), which keeps its references;
//! * one that carries none is then removed ([`remove`]);
//! * one that does is removed by a child, which closes all of it when it ends ([`Taking`]);
//! * a socket that is closed with messages in it is held by a child for longer ([`outlive`]), and so is what a component
//!   has stored when it is let go ([`close`]);
//! * what is to be stored is copied out of the queue ([`copies`]), which keeps a reference until a child removes it;
//! * of a stream is read what carries none ([`read_bare`]), and it is closed after the rest was looked
//!   at ([`before_close`]).
//!
//! A child that hangs does so alone. It ends itself after [`CHILD_TIME`] if the kernel lets it. No
//! message is handed over while there are [`CHILDREN`] that have not ended; a socket that is closed
//! gets its child all the same, for the process that is to close it cannot wait. There are at most as
//! many of those as runs end, and as connections are cut off, while closing hangs; new connections
//! wait while there are [`CLIENTS`] of the latter.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::slice;

use nix::libc;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::sys;

/// Seconds after which a child ends itself: longer than any honest close, which has nothing to
/// wait for.
const CHILD_TIME: libc::c_uint = 10;

/// The most children at a time. More than one for a socket only while closing hangs; then what
/// carries descriptors waits.
const CHILDREN: usize = 16;

/// The most children that close connections before new ones wait. An honest client sends no
/// descriptors, and a child ends at once unless the file system of one hangs.
const CLIENTS: usize = 64;

/// What a child holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// What was sent to a component's socket.
    Messages,
    /// The connection of a client.
    Connection,
}

thread_local! {
    /// Children of this process image that are not reaped.
    static ALIVE: RefCell<HashMap<libc::pid_t, Held>> = RefCell::default();
}

/// Room for the most descriptors that the kernel passes with one message (`SCM_MAX_FD`, 253), for
/// credentials, and for both headers.
const CONTROL_WORDS: usize = 160;

/// The number from which a child keeps its report, so that it is closed after everything that it
/// takes: numbers are closed in rising order at its end.
const REPORT: RawFd = 512;

/// A message in the queue.
pub struct Head {
    /// Its bytes, which may be more than were read.
    pub length: usize,
    /// The sender's process by the kernel's word; 0 for one outside of this process's namespace.
    pub sender: Option<i32>,
    /// It carries descriptors.
    pub laden: bool,
}

/// Read a message and leave it in the queue: the one at the head, or the one behind so many bytes of
/// messages at the head.
pub fn look(socket: RawFd, behind: usize, bytes: &mut [u8]) -> io::Result<Head> {
    if behind == 0 {
        return peek(socket, bytes, CREDENTIALS);
    }
    let behind = libc::c_int::try_from(behind).map_err(io::Error::other)?;
    set_peek_offset(socket, behind)?;
    let head = peek(socket, bytes, CREDENTIALS);
    // As it was: from the head.
    set_peek_offset(socket, -1)?;
    head
}

/// Where a peek begins; -1 for always at the head.
fn set_peek_offset(socket: RawFd, offset: libc::c_int) -> io::Result<()> {
    let size = size_of_val(&offset) as libc::socklen_t;
    let value = (&raw const offset).cast();
    // SAFETY: the pointer is to a local of that size.
    match unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, value, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Room for the sender's credentials.
const CREDENTIALS: usize = size_of::<libc::cmsghdr>() + size_of::<libc::ucred>().next_multiple_of(8);

/// Copies of the descriptors that a message carries, which stays in the queue: the one at the head, or the one behind so
/// many bytes. They are fewer only where this process may open no more.
pub fn copies(socket: RawFd, behind: usize) -> io::Result<Vec<OwnedFd>> {
    if behind == 0 {
        return peek_descriptors(socket);
    }
    let behind = libc::c_int::try_from(behind).map_err(io::Error::other)?;
    set_peek_offset(socket, behind)?;
    let found = peek_descriptors(socket);
    set_peek_offset(socket, -1)?;
    found
}

fn peek_descriptors(socket: RawFd) -> io::Result<Vec<OwnedFd>> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut found = Vec::new();
    // A peek begins with a byte.
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zero is a valid header; its pointers are to locals that outlive the call, with their sizes. What is
    // read from the control buffer was filled by the kernel; each descriptor is new, and nobody else owns it.
    unsafe {
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        if libc::recvmsg(socket, &raw mut header, flags) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut at = libc::CMSG_FIRSTHDR(&raw const header);
        while !at.is_null() {
            if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                let length = (*at).cmsg_len - libc::CMSG_LEN(0) as usize;
                let (numbers, _) = slice::from_raw_parts(libc::CMSG_DATA(at), length).as_chunks();
                found.extend(numbers.iter().map(|fd| OwnedFd::from_raw_fd(RawFd::from_ne_bytes(*fd))));
            }
            at = libc::CMSG_NXTHDR(&raw const header, at);
        }
    }
    Ok(found)
}

/// See [`look`]. There is room for what the kernel tells of the sender and for nothing else:
/// descriptors do not fit, which the kernel tells.
fn peek(socket: RawFd, bytes: &mut [u8], room: usize) -> io::Result<Head> {
    let mut control = [0_u64; CREDENTIALS / size_of::<u64>()];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is a valid header; its pointers are to locals that outlive the call, with
    // their sizes. What is read from the control buffer was filled by the kernel.
    unsafe {
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = room.min(CREDENTIALS);
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
        let length = libc::recvmsg(socket, &raw mut header, flags);
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        let told = !first.is_null() && (*first).cmsg_type == libc::SCM_CREDENTIALS;
        let sender = told.then(|| ptr::read_unaligned(libc::CMSG_DATA(first).cast::<libc::ucred>()).pid);
        Ok(Head { length, sender, laden: header.msg_flags & libc::MSG_CTRUNC != 0 })
    }
}

/// Remove the message at the head of the queue, which carries no descriptor.
pub fn remove(socket: RawFd) {
    // SAFETY: nothing is written to an empty buffer. It cannot fail: the message is there.
    unsafe { libc::recv(socket, ptr::null_mut(), 0, libc::MSG_DONTWAIT) };
}

/// Read from a stream what carries no descriptors; 0 bytes at its end. What does is left where it is
/// with all in front of it, and told as [`io::ErrorKind::InvalidData`].
///
/// The stream must have `SO_OOBINLINE` and must not have `SO_PASSCRED`: else there were bytes that
/// are removed without being seen, and room for descriptors.
pub fn read_bare(socket: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    let head = peek(socket, bytes, 0)?;
    if head.laden {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it carries descriptors"));
    }
    let seen = bytes.len().min(head.length);
    let seen = &mut bytes[..seen];
    if seen.is_empty() {
        return Ok(0);
    }
    // SAFETY: the buffer is a slice of that length. Nobody else reads, so the same is there.
    let count = unsafe { libc::recv(socket, seen.as_mut_ptr().cast(), seen.len(), libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// The most reads before a stream is closed: more than its buffer holds, unless its bytes came one by
/// one.
const LAST_READS: usize = 512;

/// See to what nobody has read of a stream that is about to be closed. What is returned is to be kept
/// until it is.
pub fn before_close(stream: impl AsFd) -> Option<OwnedFd> {
    let socket = stream.as_fd().as_raw_fd();
    // SAFETY: a call on a number. After it nothing more comes in.
    let closed = unsafe { libc::shutdown(socket, libc::SHUT_RD) } == 0;
    let mut bytes = [0_u8; 2048];
    let over = || match read_bare(socket, &mut bytes) {
        Ok(0) => Some(true),
        Ok(_) => None,
        Err(error) => Some(error.kind() == io::ErrorKind::WouldBlock),
    };
    let empty = std::iter::repeat_with(over).take(LAST_READS).find_map(|over| over);
    if closed && empty == Some(true) {
        return None;
    }
    let child = outlive(socket, Held::Connection);
    if let Err(error) = &child {
        leave_open(stream, "a connection", error);
    }
    child.ok()
}

/// Keep a socket for ever that cannot be closed without a wait: the better of two evils, and only
/// when no child can be made.
pub fn leave_open(socket: impl AsFd, what: impl Display, error: &io::Error) {
    if let Ok(kept) = nix::unistd::dup(socket) {
        std::mem::forget(kept);
    }
    warn!("{what} stays open, for no process could be created to close it: {error}");
}

/// A child that removes the message at the head of the queue, with all that it carries.
pub struct Taking {
    report: AsyncFd<OwnedFd>,
}

/// A child was reaped. It may be one of these.
pub fn reaped(pid: libc::pid_t) {
    ALIVE.with_borrow_mut(|alive| alive.remove(&pid));
}

fn note(pid: libc::pid_t, held: Held) {
    ALIVE.with_borrow_mut(|alive| alive.insert(pid, held));
}

fn alive(held: Held) -> usize {
    ALIVE.with_borrow(|alive| alive.values().filter(|other| **other == held).count())
}

/// Whether so many connections are being closed that no more should come.
pub fn is_crowded() -> bool {
    alive(Held::Connection) >= CLIENTS
}

/// Have a child remove the message at the head of the queue, and wait until it has; what closing
/// takes is not waited for. Whether the child said that it has: one that was killed says nothing.
pub async fn hand_over(socket: RawFd) -> io::Result<bool> {
    if alive(Held::Messages) >= CHILDREN {
        return Err(io::Error::from(io::ErrorKind::ResourceBusy));
    }
    Ok(Taking::start(socket)?.is_done().await)
}

impl Taking {
    fn start(socket: RawFd) -> io::Result<Self> {
        let (read, write) = sys::pipe()?;
        let report = sys::watch(read)?;
        // SAFETY: the child makes plain system calls, and ends.
        match unsafe { sys::clone_child(None, 0) }? {
            // SAFETY: this is the child.
            0 => unsafe { take(socket, write.as_raw_fd()) },
            pid => {
                note(pid, Held::Messages);
                Ok(Self { report })
            }
        }
    }

    /// Wait for the word of the child. Whether it came, or the child has ended without it.
    async fn is_done(&self) -> bool {
        loop {
            let Ok(mut ready) = self.report.readable().await else {
                return false;
            };
            match sys::read_now(self.report.get_ref(), &mut [0]) {
                Ok(None) => ready.clear_ready(),
                Ok(Some(count)) => return count > 0,
                Err(_) => return false,
            }
        }
    }
}

/// Have a child hold a socket until the returned descriptor is closed, which must be after the
/// socket is.
pub fn outlive(socket: RawFd, held: Held) -> io::Result<OwnedFd> {
    outlive_all(vec![socket], held)
}

fn outlive_all(mut kept: Vec<RawFd>, held: Held) -> io::Result<OwnedFd> {
    let (read, write) = sys::pipe()?;
    kept.push(read.as_raw_fd());
    kept.sort_unstable();
    // SAFETY: the child makes plain system calls, and ends.
    match unsafe { sys::clone_child(None, 0) }? {
        // SAFETY: this is the child.
        0 => unsafe { hold(&kept, read.as_raw_fd()) },
        pid => {
            note(pid, held);
            Ok(write)
        }
    }
}

/// Close descriptors of which nobody knows how long that takes.
pub fn close(fds: Vec<OwnedFd>, held: Held, whose: &dyn Display) {
    if fds.is_empty() {
        return;
    }
    match outlive_all(fds.iter().map(AsRawFd::as_raw_fd).collect(), held) {
        // The gate after the rest.
        Ok(gate) => drop((fds, gate)),
        Err(error) => {
            let count = fds.len();
            fds.into_iter().for_each(std::mem::forget);
            warn!(
                "{count} descriptors of {whose} stay open, for no process could be created to close them: {error}"
            );
        }
    }
}

/// The whole life of a child that takes a message.
///
/// # Safety
/// Only in a child process.
unsafe fn take(socket: RawFd, report: RawFd) -> ! {
    // SAFETY: plain calls on numbers and locals.
    unsafe {
        let high = libc::fcntl(report, libc::F_DUPFD, REPORT);
        // Refused where fewer files are allowed: then the end is told early, at worst.
        let report = if high < 0 { report } else { high };
        begin(&[socket.min(report), socket.max(report)]);
        let mut control = [0_u64; CONTROL_WORDS];
        let mut header: libc::msghdr = zeroed();
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        if libc::recvmsg(socket, &raw mut header, libc::MSG_DONTWAIT) >= 0 {
            libc::write(report, [1_u8].as_ptr().cast(), 1);
        }
        libc::_exit(0)
    }
}

/// The whole life of a child that holds descriptors, given in rising order with the gate among them.
///
/// # Safety
/// Only in a child process.
unsafe fn hold(kept: &[RawFd], gate: RawFd) -> ! {
    // SAFETY: plain calls on numbers and locals.
    unsafe {
        begin(kept);
        // The pipe does not block for its reader as the supervisor makes it.
        libc::fcntl(gate, libc::F_SETFL, 0);
        libc::read(gate, [0_u8].as_mut_ptr().cast(), 1);
        libc::_exit(0)
    }
}

/// Set the end, and let go of everything but these descriptors, given in rising order.
///
/// # Safety
/// Only in a child process.
unsafe fn begin(kept: &[RawFd]) {
    // SAFETY: plain calls on numbers and a local.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::alarm(CHILD_TIME);
        sys::close_all_but(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn send_descriptor(socket: RawFd) {
        let descriptors = [socket];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let parts = [io::IoSlice::new(b"BARRIER=1")];
        sendmsg::<()>(socket, &parts, &control, MsgFlags::empty(), None).expect("sent");
    }

    #[test]
    fn a_child_has_its_place_until_it_is_reaped() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("event loop");
        runtime.block_on(async {
            let (own, other) = UnixDatagram::pair().expect("sockets");
            for _ in 0..CHILDREN {
                send_descriptor(other.as_raw_fd());
                assert!(hand_over(own.as_raw_fd()).await.expect("a child"), "it has taken the message");
            }
            send_descriptor(other.as_raw_fd());
            let refused = hand_over(own.as_raw_fd()).await.expect_err("too many children");
            assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
            let all = ALIVE.with_borrow(Clone::clone);
            let mut status = 0;
            for pid in all.keys() {
                // SAFETY: the pointer is to a local; the children are this thread's own.
                assert_eq!(unsafe { libc::waitpid(*pid, &raw mut status, 0) }, *pid);
            }
            reaped(*all.keys().next().expect("a child"));
            assert!(hand_over(own.as_raw_fd()).await.expect("a child"));
        });
    }

    #[test]
    fn only_a_connection_with_descriptors_in_it_takes_a_child_and_many_hold_up_new_ones() {
        let gate_of = |send: &dyn Fn(RawFd)| {
            let (own, other) = UnixStream::pair().expect("sockets");
            send(other.as_raw_fd());
            before_close(&own)
        };
        let write = |socket: RawFd| {
            // SAFETY: the buffer is a literal of that size.
            assert_eq!(unsafe { libc::write(socket, b"bytes".as_ptr().cast(), 5) }, 5);
        };
        assert!(gate_of(&|_| ()).is_none());
        assert!(gate_of(&write).is_none());
        let gates: Vec<_> = (0..CLIENTS).map(|_| gate_of(&|socket| send_descriptor(socket))).collect();
        assert!(gates.iter().all(Option::is_some) && is_crowded());
        drop(gates);
        for pid in ALIVE.with_borrow(Clone::clone).into_keys() {
            let mut status = 0;
            // SAFETY: the pointer is to a local; the children are this thread's own.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            reaped(pid);
        }
        assert!(!is_crowded());
    }
}
