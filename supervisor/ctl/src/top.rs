//! `top`: what each component uses, by the kernel's accounts of its control group.
//!
//! Everything is read by this program from the groups' files; process 1 only says which components there are. A rate is
//! the difference of two readings, divided by the time between them; what has no process, or no such controller, has a
//! dash. A slice has what all in it use together, and stands before it.

mod arguments;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::json;
use yakiros_core::component::slice;
use yakiros_core::control::{ComponentStatus, Freezer, VERSION};
use yakiros_core::journal::{Bytes, State};

pub use arguments::{Sort, Top};

use crate::Failure;
use crate::client::Client;
use crate::inspect;
use crate::output::{Output, marked_state};
use crate::tables::{Cell, draw};
use crate::watch::Screen;
use usage::Usage;

/// Above this share of the time in which some of its tasks wait for memory, the processor or a disk a component is shown
/// in red: it is held up for a tenth of its time.
const HELD_UP: f64 = 10.0;

/// Blanks before what is in a slice.
const INDENT: usize = 2;

/// One reading.
struct Reading {
    at: Instant,
    /// What is known of each component now.
    components: Vec<ComponentStatus>,
    /// By name, of those that have a group.
    usage: HashMap<String, Account>,
    /// Of each slice with something in it, by the path of its group.
    slices: BTreeMap<String, Account>,
}

/// A group and what it uses.
type Account = (PathBuf, Usage);

/// A component, or a slice, in one sample.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// The slice that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    slice: Option<String>,
    /// A slice has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// Whether it is kept from running.
    #[serde(skip_serializing_if = "Option::is_none")]
    freezer: Option<Freezer>,
    pid: Option<i32>,
    /// Of one processor.
    cpu_percent: Option<f64>,
    /// Bytes in a second.
    io_read: Option<f64>,
    io_write: Option<f64>,
    #[serde(flatten)]
    usage: Usage,
}

/// Show samples until there were enough, or nobody reads any more.
pub fn run(client: &mut Client, output: &Output, wanted: &Top) -> Result<(), Failure> {
    let count = if wanted.once { Some(1) } else { wanted.count };
    let screen = if count.is_some() { None } else { Screen::enter(output)? };
    // Where nothing can be redrawn one table says it all, but for programs, which read one after the other.
    let count = count.or((screen.is_none() && !output.is_json()).then_some(1));
    let mut groups = HashMap::new();
    let mut before = read(client, &mut groups)?;
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        std::thread::sleep(wanted.interval);
        let now = read(client, &mut groups)?;
        let (rows, slices) = (rows(&before, &now, wanted.sort), slices(&before, &now, wanted.sort));
        let text = if output.is_json() {
            line(&rows, &slices, now.at - before.at)
        } else {
            table(&rows, &slices, wanted.sort)
        };
        let goes_on = match &screen {
            Some(_) => Screen::draw(&text),
            None => Output::stream(&text),
        };
        if !goes_on {
            return Ok(());
        }
        before = now;
        shown += 1;
    }
    Ok(())
}

/// Read all accounts. The group of a process is looked up once.
fn read(
    client: &mut Client,
    groups: &mut HashMap<(String, i32), Option<PathBuf>>,
) -> Result<Reading, Failure> {
    let supervisor = client.supervisor()?;
    let components = client.status(None)?.components;
    let running: Vec<_> = components
        .iter()
        .filter_map(|one| Some(((one.name.to_string(), one.pid?), declared_group(one))))
        .collect();
    groups.retain(|known, _| running.iter().any(|(one, _)| one == known));
    let at = Instant::now();
    let mut usage = HashMap::new();
    for (one, declared) in running {
        let (name, pid) = one.clone();
        if let Some(group) = groups.entry(one).or_insert_with(|| inspect::group_of(pid, supervisor, declared))
        {
            usage.insert(name, (group.clone(), Usage::read(group)));
        }
    }
    let mut slices = BTreeMap::new();
    for one in &components {
        let inner = one.slice.as_deref().map(slice::group_of);
        let group = usage.get(&*one.name).map(|(group, _)| group.as_path());
        for (slice, group) in
            inner.iter().flat_map(|inner| slice::path_to(inner)).zip(std::iter::repeat(group))
        {
            let around = group.and_then(|group| group.ancestors().find(|around| around.ends_with(slice)));
            if let Some(around) = around.filter(|_| !slices.contains_key(slice)) {
                slices.insert(slice.to_owned(), (around.to_owned(), Usage::read(around)));
            }
        }
    }
    Ok(Reading { at, components, usage, slices })
}

/// The path of a component's group below the supervisor's.
fn declared_group(one: &ComponentStatus) -> &str {
    one.cgroup.as_deref().unwrap_or(&one.name)
}

fn rows(before: &Reading, now: &Reading, sort: Sort) -> Vec<Row> {
    let elapsed = now.at - before.at;
    let row = |one: &ComponentStatus| Row {
        slice: one.slice.as_deref().map(str::to_owned),
        state: Some(one.state),
        freezer: one.freezer,
        pid: one.pid,
        ..Row::of(&one.name, before.usage.get(&*one.name), now.usage.get(&*one.name), elapsed)
    };
    sorted(now.components.iter().map(row).collect(), sort)
}

fn slices(before: &Reading, now: &Reading, sort: Sort) -> Vec<Row> {
    let elapsed = now.at - before.at;
    let row = |(group, account): (&String, &Account)| Row {
        slice: Path::new(group)
            .parent()
            .and_then(Path::to_str)
            .filter(|it| !it.is_empty())
            .map(slice::name_of),
        ..Row::of(&slice::name_of(group), before.slices.get(group), Some(account), elapsed)
    };
    sorted(now.slices.iter().map(row).collect(), sort)
}

/// By name where they are equal: that is how they come.
fn sorted(mut rows: Vec<Row>, sort: Sort) -> Vec<Row> {
    rows.sort_by(|one, other| sort.key(other).total_cmp(&sort.key(one)));
    rows
}

impl Row {
    /// What is known by two readings, with this time between them.
    fn of(name: &str, then: Option<&Account>, now: Option<&Account>, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let (group, usage) = now.cloned().unwrap_or_default();
        let rate = |count: fn(&Usage) -> Option<u64>| {
            // In a group that was made anew the count began from nothing.
            let (_, then) = then.filter(|(known, _)| *known == group)?;
            let passed = count(&usage)?.checked_sub(count(then)?)?;
            (seconds > 0.0).then(|| passed as f64 / seconds)
        };
        Self {
            name: name.to_owned(),
            slice: None,
            state: None,
            freezer: None,
            pid: None,
            cpu_percent: rate(|usage| usage.cpu_usec).map(|rate| rate / 1e4),
            io_read: rate(|usage| usage.io_read_bytes),
            io_write: rate(|usage| usage.io_write_bytes),
            usage,
        }
    }
}

/// Rows as a tree, each with its depth: those of what is in no slice and of outermost slices, and after each slice those
/// in it. Who has the most comes first on each level.
fn tree<'a>(rows: &'a [Row], slices: &'a [Row], sort: Sort) -> Vec<(usize, &'a Row)> {
    let known = |name: &str| slices.iter().any(|slice| slice.name == name);
    // Of a slice with no account nothing can be said but what is in it.
    let place = |row: &'a Row| row.slice.as_deref().filter(|slice| known(slice));
    let mut inside: HashMap<Option<&str>, Vec<&Row>> = HashMap::new();
    for row in slices.iter().chain(rows) {
        inside.entry(place(row)).or_default().push(row);
    }
    for level in inside.values_mut() {
        level.sort_by(|one, other| sort.key(other).total_cmp(&sort.key(one)));
    }
    let mut open: Vec<_> =
        inside.remove(&None).unwrap_or_default().into_iter().rev().map(|row| (0, row)).collect();
    let mut tree = Vec::new();
    while let Some((depth, row)) = open.pop() {
        tree.push((depth, row));
        let below = if row.is_slice() { inside.remove(&Some(row.name.as_str())) } else { None };
        open.extend(below.unwrap_or_default().into_iter().rev().map(|row| (depth + 1, row)));
    }
    tree
}

impl Row {
    fn is_slice(&self) -> bool {
        self.state.is_none()
    }

    /// A slice with a slash behind, as a directory.
    fn shown(&self) -> String {
        let own = self.name.rsplit('/').next().unwrap_or(&self.name);
        if self.is_slice() { format!("{own}/") } else { self.name.clone() }
    }
}

impl Sort {
    /// What comes first has the highest; what is not known comes last.
    fn key(self, row: &Row) -> f64 {
        let usage = &row.usage;
        let number = |number: Option<u64>| number.map(|number| number as f64);
        let value = match self {
            Self::Name => None,
            Self::Cpu => row.cpu_percent,
            Self::Memory => number(usage.memory_bytes),
            Self::Io => row.io_read.zip(row.io_write).map(|(read, write)| read + write),
            Self::Pids => number(usage.pids),
            Self::Pressure => usage.worst_pressure(),
        };
        value.unwrap_or(-1.0)
    }
}

fn line(rows: &[Row], slices: &[Row], interval: Duration) -> String {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    format!(
        "{}\n",
        json!({"version": VERSION, "interval_ms": interval_ms, "components": rows, "slices": slices})
    )
}

fn table(rows: &[Row], slices: &[Row], sort: Sort) -> String {
    let header = [
        "COMPONENT",
        "STATE",
        "PID",
        "CPU",
        "MEMORY",
        "MAX",
        "READ/s",
        "WRITE/s",
        "PIDS",
        "CPU-P",
        "MEM-P",
        "IO-P",
    ];
    let drawn: Vec<_> = tree(rows, slices, sort).into_iter().map(|(depth, row)| cells(depth, row)).collect();
    let sum = |value: fn(&Row) -> Option<f64>| rows.iter().filter_map(value).sum::<f64>();
    let cpu = sum(|row| row.cpu_percent);
    let memory = sum(|row| row.usage.memory_bytes.map(|bytes| bytes as f64));
    let running = rows.iter().filter(|row| row.pid.is_some()).count();
    let summary =
        format!("{running} running, {cpu:.1} % of a processor, {} of memory\n", Bytes(memory as u64));
    format!("{}{summary}", draw(&header, &drawn))
}

fn cells(depth: usize, row: &Row) -> Vec<Cell> {
    let usage = &row.usage;
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| Bytes(bytes).to_string());
    let rate = |rate: Option<f64>| bytes(rate.map(|rate| rate as u64));
    let max = bytes(usage.memory_max)
        .unwrap_or_else(|| if usage.memory_bytes.is_some() { "max" } else { "-" }.into());
    let plain = |text: Option<String>| Cell::plain(text.unwrap_or_else(|| "-".to_owned()));
    vec![
        Cell::plain(format!("{:1$}{2}", "", depth * INDENT, row.shown())),
        plain(
            row.state.map(|state| marked_state(state, row.freezer.map(|mark| mark.to_string()).as_deref())),
        ),
        plain(row.pid.map(|pid| pid.to_string())),
        plain(row.cpu_percent.map(|percent| format!("{percent:.1}%"))),
        plain(bytes(usage.memory_bytes)),
        Cell::plain(max),
        plain(rate(row.io_read)),
        plain(rate(row.io_write)),
        plain(usage.pids.map(|pids| pids.to_string())),
        pressure(usage.pressure_cpu),
        pressure(usage.pressure_memory),
        pressure(usage.pressure_io),
    ]
}

fn pressure(some: Option<f64>) -> Cell {
    let style =
        if some.is_some_and(|some| some >= HELD_UP) { AnsiColor::Red.on_default() } else { Style::new() };
    Cell::styled(some.map_or_else(|| "-".to_owned(), |some| format!("{some:.1}%")), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str, pid: Option<i32>) -> ComponentStatus {
        let text = json!({"name": name, "state": "ACTIVE", "pid": pid, "uptime_ms": 1, "restarts": 0, "health": "none"});
        serde_json::from_value(text).expect("a component")
    }

    fn reading(at: Instant, usage: &[(&str, u64, u64)]) -> Reading {
        let names = [("a", Some(1)), ("b", Some(2)), ("c", None)];
        let of = |(name, cpu, written): &(&str, u64, u64)| {
            let usage = Usage {
                cpu_usec: Some(*cpu),
                io_read_bytes: Some(0),
                io_write_bytes: Some(*written),
                memory_bytes: Some(cpu * 1024),
                ..Usage::default()
            };
            ((*name).to_owned(), (PathBuf::from("/g").join(name), usage))
        };
        Reading {
            at,
            components: names.map(|(name, pid)| component(name, pid)).to_vec(),
            usage: usage.iter().map(of).collect(),
            slices: BTreeMap::new(),
        }
    }

    #[test]
    fn rates_are_differences_and_what_is_not_known_comes_last() {
        let start = Instant::now();
        let before = reading(start, &[("a", 1_000_000, 0), ("b", 5_000_000, 0)]);
        let now = reading(start + Duration::from_secs(2), &[("a", 2_000_000, 4096), ("b", 5_000_000, 0)]);
        let rows = rows(&before, &now, Sort::Cpu);
        let seen: Vec<_> = rows.iter().map(|row| (&*row.name, row.cpu_percent, row.io_write)).collect();
        assert_eq!(seen, [("a", Some(50.0), Some(2048.0)), ("b", Some(0.0), Some(0.0)), ("c", None, None)]);
        let names =
            |sort| super::rows(&before, &now, sort).into_iter().map(|row| row.name).collect::<String>();
        assert_eq!([names(Sort::Memory), names(Sort::Name), names(Sort::Io)], ["bac", "abc", "abc"]);
        let text = anstream::adapter::strip_str(&table(&rows, &[], Sort::Cpu)).to_string();
        assert!(text.contains("a          ACTIVE  1    50.0%"), "{text}");
        assert!(text.ends_with("2 running, 50.0 % of a processor, 6.7G of memory\n"), "{text}");
        let value: serde_json::Value =
            serde_json::from_str(&line(&rows, &[], now.at - before.at)).expect("JSON");
        assert_eq!(value["interval_ms"], 2000);
        assert_eq!(value["components"][0]["cpu_percent"], 50.0);
    }

    #[test]
    fn a_group_that_was_made_anew_has_no_rate_yet() {
        let start = Instant::now();
        let before = reading(start, &[("a", 9, 9)]);
        let mut now = reading(start + Duration::from_secs(1), &[("a", 10, 10)]);
        now.usage.get_mut("a").expect("a").0 = PathBuf::from("/g/other");
        assert_eq!(rows(&before, &now, Sort::Name)[0].cpu_percent, None);
        // Nor has one that counts less than before.
        let less = reading(start + Duration::from_secs(1), &[("a", 1, 1)]);
        assert_eq!(rows(&before, &less, Sort::Name)[0].cpu_percent, None);
    }

    #[test]
    fn slices_stand_before_what_is_in_them_with_all_that_it_uses() {
        let start = Instant::now();
        let mut before = reading(start, &[("a", 0, 0), ("b", 0, 0)]);
        let mut now = reading(start + Duration::from_secs(1), &[("a", 100_000, 0), ("b", 200_000, 0)]);
        now.components[0].slice = Some("shop/back".into());
        for (group, cpu) in [("shop.slice", 700_000), ("shop.slice/back.slice", 100_000)] {
            let account =
                |cpu_usec| (PathBuf::from("/g").join(group), Usage { cpu_usec, ..Usage::default() });
            before.slices.insert(group.to_owned(), account(Some(0)));
            now.slices.insert(group.to_owned(), account(Some(cpu)));
        }
        let sample = |sort| (rows(&before, &now, sort), slices(&before, &now, sort));
        let shown = |sort| {
            let (rows, slices) = sample(sort);
            let tree =
                tree(&rows, &slices, sort).into_iter().map(|(depth, row)| format!("{depth}{}", row.shown()));
            tree.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(Sort::Cpu), "0shop/ 1back/ 2a 0b 0c");
        assert_eq!(shown(Sort::Memory), "0b 0shop/ 1back/ 2a 0c");
        let (rows, slices) = sample(Sort::Cpu);
        let text = anstream::adapter::strip_str(&table(&rows, &slices, Sort::Cpu)).to_string();
        assert!(
            text.contains("shop/      -       -    70.0%") && text.contains("    a      ACTIVE"),
            "{text}"
        );
        assert!(
            text.ends_with("2 running, 30.0 % of a processor, 293.0M of memory\n"),
            "nothing twice: {text}"
        );
        let value: serde_json::Value =
            serde_json::from_str(&line(&rows, &slices, now.at - before.at)).expect("JSON");
        assert_eq!(value["slices"][1]["slice"], "shop");
        assert_eq!(
            (&value["slices"][0]["cpu_percent"], &value["components"][1]["slice"]),
            (&json!(70.0), &json!("shop/back"))
        );
    }
}
