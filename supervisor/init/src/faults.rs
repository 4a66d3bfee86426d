//! Signals that report a fault of the running instruction, in process 1.
//!
//! Somebody's `kill -SEGV 1` is ignored. A real fault cannot be returned from: the program
//! executes itself again, straight into the emergency shell, instead of taking the kernel down
//! with it. The reading ends of logs stay open across that, so that components that write do not
//! end by SIGPIPE.

use std::ptr;

use nix::libc;

use crate::sys::{self, FAULTS};

/// Bytes of the stack on which the handler runs; it needs a few hundred.
const STACK: usize = 16 * 1024;

/// The handler's own stack: the ordinary one may be what overflowed.
static mut HANDLER_STACK: [u8; STACK] = [0; STACK];

/// Install the handler for every fault.
pub fn take_over() {
    // SAFETY: called once, before anything else runs; the stack is used by nothing but the
    // handler, and the handler makes async-signal-safe calls only.
    unsafe {
        let stack = libc::stack_t { ss_sp: (&raw mut HANDLER_STACK).cast(), ss_flags: 0, ss_size: STACK };
        libc::sigaltstack(&raw const stack, ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(_, _, _) as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigemptyset(&raw mut action.sa_mask);
        for fault in FAULTS {
            libc::sigaction(*fault, &raw const action, ptr::null_mut());
        }
    }
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure; only async-signal-safe calls follow.
    unsafe {
        // A positive code is the kernel's own. `abort` sends the signal from this very process.
        let sent = (*info).si_code <= 0;
        if sent && (*info).si_pid() != libc::getpid() {
            return;
        }
        for fd in 3..sys::FILES_WANTED as libc::c_int {
            if sys::is_reading_pipe(fd) {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
        }
        let program = c"/proc/self/exe".as_ptr();
        let argv = [c"graph-resolver".as_ptr(), c"--emergency".as_ptr(), ptr::null()];
        let environment = [ptr::null()];
        libc::execve(program, argv.as_ptr(), environment.as_ptr());
        // Without /proc: nothing is left to do but to stay.
        loop {
            libc::pause();
        }
    }
}
