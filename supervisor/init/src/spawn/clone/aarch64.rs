//! `clone3` by `svc`, which writes `x0` only.

use std::arch::asm;
use std::ptr;

use nix::libc;

use super::Entry;
use crate::spawn::child::Plan;

/// See [`super::clone_onto`].
///
/// # Safety
/// As there.
pub unsafe fn clone_onto(args: &libc::clone_args, entry: Entry, argument: *const Plan) -> isize {
    let result: isize;
    // SAFETY: the parent changes only the register that is named; the child has registers and a stack of its own, and
    // does not come back. The zero in the frame pointer ends a debugger's walk.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x9",
            "blr x10",
            "brk #1",
            "2:",
            inlateout("x0") ptr::from_ref(args) => result,
            in("x1") size_of_val(args),
            in("x8") libc::SYS_clone3,
            in("x9") argument,
            in("x10") entry,
        );
    }
    result
}
