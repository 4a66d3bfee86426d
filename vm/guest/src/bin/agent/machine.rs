//! Requests about the machine as a whole: signals, clocks, entropy, its end.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use yakiros_guest::protocol::{GuestError, Reply, Shutdown};

use crate::error::{invalid, system};

/// The reply has to leave the guest before the machine ends.
const REPLY_TIME: Duration = Duration::from_millis(50);

/// kill(2); signal 0 only asks.
pub fn signal(pid: i32, signal: i32) -> Result<Reply, GuestError> {
    // SAFETY: kill takes integers and touches no memory. Not nix's: it knows neither signal numbers above SIGRTMIN
    // nor that 0 is one.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(Reply::Signalled);
    }
    Err(system(&format!("send signal {signal} to {pid}"), &io::Error::last_os_error()))
}

/// Reads the clocks, after setting the wall clock if asked.
pub fn clock(set_realtime_ns: Option<u64>) -> Result<Reply, GuestError> {
    if let Some(now) = set_realtime_ns {
        set_clock(now)?;
    }
    let read = |clock: ClockId| -> Result<u64, GuestError> {
        let time = clock_gettime(clock).map_err(|error| system("read a clock", &error.into()))?;
        Ok(Duration::from(time).as_nanos() as u64)
    };
    Ok(Reply::Clock {
        realtime_ns: read(ClockId::CLOCK_REALTIME)?,
        monotonic_ns: read(ClockId::CLOCK_MONOTONIC)?,
        boottime_ns: read(ClockId::CLOCK_BOOTTIME)?,
    })
}

/// Sets the wall clock.
pub fn set_clock(realtime_ns: u64) -> Result<(), GuestError> {
    let time = TimeSpec::from_duration(Duration::from_nanos(realtime_ns));
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|error| system("set the wall clock", &error.into()))
}

/// Least entropy that makes two clones differ for good.
const MIN_ENTROPY_BYTES: usize = 32;
/// RNDADDENTROPY takes a length and a buffer of it; more than this is of no use.
const MAX_ENTROPY_BYTES: usize = 64;

/// `struct rand_pool_info` of linux/random.h.
#[repr(C)]
struct RandPoolInfo {
    entropy_count_bits: libc::c_int,
    size_bytes: libc::c_int,
    pool: [u8; MAX_ENTROPY_BYTES],
}

nix::ioctl_write_ptr!(add_entropy, b'R', 0x03, [libc::c_int; 2]);
nix::ioctl_none!(reseed_generator, b'R', 0x07);

/// Credits the entropy and makes the generator use it at once.
pub fn reseed(entropy: &str) -> Result<(), GuestError> {
    let bytes = from_hexadecimal(entropy)
        .filter(|bytes| (MIN_ENTROPY_BYTES..=MAX_ENTROPY_BYTES).contains(&bytes.len()))
        .ok_or_else(|| {
            invalid(format!(
                "reseed: entropy is {MIN_ENTROPY_BYTES} to {MAX_ENTROPY_BYTES} bytes in hexadecimal"
            ))
        })?;
    let mut info = RandPoolInfo {
        entropy_count_bits: bytes.len() as libc::c_int * 8,
        size_bytes: bytes.len() as libc::c_int,
        pool: [0; MAX_ENTROPY_BYTES],
    };
    info.pool[..bytes.len()].copy_from_slice(&bytes);
    let error = |error: io::Error| system("reseed the random generator", &error);
    let device = open_random().map_err(error)?;
    // SAFETY: the request's size is that of the header, two integers, and the kernel reads `size_bytes` after it,
    // all within `info`.
    unsafe { add_entropy(device.as_raw_fd(), (&raw const info).cast()) }
        .map_err(|errno| error(errno.into()))?;
    // SAFETY: takes no argument.
    unsafe { reseed_generator(device.as_raw_fd()) }.map_err(|errno| error(errno.into()))?;
    Ok(())
}

fn open_random() -> io::Result<std::fs::File> {
    OpenOptions::new().write(true).open("/dev/random")
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    digits
        .filter(|digits| digits.len() % 2 == 0)
        .map(|digits| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Begins the end of the machine; the reply goes out first.
pub fn shutdown(how: Shutdown) -> Reply {
    std::thread::spawn(move || {
        std::thread::sleep(REPLY_TIME);
        match how {
            Shutdown::Init => drop(signal(1, libc::SIGTERM)),
            Shutdown::Forced => {
                nix::unistd::sync();
                let Err(error) = reboot(RebootMode::RB_POWER_OFF);
                eprintln!("agent: failed to power off: {error}");
            }
        }
    });
    Reply::ShuttingDown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_in_pairs() {
        assert_eq!(from_hexadecimal("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(from_hexadecimal("0"), None);
        assert_eq!(from_hexadecimal("zz"), None);
    }

    #[test]
    fn too_little_entropy_is_refused() {
        assert!(reseed("00").is_err());
    }
}
