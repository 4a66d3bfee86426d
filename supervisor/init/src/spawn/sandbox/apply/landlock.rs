//! Landlock: paths below which something may be done (landlock(7)).

use std::ffi::CStr;

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::{Registers, descriptor};

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;

/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;

/// Rights that the first version of the interface knows, and those that the second and the third added.
const RIGHTS: [u64; 3] = [(1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1];

/// Rights that a file has which is no directory: execute, write, read, truncate.
const OF_FILES: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14;

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: libc::c_int,
}

/// Begin: everything of `handled` that the kernel knows is forbidden.
///
/// # Safety
/// Only in a child process.
pub unsafe fn begin(handled: u64, registers: &mut Registers) -> Result<(), Errno> {
    // SAFETY: plain calls on numbers and a local.
    unsafe {
        let version = syscall!(Sysno::landlock_create_ruleset, 0, 0, VERSION)?;
        let [_, _, newest] = RIGHTS;
        registers.rights = handled & RIGHTS.get(version.wrapping_sub(1)).copied().unwrap_or(newest);
        let (rights, size) = (&raw const registers.rights, size_of_val(&registers.rights));
        registers.ruleset = descriptor(syscall!(Sysno::landlock_create_ruleset, rights, size, 0)?);
    }
    Ok(())
}

/// Allow something below a path.
///
/// # Safety
/// Only in a child process, after [`begin`].
pub unsafe fn allow(path: &CStr, allowed: u64, registers: &Registers) -> Result<(), Errno> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let allowed = allowed & registers.rights;
    // SAFETY: plain calls on a text and a local, which is the kernel's structure.
    unsafe {
        let fd = descriptor(syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags)?);
        let add = |allowed: u64| {
            let rule = Beneath { allowed, parent: fd };
            syscall!(Sysno::landlock_add_rule, registers.ruleset, PATH_BENEATH, &raw const rule, 0)
        };
        let added = match add(allowed) {
            Err(Errno::EINVAL) if allowed & OF_FILES != 0 => add(allowed & OF_FILES),
            added => added,
        };
        let _ = syscall!(Sysno::close, fd);
        added.map(drop)
    }
}

/// From here on nothing else is allowed.
///
/// # Safety
/// Only in a child process, after [`begin`].
pub unsafe fn restrict(registers: &Registers) -> Result<(), Errno> {
    // SAFETY: plain calls on numbers.
    unsafe {
        let done = syscall!(Sysno::landlock_restrict_self, registers.ruleset, 0);
        let _ = syscall!(Sysno::close, registers.ruleset);
        done.map(drop)
    }
}
