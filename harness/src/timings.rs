//! What scenarios took in earlier runs: the longest begin first, and those that wait more than they work share a
//! processor. It decides when a scenario begins, never what comes of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use yakiros_reports::RunSummary;
use yakiros_reports::event::Outcome;

use crate::options::{self, Options};
use crate::profile::Amounts;
use crate::run::RUNS;

/// Both the table that comes with the workspace, in the harness's folder, and that of this host's own runs, beside them.
const FILE: &str = "timings.toml";
/// Of a scenario that nothing is known about.
const UNKNOWN: Duration = Duration::from_secs(10);
/// What works for less than this share of its time leaves room for another beside it.
const IDLE: f64 = 0.4;

/// Times by `suite/name`.
#[derive(Debug, Clone, Default)]
pub struct Timings(BTreeMap<String, Timing>);

/// What a scenario took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Seconds from its guest's start to its end.
    s: f64,
    /// The share of that time for which its guest's QEMU was on a processor of the host or waited for one; none where it
    /// ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<f64>,
}

/// The file: for each amount of work, what it takes.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    few: BTreeMap<String, Timing>,
    #[serde(default)]
    all: BTreeMap<String, Timing>,
}

impl Table {
    fn of(&mut self, amounts: Amounts) -> &mut BTreeMap<String, Timing> {
        match amounts {
            Amounts::All => &mut self.all,
            Amounts::Few => &mut self.few,
        }
    }
}

impl Timings {
    /// What is known: by the workspace, and better by this host's own runs.
    pub fn read(amounts: Amounts) -> Self {
        let mut known = read(&shipped());
        let mut own = read(&of_this_host());
        let mut times = std::mem::take(known.of(amounts));
        times.append(own.of(amounts));
        Self(times)
    }

    /// Whether anything is known about a scenario.
    pub fn knows(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// How long a scenario will take.
    pub fn expected(&self, id: &str) -> Duration {
        let known = self.0.get(id).and_then(|timing| Duration::try_from_secs_f64(timing.s).ok());
        known.unwrap_or(UNKNOWN)
    }

    /// Whether it waits more than it works. What is not known works.
    pub fn is_idle(&self, id: &str) -> bool {
        self.0.get(id).and_then(|timing| timing.busy).is_some_and(|busy| busy < IDLE)
    }

    /// Keeps the times of what passed at the first attempt, for later runs. That it cannot is no failure of the run.
    pub fn remember(run: &RunSummary, options: &Options) {
        let path = of_this_host();
        let mut table = read(&path);
        let times = table.of(options.profile.amounts);
        for scenario in &run.scenarios {
            let Some(attempt) = scenario.attempts.first().filter(|one| one.outcome == Outcome::Passed) else {
                continue;
            };
            let rounded = |value: f64| (value * 100.0).round() / 100.0;
            let busy = attempt.host_cpu_ms.map(|cpu| rounded(cpu / attempt.duration_ms));
            let busy = busy.filter(|share| share.is_finite());
            times.insert(scenario.id(), Timing { s: rounded(attempt.duration_ms / 1000.0), busy });
        }
        let text = toml::to_string(&table).map_err(|error| error.to_string());
        let written = text.and_then(|text| fs::write(&path, text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            eprintln!("warning: {} could not be written: {error}", path.display());
        }
    }
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)
}

fn of_this_host() -> PathBuf {
    options::target().join(RUNS).join(FILE)
}

/// A table that cannot be read is as good as none.
fn read(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_default();
    toml::from_str(&text).unwrap_or_else(|error| {
        eprintln!("warning: {} is passed over: {error}", path.display());
        Table::default()
    })
}

#[cfg(test)]
impl Timings {
    /// A table of seconds and shares.
    pub fn of(rows: &[(&str, f64, f64)]) -> Self {
        Self(rows.iter().map(|&(id, s, busy)| (id.to_owned(), Timing { s, busy: Some(busy) })).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_that_comes_with_the_workspace_can_be_read() {
        let text = fs::read_to_string(shipped()).unwrap();
        let table: Table = toml::from_str(&text).unwrap();
        assert!(table.few.values().all(|timing| timing.s > 0.0 && timing.busy.is_none_or(|busy| busy > 0.0)));
    }

    #[test]
    fn what_is_not_known_is_taken_to_work() {
        let timings = Timings::of(&[("a/sleeps", 30.0, 0.2), ("a/works", 5.0, 0.9)]);
        assert!(timings.is_idle("a/sleeps") && !timings.is_idle("a/works") && !timings.is_idle("a/new"));
        assert_eq!(timings.expected("a/sleeps"), Duration::from_secs(30));
        assert_eq!(timings.expected("a/new"), UNKNOWN);
        assert!(timings.knows("a/works") && !timings.knows("a/new"));
    }
}
