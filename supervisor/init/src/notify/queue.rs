//! Reading a datagram socket to which anybody may send descriptors, without ever holding one.
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
//! * a socket that is closed with messages in it is held by a child for longer ([`outlive`]).
//!
//! A child that hangs does so alone. It ends itself after [`CHILD_TIME`] if the kernel lets it. No
//! message is handed over while there are [`CHILDREN`] that have not ended; a socket that is closed
//! gets its child all the same, for the process that is to close it cannot wait. There are at most as
//! many of those as runs end while closing hangs.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;

use nix::libc;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Seconds after which a child ends itself: longer than any honest close, which has nothing to
/// wait for.
const CHILD_TIME: libc::c_uint = 10;

/// The most children at a time. More than one for a socket only while closing hangs; then what
/// carries descriptors waits.
const CHILDREN: usize = 16;

thread_local! {
    /// Children of this process image that are not reaped.
    static ALIVE: RefCell<HashSet<libc::pid_t>> = RefCell::default();
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
        return peek(socket, bytes);
    }
    let behind = libc::c_int::try_from(behind).map_err(io::Error::other)?;
    set_peek_offset(socket, behind)?;
    let head = peek(socket, bytes);
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

/// See [`look`].
fn peek(socket: RawFd, bytes: &mut [u8]) -> io::Result<Head> {
    // Room for the sender's credentials and for nothing else: descriptors do not fit, which the
    // kernel tells.
    const ROOM: usize = size_of::<libc::cmsghdr>() + size_of::<libc::ucred>().next_multiple_of(8);
    let mut control = [0_u64; ROOM / size_of::<u64>()];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is a valid header; its pointers are to locals that outlive the call, with
    // their sizes. What is read from the control buffer was filled by the kernel.
    unsafe {
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = ROOM;
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

/// A child that removes the message at the head of the queue, with all that it carries.
pub struct Taking {
    report: AsyncFd<OwnedFd>,
}

/// A child was reaped. It may be one of these.
pub fn reaped(pid: libc::pid_t) {
    ALIVE.with_borrow_mut(|alive| alive.remove(&pid));
}

fn note(pid: libc::pid_t) {
    ALIVE.with_borrow_mut(|alive| alive.insert(pid));
}

/// Have a child remove the message at the head of the queue, and wait until it has; what closing
/// takes is not waited for. Whether the child said that it has: one that was killed says nothing.
pub async fn hand_over(socket: RawFd) -> io::Result<bool> {
    if ALIVE.with_borrow(HashSet::len) >= CHILDREN {
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
                note(pid);
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
pub fn outlive(socket: RawFd) -> io::Result<OwnedFd> {
    let (read, write) = sys::pipe()?;
    // SAFETY: the child makes plain system calls, and ends.
    match unsafe { sys::clone_child(None, 0) }? {
        // SAFETY: this is the child.
        0 => unsafe { hold(socket, read.as_raw_fd()) },
        pid => {
            note(pid);
            Ok(write)
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
        begin(socket, report);
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

/// The whole life of a child that holds a socket.
///
/// # Safety
/// Only in a child process.
unsafe fn hold(socket: RawFd, gate: RawFd) -> ! {
    // SAFETY: plain calls on numbers and locals.
    unsafe {
        begin(socket, gate);
        // The pipe does not block for its reader as the supervisor makes it.
        libc::fcntl(gate, libc::F_SETFL, 0);
        libc::read(gate, [0_u8].as_mut_ptr().cast(), 1);
        libc::_exit(0)
    }
}

/// Set the end, and let go of everything but two descriptors.
///
/// # Safety
/// Only in a child process.
unsafe fn begin(one: RawFd, other: RawFd) {
    // SAFETY: plain calls on numbers and a local.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::alarm(CHILD_TIME);
        sys::close_all_but(&[one.min(other), one.max(other)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::unix::net::UnixDatagram;

    fn send_descriptor(socket: &UnixDatagram) {
        let descriptors = [socket.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let parts = [io::IoSlice::new(b"BARRIER=1")];
        sendmsg::<()>(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), None).expect("sent");
    }

    #[test]
    fn a_child_has_its_place_until_it_is_reaped() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("event loop");
        runtime.block_on(async {
            let (own, other) = UnixDatagram::pair().expect("sockets");
            for _ in 0..CHILDREN {
                send_descriptor(&other);
                assert!(hand_over(own.as_raw_fd()).await.expect("a child"), "it has taken the message");
            }
            send_descriptor(&other);
            let refused = hand_over(own.as_raw_fd()).await.expect_err("too many children");
            assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
            let all = ALIVE.with_borrow(Clone::clone);
            let mut status = 0;
            for pid in &all {
                // SAFETY: the pointer is to a local; the children are this thread's own.
                assert_eq!(unsafe { libc::waitpid(*pid, &raw mut status, 0) }, *pid);
            }
            reaped(all.into_iter().next().expect("a child"));
            assert!(hand_over(own.as_raw_fd()).await.expect("a child"));
        });
    }
}
