//! What a scenario is.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::failure::Failure;
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
    /// How many guests of its suite it has at a time, see [`Vm::another`].
    pub guests: u32,
    /// Whether it runs the supervisor's unit tests ([`Vm::unit_tests`]), which are built for nobody else.
    pub unit_tests: bool,
    /// The work.
    pub run: for<'a> fn(&'a Vm) -> Work<'a>,
}

/// What a scenario starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A clone of the suite's machine, booted and settled.
    Clone,
    /// A boot of its own, with empty disks as /dev/vda, /dev/vdb, …
    ///
    /// For what is about booting, about the end of the machine, about disks, or about what the kernel is told.
    Cold {
        /// Sizes of the disks in MiB.
        disks_mb: &'static [u64],
        /// On the kernel's command line, beside what every guest of the suite has there.
        arguments: &'static [&'static str],
    },
}

impl Start {
    /// A boot of its own, of the suite's machine as it is.
    pub const COLD: Self = Self::with_disks(&[]);

    /// A boot of its own, with empty disks of these sizes in MiB.
    pub const fn with_disks(disks_mb: &'static [u64]) -> Self {
        Self::Cold { disks_mb, arguments: &[] }
    }

    /// A boot of its own, of a kernel that is told this.
    pub const fn with_arguments(arguments: &'static [&'static str]) -> Self {
        Self::Cold { disks_mb: &[], arguments }
    }
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
        $crate::scenario!($function, $summary, start: $start, budget: $budget, guests: 1)
    };
    ($function:ident, $summary:literal, start: $start:expr, budget: $budget:expr, guests: $guests:expr) => {
        $crate::scenario::Scenario {
            name: stringify!($function),
            summary: $summary,
            start: $start,
            budget: $budget,
            guests: $guests,
            unit_tests: false,
            run: |vm| Box::pin($function(vm)),
        }
    };
}
