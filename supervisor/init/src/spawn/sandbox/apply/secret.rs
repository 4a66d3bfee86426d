//! Copies of files for the component's user alone.

use std::ffi::CStr;
use std::os::fd::RawFd;

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::{Registers, descriptor};

/// The most bytes of a secret: keys and passwords have thousands at most, and it is kept in memory.
pub const SECRET_LIMIT: usize = 1024 * 1024;

/// Bytes that are copied at once, over the child's small stack.
const CHUNK: usize = 1024;

/// Readable by its owner and nobody else.
const MODE: libc::mode_t = 0o400;

/// Copy an open file to a new one that belongs to the user that was found.
///
/// # Safety
/// Only in a child process.
pub unsafe fn copy(from: RawFd, target: &CStr, registers: &Registers) -> Result<(), Errno> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    // SAFETY: plain calls on texts, descriptors of the child's own and a local, for which zero is valid.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        syscall!(Sysno::fstat, from, &raw mut found)?;
        if found.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Errno::EINVAL);
        }
        let to = descriptor(syscall!(Sysno::openat, libc::AT_FDCWD, target.as_ptr(), flags, MODE)?);
        let (user, group) = (registers.user, registers.group);
        let copied = copy_all(from, to).and_then(|()| syscall!(Sysno::fchown, to, user, group));
        let _ = syscall!(Sysno::close, to);
        let _ = syscall!(Sysno::close, from);
        copied.map(drop)
    }
}

/// # Safety
/// Only in a child process.
unsafe fn copy_all(from: RawFd, to: RawFd) -> Result<(), Errno> {
    let mut buffer = [0_u8; CHUNK];
    let mut left = SECRET_LIMIT;
    loop {
        // SAFETY: the pointers are to a local.
        unsafe {
            let count = syscall!(Sysno::read, from, buffer.as_mut_ptr(), buffer.len())?;
            if count == 0 {
                return Ok(());
            }
            left = left.checked_sub(count).ok_or(Errno::EFBIG)?;
            // A file in memory takes all or has no room.
            if syscall!(Sysno::write, to, buffer.as_ptr(), count)? != count {
                return Err(Errno::ENOSPC);
            }
        }
    }
}
