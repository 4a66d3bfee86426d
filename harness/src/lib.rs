//! The harness: builds what runs in the guest, boots it, puts scenarios to it and reports.
//!
//! [`run`] is a whole run. A suite is a folder in `suites/` (machine, components, scenarios) and a line in
//! [`suite::SUITES`]; a scenario is an async function on a [`vm::Vm`].

pub mod capsule;
mod events;
pub mod failure;
mod host;
mod interrupt;
pub mod ledger;
pub mod limits;
mod load;
pub mod measure;
pub mod options;
mod pool;
mod prepare;
pub mod programs;
pub mod progress;
mod run;
pub mod scenario;
pub mod self_test;
pub mod shell;
pub mod suite;
mod suites;
pub mod vm;

pub use run::{list, report, run, run_counted};
