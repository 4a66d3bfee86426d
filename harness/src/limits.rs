//! How long things may take on this host.
//!
//! Limits are written down for a quick host. A calibration, the first boot of the run, says how much slower this one
//! is, and every limit grows by that factor. So a limit that runs out says something about what was waited for.

use std::time::Duration;

/// A boot to the agent's answer on a quick host without KVM.
const QUICK_BOOT: Duration = Duration::from_millis(1700);
/// A host that is slower than this is overloaded, and more time would only hide it.
const MAX_FACTOR: f64 = 8.0;
/// For the first boot, before anything is known.
pub const FIRST_BOOT: Duration = Duration::from_secs(60);
/// A boot on a quick host takes 2 s; the rest is for its neighbours.
const BOOT: Duration = Duration::from_secs(15);
/// A clone on a quick host takes 0.2 s.
const CLONE: Duration = Duration::from_secs(8);
/// For a guest to answer nothing at all. One that is only busy answers within a second.
const SILENCE: Duration = Duration::from_secs(30);

/// Scales limits to this host.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    factor: f64,
}

impl Limits {
    /// From the first boot's time, with what the user asks for on top.
    pub fn calibrated(first_boot: Duration, user_factor: f64) -> Self {
        let measured = (first_boot.as_secs_f64() / QUICK_BOOT.as_secs_f64()).clamp(1.0, MAX_FACTOR);
        Self { factor: measured * user_factor }
    }

    /// How much slower than a quick host this one is taken to be.
    pub fn factor(self) -> f64 {
        self.factor
    }

    /// What a limit for a quick host is on this one.
    pub fn scaled(self, limit: Duration) -> Duration {
        limit.mul_f64(self.factor)
    }

    /// For a boot to the agent's answer.
    pub fn for_boot(self) -> Duration {
        self.scaled(BOOT)
    }

    /// For how long a guest may answer nothing.
    pub fn for_silence(self) -> Duration {
        self.scaled(SILENCE)
    }

    /// For a clone to answer.
    pub fn for_clone(self) -> Duration {
        self.scaled(CLONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_host_gets_no_less_and_a_slow_one_not_without_end() {
        assert!((Limits::calibrated(Duration::from_millis(300), 1.0).factor() - 1.0).abs() < 1e-9);
        assert!((Limits::calibrated(Duration::from_secs(900), 1.0).factor() - MAX_FACTOR).abs() < 1e-9);
        assert_eq!(
            Limits::calibrated(QUICK_BOOT * 2, 1.5).scaled(Duration::from_secs(1)),
            Duration::from_secs(3)
        );
    }
}
