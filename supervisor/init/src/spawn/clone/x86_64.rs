//! `clone3` by `syscall`, which writes `rcx` and `r11`.

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
    // SAFETY: the parent changes only the registers that are named; the child has registers and a stack of its own, and
    // does not come back. The zero in the frame pointer ends a debugger's walk.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of_val(args),
            in("r8") argument,
            in("r9") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}
