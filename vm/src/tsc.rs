//! The rate of this host's time stamp counter, which is also that of an emulated guest.

/// In kHz, measured once; `None` on processors that have no such counter.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::unnecessary_wraps, reason = "other processors have none")]
pub fn host_khz() -> Option<u64> {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    /// Reading both clocks takes well under a microsecond, so this is good to one part in ten thousand; the kernel
    /// accepts one in a hundred and refines it.
    const SPAN: Duration = Duration::from_millis(20);
    static KHZ: OnceLock<u64> = OnceLock::new();

    fn both() -> (Instant, u64) {
        // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
        (Instant::now(), unsafe { core::arch::x86_64::_rdtsc() })
    }
    let measure = || {
        let (start, first) = both();
        std::thread::sleep(SPAN);
        let (end, last) = both();
        let nanoseconds = end.duration_since(start).as_nanos().max(1);
        (u128::from(last.wrapping_sub(first)) * 1_000_000 / nanoseconds) as u64
    };
    Some(*KHZ.get_or_init(measure))
}

/// In kHz, measured once; `None` on processors that have no such counter.
#[cfg(not(target_arch = "x86_64"))]
pub fn host_khz() -> Option<u64> {
    None
}
