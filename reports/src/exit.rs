//! The exit code of a run.

use crate::event::{Counts, RunFinished};
use crate::judge::{self, TargetVerdict};
use crate::model::RunSummary;

/// All scenarios passed or were skipped with a reason.
pub const EXIT_PASSED: i32 = 0;
/// At least one scenario failed or was flaky, or a bar of the plan was missed.
pub const EXIT_FAILED: i32 = 1;
/// The command line was wrong; nothing ran.
pub const EXIT_USAGE: i32 = 2;
/// No scenario failed, but not everything that was asked for could be judged: the infrastructure failed, the run was
/// interrupted or killed, or there was nothing to run. The value is `EX_UNAVAILABLE` of sysexits.h.
pub const EXIT_INFRA: i32 = 69;

/// The exit code of a run: [`EXIT_PASSED`], [`EXIT_FAILED`] or [`EXIT_INFRA`].
///
/// A failure of what is under test weighs more than one of the infrastructure: with both, the code is [`EXIT_FAILED`].
/// A run whose own closing event says that it failed is never turned into a success.
pub fn exit_code(summary: &RunSummary) -> i32 {
    let code = verdict_of(summary, summary.ended.is_some(), summary.interrupted());
    match &summary.ended {
        Some(end) if code == EXIT_PASSED => end.exit_code,
        _ => code,
    }
}

/// The closing event of a run that has come to its end, with what is known of it by then and with its exit code.
pub fn closing(summary: &RunSummary, duration_ms: f64, interrupted: bool) -> RunFinished {
    let exit_code = verdict_of(summary, true, interrupted);
    RunFinished { counts: summary.counts(), duration_ms, exit_code, interrupted }
}

/// The exit code of a run that came to its end or not: a missed bar of the plan is a failure.
fn verdict_of(summary: &RunSummary, complete: bool, interrupted: bool) -> i32 {
    if judge::targets(summary).iter().any(|target| target.verdict == TargetVerdict::Missed) {
        EXIT_FAILED
    } else {
        verdict(summary.counts(), complete, interrupted)
    }
}

/// The exit code for these counts of a run that came to its end or not.
fn verdict(counts: Counts, complete: bool, interrupted: bool) -> i32 {
    if counts.failed > 0 || counts.flaky > 0 {
        EXIT_FAILED
    } else if counts.infra_failed > 0 || !complete || interrupted || counts.total() == 0 {
        EXIT_INFRA
    } else {
        EXIT_PASSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_exit_codes() {
        let counts = |passed, failed, flaky, skipped, infra_failed| Counts {
            passed,
            failed,
            flaky,
            skipped,
            infra_failed,
        };
        let table = [
            (counts(3, 0, 0, 0, 0), true, false, EXIT_PASSED),
            (counts(3, 0, 0, 2, 0), true, false, EXIT_PASSED),
            (counts(3, 1, 0, 0, 0), true, false, EXIT_FAILED),
            (counts(3, 0, 1, 0, 0), true, false, EXIT_FAILED),
            (counts(3, 1, 0, 0, 1), true, false, EXIT_FAILED),
            (counts(3, 1, 0, 0, 1), false, true, EXIT_FAILED),
            (counts(3, 0, 0, 0, 1), true, false, EXIT_INFRA),
            (counts(3, 0, 0, 0, 0), false, false, EXIT_INFRA),
            (counts(3, 0, 0, 0, 0), true, true, EXIT_INFRA),
            (counts(0, 0, 0, 0, 0), true, false, EXIT_INFRA),
        ];
        for (counts, complete, interrupted, expected) in table {
            assert_eq!(
                verdict(counts, complete, interrupted),
                expected,
                "{counts:?} {complete} {interrupted}"
            );
        }
    }
}
