//! The interface `lo` of a network namespace of its own: the kernel leaves it down.

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::descriptor;

/// Bring it up.
///
/// # Safety
/// Only in a child process.
pub unsafe fn raise_loopback() -> Result<(), Errno> {
    // SAFETY: plain calls on a local, which is plain data for which zero is valid.
    unsafe {
        let fd =
            descriptor(syscall!(Sysno::socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)?);
        let mut request: libc::ifreq = std::mem::zeroed();
        let [first, second, ..] = &mut request.ifr_name;
        (*first, *second) = (b'l' as libc::c_char, b'o' as libc::c_char);
        let raised = syscall!(Sysno::ioctl, fd, libc::SIOCGIFFLAGS, &raw mut request).and_then(|_| {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            syscall!(Sysno::ioctl, fd, libc::SIOCSIFFLAGS, &raw const request)
        });
        let _ = syscall!(Sysno::close, fd);
        raised.map(drop)
    }
}
