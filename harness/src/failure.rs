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
}

impl Failure {
    /// The supervisor did not do what it promises.
    pub fn supervisor(message: impl Into<String>) -> Self {
        Self { culprit: Culprit::Supervisor, message: message.into() }
    }

    /// The harness itself is at fault.
    pub fn harness(message: impl Into<String>) -> Self {
        Self { culprit: Culprit::Harness, message: message.into() }
    }

    /// The time is over.
    pub fn budget(message: impl Into<String>) -> Self {
        Self { culprit: Culprit::Budget, message: message.into() }
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

impl From<VmError> for Failure {
    fn from(error: VmError) -> Self {
        let culprit = match error.blame() {
            Blame::Host => Culprit::Host,
            Blame::Vmm => Culprit::Vmm,
            Blame::GuestKernel => Culprit::GuestKernel,
            // A request fails because the guest is not in the state that the supervisor should have brought about.
            Blame::Init | Blame::Request => Culprit::Supervisor,
            Blame::Budget => Culprit::Budget,
        };
        Self { culprit, message: error.to_string() }
    }
}
