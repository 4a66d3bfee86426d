//! The figures, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::Contestant;
use super::bars::{Outcome, Verdict};
use super::proc::Memory;

/// The most notes kept of one supervisor.
const MOST_NOTES: usize = 4;

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each supervisor.
    pub rows: Vec<Row>,
    /// Our own against its bars.
    pub verdicts: Vec<Verdict>,
}

/// One supervisor.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Why it was not measured at all.
    pub skipped: Option<String>,
    /// What it could not do.
    pub notes: Vec<String>,
    /// What was measured.
    pub figures: Figures,
}

/// What is measured of one supervisor. What it has no notion of stays empty.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// 100 services from exec of the supervisor to the main of the last, in milliseconds, for each round.
    pub start_ms: Vec<f64>,
    /// Memory by the number of idle services.
    pub memory: Vec<Population>,
    /// Memory of process 1 with 100 services, 50 of which were killed once and came back.
    pub memory_after: Option<Memory>,
    /// From SIGKILL to the exec of the next process, in milliseconds; empty where the kernel does not tell.
    pub respawn_ms: Vec<f64>,
    /// From SIGKILL to the main of the next process, in milliseconds.
    pub reborn_ms: Vec<f64>,
    /// A chain of 1,000 services, in milliseconds.
    pub chain_ms: Option<f64>,
    /// 20 services with nothing to do.
    pub idle: Option<Idle>,
    /// 200 services with a native probe each second.
    pub probes_cpu_percent: Option<f64>,
}

/// Memory with so many services.
#[derive(Debug, Serialize)]
pub struct Population {
    /// Idle services.
    pub services: usize,
    /// Of process 1.
    pub own: Memory,
    /// Processes that supervise; more than one where each service has its own.
    pub processes: usize,
    /// Of all of them.
    pub all: Memory,
}

/// What supervising costs when nothing happens.
#[derive(Debug, Serialize)]
pub struct Idle {
    /// For how long it was watched.
    pub seconds: u64,
    /// Context switches of all processes that supervise.
    pub wakeups: u64,
    /// Their time on a processor.
    pub cpu_ms: f64,
}

impl Row {
    pub(super) fn new(contestant: &Contestant) -> Self {
        Self {
            name: contestant.init.name,
            version: contestant.version.clone(),
            skipped: contestant.root.as_ref().err().cloned(),
            notes: Vec::new(),
            figures: Figures::default(),
        }
    }

    pub(super) fn note(&mut self, text: String) {
        // One that fails at something fails at it in each round.
        if self.notes.len() < MOST_NOTES {
            self.notes.push(text);
        }
    }
}

impl Report {
    /// Whether no bar is missed that the machine lets anybody reach.
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.outcome != Outcome::Missed)
    }
}

/// The middle one; nothing of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// The greatest; nothing of nothing.
pub(crate) fn worst(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::max)
}

/// Titles of the table.
const TITLES: [&str; 10] = [
    "supervisor",
    "Pss kB 1/20/100",
    "anonymous",
    "all processes",
    "after 50 kills, anonymous",
    "100 started",
    "kill to exec (worst)",
    "kill to main (worst)",
    "chain 1000",
    "idle wake-ups, CPU",
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![TITLES.map(str::to_owned).to_vec()];
        lines.extend(self.rows.iter().filter(|row| row.skipped.is_none()).map(cells));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
        for line in &lines {
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "{cell:width$}  ")?;
            }
            writeln!(f)?;
        }
        for row in &self.rows {
            if let Some(reason) = &row.skipped {
                writeln!(f, "{}: skipped: {reason}", row.name)?;
            }
            for note in &row.notes {
                writeln!(f, "{}: {note}", row.name)?;
            }
        }
        writeln!(f)?;
        for verdict in &self.verdicts {
            let word = match verdict.outcome {
                Outcome::Good => "good",
                Outcome::Missed => "MISSED",
                Outcome::Floor => "floor",
                Outcome::NoPeer => "no peer",
            };
            let value = verdict.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            write!(f, "{word:8}{:45}{value:>10}  bar {:.2}", verdict.what, verdict.bar)?;
            match (verdict.floor, verdict.floors) {
                (Some(floor), Some(floors)) => writeln!(f, "  floor {floor:.2}, {floors:.2} times that")?,
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}

fn cells(row: &Row) -> Vec<String> {
    let figures = &row.figures;
    let join = |read: fn(&Population) -> u64| {
        let texts: Vec<String> = figures.memory.iter().map(|one| read(one).to_string()).collect();
        texts.join("/")
    };
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} ms"));
    let with_worst = |all: &[f64]| format!("{} ({})", ms(median(all)), ms(worst(all)));
    let idle = figures.idle.as_ref();
    let after = figures.memory_after;
    vec![
        format!("{} {}", row.name, row.version),
        join(|one| one.own.pss),
        join(|one| one.own.anonymous),
        join(|one| one.all.pss),
        after.map_or_else(|| "-".to_owned(), |after| format!("{}, {}", after.pss, after.anonymous)),
        ms(median(&figures.start_ms)),
        with_worst(&figures.respawn_ms),
        with_worst(&figures.reborn_ms),
        ms(figures.chain_ms),
        idle.map_or_else(|| "-".to_owned(), |idle| format!("{}, {:.2} ms", idle.wakeups, idle.cpu_ms)),
    ]
}
