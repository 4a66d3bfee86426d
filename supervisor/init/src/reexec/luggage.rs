//! The descriptors that come with the state: taken one by one, each by who needs it and only if it is
//! of the right kind.
//!
//! Guarantee: one that nobody has taken stays open until everything has its place ([`Luggage::finish`]).
//! If a take-over ends before, the emergency shell goes on reading the pipes of components, and nobody
//! who writes to one ends by SIGPIPE.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname};

use crate::notify::queue::{self, Held};
use crate::sys;

/// Descriptors that nobody has taken yet.
pub struct Luggage {
    left: BTreeSet<RawFd>,
}

impl Luggage {
    /// Take charge of these, and close every other but 0, 1 and 2.
    ///
    /// # Safety
    /// Nobody owns any of them, nor any other from 3 on.
    pub unsafe fn new(fds: &[RawFd]) -> Self {
        let left: BTreeSet<RawFd> = fds.iter().copied().filter(|fd| *fd > 2).collect();
        let mut next = 3;
        for fd in left.iter().copied().chain([RawFd::MAX]) {
            if fd > next {
                // SAFETY: nobody owns these, by the caller's promise.
                unsafe { libc::syscall(libc::SYS_close_range, next, fd - 1, 0) };
            }
            next = fd.saturating_add(1);
        }
        Self { left }
    }

    /// Take charge of every descriptor there is but 0, 1 and 2.
    ///
    /// # Safety
    /// Nobody owns any of them.
    pub unsafe fn of_everything() -> Self {
        let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut left: BTreeSet<RawFd> = numbers.filter(|fd| *fd > 2).collect();
        // That of the directory itself is closed by now.
        // SAFETY: asking for the flags of a number has no effect.
        left.retain(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
        Self { left }
    }

    /// Those that nobody has taken.
    pub fn left(&self) -> impl Iterator<Item = RawFd> {
        self.left.iter().copied()
    }

    /// The end of a pipe.
    pub fn pipe(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        self.take(fd, libc::S_IFIFO)
    }

    /// A socket.
    pub fn socket(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        self.take(fd, libc::S_IFSOCK)
    }

    /// Whatever it is: it is not asked.
    pub fn any(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        let owned = self.claim(fd)?;
        sys::set_close_on_exec(fd, true)?;
        Ok(owned)
    }

    /// Everything has its place: close what nobody took. What a component may have stored is closed by a child; the rest
    /// at once, for whoever connects to the old control socket is to find nobody.
    pub fn finish(self) {
        // SAFETY: it is in our charge and nobody else's.
        let left = self.left.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let (own, stored): (Vec<_>, Vec<_>) = left.partition(is_of_a_supervisor);
        drop(own);
        queue::close(stored, Held::Messages, &"the process image before");
    }

    fn take(&mut self, fd: RawFd, kind: libc::mode_t) -> io::Result<OwnedFd> {
        let owned = self.claim(fd)?;
        let found = sys::kind_of(&owned)?;
        if found != kind {
            let message = format!("descriptor {fd} is of kind {found:o} and not {kind:o}");
            return Err(io::Error::other(message));
        }
        sys::set_close_on_exec(fd, true)?;
        Ok(owned)
    }

    fn claim(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        if !self.left.remove(&fd) {
            return Err(io::Error::other(format!("descriptor {fd} is named twice, or did not come along")));
        }
        // SAFETY: it was in our charge and nobody else's, and is so no longer.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Whether it is of a kind that the supervisor opens for itself: pipes, unix sockets, and what has no file at all. The
/// kernel tells without asking a file.
fn is_of_a_supervisor(fd: &OwnedFd) -> bool {
    if let Ok(address) = getsockname::<SockaddrStorage>(fd.as_raw_fd()) {
        return address.family() == Some(AddressFamily::Unix);
    }
    let target = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
    let target = target.to_string_lossy();
    target.starts_with("pipe:") || target.starts_with("anon_inode:")
}
