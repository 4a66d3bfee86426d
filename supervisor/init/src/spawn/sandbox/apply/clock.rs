//! A time namespace: who unshares one is not in it, but for a new one it may still set the clocks (time_namespaces(7)).

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::descriptor;

/// Enter the time namespace that was made for children. From then on its clocks cannot be set.
///
/// # Safety
/// Only in a child process of its own memory, which the kernel demands.
pub unsafe fn enter() -> Result<(), Errno> {
    let path = c"/proc/self/ns/time_for_children";
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: plain calls on a literal and a descriptor of the child's own.
    unsafe {
        let fd = descriptor(syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags)?);
        let entered = syscall!(Sysno::setns, fd, libc::CLONE_NEWTIME);
        let _ = syscall!(Sysno::close, fd);
        entered.map(drop)
    }
}
