//! What criterion measured of the core, read back from its files, as one table and against the bars.
//!
//! Guarantees: only what this run measured is shown, for it wrote to a folder of its own; a bar whose figure should be
//! there and is not is missed, never passed over.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Names the folder with `graph-resolver` to the benchmarks that need it.
pub const PROGRAMS: &str = "YAKIROS_PROGRAMS";

/// Names of the benchmarks that need it begin with this.
pub const ROUND_TRIP: &str = "control socket";

/// Nanoseconds of a millisecond and of a microsecond.
const MILLI: f64 = 1e6;
const MICRO: f64 = 1e3;

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each benchmark, by name.
    pub rows: Vec<Row>,
    /// Those that have a bar.
    pub verdicts: Vec<Verdict>,
}

/// One benchmark.
#[derive(Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name, `group/function/size`.
    pub name: String,
    /// Time of one iteration, in nanoseconds: the median.
    pub ns: f64,
    /// Half of the samples' distance from it, in nanoseconds: the median absolute deviation.
    pub spread_ns: f64,
    /// What an iteration works through, when it counts anything.
    pub per_second: Option<f64>,
}

/// One figure against its bar.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// What was measured, with its unit.
    pub what: &'static str,
    /// The bar.
    pub bar: f64,
    /// Which side of it is good.
    pub bound: Bound,
    /// What it was; nothing when it was not measured.
    pub value: Option<f64>,
    /// Whether it was measured and is within the bar.
    pub passed: bool,
}

/// Which side of a bar is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The bar is the most that a figure may be.
    Most,
    /// The bar is the least that it must be.
    Least,
}

/// A bar, and how its figure is read from the row of the benchmark.
struct Bar {
    row: &'static str,
    what: &'static str,
    limit: f64,
    bound: Bound,
    read: fn(&Row) -> Option<f64>,
}

const BARS: [Bar; 5] = [
    Bar {
        row: "resolve/chain/10000",
        what: "resolve 10,000 in a chain from nothing, ms",
        limit: 5.0,
        bound: Bound::Most,
        read: |row| Some(row.ns / MILLI),
    },
    Bar {
        row: "resolve/layers/10000",
        what: "resolve 10,000 in layers from nothing, ms",
        limit: 5.0,
        bound: Bound::Most,
        read: |row| Some(row.ns / MILLI),
    },
    Bar {
        row: "resolve/random/10000",
        what: "resolve 10,000 at random from nothing, ms",
        limit: 5.0,
        bound: Bound::Most,
        read: |row| Some(row.ns / MILLI),
    },
    Bar {
        row: "flip/touching 10 of/10000",
        what: "one flip that touches 10 of 10,000, µs",
        limit: 10.0,
        bound: Bound::Most,
        read: |row| Some(row.ns / MICRO),
    },
    Bar {
        row: "simulation/all promises checked, twice",
        what: "simulation, million engine steps a second",
        limit: 1.0,
        bound: Bound::Least,
        read: |row| Some(row.per_second? / 1e6),
    },
];

/// The part of criterion's `benchmark.json` that is read.
#[derive(Deserialize)]
struct Identity {
    full_id: String,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
enum Throughput {
    Bytes(u64),
    Elements(u64),
}

impl Throughput {
    fn count(self) -> u64 {
        match self {
            Self::Bytes(count) | Self::Elements(count) => count,
        }
    }
}

/// The part of its `estimates.json` that is read.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
    median_abs_dev: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

impl Report {
    /// What criterion has written to a folder. Bars of benchmarks that `filter` leaves out are left out too.
    pub fn read(folder: &Path, filter: Option<&str>) -> io::Result<Self> {
        let mut rows = Vec::new();
        collect(folder, &mut rows)?;
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let bars = BARS.iter().filter(|bar| filter.is_none_or(|filter| bar.row.contains(filter)));
        let verdicts = bars.map(|bar| bar.judge(&rows)).collect();
        Ok(Self { rows, verdicts })
    }

    /// Whether no bar is missed.
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passed)
    }
}

impl Bar {
    fn judge(&self, rows: &[Row]) -> Verdict {
        let Self { row, what, limit, bound, read } = *self;
        let value = rows.iter().find(|other| other.name == row).and_then(read);
        let passed = value.is_some_and(|value| match bound {
            Bound::Most => value <= limit,
            Bound::Least => value >= limit,
        });
        Verdict { what, bar: limit, bound, value, passed }
    }
}

/// Every benchmark below a folder: criterion keeps what a run measured in folders called `new`.
fn collect(folder: &Path, rows: &mut Vec<Row>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.ends_with("new") {
            rows.push(row(&path)?);
        } else {
            collect(&path, rows)?;
        }
    }
    Ok(())
}

fn row(folder: &Path) -> io::Result<Row> {
    let identity: Identity = read(&folder.join("benchmark.json"))?;
    let Estimates { median, median_abs_dev } = read(&folder.join("estimates.json"))?;
    let ns = median.point_estimate;
    let count = identity.throughput.map(Throughput::count);
    let per_second = count.map(|count| count as f64 * 1e9 / ns);
    Ok(Row { name: identity.full_id, ns, spread_ns: median_abs_dev.point_estimate, per_second })
}

fn read<T: for<'d> Deserialize<'d>>(path: &Path) -> io::Result<T> {
    let bad = |error: serde_json::Error| io::Error::other(format!("{}: {error}", path.display()));
    serde_json::from_slice(&fs::read(path)?).map_err(bad)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in &self.rows {
            let rate = row.per_second.map_or_else(String::new, |rate| format!("{:>12}/s", count(rate)));
            let (time, spread) = (time(row.ns), time(row.spread_ns));
            let line = format!("{:width$}  {time:>10} ± {spread:<10}{rate}", row.name);
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f)?;
        self.verdicts.iter().try_for_each(|verdict| writeln!(f, "{verdict}"))
    }
}

impl fmt::Display for Verdict {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.passed { "good" } else { "MISSED" };
        let value = self.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let bound = match self.bound {
            Bound::Most => "at most",
            Bound::Least => "at least",
        };
        write!(f, "{word:8}{:45}{value:>10}  bar {bound} {:.2}", self.what, self.bar)
    }
}

/// `1.23 µs`.
fn time(ns: f64) -> String {
    let (value, unit) = scaled(ns, [("ns", 1.0), ("µs", MICRO), ("ms", MILLI), ("s", 1e9)]);
    format!("{value:.2} {unit}")
}

/// `1.23 M`.
fn count(number: f64) -> String {
    let (value, unit) = scaled(number, [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)]);
    format!("{value:.2} {unit}")
}

/// In the largest unit of which it is at least one.
fn scaled(value: f64, units: [(&'static str, f64); 4]) -> (f64, &'static str) {
    let fitting = units.into_iter().rev().find(|(_, size)| value >= *size);
    let (unit, size) = fitting.unwrap_or(units[0]);
    (value / size, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As criterion 0.8 writes it.
    fn write(folder: &Path, name: &str, elements: Option<u64>, ns: f64) {
        let new = folder.join(name.replace('/', "_")).join("new");
        fs::create_dir_all(&new).expect("a folder");
        let throughput = elements.map_or_else(|| "null".to_owned(), |n| format!("{{\"Elements\":{n}}}"));
        let identity = format!(
            "{{\"group_id\":\"g\",\"function_id\":\"f\",\"value_str\":null,\"throughput\":{throughput},\
             \"full_id\":{name:?},\"directory_name\":\"d\",\"title\":\"t\"}}"
        );
        let estimate = |value: f64| {
            format!(
                "{{\"confidence_interval\":{{\"confidence_level\":0.95,\"lower_bound\":{value},\
                 \"upper_bound\":{value}}},\"point_estimate\":{value},\"standard_error\":0.1}}"
            )
        };
        let (value, spread) = (estimate(ns), estimate(1.0));
        let estimates = format!(
            "{{\"mean\":{value},\"median\":{value},\"median_abs_dev\":{spread},\"slope\":null,\"std_dev\":{spread}}}"
        );
        fs::write(new.join("benchmark.json"), identity).expect("a file");
        fs::write(new.join("estimates.json"), estimates).expect("a file");
    }

    #[test]
    fn what_was_measured_is_held_against_its_bar_and_what_was_not_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "resolve/chain/10000", Some(10_000), 4e6);
        write(folder.path(), "resolve/layers/10000", Some(10_000), 6e6);
        write(folder.path(), "simulation/all promises checked, twice", Some(3000), 2e6);
        write(folder.path(), "messages/encode", None, 150.0);
        let report = Report::read(folder.path(), None).expect("a report");
        let passed: Vec<_> = report.verdicts.iter().map(|verdict| verdict.passed).collect();
        assert_eq!(passed, [true, false, false, false, true]);
        assert!(!report.passed());
        let text = report.to_string();
        let width = "simulation/all promises checked, twice".len();
        assert!(text.contains(&format!("{:width$}   150.00 ns ± 1.00 ns\n", "messages/encode")), "{text}");
        assert!(text.contains("4.00 ms ± 1.00 ns         2.50 M/s"), "{text}");
        assert!(text.contains("MISSED  resolve 10,000 in layers"), "{text}");
    }

    #[test]
    fn a_filter_leaves_bars_out() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "resolve/chain/10000", Some(10_000), 4e6);
        let report = Report::read(folder.path(), Some("chain")).expect("a report");
        assert_eq!((report.verdicts.len(), report.passed()), (1, true));
        assert!(!Report::read(folder.path(), Some("resolve")).expect("a report").passed(), "two are missing");
    }
}
