//! The summary that a person reads in the terminal at the end of a run, made for 80 columns.
//!
//! Only commands, paths and names are ever wider: they are there to be copied.

use std::fmt::Write as _;
use std::path::Path;

use crate::event::{Counts, Ledger, Outcome};
use crate::exit::{EXIT_INFRA, EXIT_PASSED, exit_code};
use crate::model::{Machine, RunSummary, Scenario};
use crate::rebuild::{EVENTS_FILE, HTML_FILE, JUNIT_FILE, REPORT_FILE};
use crate::stats;
pub(crate) use goals::number;
use text::{Paint, clip, label, wrap};
pub(crate) use text::{plain, seconds, size};

mod goals;
mod text;

/// How many of the slowest scenarios are named.
const SLOWEST: usize = 5;
/// How many console lines of a failure are shown; the capsule has all of them.
const CONSOLE_LINES: usize = 8;
/// How many findings of a ledger are shown.
const LEDGER_LINES: usize = 8;
/// How many failures are shown in full; a run in which everything fails has one cause.
const FULL_FAILURES: usize = 20;
/// How many artifacts are named, the largest first; a guest with CRIU is made of some sixty packages.
const ARTIFACTS: usize = 6;
/// How many messages of the harness are shown.
const MESSAGES: usize = 10;
/// Columns of the terminal.
const WIDTH: usize = 80;

/// How to print the summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct SummaryOptions<'a> {
    /// Use colours.
    pub colour: bool,
    /// The folder of the run, to name the files in it.
    pub folder: Option<&'a Path>,
}

/// The summary of a run, with a newline at its end.
pub fn summary(run: &RunSummary, options: &SummaryOptions<'_>) -> String {
    let paint = Paint::new(options.colour);
    let sections = [
        suites(run, paint),
        failures(run, paint),
        crash_points(run, paint),
        goals::targets(run, paint),
        goals::criteria(run, paint),
        slowest(run, paint),
        machines(run),
        artifacts(run),
        messages(run, paint),
        files(options.folder),
        verdict(run, paint),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The columns of the table of suites; a zero is a dash, so that what is there stands out.
const COLUMNS: [(&str, Outcome); 5] = [
    ("passed", Outcome::Passed),
    ("failed", Outcome::Failed),
    ("flaky", Outcome::Flaky),
    ("skipped", Outcome::Skipped),
    ("infra", Outcome::InfraFailed),
];

fn suites(run: &RunSummary, paint: Paint) -> String {
    let names = run.suites();
    if names.is_empty() {
        return String::new();
    }
    let mut out = String::new();
    let mut head = format!("{:<26}", "suite");
    for (title, _) in COLUMNS {
        let _ = write!(head, "{title:>8}");
    }
    let _ = write!(head, "{:>12}", "time");
    let _ = writeln!(out, "{}", paint.bold(&head));
    for name in &names {
        let counts = run.suite(name).map(Scenario::outcome).collect();
        let time = run.suite(name).map(Scenario::duration_ms).sum();
        row(&mut out, name, counts, time, paint);
    }
    if names.len() > 1 {
        row(&mut out, "all", run.counts(), run.scenarios.iter().map(Scenario::duration_ms).sum(), paint);
    }
    out
}

fn row(out: &mut String, name: &str, counts: Counts, time_ms: f64, paint: Paint) {
    let _ = write!(out, "{:<26}", clip(name, 25));
    for (_, outcome) in COLUMNS {
        let count = counts.get(outcome);
        let cell = if count == 0 { format!("{:>8}", "-") } else { format!("{count:>8}") };
        out.push_str(&if count == 0 { cell } else { paint.outcome(outcome, &cell) });
    }
    let _ = writeln!(out, "{:>12}", seconds(time_ms));
}

/// Every scenario that is not green: failures in full, skips with their reason.
fn failures(run: &RunSummary, paint: Paint) -> String {
    const ORDER: [Outcome; 4] = [Outcome::Failed, Outcome::Flaky, Outcome::InfraFailed, Outcome::Skipped];
    let red: Vec<&Scenario> = ORDER
        .iter()
        .flat_map(|&outcome| run.scenarios.iter().filter(move |scenario| scenario.outcome() == outcome))
        .collect();
    let mut out: Vec<String> =
        red.iter().take(FULL_FAILURES).map(|scenario| failure(scenario, paint)).collect();
    if red.len() > FULL_FAILURES {
        out.push(format!("and {} more, see {REPORT_FILE}\n", red.len() - FULL_FAILURES));
    }
    out.join("\n")
}

fn failure(scenario: &Scenario, paint: Paint) -> String {
    let outcome = scenario.outcome();
    let title = outcome.name().to_uppercase().replace('_', " ");
    let mut out = format!("{} {}", paint.outcome(outcome, &title), paint.bold(&scenario.id()));
    if outcome != Outcome::Skipped {
        if let Some(culprit) = scenario.culprit() {
            let _ = write!(out, "  culprit: {}", culprit.name().replace('_', " "));
        }
        let _ = write!(out, "  {}", seconds(scenario.duration_ms()));
    }
    out.push('\n');
    label(&mut out, "reason", &wrap(scenario.reason().unwrap_or("none was given"), WIDTH - 13));
    let Some(attempt) = scenario.deciding() else { return out };
    if scenario.attempts.len() > 1 {
        let which = format!("{} of {}", attempt.number, scenario.attempts.len());
        label(&mut out, "attempt", &[which]);
    }
    if let Some(step) = attempt.failed_step() {
        let when = format!("{} (at {}, took {})", step.name, seconds(step.t_ms), seconds(step.duration_ms));
        label(&mut out, "step", &wrap(&when, WIDTH - 13));
    }
    for finding in &attempt.findings {
        label(&mut out, "console", &wrap(&format!("{}: {}", finding.class, finding.title), WIDTH - 13));
        let skipped = finding.excerpt.len().saturating_sub(CONSOLE_LINES);
        for line in &finding.excerpt[skipped..] {
            let _ = writeln!(out, "{:13}{}", "", paint.dim(&clip(line, WIDTH - 13)));
        }
    }
    if let Some(ledger) = attempt.ledger.as_ref().filter(|ledger| !ledger.findings.is_empty()) {
        out += &ledger_table(ledger, paint);
    }
    for (name, value) in [("capsule", &attempt.capsule), ("reproduce", &attempt.reproduce)] {
        if let Some(value) = value {
            label(&mut out, name, &[plain(value)]);
        }
    }
    out
}

/// What a scenario left behind or lost: the counts, and what nobody owns by name.
fn ledger_table(ledger: &Ledger, paint: Paint) -> String {
    let mut out = String::new();
    let head = format!("{:<30}{:>8}{:>8}{:>9}", "", "before", "after", "unowned");
    label(&mut out, "ledger", &[paint.bold(&head)]);
    for row in &ledger.rows {
        let unowned = if row.unowned == 0 { "-".to_owned() } else { row.unowned.to_string() };
        let line = format!("{:<30}{:>8}{:>8}{unowned:>9}", clip(&row.what, 29), row.before, row.after);
        let line = if row.unowned == 0 { line } else { paint.outcome(Outcome::Failed, &line) };
        let _ = writeln!(out, "{:13}{line}", "");
    }
    for finding in ledger.findings.iter().take(LEDGER_LINES) {
        label(&mut out, "", &wrap(finding, WIDTH - 13));
    }
    if ledger.findings.len() > LEDGER_LINES {
        let more = ledger.findings.len() - LEDGER_LINES;
        label(&mut out, "", &[format!("and {more} more, see {REPORT_FILE}")]);
    }
    out
}

/// The steps of an upgrade × what happened to somebody then: who served afterwards.
fn crash_points(run: &RunSummary, paint: Paint) -> String {
    let mut steps: Vec<&str> = Vec::new();
    let mut faults: Vec<&str> = Vec::new();
    for point in &run.crash_points {
        for (list, name) in [(&mut steps, &point.step), (&mut faults, &point.fault)] {
            if !list.contains(&name.as_str()) {
                list.push(name);
            }
        }
    }
    if steps.is_empty() {
        return String::new();
    }
    let head = steps
        .iter()
        .fold(format!("{:<24}", "crash points"), |line, step| line + &format!("{:>11}", clip(step, 10)));
    let mut out = format!("{}\n", paint.bold(&head));
    for fault in faults {
        let _ = write!(out, "{:<24}", clip(fault, 23));
        for step in &steps {
            let point = run.crash_points.iter().rfind(|point| point.step == *step && point.fault == fault);
            let _ = write!(out, "{:>11}", clip(point.map_or("-", |point| &point.outcome), 10));
        }
        out.push('\n');
    }
    out
}

fn slowest(run: &RunSummary, paint: Paint) -> String {
    let mut scenarios: Vec<&Scenario> = run.scenarios.iter().filter(|one| !one.attempts.is_empty()).collect();
    if scenarios.len() < 2 {
        return String::new();
    }
    scenarios.sort_by(|a, b| b.duration_ms().total_cmp(&a.duration_ms()));
    let mut out = format!("{}\n", paint.bold("slowest"));
    for scenario in scenarios.iter().take(SLOWEST) {
        let _ =
            writeln!(out, "{:>11}  {}", seconds(scenario.duration_ms()), clip(&scenario.id(), WIDTH - 13));
    }
    out
}

fn machines(run: &RunSummary) -> String {
    let mut out = String::new();
    for machine in &run.machines {
        label(&mut out, "machine", &wrap(&machine_line(machine), WIDTH - 13));
        if let Some(times) = machine_times(machine) {
            label(&mut out, "", &wrap(&times, WIDTH - 13));
        }
    }
    if let Some(acceleration) = &run.run.acceleration {
        let line = format!("{}: {}", acceleration.kind, acceleration.reason);
        label(&mut out, "accel", &wrap(&line, WIDTH - 13));
    }
    if let Some(version) = &run.run.qemu_version {
        label(&mut out, "qemu", &wrap(version, WIDTH - 13));
    }
    out
}

fn machine_line(machine: &Machine) -> String {
    let Some(boot) = machine.boots.first() else { return machine.name.clone() };
    let os = boot.os.as_deref().map(|os| format!("{os}, ")).unwrap_or_default();
    let cpus = if boot.cpus == 1 { "CPU" } else { "CPUs" };
    format!(
        "{}: {os}kernel {}, {} MiB, {} {cpus}",
        machine.name, boot.kernel_release, boot.memory_mb, boot.cpus
    )
}

fn machine_times(machine: &Machine) -> Option<String> {
    let cold: Vec<f64> = machine.cold_boots_ms().collect();
    let cold = stats::spread(&cold)
        .map(|cold| format!("cold boot {} (median of {})", seconds(cold.median), cold.count));
    let clones = stats::spread(&machine.clones_ms).map(|clones| {
        let ratio =
            machine.clone_ratio().map(|ratio| format!(", {ratio:.3} of a cold boot")).unwrap_or_default();
        let [median, p95, max] = [clones.median, clones.p95, clones.max].map(seconds);
        format!("clone {median} (median of {}, p95 {p95}, max {max}{ratio})", clones.count)
    });
    let parts: Vec<String> = [cold, clones].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn artifacts(run: &RunSummary) -> String {
    let mut out = String::new();
    let mut largest_first: Vec<_> = run.artifacts.iter().collect();
    largest_first.sort_by_key(|artifact| std::cmp::Reverse(artifact.size_bytes));
    for (place, artifact) in largest_first.iter().take(ARTIFACTS).enumerate() {
        let line = format!("{} {}", artifact.name, artifact.version);
        let short: String = artifact.sha256.chars().take(12).collect();
        let line =
            format!("{:<34} {:>10}  sha256 {short}", clip(line.trim_end(), 34), size(artifact.size_bytes));
        label(&mut out, if place == 0 { "booted" } else { "" }, &[line]);
    }
    if largest_first.len() > ARTIFACTS {
        label(&mut out, "", &[format!("and {} more, see {REPORT_FILE}", largest_first.len() - ARTIFACTS)]);
    }
    out
}

fn messages(run: &RunSummary, paint: Paint) -> String {
    let problems = run.problems.iter().map(|problem| ("problem", problem.clone()));
    let messages = run.messages.iter().map(|message| {
        let level = if message.level == crate::event::Level::Error { "error" } else { "warning" };
        (level, message.message.clone())
    });
    let console =
        run.findings.iter().map(|finding| ("console", format!("{}: {}", finding.class, finding.title)));
    let all: Vec<(&str, String)> = problems.chain(messages).chain(console).collect();
    let mut out = String::new();
    for (level, message) in all.iter().take(MESSAGES) {
        let lines = wrap(message, WIDTH - 13);
        label(&mut out, level, &lines.iter().map(|line| paint.warn(line)).collect::<Vec<_>>());
    }
    if all.len() > MESSAGES {
        let _ = writeln!(out, "  and {} more, see {REPORT_FILE}", all.len() - MESSAGES);
    }
    out
}

fn files(folder: Option<&Path>) -> String {
    let Some(folder) = folder else { return String::new() };
    let mut out = String::new();
    label(&mut out, "files", &[folder.display().to_string()]);
    label(&mut out, "", &[format!("{HTML_FILE}, {REPORT_FILE}, {JUNIT_FILE}, {EVENTS_FILE}")]);
    out
}

/// The last line, which is the one that is seen first.
fn verdict(run: &RunSummary, paint: Paint) -> String {
    let outcome = match exit_code(run) {
        EXIT_PASSED => Outcome::Passed,
        EXIT_INFRA => Outcome::InfraFailed,
        _ => Outcome::Failed,
    };
    let line = verdict_line(run);
    wrap(&line, WIDTH).iter().fold(String::new(), |out, line| out + &paint.outcome(outcome, line) + "\n")
}

/// The verdict, the counts and the time, in one line.
pub(crate) fn verdict_line(run: &RunSummary) -> String {
    let counts = run.counts();
    let total = counts.total();
    let shown = |outcome, title: &str| {
        let count = counts.get(outcome);
        (count > 0).then(|| format!("{count} {title}"))
    };
    let parts: Vec<String> = [
        (total == 0).then(|| "nothing ran".to_owned()),
        shown(Outcome::Failed, "failed"),
        shown(Outcome::Flaky, "flaky"),
        shown(Outcome::InfraFailed, "not judged (infrastructure)"),
        shown(Outcome::Skipped, "skipped"),
        shown(Outcome::Passed, "passed"),
        run.interrupted().then(|| "interrupted".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let word = match exit_code(run) {
        EXIT_PASSED => "PASSED",
        EXIT_INFRA => "NOT JUDGED",
        _ => "FAILED",
    };
    let time = seconds(run.duration_ms);
    let end =
        if run.ended.is_some() { format!("in {time}") } else { format!("when it was cut off after {time}") };
    let id = match run.run.run_id.as_str() {
        "" => String::new(),
        id => format!(" (run {id}{})", run.run.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default()),
    };
    format!("{word}: {} {end}{id}", parts.join(", "))
}

#[cfg(test)]
mod tests;
