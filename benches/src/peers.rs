//! Supervisors side by side: each is process 1 of fresh namespaces on this machine, with the same service, in the same
//! run, one after the other in turn. So what the machine does to figures it does to all of them.
//!
//! Guarantees: nothing outside the namespaces changes but a control group that is removed at the end; a supervisor that
//! cannot be had or does not come up is reported as skipped with the reason, never left out; figures come from the
//! services themselves and from the kernel's books, so how often somebody looks does not change them. Among them is
//! [`FLOOR`], a program that only waits and executes: what it takes, the machine takes.
//!
//! Needs root, and a process with one thread: children are set up between clone and exec.

pub(crate) mod arena;
mod bars;
mod events;
mod inits;
mod measure;
mod proc;
mod report;

use std::io;
use std::path::PathBuf;

pub use bars::{Outcome, Verdict};
pub use inits::{FLOOR, Init, PEERS, RESOLVER};
pub use report::{Figures, Report, Row};
pub(crate) use report::{median, worst};

use arena::Field;

/// What is measured, and with what.
#[derive(Debug)]
pub struct Setup {
    /// The programs under test.
    pub contestants: Vec<Contestant>,
    /// `test-stamp`, a static program.
    pub service: PathBuf,
    /// Starts of a hundred services of which the median counts.
    pub rounds: usize,
    /// Seconds for which idle and probing supervisors are watched.
    pub watch_seconds: u64,
    /// Progress in words; goes to standard error.
    pub say: fn(&str),
}

/// One supervisor.
#[derive(Debug)]
pub struct Contestant {
    /// How it is set up and started.
    pub init: &'static Init,
    /// Its version, for the report.
    pub version: String,
    /// Its files, to become the root of its namespace; or why there are none.
    pub root: Result<PathBuf, String>,
}

/// Measure everything. An error is one of the machinery's; what a supervisor cannot do is in the report.
pub fn run(setup: &Setup) -> io::Result<Report> {
    let field = Field::new()?;
    let mut rows: Vec<Row> = setup.contestants.iter().map(Row::new).collect();
    measure::starts(&field, setup, &mut rows);
    measure::populations(&field, setup, &mut rows);
    measure::chains(&field, setup, &mut rows);
    measure::probes(&field, setup, &mut rows);
    let verdicts = bars::judge(&rows);
    Ok(Report { rows, verdicts })
}
