//! The harness: builds what runs in the guest, boots it, puts scenarios to it and reports.
//!
//! [`run_on`] is a whole run. A suite is a folder in `suites/` (machine, components, scenarios) and a line in
//! [`suite::SUITES`]; a scenario is an async function on a [`vm::Vm`].

mod attempt;
pub mod capsule;
mod events;
pub mod failure;
pub mod goals;
mod host;
mod interrupt;
pub mod ledger;
pub mod limits;
mod load;
pub mod measure;
pub mod options;
mod plan;
mod pool;
mod prepare;
pub mod profile;
pub mod programs;
pub mod progress;
mod run;
pub mod scenario;
mod schedule;
pub mod select;
pub mod self_test;
pub mod shell;
pub mod soak;
pub mod suite;
mod suites;
mod timings;
pub mod vm;

pub use plan::{dry_run, list};
pub use run::{report, run_counted, run_on};
