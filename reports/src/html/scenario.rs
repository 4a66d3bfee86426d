//! A scenario in the page: its verdict, and folded away its steps, numbers and logs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{badge, chart, text};
use crate::event::Outcome;
use crate::model::{Attempt, RunSummary, Scenario};
use crate::terminal::{number, plain, seconds};

/// Lines of a log's end, and bytes of it.
const LOG_LINES: usize = 120;
const LOG_BYTES: usize = 32 << 10;
/// Steps and findings of an attempt.
const STEPS: usize = 200;
const FINDINGS: usize = 10;
/// The files of a capsule that are shown.
const LOGS: [&str; 4] = ["console.log", "dmesg.txt", "status.json", "processes.txt"];

/// One scenario. What is red is open.
pub fn details(out: &mut String, run: &RunSummary, scenario: &Scenario, folder: Option<&Path>) {
    let outcome = scenario.outcome();
    let open = if outcome == Outcome::Passed { "" } else { " open=\"open\"" };
    let _ = writeln!(
        out,
        "<details class=\"scenario\"{open}><summary>{} <span class=\"name\">{}</span> <small>{}</small></summary>\n\
         <div class=\"body\">",
        badge(outcome),
        text(&scenario.name),
        seconds(scenario.duration_ms())
    );
    if outcome != Outcome::Passed {
        let _ = writeln!(out, "<pre>{}</pre>", text(scenario.reason().unwrap_or("no reason was given")));
    }
    if let Some(attempt) = scenario.deciding() {
        if let Some(culprit) = attempt.culprit {
            let _ = writeln!(out, "<p>culprit: {}</p>", culprit.name().replace('_', " "));
        }
        if let Some(command) = &attempt.reproduce {
            let _ = writeln!(out, "<pre>{}</pre>", text(command));
        }
    }
    for attempt in &scenario.attempts {
        one_attempt(out, attempt, scenario.attempts.len() > 1);
    }
    numbers(out, run, scenario);
    if let Some(capsule) = scenario.deciding().and_then(|attempt| attempt.capsule.as_ref()) {
        let _ = writeln!(out, "<p>capsule: <code>{}</code></p>", text(capsule));
        if let Some(folder) = folder {
            logs(out, &folder.join(capsule));
        }
    }
    out.push_str("</div></details>\n");
}

fn one_attempt(out: &mut String, attempt: &Attempt, is_one_of_several: bool) {
    if is_one_of_several {
        let time = seconds(attempt.duration_ms);
        let _ = writeln!(out, "<p>attempt {}: {} {time}</p>", attempt.number, badge(attempt.outcome));
    }
    if !attempt.steps.is_empty() {
        out.push_str("<ul>\n");
        for step in attempt.steps.iter().take(STEPS) {
            let mark =
                if step.outcome == Outcome::Passed { String::new() } else { badge(step.outcome) + " " };
            let (name, time) = (text(&plain(&step.name)), seconds(step.duration_ms));
            let _ = writeln!(out, "<li>{mark}{name} <small>{time}</small></li>");
        }
        out.push_str("</ul>\n");
    }
    for finding in attempt.findings.iter().take(FINDINGS) {
        let title = text(&plain(&format!("{}: {}", finding.class, finding.title)));
        let _ = writeln!(out, "<p>{title}</p><pre>{}</pre>", text(&lines(&finding.excerpt)));
    }
    if let Some(ledger) = attempt.ledger.as_ref().filter(|ledger| !ledger.findings.is_empty()) {
        let _ = writeln!(out, "<pre>{}</pre>", text(&lines(&ledger.findings)));
    }
}

fn numbers(out: &mut String, run: &RunSummary, scenario: &Scenario) {
    let is_its = |suite: &Option<String>, name: &Option<String>| {
        suite.as_deref() == Some(&scenario.suite) && name.as_deref() == Some(&scenario.name)
    };
    let metrics: Vec<_> =
        run.metrics.iter().filter(|metric| is_its(&metric.suite, &metric.scenario)).collect();
    if metrics.is_empty() {
        return;
    }
    out.push_str("<ul>\n");
    for metric in &metrics {
        let (name, unit) = (text(&plain(&metric.name)), text(&plain(&metric.unit)));
        let _ = writeln!(out, "<li>{name}: {} {unit}</li>", number(metric.value));
    }
    out.push_str("</ul>\n<div class=\"charts\">\n");
    for metric in metrics.iter().filter(|metric| metric.samples.as_ref().is_some_and(|all| all.len() > 1)) {
        out.push_str(&chart::cloud(metric));
    }
    out.push_str("</div>\n");
}

/// The ends of the logs that a capsule has.
fn logs(out: &mut String, capsule: &Path) {
    for name in LOGS {
        let Ok(bytes) = fs::read(capsule.join(name)) else { continue };
        let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_BYTES)..]).into_owned();
        let all: Vec<String> = end.lines().map(str::to_owned).collect();
        let last = lines(&all[all.len().saturating_sub(LOG_LINES)..]);
        if !last.trim().is_empty() {
            let _ = writeln!(out, "<details><summary>{name}</summary><pre>{}</pre></details>", text(&last));
        }
    }
}

/// Lines of a guest, each without what is meant for a terminal.
fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join("\n")
}
