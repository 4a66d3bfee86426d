//! `report.html`: the run as one page that opens from a file, without a network and without scripts, on a phone as well.
//!
//! It is well-formed XML too, so a test can parse it as strictly as that. Text from a guest may hold anything and is only
//! ever text.

use std::fmt::Write as _;
use std::path::Path;

use crate::event::Outcome;
use crate::exit::{EXIT_INFRA, EXIT_PASSED, exit_code};
use crate::judge::{self, CriterionVerdict, TargetVerdict};
use crate::model::{RunSummary, Scenario};
use crate::terminal::{number, plain, seconds, size, verdict_line};

mod chart;
mod scenario;
mod style;

/// Artifacts that are listed.
const ARTIFACTS: usize = 200;

/// The page of a run. Logs of what failed are taken from the run's folder, if that is given.
pub fn html(run: &RunSummary, folder: Option<&Path>) -> String {
    let (class, word) = match exit_code(run) {
        EXIT_PASSED => ("good", "passed"),
        EXIT_INFRA => ("open", "not judged"),
        _ => ("bad", "failed"),
    };
    let mut page = Page::default();
    let title = format!("YakirOS {word}: {}", run.run.run_id);
    let _ = write!(
        page.0,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n",
        text(&title),
        style::CSS
    );
    let _ = writeln!(page.0, "<header class=\"{class}\"><h1>{}</h1>", text(&verdict_line(run)));
    about(&mut page, run);
    page.0.push_str("</header>\n<main>\n");
    criteria(&mut page, run);
    targets(&mut page, run);
    suites(&mut page, run);
    for suite in run.suites() {
        let _ = writeln!(page.0, "<h2 id=\"{}\">{}</h2>", text(&anchor(suite)), text(suite));
        // What is red comes first.
        let mut scenarios: Vec<&Scenario> = run.suite(suite).collect();
        scenarios.sort_by_key(|scenario| scenario.outcome() == Outcome::Passed);
        for scenario in scenarios {
            scenario::details(&mut page.0, run, scenario, folder);
        }
    }
    series(&mut page, run);
    outside(&mut page, run);
    page.0.push_str("</main>\n</body>\n</html>\n");
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    /// A table that scrolls by itself where it is too wide. The cells are markup.
    fn table(&mut self, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        self.0.push_str("<div class=\"wide\"><table>\n<thead><tr>");
        for title in head {
            let _ = write!(self.0, "<th>{}</th>", text(title));
        }
        self.0.push_str("</tr></thead>\n<tbody>\n");
        for row in rows {
            self.0.push_str("<tr>");
            for cell in row {
                let _ = write!(self.0, "<td>{cell}</td>");
            }
            self.0.push_str("</tr>\n");
        }
        self.0.push_str("</tbody></table></div>\n");
    }
}

/// Text that is nothing but text, in an element or in an attribute in double quotes.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // What XML does not allow; a newline and a tab stay.
            c if c.is_control() && c != '\n' && c != '\t' => out.push(' '),
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A name as an id.
fn anchor(name: &str) -> String {
    let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("s-{word}")
}

/// A word that says how something ended.
fn badge(outcome: Outcome) -> String {
    let class = match outcome {
        Outcome::Passed => "good",
        Outcome::Failed | Outcome::Flaky => "bad",
        Outcome::Skipped | Outcome::InfraFailed => "open",
    };
    format!("<span class=\"badge {class}\">{}</span>", outcome.name().replace('_', " "))
}

fn about(page: &mut Page, run: &RunSummary) {
    let boot = run.machines.iter().find_map(|machine| machine.boots.first());
    let guest = boot.map(|boot| {
        let os = boot.os.as_deref().unwrap_or("a guest");
        format!("{os}, kernel {}", boot.kernel_release)
    });
    let accelerated = run.run.acceleration.as_ref().map(|one| format!("{}: {}", one.kind, one.reason));
    let profile = run.goals.profile.as_ref().map(|profile| {
        let took = seconds(run.testing_ms());
        match profile.budget_s {
            Some(budget) => format!("{}: {took} of {}", profile.name, seconds(budget * 1000.0)),
            None => format!("{}, a part of it", profile.name),
        }
    });
    let host = format!("{}, {} CPUs, {} MiB", run.run.host.os, run.run.host.cpus, run.run.host.memory_mb);
    let rows = [
        ("guest", guest),
        ("accelerator", accelerated),
        ("QEMU", run.run.qemu_version.clone()),
        ("host", Some(host)),
        ("profile", profile),
        ("started", run.started_at.clone()),
        ("commit", run.run.git_commit.clone()),
        ("command", Some(run.run.command_line.join(" "))),
    ];
    page.0.push_str("<dl>");
    for (name, value) in rows {
        if let Some(value) = value {
            let _ = write!(page.0, "<dt>{name}</dt><dd>{}</dd>", text(&plain(&value)));
        }
    }
    page.0.push_str("</dl>\n");
}

fn criteria(page: &mut Page, run: &RunSummary) {
    let criteria = judge::criteria(run);
    if criteria.parts().iter().all(|(_, list)| list.is_empty()) {
        return;
    }
    page.0.push_str("<h2>Criteria of success</h2>\n");
    for (title, list) in criteria.parts() {
        let _ = writeln!(page.0, "<h3>{title}</h3>\n<ul class=\"criteria\">");
        for criterion in list {
            let (class, sign, word) = look(criterion.verdict);
            let _ = writeln!(
                page.0,
                "<li class=\"{class}\"><details><summary><b>{sign}</b> {} <small>{word}</small></summary><ul>",
                text(&criterion.text)
            );
            for piece in &criterion.evidence {
                let (class, sign, _) = look(piece.verdict);
                let name = match &piece.evidence {
                    crate::event::Evidence::Scenario(name) | crate::event::Evidence::Target(name) => name,
                };
                let (name, seen) = (text(name), text(&plain(&piece.seen)));
                let _ = writeln!(page.0, "<li class=\"{class}\"><b>{sign}</b> {name}: {seen}</li>");
            }
            if criterion.evidence.is_empty() {
                page.0.push_str("<li>nothing is named that would show it</li>");
            }
            page.0.push_str("</ul></details></li>\n");
        }
        page.0.push_str("</ul>\n");
    }
}

fn look(verdict: CriterionVerdict) -> (&'static str, &'static str, &'static str) {
    match verdict {
        CriterionVerdict::Met => ("good", "\u{2713}", "met"),
        CriterionVerdict::Missed => ("bad", "\u{2717}", "missed"),
        CriterionVerdict::Open => ("open", "\u{2013}", "not shown by this run"),
    }
}

fn targets(page: &mut Page, run: &RunSummary) {
    let targets = judge::targets(run);
    if targets.is_empty() {
        return;
    }
    page.0.push_str("<h2>Targets</h2>\n");
    let rows = targets.iter().map(|target| {
        let (class, word) = match target.verdict {
            TargetVerdict::Met => ("good", "met"),
            TargetVerdict::AboveFloor => ("open", "our bar is missed"),
            TargetVerdict::Missed => ("bad", "missed"),
            TargetVerdict::NotMeasured => ("", "not measured"),
        };
        let bar = |bar: Option<f64>, margin: Option<f64>| match (bar, margin) {
            (Some(bar), Some(margin)) => format!("{} <small>{}x</small>", number(bar), number(margin)),
            (Some(bar), None) => number(bar),
            _ => "-".into(),
        };
        let value =
            target.value.map_or("-".into(), |value| format!("{} {}", number(value), text(&target.unit)));
        vec![
            format!("<b>{}</b><br/><small>{}</small>", text(&target.name), text(&target.what)),
            format!("{value}<br/><small>of {}</small>", target.samples),
            chart::bullet(target),
            bar(target.floor, target.floor_margin),
            bar(target.bar, target.bar_margin),
            format!("<span class=\"badge {class}\">{word}</span>"),
        ]
    });
    page.table(&["target", "measured", "", "plan's bar", "our bar", "verdict"], rows);
}

fn suites(page: &mut Page, run: &RunSummary) {
    page.0.push_str("<h2>Suites</h2>\n");
    let rows = run.suites().into_iter().map(|suite| {
        let count = |outcome| {
            let count = run.suite(suite).filter(|scenario| scenario.outcome() == outcome).count();
            if count == 0 { "-".to_owned() } else { count.to_string() }
        };
        let name = format!("<a href=\"#{}\">{}</a>", text(&anchor(suite)), text(suite));
        let time = seconds(run.suite(suite).map(Scenario::duration_ms).sum());
        std::iter::once(name).chain(Outcome::ALL.map(count)).chain([time]).collect()
    });
    page.table(&["suite", "passed", "failed", "flaky", "skipped", "infra", "time"], rows);
    page.0.push_str(&chart::timeline(run));
}

fn series(page: &mut Page, run: &RunSummary) {
    if run.series.is_empty() {
        return;
    }
    page.0.push_str("<h2>Over time</h2>\n<div class=\"charts\">\n");
    for series in &run.series {
        page.0.push_str(&chart::line(series));
    }
    page.0.push_str("</div>\n");
}

/// What belongs to no scenario: messages, what was left out, machines, artifacts.
fn outside(page: &mut Page, run: &RunSummary) {
    let problems = run.problems.iter().map(|problem| text(&plain(problem)));
    let messages = run.messages.iter().map(|message| text(&plain(&message.message)));
    let console = run.findings.iter().map(|finding| text(&format!("console: {}", plain(&finding.title))));
    let all: Vec<String> = problems.chain(messages).chain(console).collect();
    if !all.is_empty() {
        page.0.push_str("<h2>Messages</h2>\n<ul>\n");
        for line in all {
            let _ = writeln!(page.0, "<li>{line}</li>");
        }
        page.0.push_str("</ul>\n");
    }
    if !run.left_out.is_empty() {
        let _ = writeln!(
            page.0,
            "<h2>Left out</h2>\n<details><summary>{} scenarios</summary>",
            run.left_out.len()
        );
        let rows = run.left_out.iter();
        page.table(
            &["scenario", "why"],
            rows.map(|left| vec![text(&format!("{}/{}", left.suite, left.name)), text(&left.reason)]),
        );
        page.0.push_str("</details>\n");
    }
    page.0.push_str("<h2>Machines</h2>\n");
    let rows = run.machines.iter().map(|machine| {
        let time = |ms: Option<f64>| ms.map_or("-".into(), seconds);
        let memory = machine
            .boots
            .first()
            .map_or("-".into(), |boot| format!("{} MiB, {} CPUs", boot.memory_mb, boot.cpus));
        let clone = crate::stats::median(&machine.clones_ms);
        vec![
            text(&machine.name),
            memory,
            time(machine.cold_boot_ms()),
            time(clone),
            machine.clones_ms.len().to_string(),
        ]
    });
    page.table(&["machine", "size", "cold boot", "clone", "clones"], rows);
    let _ = writeln!(page.0, "<h2>Booted</h2>\n<details><summary>{} files</summary>", run.artifacts.len());
    let rows = run.artifacts.iter().take(ARTIFACTS).map(|artifact| {
        vec![
            text(&format!("{} {}", artifact.name, artifact.version)),
            size(artifact.size_bytes),
            text(&artifact.origin),
            format!("<code>{}</code>", text(artifact.sha256.get(..12).unwrap_or_default())),
        ]
    });
    page.table(&["file", "size", "from", "sha256"], rows);
    page.0.push_str("</details>\n");
}

#[cfg(test)]
mod tests;
