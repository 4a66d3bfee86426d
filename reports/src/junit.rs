//! `junit.xml`: the run for continuous integration services.
//!
//! One `testsuite` per suite, one `testcase` per scenario, and one per target that the plan has a bar for. A failure's type is its culprit; an infrastructure failure is
//! an `error`. A flaky scenario is a failure with its failed attempts as `flakyFailure`: only a pass is green.

use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, TimeDelta};
use quick_junit::{
    FlakyOrRerun, NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestRerun, TestSuite,
};

use crate::event::{ConsoleFinding, Outcome};
use crate::judge::{self, TargetResult, TargetVerdict};
use crate::model::{Attempt, RunSummary, Scenario};
use crate::terminal::number;

/// The run as JUnit XML.
pub fn junit_xml(summary: &RunSummary) -> Result<String, SerializeError> {
    let start = summary.started_at.as_deref().and_then(|wall| DateTime::parse_from_rfc3339(wall).ok());
    let mut report = Report::new(format!("yakiros {}", summary.run.run_id));
    report.set_time(duration(summary.duration_ms));
    report.timestamp = start;
    for suite in summary.suites() {
        let mut test_suite = TestSuite::new(suite);
        test_suite.set_time(duration(summary.suite(suite).map(Scenario::duration_ms).sum()));
        test_suite.add_test_cases(summary.suite(suite).map(|scenario| test_case(scenario, start)));
        report.add_test_suite(test_suite);
    }
    let targets: Vec<TestCase> = judge::targets(summary).iter().filter_map(target_case).collect();
    if !targets.is_empty() {
        let mut test_suite = TestSuite::new("targets");
        test_suite.add_test_cases(targets);
        report.add_test_suite(test_suite);
    }
    report.to_string()
}

fn test_case(scenario: &Scenario, start: Option<DateTime<FixedOffset>>) -> TestCase {
    let mut case = TestCase::new(scenario.name.as_str(), status(scenario));
    case.set_classname(scenario.suite.as_str());
    case.set_time(duration(scenario.duration_ms()));
    case.timestamp = start.zip(scenario.attempts.first()).and_then(|(start, first)| {
        let offset = TimeDelta::microseconds(i64::try_from(first.started_us).ok()?);
        start.checked_add_signed(offset)
    });
    case.add_property(("machine", scenario.machine.as_str()));
    if let Some(attempt) = scenario.deciding() {
        let console = console_text(attempt);
        if !console.is_empty() {
            case.set_system_out(console);
        }
        for (name, value) in [("capsule", &attempt.capsule), ("reproduce", &attempt.reproduce)] {
            if let Some(value) = value {
                case.add_property((name, value.as_str()));
            }
        }
    }
    case
}

/// A target that has a bar of the plan, if it was measured: what makes a run fail is red here, too.
fn target_case(target: &TargetResult) -> Option<TestCase> {
    let (value, floor) = target.value.zip(target.floor)?;
    let status = if target.verdict == TargetVerdict::Missed {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        let unit = &target.unit;
        status.set_message(format!("{} {unit}, the plan's bar is {} {unit}", number(value), number(floor)));
        status
    } else {
        TestCaseStatus::success()
    };
    let mut case = TestCase::new(target.name.as_str(), status);
    case.set_classname("targets");
    Some(case)
}

fn status(scenario: &Scenario) -> TestCaseStatus {
    let mut status = match scenario.outcome() {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Skipped => TestCaseStatus::skipped(),
        Outcome::Failed | Outcome::Flaky => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::InfraFailed => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if scenario.outcome() == Outcome::Passed {
        return status;
    }
    let prefix = if scenario.outcome() == Outcome::Flaky { "flaky: " } else { "" };
    status.set_message(format!("{prefix}{}", scenario.reason().unwrap_or("no reason was given")));
    if let Some(culprit) = scenario.culprit() {
        status.set_type(culprit.name());
    }
    if let Some(attempt) = scenario.deciding() {
        status.set_description(description(attempt));
    }
    if scenario.outcome() == Outcome::Flaky {
        status.set_rerun_kind(FlakyOrRerun::Flaky);
    }
    let deciding = scenario.deciding().map(|attempt| attempt.number);
    status.add_reruns(
        scenario
            .attempts
            .iter()
            .filter(|attempt| attempt.outcome != Outcome::Passed)
            .filter(|attempt| scenario.outcome() == Outcome::Flaky || Some(attempt.number) != deciding)
            .map(rerun),
    );
    status
}

fn rerun(attempt: &Attempt) -> TestRerun {
    let kind = match attempt.outcome {
        Outcome::InfraFailed => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    };
    let mut rerun = TestRerun::new(kind);
    rerun.set_time(duration(attempt.duration_ms));
    rerun.set_message(attempt.reason.as_deref().unwrap_or("no reason was given"));
    if let Some(culprit) = attempt.culprit {
        rerun.set_type(culprit.name());
    }
    let console = console_text(attempt);
    if !console.is_empty() {
        rerun.set_system_out(console);
    }
    rerun
}

/// What a person wants to know next: the step, and the command to try again.
fn description(attempt: &Attempt) -> String {
    let step = attempt.failed_step().map(|step| format!("step: {}", step.name));
    let reproduce = attempt.reproduce.as_ref().map(|command| format!("reproduce: {command}"));
    let capsule = attempt.capsule.as_ref().map(|folder| format!("capsule: {folder}"));
    [step, reproduce, capsule].into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The console lines of all findings, each under its title.
fn console_text(attempt: &Attempt) -> String {
    let mut text = String::new();
    for ConsoleFinding { class, title, excerpt, .. } in &attempt.findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{class}: {title}\n{}", excerpt.join("\n"));
    }
    text
}

/// JUnit has no negative and no endless times.
fn duration(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
}

#[cfg(test)]
mod tests;
