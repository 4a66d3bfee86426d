//! `cargo xtask sim --crash-points`: every step of a hot swap meets every fault.
//!
//! The table shows for each cell how the runs that reached it ended. A cell that no seed reached, or in which a run
//! failed, is a failure: a fault that was never tried proves nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;
use yakiros_core::sim::crash::{self, End, Fault, STEPS};

use crate::{Arguments, print_json};

/// Failures of a cell that are kept: the first tells the most.
const SHOWN: usize = 1;

/// Widths of the table's columns: the longest step, and the longest name of a fault.
const STEP_WIDTH: usize = 10;
const CELL_WIDTH: usize = 15;

/// One step × one fault.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    step: &'static str,
    fault: Fault,
    /// Seeds for which the fault found the swap at the step.
    reached: u64,
    /// How many ended with the new process serving, with the old one, with one that was started anew, and stopped.
    new: u64,
    old: u64,
    restarted: u64,
    stopped: u64,
    failed: u64,
    /// The first failure, with its last events.
    failure: Option<String>,
}

impl Cell {
    fn is_good(&self) -> bool {
        self.reached > 0 && self.failed == 0
    }

    fn text(&self) -> String {
        if self.failed > 0 {
            return format!("{} FAILED", self.failed);
        }
        let ends = [("new", self.new), ("old", self.old), ("anew", self.restarted), ("stop", self.stopped)];
        let ends: Vec<_> = ends
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(end, count)| format!("{count} {end}"))
            .collect();
        if ends.is_empty() { "NOT REACHED".to_owned() } else { ends.join(" ") }
    }
}

/// The outcome, for `--json`.
#[derive(Serialize)]
struct Outcome {
    version: u32,
    seeds: u64,
    steps: &'static [&'static str],
    faults: &'static [Fault],
    cells: Vec<Cell>,
    good: bool,
    elapsed_ms: u64,
}

/// Visit every cell with every seed.
pub fn run(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let cells = visit_all(arguments);
    let good = cells.iter().all(Cell::is_good);
    let elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let seeds = arguments.range().end - arguments.range().start;
    if arguments.json {
        let (steps, faults) = (&STEPS[..], &Fault::ALL[..]);
        print_json(&Outcome { version: 1, seeds, steps, faults, cells, good, elapsed_ms });
    } else {
        print!("{}", table(&cells));
        cells.iter().filter_map(|cell| cell.failure.as_ref()).for_each(|failure| println!("\n{failure}"));
        let reached: u64 = cells.iter().map(|cell| cell.reached).sum();
        let failed: u64 = cells.iter().map(|cell| cell.failed).sum();
        println!(
            "{} cells, {seeds} seeds each: {reached} faults in place, {failed} failed, in {:.1} s",
            cells.len(),
            elapsed_ms as f64 / 1e3
        );
    }
    ExitCode::from(u8::from(!good))
}

fn visit_all(arguments: &Arguments) -> Vec<Cell> {
    let all: Vec<_> =
        STEPS.iter().flat_map(|step| Fault::ALL.iter().map(move |fault| (*step, *fault))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = BTreeMap::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((step, fault)) = all.get(number) else { return done };
            done.insert(number, visit(step, *fault, arguments));
        }
    };
    let mut cells = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.jobs()).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            cells.extend(thread.join().unwrap_or_default());
        }
    });
    cells.into_values().collect()
}

fn visit(step: &'static str, fault: Fault, arguments: &Arguments) -> Cell {
    let mut cell =
        Cell { step, fault, reached: 0, new: 0, old: 0, restarted: 0, stopped: 0, failed: 0, failure: None };
    let mut failures = Vec::new();
    for seed in arguments.range() {
        match crash::run(step, fault, seed) {
            Ok(None) => continue,
            Ok(Some(End::New)) => cell.new += 1,
            Ok(Some(End::Old)) => cell.old += 1,
            Ok(Some(End::Restarted)) => cell.restarted += 1,
            Ok(Some(End::Stopped)) => cell.stopped += 1,
            Err(failure) => {
                cell.failed += 1;
                if failures.len() < SHOWN {
                    failures.push(failure);
                }
            }
        }
        cell.reached += 1;
    }
    cell.failure = failures.pop();
    cell
}

fn table(cells: &[Cell]) -> String {
    let mut text = format!("{:STEP_WIDTH$}", "");
    for fault in Fault::ALL {
        let _infallible = write!(text, " {fault:CELL_WIDTH$}");
    }
    for row in cells.chunks(Fault::ALL.len()) {
        let _infallible = write!(text, "\n{:STEP_WIDTH$}", row.first().map_or("", |cell| cell.step));
        for cell in row {
            let _infallible = write!(text, " {:CELL_WIDTH$}", cell.text());
        }
    }
    text.push('\n');
    text
}
