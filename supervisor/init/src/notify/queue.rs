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
//! A child that hangs does so alone. It ends itself after [`CHILD_TIME`] if the kernel lets it, and
//! there are never more than [`CHILDREN`].

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;

use crate::sys;

/// Seconds after which a child ends itself: longer than any honest close, which has nothing to
/// wait for.
const CHILD_TIME: libc::c_uint = 10;

/// The most children at a time. More than one for a socket only while closing hangs; then what
/// carries descriptors waits.
const CHILDREN: usize = 16;

/// Children that are not over.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Room for the most descriptors that the kernel passes with one message (`SCM_MAX_FD`, 253), for
/// credentials, and for both headers.
const CONTROL_WORDS: usize = 160;

/// The number from which a child keeps its report, so that it is closed after everything that it
/// takes: numbers are closed in rising order at its end.
const REPORT: RawFd = 512;

/// What stands at the head of the queue.
pub struct Head {
    /// Bytes of it that were read.
    pub length: usize,
    /// The sender's process by the kernel's word; 0 for one outside of this process's namespace.
    pub sender: Option<i32>,
    /// It carries descriptors.
    pub laden: bool,
}

/// Read the message at the head of the queue and leave it there.
pub fn look(socket: RawFd, bytes: &mut [u8]) -> io::Result<Head> {
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
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
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

/// One of [`CHILDREN`].
struct Place;

impl Place {
    fn take() -> io::Result<Self> {
        let more = |alive| (alive < CHILDREN).then_some(alive + 1);
        match ALIVE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self),
            Err(_) => Err(io::Error::from(io::ErrorKind::ResourceBusy)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Have a child remove the message at the head of the queue, and wait until it has; what closing
/// takes is not waited for.
pub async fn hand_over(socket: RawFd) -> io::Result<()> {
    let place = Place::take()?;
    let taking = Taking::start(socket)?;
    if !taking.goes_on().await {
        return Ok(());
    }
    spawn_local(async move {
        while taking.goes_on().await {}
        drop(place);
    });
    Ok(())
}

impl Taking {
    fn start(socket: RawFd) -> io::Result<Self> {
        let (read, write) = sys::pipe()?;
        let report = sys::watch(read)?;
        // SAFETY: the child makes plain system calls, and ends.
        match unsafe { sys::clone_child(None, 0) }? {
            // SAFETY: this is the child.
            0 => unsafe { take(socket, write.as_raw_fd()) },
            _ => Ok(Self { report }),
        }
    }

    /// Wait for a word of the child. Whether it came, or the child has ended.
    async fn goes_on(&self) -> bool {
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
        _ => Ok(write),
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
        libc::recvmsg(socket, &raw mut header, libc::MSG_DONTWAIT);
        libc::write(report, [1_u8].as_ptr().cast(), 1);
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
