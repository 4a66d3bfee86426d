//! What the numbers and scenarios of a run come to, against its targets and criteria.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Criterion, Direction, Evidence, Metric, Outcome, Part, Statistic, Target};
use crate::model::RunSummary;
use crate::stats;

/// What a run says about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetVerdict {
    /// The plan's bar and ours are met.
    Met,
    /// The plan's bar is met, ours is not.
    AboveFloor,
    /// The plan's bar is missed: the run has failed.
    Missed,
    /// The run has not measured it.
    NotMeasured,
}

/// A target with what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetResult {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub what: String,
    /// Which number of the samples is judged.
    pub statistic: Statistic,
    /// To which side of the bars it has to be.
    pub direction: Direction,
    /// The unit of value and bars.
    pub unit: String,
    /// What was measured; null when nothing was.
    pub value: Option<f64>,
    /// Of how many samples.
    pub samples: u64,
    /// Their median; null without samples.
    pub median: Option<f64>,
    /// Their 95th percentile.
    pub p95: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// The plan's bar.
    pub floor: Option<f64>,
    /// How many times better than the plan's bar the value is; below 1 it is missed.
    pub floor_margin: Option<f64>,
    /// Our own bar.
    pub bar: Option<f64>,
    /// The same for ours.
    pub bar_margin: Option<f64>,
    /// What comes of it.
    pub verdict: TargetVerdict,
    /// The scenarios that measured it.
    pub scenarios: Vec<String>,
}

/// What a run says about a criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CriterionVerdict {
    /// All evidence shows it.
    Met,
    /// Something shows that it is not so.
    Missed,
    /// This run does not show it: a part of the evidence was not run, was skipped, or could not be judged.
    Open,
}

/// A criterion with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CriterionResult {
    /// As the plan has it.
    pub text: String,
    /// What comes of it.
    pub verdict: CriterionVerdict,
    /// What shows it.
    pub evidence: Vec<EvidenceResult>,
}

/// A piece of evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceResult {
    /// The scenario or the target.
    pub evidence: Evidence,
    /// Whether it shows the criterion.
    pub verdict: CriterionVerdict,
    /// What was seen, in words.
    pub seen: String,
}

/// The plan's three lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuccessCriteria {
    /// Functional validation.
    pub functional: Vec<CriterionResult>,
    /// Performance benchmarks.
    pub performance: Vec<CriterionResult>,
    /// Reliability testing.
    pub reliability: Vec<CriterionResult>,
}

impl SuccessCriteria {
    /// The lists with their titles in the plan.
    pub fn parts(&self) -> [(&'static str, &[CriterionResult]); 3] {
        [
            ("Functional validation", &self.functional),
            ("Performance benchmarks", &self.performance),
            ("Reliability testing", &self.reliability),
        ]
    }
}

/// All targets of the run, judged.
pub fn targets(run: &RunSummary) -> Vec<TargetResult> {
    run.goals.targets.iter().map(|target| judge(target, run)).collect()
}

/// The plan's lists, judged.
pub fn criteria(run: &RunSummary) -> SuccessCriteria {
    let targets = targets(run);
    let of = |part| {
        let of_part = run.goals.criteria.iter().filter(move |criterion| criterion.part == part);
        of_part.map(|criterion| weigh(criterion, run, &targets)).collect()
    };
    SuccessCriteria {
        functional: of(Part::Functional),
        performance: of(Part::Performance),
        reliability: of(Part::Reliability),
    }
}

fn judge(target: &Target, run: &RunSummary) -> TargetResult {
    let metrics: Vec<&Metric> = run.metrics.iter().filter(|metric| is_of(target, metric)).collect();
    let single = |metric: &&Metric| metric.samples.clone().filter(|samples| !samples.is_empty());
    let samples: Vec<f64> =
        metrics.iter().flat_map(|metric| single(metric).unwrap_or(vec![metric.value])).collect();
    let spread = stats::spread(&samples);
    let value = pick(target.statistic, &samples);
    let margin = |bar: Option<f64>| bar.zip(value).map(|(bar, value)| margin(target.direction, bar, value));
    let (floor_margin, bar_margin) = (margin(target.bars.floor), margin(target.bars.bar));
    let missed = |margin: Option<f64>| margin.is_some_and(|margin| margin < 1.0);
    let verdict = match value {
        None => TargetVerdict::NotMeasured,
        Some(_) if missed(floor_margin) => TargetVerdict::Missed,
        Some(_) if missed(bar_margin) => TargetVerdict::AboveFloor,
        Some(_) => TargetVerdict::Met,
    };
    let mut scenarios: Vec<String> = metrics.iter().filter_map(|metric| id(metric)).collect();
    scenarios.dedup();
    TargetResult {
        name: target.name.clone(),
        what: target.what.clone(),
        statistic: target.statistic,
        direction: target.direction,
        unit: target.unit.clone(),
        value,
        samples: samples.len() as u64,
        median: spread.map(|spread| spread.median),
        p95: spread.map(|spread| spread.p95),
        max: spread.map(|spread| spread.max),
        floor: target.bars.floor,
        floor_margin,
        bar: target.bars.bar,
        bar_margin,
        verdict,
        scenarios,
    }
}

fn id(metric: &Metric) -> Option<String> {
    Some(format!("{}/{}", metric.suite.as_ref()?, metric.scenario.as_ref()?))
}

fn is_of(target: &Target, metric: &Metric) -> bool {
    let same_scenario = target.scenario.is_none() || target.scenario == id(metric);
    metric.name == target.metric && metric.unit == target.unit && same_scenario
}

fn pick(statistic: Statistic, samples: &[f64]) -> Option<f64> {
    let spread = stats::spread(samples)?;
    Some(match statistic {
        Statistic::Median => spread.median,
        // Divided first: the sum of many large numbers is infinite.
        Statistic::Mean => samples.iter().map(|sample| sample / samples.len() as f64).sum(),
        Statistic::P95 => spread.p95,
        Statistic::P99 => stats::percentile(samples, 99)?,
        Statistic::Max => spread.max,
    })
}

/// How many times better than the bar a value is. JSON has no infinity: nothing is better than this.
fn margin(direction: Direction, bar: f64, value: f64) -> f64 {
    const MOST: f64 = 1e9;
    let (good, bad) = match direction {
        Direction::AtMost => (bar, value),
        Direction::AtLeast => (value, bar),
    };
    let kept = match direction {
        Direction::AtMost => value <= bar,
        Direction::AtLeast => value >= bar,
    };
    let ratio = good / bad;
    match kept {
        // A value of none, or a bar of none that is kept, has no ratio.
        true if ratio.is_finite() => ratio.clamp(1.0, MOST),
        true => MOST,
        false if ratio.is_finite() => ratio.clamp(0.0, 1.0 - f64::EPSILON),
        false => 0.0,
    }
}

fn weigh(criterion: &Criterion, run: &RunSummary, targets: &[TargetResult]) -> CriterionResult {
    let mut skipped = 0;
    let evidence: Vec<EvidenceResult> = criterion
        .evidence
        .iter()
        .map(|evidence| {
            let (verdict, seen) = match evidence {
                Evidence::Scenario(id) => by_scenario(id, run, &mut skipped),
                Evidence::Target(name) => by_target(name, targets),
            };
            EvidenceResult { evidence: evidence.clone(), verdict, seen }
        })
        .collect();
    let count = |verdict| evidence.iter().filter(|piece| piece.verdict == verdict).count();
    let excused = if criterion.when_available { skipped } else { 0 };
    let verdict = if count(CriterionVerdict::Missed) > 0 {
        CriterionVerdict::Missed
    } else if evidence.is_empty()
        || count(CriterionVerdict::Open) > excused
        || count(CriterionVerdict::Met) == 0
    {
        CriterionVerdict::Open
    } else {
        CriterionVerdict::Met
    };
    CriterionResult { text: criterion.text.clone(), verdict, evidence }
}

fn by_scenario(id: &str, run: &RunSummary, skipped: &mut usize) -> (CriterionVerdict, String) {
    let Some(scenario) = run.scenarios.iter().find(|scenario| scenario.id() == id) else {
        return (CriterionVerdict::Open, "not part of this run".into());
    };
    let seen = |outcome: Outcome| match scenario.reason() {
        Some(reason) => format!("{outcome}: {reason}"),
        None => outcome.to_string(),
    };
    match scenario.outcome() {
        Outcome::Passed => (CriterionVerdict::Met, "passed".into()),
        Outcome::Skipped => {
            *skipped += 1;
            (CriterionVerdict::Open, seen(Outcome::Skipped))
        }
        Outcome::InfraFailed => (CriterionVerdict::Open, seen(Outcome::InfraFailed)),
        wrong @ (Outcome::Failed | Outcome::Flaky) => (CriterionVerdict::Missed, seen(wrong)),
    }
}

/// The plan's bar decides.
fn by_target(name: &str, targets: &[TargetResult]) -> (CriterionVerdict, String) {
    let Some(target) = targets.iter().find(|target| target.name == name) else {
        return (CriterionVerdict::Open, "no such target".into());
    };
    let Some(value) = target.value else {
        return (CriterionVerdict::Open, "not measured in this run".into());
    };
    let bar = target.floor.or(target.bar).map(|bar| format!(", bar {bar} {}", target.unit));
    let seen = format!("{value:.3} {}{}", target.unit, bar.unwrap_or_default());
    match target.verdict {
        TargetVerdict::Missed => (CriterionVerdict::Missed, seen),
        _ => (CriterionVerdict::Met, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::model_run;
    use crate::fold;

    #[test]
    fn targets_of_the_model_run() {
        let results = targets(&fold(&model_run()));
        let seen: Vec<_> = results
            .iter()
            .map(|one| (one.name.as_str(), one.value, one.samples, one.floor_margin, one.verdict))
            .collect();
        assert_eq!(
            seen,
            [
                ("memory", Some(1100.0), 1, Some(51_200.0 / 1100.0), TargetVerdict::Met),
                ("restart", Some(14.5), 2, Some(2_000.0 / 14.5), TargetVerdict::AboveFloor),
                ("slow", Some(14.5), 2, Some(10.0 / 14.5), TargetVerdict::Missed),
                ("gap", None, 0, None, TargetVerdict::NotMeasured),
            ]
        );
        assert_eq!(results[1].scenarios, ["basic/boots", "basic/no-gap"]);
    }

    #[test]
    fn criteria_of_the_model_run() {
        let results = criteria(&fold(&model_run()));
        let verdicts = |list: &[CriterionResult]| list.iter().map(|one| one.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&results.functional), [CriterionVerdict::Met, CriterionVerdict::Missed]);
        let performance = [CriterionVerdict::Met, CriterionVerdict::Open, CriterionVerdict::Missed];
        assert_eq!(verdicts(&results.performance), performance);
        // Nothing is named that would show it, so nothing has.
        assert_eq!(verdicts(&results.reliability), [CriterionVerdict::Open]);
        assert!(results.functional[1].evidence[1].seen.starts_with("failed: process 123"));
    }

    #[test]
    fn a_skip_is_excused_only_where_the_plan_says_so() {
        let mut run = fold(&model_run());
        let evidence = ["basic/boots", "hot-swap/two-at-once"].map(|id| Evidence::Scenario(id.into()));
        let criterion = |when_available, evidence: &[Evidence]| Criterion {
            part: Part::Functional,
            text: String::new(),
            evidence: evidence.to_vec(),
            when_available,
        };
        run.goals.criteria =
            vec![criterion(false, &evidence), criterion(true, &evidence), criterion(true, &evidence[1..])];
        let verdicts: Vec<_> = criteria(&run).functional.iter().map(|one| one.verdict).collect();
        assert_eq!(verdicts, [CriterionVerdict::Open, CriterionVerdict::Met, CriterionVerdict::Open]);
    }

    #[test]
    fn margins_say_how_many_times_better() {
        let table = [
            (Direction::AtMost, 10.0, 5.0, 2.0),
            (Direction::AtMost, 10.0, 20.0, 0.5),
            (Direction::AtLeast, 10.0, 20.0, 2.0),
            (Direction::AtLeast, 10.0, 5.0, 0.5),
            (Direction::AtMost, 10.0, 0.0, 1e9),
            (Direction::AtMost, 0.0, 0.0, 1e9),
            (Direction::AtMost, 0.0, 1.0, 0.0),
        ];
        for (direction, bar, value, expected) in table {
            assert!((margin(direction, bar, value) - expected).abs() < 1e-9, "{direction:?} {bar} {value}");
        }
        assert!(margin(Direction::AtMost, 1.0, 1.0) >= 1.0);
        assert!(margin(Direction::AtMost, 1.0, 1.0 + f64::EPSILON) < 1.0);
    }

    #[test]
    fn which_number_is_judged() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        let picked = [Statistic::Median, Statistic::Mean, Statistic::P95, Statistic::P99, Statistic::Max]
            .map(|statistic| pick(statistic, &samples).unwrap().round() as u32);
        assert_eq!(picked, [51, 51, 95, 99, 100]);
    }
}
