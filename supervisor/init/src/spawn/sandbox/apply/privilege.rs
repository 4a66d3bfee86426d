//! Capabilities of the child itself (capabilities(7)).

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits, in two halves.
const VERSION: u32 = 0x2008_0522;

/// The header of capget(2) and capset(2).
#[repr(C)]
struct Header {
    version: u32,
    /// 0 for who calls.
    pid: libc::c_int,
}

/// Half of the sets.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Take capabilities out of the bounding set.
///
/// # Safety
/// Only in a child process.
pub unsafe fn forbid(set: u64) -> Result<(), Errno> {
    // SAFETY: plain calls on numbers.
    each(set, |number| unsafe { syscall!(Sysno::prctl, libc::PR_CAPBSET_DROP, number, 0, 0, 0) })
}

/// Put capabilities into the ambient set.
///
/// # Safety
/// Only in a child process.
pub unsafe fn raise_ambient(set: u64) -> Result<(), Errno> {
    // SAFETY: plain calls on numbers.
    each(set, |number| unsafe {
        syscall!(Sysno::prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0)
    })
}

fn each(set: u64, mut act: impl FnMut(u32) -> Result<usize, Errno>) -> Result<(), Errno> {
    let mut left = set;
    while left != 0 {
        act(left.trailing_zeros())?;
        left &= left.wrapping_sub(1);
    }
    Ok(())
}

/// Keep only these of what the child may have, have all of that in effect, and let others inherit that.
///
/// # Safety
/// Only in a child process.
pub unsafe fn limit(keep: u64, inheritable: u64) -> Result<(), Errno> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Half::default(); 2];
    // SAFETY: the structures are the kernel's for this version.
    unsafe {
        syscall!(Sysno::capget, &raw mut header, sets.as_mut_ptr())?;
        let [low, high] = &mut sets;
        for (half, shift) in [(low, 0), (high, u32::BITS)] {
            half.permitted &= (keep >> shift) as u32;
            half.effective = half.permitted;
            half.inheritable = (inheritable >> shift) as u32;
        }
        syscall!(Sysno::capset, &raw const header, sets.as_ptr()).map(drop)
    }
}
