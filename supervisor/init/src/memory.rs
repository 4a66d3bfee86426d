//! The memory of the supervisor itself: what only starting needed is given back, and as process 1 what is used from then
//! on stays in memory.
//!
//! Guarantees: process 1 waits for no disk when it acts, for the pages that it has used are locked; pages that it has
//! never used are not held for that (`MLOCK_ONFAULT`). Children inherit no lock (mlockall(2)).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::libc;
use tracing::warn;

/// Time after the start at which starting is taken for done. Too early or too late costs nothing but pages that are
/// read again, or are held for that long.
pub const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// Starting is over, and [`before_wait`] has not seen to it yet.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Starting is over: hold no memory that only starting needed, and as process 1 keep the rest from being paged out.
/// That is done when there is nothing more to do, so that the program text of what comes until then is given back too.
pub fn settle() {
    STARTED.store(true, Ordering::Relaxed);
}

/// The event loop is about to wait.
pub fn before_wait() {
    if !STARTED.swap(false, Ordering::Relaxed) {
        return;
    }
    give_back();
    if std::process::id() == 1
        && let Err(error) = lock()
    {
        warn!("failed to lock memory, so acting may have to wait for a disk: {error}");
    }
}

/// Give back what starting needed: freed memory, and program text, of which most is not used again. The kernel has text
/// in its page cache, from where a page that is used comes back without a read while it is there.
fn give_back() {
    // SAFETY: both only touch memory that nobody uses: malloc's own, and pages that the kernel can read again.
    unsafe {
        libc::malloc_trim(0);
        libc::dl_iterate_phdr(Some(drop_text), std::ptr::null_mut());
    }
}

/// Keep in memory what has been used and what will be. Refused without the right to lock without limit: within a limit
/// an allocation beyond it would fail later, and that would be the end.
fn lock() -> io::Result<()> {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to locals; the lock changes nothing but where pages may be.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        // With a limit of nothing the call succeeds only for who is not bound by limits.
        let nothing = libc::rlimit { rlim_cur: 0, ..before };
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const nothing);
        let locked = libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT);
        let error = io::Error::last_os_error();
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const before);
        if locked == 0 { Ok(()) } else { Err(error) }
    }
}

/// Unmap the pages of each segment of an object that nobody can have written to.
///
/// # Safety
/// Called by `dl_iterate_phdr` with a valid structure.
unsafe extern "C" fn drop_text(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    /// Segments begin and end on pages of this size or of a multiple.
    const PAGE: u64 = 4096;
    // SAFETY: the structure and the headers it points to are valid during the call. A segment that is loaded without
    // the right to write holds what its file holds (relocations lie in writable ones), so the kernel can read it again;
    // those of the kernel's own object are refused or read again in the same way.
    unsafe {
        let object = &*object;
        if object.dlpi_phdr.is_null() {
            return 0;
        }
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum));
        for header in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0) {
            let start = (object.dlpi_addr + header.p_vaddr) & !(PAGE - 1);
            let end = object.dlpi_addr + header.p_vaddr + header.p_memsz;
            libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED);
        }
    }
    0
}
