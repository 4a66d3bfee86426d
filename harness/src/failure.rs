//! How a scenario fails.

use std::fmt;

use yakiros_reports::event::Culprit;
use yakiros_vm::error::{Blame, VmError};

/// Fails the scenario, at the supervisor's expense, unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::supervisor(format!($($message)+)));
        }
    };
}

/// Why a scenario failed, and who has to look into it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Who has to look into it.
    pub culprit: Culprit,
    /// What was expected and what was seen.
    pub message: String,
    /// Nothing failed: the guest lacks what the scenario is about, and nothing was learnt.
    pub is_skip: bool,
}

impl Failure {
    /// The supervisor did not do what it promises.
    pub fn supervisor(message: impl Into<String>) -> Self {
        Self::of(Culprit::Supervisor, message)
    }

    /// One of somebody's.
    pub fn of(culprit: Culprit, message: impl Into<String>) -> Self {
        Self { culprit, message: message.into(), is_skip: false }
    }

    /// The guest's kernel lacks what the scenario is about.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self { is_skip: true, ..Self::of(Culprit::GuestKernel, reason) }
    }

    /// The harness itself is at fault.
    pub fn harness(message: impl Into<String>) -> Self {
        Self::of(Culprit::Harness, message)
    }

    /// A guest that could not be handed to a scenario. A machine that does not answer in time says nothing about the
    /// supervisor: the agent answers before it, and without it.
    pub fn before_hand_over(error: VmError) -> Self {
        let culprit = match error.blame() {
            Blame::Budget | Blame::Agent => Culprit::Vmm,
            _ => return error.into(),
        };
        Self::of(culprit, error.to_string())
    }

    /// The time is over.
    pub fn budget(message: impl Into<String>) -> Self {
        Self::of(Culprit::Budget, message)
    }

    /// Nothing was learnt about the supervisor: the machinery around it failed.
    pub fn is_infrastructure(&self) -> bool {
        matches!(self.culprit, Culprit::Host | Culprit::Vmm | Culprit::Harness)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A guest that a scenario was given.
impl From<VmError> for Failure {
    fn from(error: VmError) -> Self {
        let culprit = match error.blame() {
            Blame::Host => Culprit::Host,
            Blame::Vmm => Culprit::Vmm,
            Blame::GuestKernel => Culprit::GuestKernel,
            // A request fails because the guest is not in the state that the supervisor should have brought about; and
            // an agent that answered and is gone while QEMU runs on was ended by something in the guest.
            Blame::Init | Blame::Request | Blame::Agent => Culprit::Supervisor,
            Blame::Budget => Culprit::Budget,
        };
        Self::of(culprit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use yakiros_vm::error::VmErrorKind;

    use super::*;

    #[test]
    fn who_is_to_blame_depends_on_the_stage() {
        let timed_out = || VmErrorKind::TimedOut { limit: Duration::ZERO, console: String::new() };
        let lost = || VmErrorKind::AgentLost("closed".into());
        let host = || VmErrorKind::Host(std::io::ErrorKind::StorageFull.into());
        let ended = || VmErrorKind::QemuEnded { status: "signal 9".into(), stderr: String::new() };
        let before = |kind| Failure::before_hand_over(VmError::new("boot", kind)).is_infrastructure();
        let after = |kind| Failure::from(VmError::new("run", kind)).is_infrastructure();
        assert_eq!([before(timed_out()), before(host()), before(ended())], [true, true, true]);
        assert_eq!([after(timed_out()), after(lost())], [false, false]);
        assert_eq!([after(host()), after(ended())], [true, true]);
    }
}
