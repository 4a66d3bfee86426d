//! The last resort of process 1: a shell on the console, for ever.
//!
//! Entered on an internal panic, a fault, or when the supervisor cannot start. Components run on
//! unsupervised: one that ends is reaped like any orphan and not started again. Their output is
//! read, slowly, and thrown away, so that they neither end by SIGPIPE nor wait for ever for a full
//! pipe. The control socket does not answer. SIGTERM and SIGINT still switch off and restart.

use std::ffi::CStr;
use std::ptr;
use std::time::Duration;

use nix::libc;
use tracing::error;
use yakiros_core::engine::Halt;

use crate::machine::CONSOLE;
use crate::shutdown::Held;
use crate::{reexec, shutdown, signals, sys};

/// Pause before a shell that has ended is started again: one that cannot start at all must not
/// fill the log.
const RESPAWN_PAUSE: Duration = Duration::from_secs(2);

/// The most bytes read from one component at a time: what a pipe holds.
const DRAIN_LIMIT: usize = 64 * 1024;

/// Shells to try, in order.
const SHELLS: &[&CStr] = &[c"/bin/sh", c"/bin/busybox"];

/// From now on a panic of process 1 ends here instead of ending the machine, unless a new process
/// image can take over (see [`crate::reexec`]).
pub fn on_panic() {
    std::panic::set_hook(Box::new(|info| {
        error!("internal error: {info}");
        if !reexec::note_failure(&info.to_string()) {
            run("an internal error");
        }
    }));
}

/// Offer shells for ever.
pub fn run(reason: &str) -> ! {
    error!("{reason}: the supervisor has stopped working; a shell is on the console");
    // If it fails, signals take their default effect, which for process 1 is none.
    let _ = sys::block_signals();
    loop {
        let shell = start_shell();
        while shell.is_some() && !reap(shell) {
            wait_for_signal(RESPAWN_PAUSE);
            drain_pipes();
        }
        wait_for_signal(RESPAWN_PAUSE);
        drain_pipes();
        reap(None);
    }
}

/// Empty the pipes of components. Nobody else reads them any more.
fn drain_pipes() {
    let mut buffer = [0_u8; 4096];
    for fd in (3..sys::FILES_WANTED as libc::c_int).filter(|fd| sys::is_reading_pipe(*fd)) {
        for _ in 0..DRAIN_LIMIT / buffer.len() {
            // SAFETY: the buffer is a local of the given size; the number is that of a pipe that
            // does not block.
            if unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } <= 0 {
                break;
            }
        }
    }
}

/// Reap every child that has ended. Whether the shell was among them.
fn reap(shell: Option<i32>) -> bool {
    let mut gone = false;
    while let Some(pid) = signals::next_ended() {
        signals::take(pid);
        gone |= Some(pid) == shell;
    }
    gone
}

/// Wait for any signal, and obey the two that end the machine.
fn wait_for_signal(limit: Duration) {
    let time = libc::timespec { tv_sec: limit.as_secs().try_into().unwrap_or(1), tv_nsec: 0 };
    // SAFETY: the set is initialised by `sigfillset`, the pointers are to locals.
    let signal = unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const time)
    };
    match signal {
        libc::SIGTERM => shutdown::finish(Halt::PowerOff, &Held::new()),
        libc::SIGINT => shutdown::finish(Halt::Reboot, &Held::new()),
        _ => {}
    }
}

/// Start a shell on the console, in a session of its own.
fn start_shell() -> Option<i32> {
    // SAFETY: the child makes plain system calls on literals until exec or exit.
    match unsafe { sys::clone_child(None, 0) } {
        // SAFETY: this is the child.
        Ok(0) => unsafe { become_shell() },
        Ok(pid) => Some(pid),
        Err(error) => {
            error!("failed to start a shell: {error}");
            None
        }
    }
}

/// # Safety
/// Only in a child process.
unsafe fn become_shell() -> ! {
    // SAFETY: async-signal-safe calls on literals and locals.
    unsafe {
        libc::setsid();
        let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(mask.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut());
        let console = libc::open(CONSOLE.as_ptr(), libc::O_RDWR);
        if console >= 0 {
            libc::ioctl(console, libc::TIOCSCTTY, 1);
            for number in 0..3 {
                libc::dup2(console, number);
            }
        }
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let environment = [path.as_ptr(), c"TERM=linux".as_ptr(), ptr::null()];
        for shell in SHELLS {
            let argv = [c"sh".as_ptr(), ptr::null()];
            libc::execve(shell.as_ptr(), argv.as_ptr(), environment.as_ptr());
        }
        libc::_exit(127)
    }
}
