//! What a run is judged by beside its scenarios: targets for numbers, and criteria that scenarios and targets are the
//! evidence of. They are part of the stream, so that a report can be made from it alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Targets and criteria of a run, and the profile that it was made with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Goals {
    /// The profile; null for a run without one.
    pub profile: Option<ProfileGoal>,
    /// Targets for numbers.
    pub targets: Vec<Target>,
    /// The criteria of success.
    pub criteria: Vec<Criterion>,
}

/// How much a run does, and how long it may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileGoal {
    /// Its name.
    pub name: String,
    /// Wall time in seconds for a run of it as a whole; null when only a part was asked for.
    pub budget_s: Option<f64>,
}

/// A number that is measured, and where it has to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// Its name in reports, unique: `hot_swap_gap`.
    pub name: String,
    /// What it is, in words.
    pub what: String,
    /// The name that scenarios record it by.
    pub metric: String,
    /// The scenario that records it, `suite/name`; null for any.
    pub scenario: Option<String>,
    /// The unit of the bars, which must be the metric's.
    pub unit: String,
    /// Which number of the samples is judged.
    pub statistic: Statistic,
    /// To which side of the bar it has to be.
    pub direction: Direction,
    /// Where it has to be.
    #[serde(default)]
    pub bars: Bars,
    /// The key of `performance_metrics` that it is told under, too.
    pub key: Option<String>,
    /// The factor from the metric's unit to the key's: 1 when they are the same.
    #[serde(default = "same")]
    pub key_factor: f64,
}

fn same() -> f64 {
    1.0
}

/// Where a number has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bars {
    /// The plan's: a run that misses it has failed.
    pub floor: Option<f64>,
    /// Our own, which aims higher: to miss it is told, and fails nothing.
    pub bar: Option<f64>,
}

/// A number that stands for many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The median.
    #[default]
    Median,
    /// The arithmetic mean.
    Mean,
    /// The 95th percentile.
    P95,
    /// The 99th percentile.
    P99,
    /// The greatest.
    Max,
}

/// To which side of its bar a number has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The less the better.
    #[default]
    AtMost,
    /// The more the better.
    AtLeast,
}

/// A line of the plan's criteria of success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Criterion {
    /// Its list.
    pub part: Part,
    /// As the plan has it.
    pub text: String,
    /// What shows it; all of it has to. What a run does not have, or skips, leaves it open.
    pub evidence: Vec<Evidence>,
    /// Evidence that a run skips because the guest lacks what it is about does not leave the criterion open.
    #[serde(default)]
    pub when_available: bool,
}

/// A list of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What it does.
    Functional,
    /// How quickly.
    Performance,
    /// For how long, and whatever happens.
    Reliability,
}

/// What shows that a criterion is met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// A scenario, `suite/name`, that passes.
    Scenario(String),
    /// A target, by its name, that is met.
    Target(String),
}
