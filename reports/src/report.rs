//! `report.json`: the run as one document, for programs. Its schema is `reports/schema/report-v1.schema.json`.
//!
//! Every key is always there; what is not known is null. Keys are added within a schema version, never renamed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Acceleration, Artifact, ConsoleFinding, Counts, CrashPoint, Culprit, Host, Ledger, LeftOut, LogMessage,
    MachineReady, Metric, Outcome, ProfileGoal, Series, StartKind, Step,
};
use crate::exit::{self, exit_code};
use crate::judge::{self, SuccessCriteria, TargetResult};
use crate::model::{Attempt, Machine, RunSummary, Scenario};
use crate::stats::{self, Spread};

/// The version of the report's schema.
pub const REPORT_SCHEMA_VERSION: u32 = 1;

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of this schema: 1.
    pub schema_version: u32,
    /// Version of YakirOS.
    pub yakiros_version: String,
    /// Unique name of the run.
    pub test_run_id: String,
    /// How the run ended: `passed`, `failed` or `infra_failed`.
    pub outcome: Outcome,
    /// 0 all passed, 1 some failed or were flaky, 69 the infrastructure failed or the run did not come to its end.
    pub exit_code: i32,
    /// False when the run was killed: the report holds what is known up to then.
    pub complete: bool,
    /// True when the user, or a signal, ended the run early.
    pub interrupted: bool,
    /// Wall clock at the beginning: RFC 3339, UTC.
    pub started_at: Option<String>,
    /// Length of the run in milliseconds.
    pub duration_ms: u64,
    /// How many scenarios ended in which way.
    pub counts: Counts,
    /// The command line that started the run.
    pub command_line: Vec<String>,
    /// The commit that was built.
    pub git_commit: Option<String>,
    /// Seed of everything random in the run; nothing when nothing in it was drawn by chance.
    pub seed: Option<u64>,
    /// The machine that ran the harness.
    pub host: Host,
    /// How the guests were accelerated, and why so.
    pub acceleration: Option<Acceleration>,
    /// The version of QEMU.
    pub qemu_version: Option<String>,
    /// The first machine of the run; all of them are in `machines`.
    pub vm_config: VmConfig,
    /// The suites by name, with `_` for `-`.
    pub test_results: BTreeMap<String, SuiteResult>,
    /// The numbers that were measured, by name and unit (`hot_swap_gap_ms`). A number that several scenarios measured is
    /// the median of theirs; the single ones are in `metrics`. Those that targets name are always there, and null when
    /// they were not measured.
    pub performance_metrics: BTreeMap<String, Option<f64>>,
    /// What was measured against the bars of the plan and our own.
    #[serde(default)]
    pub targets: Vec<TargetResult>,
    /// The plan's criteria of success, each with a verdict and what it rests on.
    #[serde(default)]
    pub success_criteria: SuccessCriteria,
    /// How much the run did, and whether it kept to its time; null for a run without a profile.
    #[serde(default)]
    pub profile: Option<ProfileReport>,
    /// What the profile leaves out.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What was booted or put into the guest.
    pub artifacts: Vec<Artifact>,
    /// The machines with the times of their boots and clones.
    pub machines: Vec<MachineReport>,
    /// The clones of all machines.
    pub clones: Option<CloneReport>,
    /// The scenarios in the order of the plan.
    pub scenarios: Vec<ScenarioReport>,
    /// All numbers that were measured, one by one.
    pub metrics: Vec<Metric>,
    /// Numbers over time.
    #[serde(default)]
    pub series: Vec<Series>,
    /// Who served after a fault in the middle of an upgrade, for each step and fault that was tried.
    #[serde(default)]
    pub crash_points: Vec<CrashPoint>,
    /// What the console showed outside of scenarios.
    pub console_findings: Vec<ConsoleFinding>,
    /// Warnings and errors of the harness.
    pub messages: Vec<LogMessage>,
    /// What the report could not take in, for example a torn last line of the event stream.
    pub problems: Vec<String>,
}

/// The machine that the scenarios ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmConfig {
    /// Name of the machine.
    pub machine: Option<String>,
    /// Guest memory in MiB.
    pub ram_mb: Option<u64>,
    /// Guest processors.
    pub cpus: Option<u32>,
    /// The guest's operating system.
    pub os: Option<String>,
    /// The guest's kernel, `uname -r`.
    pub kernel: Option<String>,
}

/// How much the run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileReport {
    /// The profile's name.
    pub name: String,
    /// Wall time that a run of it may take, in seconds; null when only a part was asked for.
    pub budget_s: Option<f64>,
    /// Whether it did not take longer; null without a budget.
    pub within_budget: Option<bool>,
}

/// The result of a suite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuiteResult {
    /// Scenarios that passed.
    pub passed: u32,
    /// Scenarios that failed.
    pub failed: u32,
    /// Scenarios that were skipped.
    pub skipped: u32,
    /// Scenarios that failed and then passed.
    pub flaky: u32,
    /// Scenarios that could not be judged.
    pub infra_failed: u32,
    /// Time spent in the scenarios, in milliseconds. Scenarios run side by side: the run is shorter than the sum.
    pub duration_ms: u64,
    /// Why not everything passed; null when everything did.
    pub reason: Option<String>,
}

/// A machine and how fast it came up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MachineReport {
    /// Its name.
    pub name: String,
    /// Each time it was booted or restored.
    pub boots: Vec<MachineReady>,
    /// Median time from the start of QEMU to readiness of its cold boots, in milliseconds.
    pub cold_boot_ms: Option<f64>,
    /// Its clones.
    pub clones: Option<CloneReport>,
}

/// How fast clones answered their first command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloneReport {
    /// Number of clones.
    pub count: u64,
    /// Median in milliseconds.
    pub median_ms: f64,
    /// 95th percentile in milliseconds.
    pub p95_ms: f64,
    /// Maximum in milliseconds.
    pub max_ms: f64,
    /// Median of the clones divided by the median cold boot of the same machine; null without a cold boot in this run.
    /// Over several machines, the worst.
    pub ratio_to_cold_boot: Option<f64>,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioReport {
    /// The suite, as it is called.
    pub suite: String,
    /// The name.
    pub name: String,
    /// The machine it ran on; empty when it never began and was not planned.
    pub machine: String,
    /// How it ended, all attempts taken together.
    pub outcome: Outcome,
    /// Length of all attempts in milliseconds.
    pub duration_ms: u64,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// Who is to blame.
    pub culprit: Option<Culprit>,
    /// The step that failed.
    pub failed_step: Option<String>,
    /// The console lines of the first finding of the deciding attempt.
    pub console_excerpt: Vec<String>,
    /// Folder with everything known about the failure, relative to the run's folder.
    pub capsule: Option<String>,
    /// The command that runs it again under the same conditions.
    pub reproduce: Option<String>,
    /// The attempts, in order.
    pub attempts: Vec<AttemptReport>,
}

/// An attempt at a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptReport {
    /// Number, from 1.
    pub number: u32,
    /// From a clone or a cold boot; null for a scenario that was skipped.
    pub start: Option<StartKind>,
    /// How it ended.
    pub outcome: Outcome,
    /// Start of the run to the start of the attempt, in milliseconds.
    pub started_ms: u64,
    /// Length in milliseconds.
    pub duration_ms: u64,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// Who is to blame.
    pub culprit: Option<Culprit>,
    /// The steps that ended.
    pub steps: Vec<Step>,
    /// What the console showed.
    pub console_findings: Vec<ConsoleFinding>,
    /// What there was in the guest before and after; null where that was not compared.
    #[serde(default)]
    pub ledger: Option<Ledger>,
    /// For how long its guest was on a processor of the host or waited for one, in milliseconds; null when that could not
    /// be seen.
    #[serde(default)]
    pub host_cpu_ms: Option<f64>,
}

/// `report.json` as text, indented, with a newline at its end.
pub fn report_json(summary: &RunSummary) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&Report::new(summary))?;
    text.push('\n');
    Ok(text)
}

impl Report {
    /// The report of a run.
    pub fn new(summary: &RunSummary) -> Self {
        let run = &summary.run;
        let exit_code = exit_code(summary);
        Self {
            schema_version: REPORT_SCHEMA_VERSION,
            yakiros_version: run.version.clone(),
            test_run_id: run.run_id.clone(),
            outcome: outcome_of(exit_code),
            exit_code,
            complete: summary.ended.is_some(),
            interrupted: summary.interrupted(),
            started_at: summary.started_at.clone(),
            duration_ms: whole(summary.duration_ms),
            counts: summary.counts(),
            command_line: run.command_line.clone(),
            git_commit: run.git_commit.clone(),
            seed: run.seed,
            host: run.host.clone(),
            acceleration: run.acceleration.clone(),
            qemu_version: run.qemu_version.clone(),
            vm_config: vm_config(summary),
            test_results: test_results(summary),
            performance_metrics: performance_metrics(summary),
            targets: judge::targets(summary),
            success_criteria: judge::criteria(summary),
            profile: summary.goals.profile.as_ref().map(|profile| profile_report(profile, summary)),
            left_out: summary.left_out.clone(),
            artifacts: summary.artifacts.clone(),
            machines: summary.machines.iter().map(machine_report).collect(),
            clones: summary.clones().map(|spread| clone_report(spread, summary.clone_ratio())),
            scenarios: summary.scenarios.iter().map(scenario_report).collect(),
            metrics: summary.metrics.clone(),
            series: summary.series.clone(),
            crash_points: summary.crash_points.clone(),
            console_findings: summary.findings.clone(),
            messages: summary.messages.clone(),
            problems: summary.problems.clone(),
        }
    }
}

/// The outcome of a whole run.
fn outcome_of(exit_code: i32) -> Outcome {
    match exit_code {
        exit::EXIT_PASSED => Outcome::Passed,
        exit::EXIT_INFRA => Outcome::InfraFailed,
        _ => Outcome::Failed,
    }
}

fn vm_config(summary: &RunSummary) -> VmConfig {
    let Some(boot) = summary.machines.iter().find_map(|machine| machine.boots.first()) else {
        return VmConfig::default();
    };
    VmConfig {
        machine: Some(boot.machine.clone()),
        ram_mb: Some(boot.memory_mb),
        cpus: Some(boot.cpus),
        os: boot.os.clone(),
        kernel: Some(boot.kernel_release.clone()),
    }
}

/// The suites; two whose names differ only in `-` and `_` are counted together.
fn test_results(summary: &RunSummary) -> BTreeMap<String, SuiteResult> {
    let mut groups: BTreeMap<String, Vec<&Scenario>> = BTreeMap::new();
    for scenario in &summary.scenarios {
        groups.entry(scenario.suite.replace('-', "_")).or_default().push(scenario);
    }
    groups.into_iter().map(|(suite, scenarios)| (suite, suite_result(&scenarios))).collect()
}

fn suite_result(scenarios: &[&Scenario]) -> SuiteResult {
    let counts: Counts = scenarios.iter().map(|scenario| scenario.outcome()).collect();
    SuiteResult {
        passed: counts.passed,
        failed: counts.failed,
        skipped: counts.skipped,
        flaky: counts.flaky,
        infra_failed: counts.infra_failed,
        duration_ms: whole(scenarios.iter().map(|scenario| scenario.duration_ms()).sum()),
        reason: suite_reason(scenarios),
    }
}

/// The first scenario that is not green, failures before skips, and how many more there are.
fn suite_reason(scenarios: &[&Scenario]) -> Option<String> {
    let rank = |outcome| match outcome {
        Outcome::Failed => 0,
        Outcome::Flaky => 1,
        Outcome::InfraFailed => 2,
        Outcome::Skipped => 3,
        Outcome::Passed => 4,
    };
    let red = || scenarios.iter().filter(|scenario| scenario.outcome() != Outcome::Passed);
    let worst = red().min_by_key(|scenario| rank(scenario.outcome()))?;
    let reason = worst.reason().unwrap_or("no reason was given");
    let more = match red().count() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("{} {}: {reason}{more}", worst.name, worst.outcome()))
}

/// The metrics by name and unit, what the machines say about themselves, and the targets by their keys.
fn performance_metrics(summary: &RunSummary) -> BTreeMap<String, Option<f64>> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for metric in &summary.metrics {
        values.entry(metric_key(&metric.name, &metric.unit)).or_default().push(metric.value);
    }
    let mut numbers: BTreeMap<String, Option<f64>> =
        values.into_iter().map(|(key, values)| (key, stats::median(&values))).collect();
    let own = [
        ("cold_boot_ms", summary.cold_boot_ms()),
        ("clone_ms", summary.clones().map(|spread| spread.median)),
        ("clone_to_cold_boot_ratio", summary.clone_ratio()),
    ];
    for (key, value) in own {
        if value.is_some() {
            numbers.entry(key.to_owned()).or_insert(value);
        }
    }
    for (target, result) in summary.goals.targets.iter().zip(judge::targets(summary)) {
        if let Some(key) = &target.key {
            let value = result.value.map(|value| value * target.key_factor);
            numbers.insert(key.clone(), value.filter(|value| value.is_finite()));
        }
    }
    numbers
}

fn profile_report(profile: &ProfileGoal, summary: &RunSummary) -> ProfileReport {
    let took = summary.testing_ms() / 1000.0;
    ProfileReport {
        name: profile.name.clone(),
        budget_s: profile.budget_s,
        within_budget: profile.budget_s.map(|budget| took <= budget),
    }
}

/// `name_unit`, unless the name says its unit or there is none.
fn metric_key(name: &str, unit: &str) -> String {
    let plain = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let (name, unit) = (plain(name), plain(unit));
    if unit.is_empty() || unit == "count" || name.ends_with(&format!("_{unit}")) {
        return name;
    }
    format!("{name}_{unit}")
}

fn machine_report(machine: &Machine) -> MachineReport {
    MachineReport {
        name: machine.name.clone(),
        boots: machine.boots.clone(),
        cold_boot_ms: machine.cold_boot_ms(),
        clones: stats::spread(&machine.clones_ms).map(|spread| clone_report(spread, machine.clone_ratio())),
    }
}

fn clone_report(spread: Spread, ratio: Option<f64>) -> CloneReport {
    CloneReport {
        count: spread.count as u64,
        median_ms: spread.median,
        p95_ms: spread.p95,
        max_ms: spread.max,
        ratio_to_cold_boot: ratio,
    }
}

fn scenario_report(scenario: &Scenario) -> ScenarioReport {
    let deciding = scenario.deciding();
    ScenarioReport {
        suite: scenario.suite.clone(),
        name: scenario.name.clone(),
        machine: scenario.machine.clone(),
        outcome: scenario.outcome(),
        duration_ms: whole(scenario.duration_ms()),
        reason: scenario.reason().map(str::to_owned),
        culprit: scenario.culprit(),
        failed_step: deciding.and_then(Attempt::failed_step).map(|step| step.name.clone()),
        console_excerpt: deciding
            .and_then(|attempt| attempt.findings.first())
            .map(|finding| finding.excerpt.clone())
            .unwrap_or_default(),
        capsule: deciding.and_then(|attempt| attempt.capsule.clone()),
        reproduce: deciding.and_then(|attempt| attempt.reproduce.clone()),
        attempts: scenario.attempts.iter().map(attempt_report).collect(),
    }
}

fn attempt_report(attempt: &Attempt) -> AttemptReport {
    AttemptReport {
        number: attempt.number,
        start: attempt.start,
        outcome: attempt.outcome,
        started_ms: attempt.started_us / 1000,
        duration_ms: whole(attempt.duration_ms),
        reason: attempt.reason.clone(),
        culprit: attempt.culprit,
        steps: attempt.steps.clone(),
        console_findings: attempt.findings.clone(),
        ledger: attempt.ledger.clone(),
        host_cpu_ms: attempt.host_cpu_ms,
    }
}

/// Milliseconds as a whole number; what is negative or not a number becomes 0.
fn whole(ms: f64) -> u64 {
    ms.round() as u64
}

#[cfg(test)]
pub(crate) mod tests;
