//! `summary.md`: the run for people who look at a change in a CI service. Short: what is red, what was measured, the rest as
//! counts.

use std::fmt::Write as _;

use crate::event::Outcome;
use crate::judge::{self, CriterionVerdict, TargetVerdict};
use crate::model::{RunSummary, Scenario};
use crate::terminal::{number, seconds, verdict_line};

/// How many failures are told in full, and how many skips. Services cut what is long.
const FAILURES: usize = 20;
const SKIPS: usize = 10;
/// Characters of a reason.
const REASON: usize = 600;

/// The run as Markdown.
pub fn markdown(run: &RunSummary) -> String {
    let mut out = format!("## {}\n\n", escaped(&verdict_line(run)));
    if let Some(boot) = run.machines.iter().find_map(|machine| machine.boots.first()) {
        let os = boot.os.as_deref().unwrap_or("a guest");
        let accelerated = run.run.acceleration.as_ref().map_or("", |acceleration| &acceleration.kind);
        let _ = writeln!(out, "{}, kernel {}, {accelerated}\n", escaped(os), escaped(&boot.kernel_release));
    }
    suites(&mut out, run);
    failures(&mut out, run);
    targets(&mut out, run);
    criteria(&mut out, run);
    out
}

fn suites(out: &mut String, run: &RunSummary) {
    out.push_str(
        "| suite | passed | failed | flaky | skipped | infra | time |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for suite in run.suites() {
        let count = |outcome| run.suite(suite).filter(|scenario| scenario.outcome() == outcome).count();
        let [passed, failed, flaky, skipped, infra] = Outcome::ALL.map(count);
        let time = seconds(run.suite(suite).map(Scenario::duration_ms).sum());
        let name = escaped(suite);
        let _ = writeln!(out, "| {name} | {passed} | {failed} | {flaky} | {skipped} | {infra} | {time} |");
    }
    out.push('\n');
}

/// What is red first, then what was not run.
fn failures(out: &mut String, run: &RunSummary) {
    const RED: [Outcome; 3] = [Outcome::Failed, Outcome::Flaky, Outcome::InfraFailed];
    for (outcomes, limit) in [(&RED[..], FAILURES), (&[Outcome::Skipped], SKIPS)] {
        let of = |outcome| run.scenarios.iter().filter(move |scenario| scenario.outcome() == outcome);
        let listed: Vec<&Scenario> = outcomes.iter().flat_map(|&outcome| of(outcome)).collect();
        for scenario in listed.iter().take(limit) {
            failure(out, scenario);
        }
        if listed.len() > limit {
            let what = if outcomes == RED { "more that are not green" } else { "more skipped" };
            let _ = writeln!(out, "- and {} {what}", listed.len() - limit);
        }
        if !listed.is_empty() {
            out.push('\n');
        }
    }
}

fn failure(out: &mut String, scenario: &Scenario) {
    let reason: String = scenario.reason().unwrap_or("no reason was given").chars().take(REASON).collect();
    let outcome = scenario.outcome().name().replace('_', " ");
    let _ = writeln!(out, "- **{}** {outcome}: {}", escaped(&scenario.id()), escaped(&reason));
    let command = scenario.deciding().and_then(|attempt| attempt.reproduce.as_ref());
    if let Some(command) = command {
        let _ = writeln!(out, "  `{}`", command.replace(['`', '\n'], " "));
    }
}

fn targets(out: &mut String, run: &RunSummary) {
    let targets = judge::targets(run);
    if targets.iter().all(|target| target.value.is_none()) {
        return;
    }
    out.push_str("| target | measured | plan's bar | our bar | |\n|---|--:|--:|--:|---|\n");
    for target in &targets {
        let Some(value) = target.value else { continue };
        let bar = |bar: Option<f64>, margin: Option<f64>| match (bar, margin) {
            (Some(bar), Some(margin)) => format!("{} ({}x)", number(bar), number(margin)),
            _ => "-".to_owned(),
        };
        let verdict = match target.verdict {
            TargetVerdict::Met => "met",
            TargetVerdict::AboveFloor => "our bar is missed",
            TargetVerdict::Missed => "**missed**",
            TargetVerdict::NotMeasured => "",
        };
        let (floor, own) = (bar(target.floor, target.floor_margin), bar(target.bar, target.bar_margin));
        let name = escaped(&target.name);
        let value = format!("{} {}", number(value), escaped(&target.unit));
        let _ = writeln!(out, "| {name} | {value} | {floor} | {own} | {verdict} |");
    }
    out.push('\n');
}

fn criteria(out: &mut String, run: &RunSummary) {
    for (title, list) in judge::criteria(run).parts() {
        if list.is_empty() {
            continue;
        }
        let _ = writeln!(out, "**{title}**\n");
        for criterion in list {
            let (tick, word) = match criterion.verdict {
                CriterionVerdict::Met => ("x", ""),
                CriterionVerdict::Missed => (" ", ": **missed**"),
                CriterionVerdict::Open => (" ", ": not shown by this run"),
            };
            let _ = writeln!(out, "- [{tick}] {}{word}", escaped(&criterion.text));
        }
        out.push('\n');
    }
}

/// Text that is only text in Markdown: one line, without anything that begins markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::model_run;
    use crate::fold;

    #[test]
    fn the_model_run_as_markdown() {
        let text = markdown(&fold(&model_run()));
        for part in [
            "| basic | 1 | 1 | 2 | 0 | 0 | 1 m 17 s |",
            "- **basic/orphan-is-reaped** failed: process 123 is still a zombie",
            "  `cargo xtask vm-test --scenario basic/orphan-is-reaped --seed 42`",
            "| memory | 1100 kb | 51200 (46.55x) | 4096 (3.72x) | met |",
            "| slow | 14.50 ms | 10 (0.6897x) | 1 (0.0690x) | **missed** |",
            "- [x] It boots\n- [ ] Orphans \\<are\\> reaped: **missed**",
            "- [ ] It lasts: not shown by this run",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
        assert!(!text.contains("| gap |"), "{text}");
    }

    #[test]
    fn skips_hide_no_failure() {
        let text = markdown(&fold(&model_run()));
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in:\n{text}"));
        assert!(place(" failed: ") < place(" infra failed: "));
        assert!(place(" infra failed: ") < place(" skipped: "));
    }

    #[test]
    fn what_scenarios_say_is_no_markup() {
        assert_eq!(escaped("<b>|x|`y`\n# z_*"), "\\<b\\>\\|x\\|\\`y\\` \\# z\\_\\*");
    }
}
