//! Targets and criteria in the terminal: how many are met, and each that is not.

use std::fmt::Write as _;

use super::text::{Paint, clip, wrap};
use super::{WIDTH, label};
use crate::event::Outcome;
use crate::judge::{self, CriterionVerdict, TargetVerdict};
use crate::model::RunSummary;

/// The targets that were measured, with their margins to the plan's bar and to ours. What a part of the suites does not
/// measure is counted, not listed.
pub fn targets(run: &RunSummary, paint: Paint) -> String {
    let targets = judge::targets(run);
    let measured: Vec<_> =
        targets.iter().filter(|target| target.verdict != TargetVerdict::NotMeasured).collect();
    if measured.is_empty() {
        return String::new();
    }
    let head = format!("{:<33}{:>15}{:>9}{:>9}", "targets", "measured", "plan", "our bar");
    let mut out = format!("{}\n", paint.bold(&head));
    for target in &measured {
        let value = format!("{} {}", number(target.value.unwrap_or_default()), target.unit);
        let times = |margin: Option<f64>| margin.map_or("-".into(), times);
        let verdict = match target.verdict {
            TargetVerdict::Missed => "missed",
            TargetVerdict::AboveFloor => "over our bar",
            TargetVerdict::Met | TargetVerdict::NotMeasured => "",
        };
        let line = format!(
            "{:<33}{:>15}{:>9}{:>9}  {verdict}",
            clip(&target.name, 32),
            clip(&value, 14),
            times(target.floor_margin),
            times(target.bar_margin)
        );
        let line = match target.verdict {
            TargetVerdict::Missed => paint.outcome(Outcome::Failed, &line),
            TargetVerdict::AboveFloor => paint.warn(&line),
            TargetVerdict::Met | TargetVerdict::NotMeasured => line,
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if targets.len() > measured.len() {
        let _ = writeln!(out, "and {} that this run does not measure", targets.len() - measured.len());
    }
    out
}

/// The plan's lists as counts, and the reason of what is missed.
pub fn criteria(run: &RunSummary, paint: Paint) -> String {
    let criteria = judge::criteria(run);
    let parts = criteria.parts();
    if parts.iter().all(|(_, list)| list.is_empty()) {
        return String::new();
    }
    let head = format!("{:<26}{:>8}{:>8}{:>8}", "criteria of success", "met", "missed", "open");
    let mut out = format!("{}\n", paint.bold(&head));
    for (title, list) in parts {
        let _ = write!(out, "{title:<26}");
        for verdict in [CriterionVerdict::Met, CriterionVerdict::Missed, CriterionVerdict::Open] {
            let count = list.iter().filter(|criterion| criterion.verdict == verdict).count();
            let _ = write!(out, "{:>8}", if count == 0 { "-".into() } else { count.to_string() });
        }
        out.push('\n');
    }
    let missed =
        parts.iter().flat_map(|(_, list)| *list).filter(|one| one.verdict == CriterionVerdict::Missed);
    for criterion in missed {
        let against = criterion.evidence.iter().filter(|piece| piece.verdict == CriterionVerdict::Missed);
        let seen: Vec<&str> = against.map(|piece| piece.seen.as_str()).collect();
        let text = format!("{}: {}", criterion.text, seen.join("; "));
        label(&mut out, "missed", &wrap(&text, WIDTH - 13));
    }
    out
}

/// A number with as many digits as say something.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 || size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// How many times better than its bar something is.
fn times(margin: f64) -> String {
    if margin >= 1000.0 { "> 1000x".into() } else { format!("{}x", number(margin)) }
}
