//! The reports of a soak: in the form that `cargo xtask vm-test` has, one for each interval and one for the whole.

use std::fs;
use std::io;
use std::path::Path;

use yakiros_reports::event::{
    Event, EventWriter, Level, MachineOrigin, MachineReady, Metric, Outcome, Plan, PlannedScenario,
    ScenarioFinished, ScenarioStarted, Series, StartKind,
};
use yakiros_reports::{EVENTS_FILE, RunSummary, closing, rebuild};

use super::history::Boot;
use super::machine::Drive;
use super::series::{WATCHED, series};
use super::verdict::{Check, checks};
use super::{Ending, Meta};
use crate::prepare::PrepareError;

/// The suite's name in reports.
const SUITE: &str = "soak";
/// In a run's folder: a folder for each interval.
const INTERVALS: &str = "intervals";
/// What virtual time is worth.
const EQUIVALENT: &str = "virtual time: the guest's clock counts its instructions and skips what it has nothing to do in. The same as \
    in real time: every timer, interval, back-off, age and rotation passes, and what is counted is what happened. Not the same: \
    the load (fewer requests and events in an hour), and parallelism (one processor, nothing comes in from outside, so no two \
    things happen in an order that the seed did not decide)";

/// How many intervals are complete.
pub fn intervals(boots: &[Boot], meta: &Meta) -> u64 {
    boots.iter().map(Boot::passed_ms).sum::<u64>() / (meta.interval_s * 1000)
}

/// The part of each boot between two times of the whole run, in milliseconds, boots without any of it left out.
fn window(boots: &[Boot], from: u64, to: u64) -> Vec<Boot> {
    let mut offset = 0;
    let mut parts = Vec::new();
    for boot in boots {
        let passed = boot.passed_ms();
        // What is last of a boot belongs to the interval that it ends.
        if offset < to && offset + passed >= from {
            parts.push(boot.between(from.saturating_sub(offset), to - offset));
        }
        offset += passed;
    }
    parts
}

/// Writes the report of an interval, from 0; gives it in a line.
pub fn interval(folder: &Path, meta: &Meta, boots: &[Boot], number: u64) -> Result<String, PrepareError> {
    let (from, to) = (number * meta.interval_s * 1000, (number + 1) * meta.interval_s * 1000);
    let (part, so_far) = (window(boots, from, to), window(boots, 0, to));
    let checks = checks(&part, &so_far, false);
    let folder = folder.join(INTERVALS).join(format!("{:03}", number + 1));
    fs::create_dir_all(&folder)?;
    let result = write(&folder, meta, &part, &checks, &Ending::Complete)?;
    let counts = result.counts();
    let bad: Vec<&str> = checks
        .iter()
        .filter(|check| check.outcome == Outcome::Failed)
        .map(|check| check.name.as_str())
        .collect();
    let bad = if bad.is_empty() { String::new() } else { format!(": {}", bad.join(", ")) };
    let events: usize = part.iter().map(|boot| boot.events.len()).sum();
    Ok(format!(
        "interval {}: {events} events; {} checks passed, {} failed, {} not judged{bad}",
        number + 1,
        counts.passed,
        counts.failed,
        counts.skipped
    ))
}

/// Writes the report of everything.
pub fn whole(
    folder: &Path,
    meta: &Meta,
    boots: &[Boot],
    ending: &Ending,
) -> Result<RunSummary, PrepareError> {
    let mut checks = checks(boots, boots, true);
    checks.push(match ending {
        Ending::Complete => Check::lasts(passed_ms(boots)),
        Ending::Interrupted => Check::interrupted(passed_ms(boots)),
        Ending::Broken(check) => check.clone(),
    });
    write(folder, meta, boots, &checks, ending)
}

fn passed_ms(boots: &[Boot]) -> u64 {
    boots.iter().map(Boot::passed_ms).sum()
}

fn write(
    folder: &Path,
    meta: &Meta,
    boots: &[Boot],
    checks: &[Check],
    ending: &Ending,
) -> Result<RunSummary, PrepareError> {
    let path = folder.join(EVENTS_FILE);
    // Made from the guests' own words, which stay: it can be made again.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let writer = Writer { writer: EventWriter::create(&path)?, summary: RunSummary::default() };
    writer.all(meta, boots, checks, ending);
    Ok(rebuild(folder)?)
}

struct Writer {
    writer: EventWriter,
    summary: RunSummary,
}

impl Writer {
    fn emit(&mut self, event: Event) {
        let record = self.writer.emit(event);
        self.summary.apply(&record);
    }

    fn all(mut self, meta: &Meta, boots: &[Boot], checks: &[Check], ending: &Ending) {
        self.emit(Event::RunStarted(meta.started.clone()));
        for artifact in &meta.artifacts {
            self.emit(Event::Artifact(artifact.clone()));
        }
        for start in boots.iter().filter_map(|boot| boot.start.as_ref()) {
            self.emit(Event::MachineReady(MachineReady {
                machine: SUITE.into(),
                os: None,
                kernel_release: start.kernel.clone(),
                how: MachineOrigin::Cold,
                boot_ms: 0.0,
                ready_ms: 0.0,
                memory_mb: meta.memory_mb,
                cpus: 1,
            }));
        }
        let name = |check: &Check| PlannedScenario {
            suite: SUITE.into(),
            name: check.name.clone(),
            machine: SUITE.into(),
        };
        self.emit(Event::Plan(Plan { scenarios: checks.iter().map(name).collect(), left_out: Vec::new() }));
        for line in about(meta, boots) {
            self.emit(Event::log(Level::Info, line));
        }
        let passed = passed_ms(boots) as f64;
        for check in checks {
            self.check(check, meta, passed);
        }
        self.numbers(boots);
        let end = closing(&self.summary, passed, *ending == Ending::Interrupted);
        self.emit(Event::RunFinished(end));
    }

    fn check(&mut self, check: &Check, meta: &Meta, duration_ms: f64) {
        let (suite, name) = (SUITE.to_owned(), check.name.clone());
        self.emit(Event::ScenarioStarted(ScenarioStarted {
            suite: suite.clone(),
            name: name.clone(),
            machine: SUITE.into(),
            attempt: 1,
            start: StartKind::Cold,
        }));
        let again = (check.outcome != Outcome::Passed).then(|| reproduce(&meta.drive));
        self.emit(Event::ScenarioFinished(ScenarioFinished {
            suite,
            name: name.clone(),
            outcome: check.outcome,
            // What is judged of a time takes none of its own: a sum of days would be told.
            duration_ms: if check.is_about_time() { duration_ms } else { 0.0 },
            reason: check.reason.clone(),
            culprit: check.culprit,
            capsule: None,
            reproduce: again,
            host_cpu_ms: None,
        }));
        if check.outcome == Outcome::Passed && !check.seen.is_empty() {
            self.emit(Event::log(Level::Info, format!("{name}: {}", check.seen)));
        }
    }

    fn numbers(&mut self, boots: &[Boot]) {
        for one in &WATCHED {
            let (mut t_s, mut values) = (Vec::new(), Vec::new());
            let mut offset = 0.0;
            for boot in boots {
                let (hours, of_boot) = series(boot, one.name);
                t_s.extend(hours.into_iter().map(|hour| hour * 3600.0 + offset));
                values.extend(of_boot);
                offset += boot.passed_ms() as f64 / 1e3;
            }
            let Some(last) = values.last().copied() else { continue };
            let name = one.name.to_owned();
            let unit = one.unit.to_owned();
            let (suite, scenario) = (Some(SUITE.to_owned()), None);
            let metric = if name.starts_with("took_") {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                Metric { value: sorted[sorted.len() / 2], samples: Some(values.clone()), ..Metric::default() }
            } else {
                Metric { value: last, ..Metric::default() }
            };
            let (of_suite, of_name, of_unit) = (suite.clone(), name.clone(), unit.clone());
            self.emit(Event::Metric(Metric { suite: of_suite, name: of_name, unit: of_unit, ..metric }));
            self.emit(Event::Series(Series { suite, scenario, name, unit, t_s, values }));
        }
    }
}

/// What a reader has to know beside the numbers.
fn about(meta: &Meta, boots: &[Boot]) -> Vec<String> {
    let drive = &meta.drive;
    let mut lines = vec![format!(
        "{} s of {} s have passed, with an event each {} ms, a sample each {} ms and a round of requests each {} ms; seed {}",
        passed_ms(boots) / 1000,
        drive.seconds,
        drive.pace_ms,
        drive.sample_ms,
        drive.load_ms,
        drive.seed
    )];
    lines.extend(drive.virtual_time.then(|| EQUIVALENT.to_owned()));
    if boots.len() > 1 {
        lines.push(format!(
            "{} boots: each begins anew, and its numbers are judged by themselves",
            boots.len()
        ));
    }
    lines
}

/// The command that does the same again.
fn reproduce(drive: &Drive) -> String {
    let how = if drive.virtual_time { " --virtual-time" } else { "" };
    format!(
        "cargo xtask soak{how} --duration {}s --seed {} --pace {}ms",
        drive.seconds, drive.seed, drive.pace_ms
    )
}
