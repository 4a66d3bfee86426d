//! What a scenario is, and how it fails.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use yakiros_reports::event::Culprit;
use yakiros_vm::error::{Blame, VmError};

use crate::vm::Vm;

/// A scenario's work on one guest.
pub type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// One thing that is proven about the supervisor, on a guest of its own.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Unique in its suite; part of reports and of `--scenario`.
    pub name: &'static str,
    /// What it proves, in one line.
    pub summary: &'static str,
    /// What it starts from.
    pub start: Start,
    /// For the whole scenario on a quick host; slower hosts get more by their measured factor.
    pub budget: Duration,
    /// The work.
    pub run: for<'a> fn(&'a Vm) -> Work<'a>,
}

/// What a scenario starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A clone of the suite's machine, booted and settled.
    Clone,
    /// A boot of its own, with empty disks of these sizes in MiB as /dev/vda, /dev/vdb, …
    ///
    /// For what is about booting, about the end of the machine, or about disks.
    Cold {
        /// Sizes in MiB.
        disks_mb: &'static [u64],
    },
}

/// Budget of a scenario that needs no special one. Most take one or two seconds under emulation.
pub const USUAL_BUDGET: Duration = Duration::from_secs(30);

/// Declares a scenario by the name of its function.
#[macro_export]
macro_rules! scenario {
    ($function:ident, $summary:literal) => {
        $crate::scenario!($function, $summary, start: $crate::scenario::Start::Clone)
    };
    ($function:ident, $summary:literal, start: $start:expr) => {
        $crate::scenario!($function, $summary, start: $start, budget: $crate::scenario::USUAL_BUDGET)
    };
    ($function:ident, $summary:literal, start: $start:expr, budget: $budget:expr) => {
        $crate::scenario::Scenario {
            name: stringify!($function),
            summary: $summary,
            start: $start,
            budget: $budget,
            run: |vm| Box::pin($function(vm)),
        }
    };
}

/// Fails the scenario, at the supervisor's expense, unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::scenario::Failure::supervisor(format!($($message)+)));
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
