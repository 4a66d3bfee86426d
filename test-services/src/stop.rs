//! Waiting for the signal to stop.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Longest single poll; longer waits are several of them, because poll counts milliseconds in 31 bits.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// Takes signals as data instead of as interruptions: they are blocked, and read from a descriptor.
///
/// Must be made before any thread is started, so that all threads block the signals. Signals that come before anyone
/// waits are kept.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Takes SIGTERM and SIGINT, the signals that ask a service to stop.
    pub fn to_stop() -> io::Result<Self> {
        Self::take(&[Signal::SIGTERM, Signal::SIGINT])
    }

    /// Takes these signals.
    pub fn take(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { descriptor })
    }

    /// Waits for a signal, without an end.
    pub fn wait(&self) -> io::Result<Signal> {
        loop {
            if let Some(signal) = self.wait_for(LONGEST_POLL)? {
                return Ok(signal);
            }
        }
    }

    /// Waits for a signal, at most for `limit`. A limit of zero only looks.
    pub fn wait_for(&self, limit: Duration) -> io::Result<Option<Signal>> {
        let start = Instant::now();
        loop {
            if let Some(info) = self.descriptor.read_signal()? {
                return Ok(Some(Signal::try_from(info.ssi_signo as i32)?));
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            // Rounded up: a last millisecond of polls that return at once would be a busy loop.
            let ms = left.min(LONGEST_POLL).as_micros().div_ceil(1000);
            let timeout = PollTimeout::try_from(ms as i32).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
