//! A filter of system calls (seccomp(2)).

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::super::op::Instruction;

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: libc::c_ushort,
    instructions: *const Instruction,
}

/// Let every system call from here on pass the filter.
///
/// # Safety
/// Only in a child process.
pub unsafe fn install(filter: &[Instruction]) -> Result<(), Errno> {
    let length = libc::c_ushort::try_from(filter.len()).map_err(|_| Errno::E2BIG)?;
    let program = Program { length, instructions: filter.as_ptr() };
    // SAFETY: the kernel copies the program, which is of that length.
    unsafe { syscall!(Sysno::seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program).map(drop) }
}
