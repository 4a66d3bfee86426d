//! The first process of a pid namespace: reaps whom the program leaves behind, passes signals on, and ends as it ends.
//!
//! It is a copy of the supervisor that never executes, so only who has CAP_SYS_PTRACE may look into it (`PR_SET_DUMPABLE`),
//! and it holds no descriptor. It has what the program has of privileges, but for the filter of system calls.

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

/// The kernel's signal mask has 64 bits.
const MASK_BYTES: usize = 8;

/// Whichever child, for wait4(2).
const ANY: libc::pid_t = -1;

/// All signals.
const ALL: u64 = u64::MAX;

/// What an exit status is for an end by a signal, as in the shell: this and its number.
const BY_SIGNAL: libc::c_int = 128;

/// Become the first process. Returns in a new one, which is to execute the program. All signals are blocked until then: the
/// first process of a namespace would not get one that it does not handle.
///
/// # Safety
/// Only in a child process of its own memory that is the first of its pid namespace.
pub unsafe fn begin() -> Result<(), Errno> {
    // SAFETY: the new process has a copy of everything; plain calls on numbers and locals.
    unsafe {
        // Exec gives it back to the program.
        let _ = syscall!(Sysno::prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        let child = syscall!(Sysno::clone, libc::SIGCHLD, 0, 0, 0, 0)?;
        if child == 0 {
            // What is sent to the group of the first one comes by it, once.
            syscall!(Sysno::setpgid, 0, 0)?;
            let none = 0_u64;
            return syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0, MASK_BYTES)
                .map(drop);
        }
        let _ = syscall!(Sysno::prctl, libc::PR_SET_NAME, c"graph-init".as_ptr(), 0, 0, 0);
        let _ = syscall!(Sysno::close_range, 0, libc::c_uint::MAX, 0);
        loop {
            pass_signals_on(child);
        }
    }
}

/// Wait for one signal, and act on it. Ends the process with the program.
///
/// # Safety
/// Only in the first process of a pid namespace.
unsafe fn pass_signals_on(child: usize) {
    let mask = ALL;
    // SAFETY: plain calls on numbers and locals.
    unsafe {
        reap(child);
        let signal = syscall!(Sysno::rt_sigtimedwait, &raw const mask, 0, 0, MASK_BYTES);
        if let Ok(signal) = signal
            && signal != libc::SIGCHLD as usize
        {
            let _ = syscall!(Sysno::kill, child, signal);
        }
    }
}

/// Reap whoever has ended.
///
/// # Safety
/// As [`pass_signals_on`].
unsafe fn reap(child: usize) {
    let mut status: libc::c_int = 0;
    // SAFETY: the pointer is to a local.
    while let Ok(ended) = unsafe { syscall!(Sysno::wait4, ANY, &raw mut status, libc::WNOHANG, 0) } {
        if ended == 0 {
            return;
        }
        if ended == child {
            let by_signal = libc::WIFSIGNALED(status);
            let code = if by_signal {
                BY_SIGNAL.wrapping_add(libc::WTERMSIG(status))
            } else {
                libc::WEXITSTATUS(status)
            };
            loop {
                // SAFETY: a call on a number, which ends all of the namespace.
                let _ = unsafe { syscall!(Sysno::exit_group, code) };
            }
        }
    }
}
