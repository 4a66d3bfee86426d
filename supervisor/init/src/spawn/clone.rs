//! Creation of a child on a stack of its own: a file for each processor, which alone knows how its system calls are made.

use nix::libc;

use super::child::Plan;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as processor;
#[cfg(target_arch = "x86_64")]
use x86_64 as processor;

/// The child's first function.
pub type Entry = unsafe extern "C" fn(*const Plan) -> !;

/// `clone3` whose child calls `entry` with `argument` on the stack of `args`. Returns as the system call does, in the parent
/// only. A function can not do that: its child would return through the frame of its parent.
///
/// # Safety
/// The stack must be aligned and nobody else's, and what `entry` does must be safe beside what the parent does.
pub unsafe fn clone_onto(args: &libc::clone_args, entry: Entry, argument: *const Plan) -> isize {
    // SAFETY: by the caller's promise.
    unsafe { processor::clone_onto(args, entry, argument) }
}
