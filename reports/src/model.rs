//! What is known about a run after some or all of its events: the common ground of all reports.
//!
//! The summary is complete at every moment. A scenario that has not ended (yet) counts as an infrastructure failure of
//! the harness, so a run that was killed reports itself without a closing step.

use std::collections::HashMap;

use crate::event::{
    Artifact, ConsoleFinding, Counts, CrashPoint, Culprit, Goals, Ledger, LeftOut, LogMessage, MachineOrigin,
    MachineReady, Metric, Outcome, RunFinished, RunStarted, Series, StartKind, Step,
};
use crate::stats::{self, Spread};

/// The reason of a scenario that began and did not end.
const NOT_ENDED: &str = "the run ended before the scenario did";

/// The reason of a scenario that was planned and never began.
const NOT_STARTED: &str = "the run ended before the scenario began";

/// Everything that the events of a run say. Made by [`fold`](crate::fold()).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSummary {
    /// Where, when and with what the run began; empty when that event is missing.
    pub run: RunStarted,
    /// Wall clock of the first event, RFC 3339.
    pub started_at: Option<String>,
    /// Length of the run in milliseconds: as it says at its end, else up to the last event.
    pub duration_ms: f64,
    /// Microseconds from the run's start to its plan, with which the preparation is over.
    pub testing_since_us: Option<u64>,
    /// What was booted or put into the guest.
    pub artifacts: Vec<Artifact>,
    /// The machines, in the order of their first use.
    pub machines: Vec<Machine>,
    /// The scenarios, in the order of the plan.
    pub scenarios: Vec<Scenario>,
    /// All numbers that were measured.
    pub metrics: Vec<Metric>,
    /// Numbers over time.
    pub series: Vec<Series>,
    /// What the run is judged by beside its scenarios; empty when no event says.
    pub goals: Goals,
    /// What the profile leaves out.
    pub left_out: Vec<LeftOut>,
    /// What came of faults in the middle of upgrades.
    pub crash_points: Vec<CrashPoint>,
    /// What the console showed outside of scenarios.
    pub findings: Vec<ConsoleFinding>,
    /// Warnings and errors of the harness.
    pub messages: Vec<LogMessage>,
    /// The end of the run; nothing when it was killed or still goes on.
    pub ended: Option<RunFinished>,
    /// What could not be read, and what the reports could not contain.
    pub problems: Vec<String>,
    /// Place of each scenario in `scenarios`, by suite and name.
    pub(crate) places: HashMap<(String, String), usize>,
}

/// A machine and all times at which it, or a clone of it, came up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Each time it was booted or restored.
    pub boots: Vec<MachineReady>,
    /// For each clone the time to its first answer, in milliseconds.
    pub clones_ms: Vec<f64>,
}

/// A scenario with all its attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// The suite.
    pub suite: String,
    /// The name, unique in the suite.
    pub name: String,
    /// The machine it runs on; empty when no event says.
    pub machine: String,
    /// The attempts, in order; none for a scenario that never began.
    pub attempts: Vec<Attempt>,
}

/// An attempt at a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Number, from 1.
    pub number: u32,
    /// From a clone or a cold boot; nothing for an attempt that ended without a beginning (a skip).
    pub start: Option<StartKind>,
    /// Microseconds since the run started, for the beginning.
    pub started_us: u64,
    /// True when the attempt came to its end.
    pub ended: bool,
    /// How it ended; an infrastructure failure until then.
    pub outcome: Outcome,
    /// Its length in milliseconds, up to its last event.
    pub duration_ms: f64,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// Who is to blame.
    pub culprit: Option<Culprit>,
    /// Folder with everything known about the failure.
    pub capsule: Option<String>,
    /// The command that runs it again.
    pub reproduce: Option<String>,
    /// The steps that ended.
    pub steps: Vec<Step>,
    /// What the console showed.
    pub findings: Vec<ConsoleFinding>,
    /// What there was in the guest before and after.
    pub ledger: Option<Ledger>,
    /// For how long its guest was on a processor of the host or waited for one, in milliseconds, as far as that was seen.
    pub host_cpu_ms: Option<f64>,
}

impl RunSummary {
    /// How many scenarios ended in which way.
    pub fn counts(&self) -> Counts {
        self.scenarios.iter().map(Scenario::outcome).collect()
    }

    /// The names of the suites, in the order of the plan.
    pub fn suites(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for scenario in &self.scenarios {
            if !names.contains(&scenario.suite.as_str()) {
                names.push(&scenario.suite);
            }
        }
        names
    }

    /// The scenarios of one suite.
    pub fn suite<'a>(&'a self, suite: &'a str) -> impl Iterator<Item = &'a Scenario> {
        self.scenarios.iter().filter(move |scenario| scenario.suite == suite)
    }

    /// From the plan to the end: the run without its preparation, in milliseconds.
    pub fn testing_ms(&self) -> f64 {
        (self.duration_ms - self.testing_since_us.unwrap_or_default() as f64 / 1000.0).max(0.0)
    }

    /// True when the user, or a signal, ended the run early.
    pub fn interrupted(&self) -> bool {
        self.ended.as_ref().is_some_and(|end| end.interrupted)
    }

    /// The spread of the times that clones of all machines took to their first answer.
    pub fn clones(&self) -> Option<Spread> {
        let all: Vec<f64> =
            self.machines.iter().flat_map(|machine| machine.clones_ms.iter().copied()).collect();
        stats::spread(&all)
    }

    /// The median time to the agent's first answer of all cold boots, in milliseconds.
    pub fn cold_boot_ms(&self) -> Option<f64> {
        let all: Vec<f64> = self.machines.iter().flat_map(Machine::cold_boots_ms).collect();
        stats::median(&all)
    }

    /// The median of the clones as a share of the median cold boot. With several machines the one that does worst: each
    /// is compared with its own cold boots.
    pub fn clone_ratio(&self) -> Option<f64> {
        self.machines.iter().filter_map(Machine::clone_ratio).max_by(f64::total_cmp)
    }
}

impl Machine {
    /// The times from the start of QEMU to the agent's first answer of the boots that were cold, in milliseconds.
    pub fn cold_boots_ms(&self) -> impl Iterator<Item = f64> {
        self.boots.iter().filter(|boot| boot.how == MachineOrigin::Cold).map(|boot| boot.boot_ms)
    }

    /// The median of [`cold_boots_ms`](Self::cold_boots_ms).
    pub fn cold_boot_ms(&self) -> Option<f64> {
        stats::median(&self.cold_boots_ms().collect::<Vec<_>>())
    }

    /// The median of the clones as a share of the median cold boot of this machine in this run.
    pub fn clone_ratio(&self) -> Option<f64> {
        let ratio = stats::median(&self.clones_ms)? / self.cold_boot_ms()?;
        // A cold boot of no time has no ratio.
        ratio.is_finite().then_some(ratio)
    }
}

impl Scenario {
    /// `suite/name`, as the command line takes it.
    pub fn id(&self) -> String {
        format!("{}/{}", self.suite, self.name)
    }

    /// How the scenario ended, all attempts taken together.
    pub fn outcome(&self) -> Outcome {
        self.verdict().0
    }

    /// The attempt that decided; nothing when the scenario never began.
    pub fn deciding(&self) -> Option<&Attempt> {
        self.verdict().1
    }

    /// Why it did not pass.
    pub fn reason(&self) -> Option<&str> {
        self.deciding().map_or(Some(NOT_STARTED), |attempt| attempt.reason.as_deref())
    }

    /// Who is to blame.
    pub fn culprit(&self) -> Option<Culprit> {
        self.deciding().map_or(Some(Culprit::Harness), |attempt| attempt.culprit)
    }

    /// The length of all attempts together, in milliseconds.
    pub fn duration_ms(&self) -> f64 {
        self.attempts.iter().fold(0.0, |sum: f64, attempt| sum + attempt.duration_ms.max(0.0)).min(f64::MAX)
    }

    /// The last attempt decides, but no later attempt wipes out what went wrong: a pass after it is flaky, and an attempt
    /// that says nothing leaves a failure standing.
    fn verdict(&self) -> (Outcome, Option<&Attempt>) {
        let Some((last, earlier)) = self.attempts.split_last() else {
            return (Outcome::InfraFailed, None);
        };
        let failure =
            earlier.iter().rfind(|attempt| matches!(attempt.outcome, Outcome::Failed | Outcome::Flaky));
        let unsaid = earlier.iter().rfind(|attempt| attempt.outcome == Outcome::InfraFailed);
        match (last.outcome, failure, unsaid) {
            (Outcome::Passed, Some(wrong), _) | (Outcome::Passed, None, Some(wrong)) => {
                (Outcome::Flaky, Some(wrong))
            }
            (Outcome::InfraFailed | Outcome::Skipped, Some(failure), _) => (Outcome::Failed, Some(failure)),
            (Outcome::Skipped, None, Some(unsaid)) => (Outcome::InfraFailed, Some(unsaid)),
            (outcome, ..) => (outcome, Some(last)),
        }
    }
}

impl Attempt {
    /// An attempt that begins.
    pub(crate) fn begin(number: u32, start: Option<StartKind>, started_us: u64) -> Self {
        Self {
            number,
            start,
            started_us,
            ended: false,
            outcome: Outcome::InfraFailed,
            duration_ms: 0.0,
            reason: Some(NOT_ENDED.to_owned()),
            culprit: Some(Culprit::Harness),
            capsule: None,
            reproduce: None,
            steps: Vec::new(),
            findings: Vec::new(),
            ledger: None,
            host_cpu_ms: None,
        }
    }

    /// The last step that did not pass, or nothing when all did.
    pub fn failed_step(&self) -> Option<&Step> {
        self.steps.iter().rfind(|step| !matches!(step.outcome, Outcome::Passed | Outcome::Skipped))
    }
}
