//! A machine that lives by a clock which skips idle time: a day of it in minutes, and the same twice.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use yakiros_reports::event::{Culprit, Outcome, Series};

use crate::check;
use crate::failure::Failure;
use crate::soak::history::Boot;
use crate::soak::machine::{self, Drive};
use crate::soak::series::{WATCHED, series};
use crate::soak::verdict::checks;
use crate::soak::{Stop, explain, follow};
use crate::vm::Vm;

/// What is done follows from it. Any would do; one that is always the same can be compared from run to run.
const SEED: u64 = 11;
/// What is promised.
const DAY: Duration = Duration::from_secs(86_400);
/// Journals of so many seconds are compared: long enough for each kind of event, and for most.
const COMPARED_S: [u64; 2] = [180, 60];
/// Between two events meanwhile.
const COMPARED_PACE_MS: u64 = 4_000;

pub async fn a_virtual_day(vm: &Vm) -> Result<(), Failure> {
    let length = Duration::from_secs(vm.planned("virtual_seconds")?);
    let begun = Instant::now();
    let (boot, _) = alone(vm, "day", &Drive::usual(SEED, length, true)).await?;
    let boots = [boot];
    let passed = boots[0].passed_ms() as f64 / 1e3;
    vm.metric("virtual_time", "s", passed);
    vm.metric("virtual_time_per_time", "ratio", passed / begun.elapsed().as_secs_f64());
    vm.metric("virtual_events", "count", boots[0].events.len() as f64);
    for one in &WATCHED {
        let (hours, values) = series(&boots[0], one.name);
        let t_s = hours.into_iter().map(|hour| hour * 3600.0).collect();
        vm.series(Series { name: one.name.into(), unit: one.unit.into(), t_s, values, ..Series::default() });
    }
    let all = checks(&boots, &boots, true);
    let wrong: Vec<String> = all
        .iter()
        .filter(|check| !matches!(check.outcome, Outcome::Passed | Outcome::Skipped))
        .map(|check| format!("{}: {}", check.name, check.seen))
        .collect();
    check!(wrong.is_empty(), "{}", wrong.join("\n"));
    check!(boots[0].end.is_some(), "it did not come to its end");
    if length >= DAY {
        vm.metric("virtual_day", "s", passed);
    }
    Ok(())
}

pub async fn the_same_seed_gives_the_same_journal(vm: &Vm) -> Result<(), Failure> {
    let length = Duration::from_secs(vm.amount(COMPARED_S[0], COMPARED_S[1]));
    let drive = |seed| Drive {
        pace_ms: COMPARED_PACE_MS,
        sample_ms: 20_000,
        load_ms: 2_000,
        fill: false,
        ..Drive::usual(seed, length, true)
    };
    let mut written = Vec::new();
    let runs = [("first", SEED), ("again", SEED), ("other", SEED + 1)];
    // That another seed is another journal takes as long again.
    for (name, seed) in runs.into_iter().take(vm.amount(3, 2)) {
        let work = async {
            let (boot, stream) = alone(vm, name, &drive(seed)).await?;
            check!(boot.records > 0, "the {name} run has no journal");
            fs::read_to_string(stream).map_err(|error| Failure::of(Culprit::Host, error.to_string()))
        };
        written.push(vm.step(&format!("the {name} run"), work).await?);
    }
    if let Some((first, again)) =
        written[0].lines().zip(written[1].lines()).find(|(first, again)| first != again)
    {
        return Err(Failure::supervisor(format!(
            "the same seed gave another journal: {first}\nand then: {again}"
        )));
    }
    let lengths = [written[0].len(), written[1].len()];
    check!(lengths[0] == lengths[1], "of the same seed one run has {lengths:?} bytes");
    // But for the seed itself, which the first line tells.
    let without_first = |text: &str| text.split_once('\n').map(|(_, rest)| rest.to_owned());
    let is_other = written.get(2).is_none_or(|other| without_first(&written[0]) != without_first(other));
    check!(is_other, "another seed gave the same journal");
    Ok(())
}

/// Runs the machine by itself to its end; what it wrote, and where.
async fn alone(vm: &Vm, name: &str, drive: &Drive) -> Result<(Boot, PathBuf), Failure> {
    let host = |error: &dyn std::fmt::Display| Failure::of(Culprit::Host, error.to_string());
    let folder = vm.folder().join(name);
    fs::create_dir_all(&folder).map_err(|error| host(&error))?;
    let folder = fs::canonicalize(folder).map_err(|error| host(&error))?;
    let machine = machine::machine(vm.machine(), drive, &folder).map_err(|error| host(&error))?;
    let (stream, console) = (folder.join("stream.jsonl"), folder.join("console.log"));
    let process = machine::start(&machine, drive, stream.clone(), &console, &folder)?;
    let mut boot = Boot::default();
    let stop = follow(&process, &stream, |seen| boot.clone_from(seen)).await.map_err(|error| host(&error))?;
    if stop != Stop::Ended {
        let why = explain(&stop, &console);
        return Err(Failure::of(why.culprit.unwrap_or(Culprit::Harness), why.seen));
    }
    Ok((boot, stream))
}
