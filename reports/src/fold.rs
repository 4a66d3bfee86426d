//! Folds the event stream into a [`RunSummary`].
//!
//! Any sequence of events is accepted: what is missing, repeated or out of order leaves gaps in the summary, never a
//! panic. Unknown events change nothing.

use crate::event::{
    Event, Level, LogMessage, MachineReady, PlannedScenario, Record, RunFinished, ScenarioFinished,
    ScenarioStarted,
};
use crate::model::{Attempt, Machine, RunSummary, Scenario};

/// The summary of a run, or of its part that was recorded.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> RunSummary {
    let mut summary = RunSummary::default();
    for record in records {
        summary.apply(record);
    }
    summary
}

impl RunSummary {
    /// Takes in one more event.
    pub fn apply(&mut self, record: &Record) {
        let t_us = record.t_us;
        self.started_at.get_or_insert_with(|| record.wall.clone());
        if self.ended.is_none() {
            self.duration_ms = self.duration_ms.max(t_us as f64 / 1000.0);
        }
        match &record.event {
            Event::RunStarted(run) => self.run = run.clone(),
            Event::Artifact(artifact) => self.artifacts.push(artifact.clone()),
            Event::Plan(plan) => {
                self.testing_since_us.get_or_insert(t_us);
                for PlannedScenario { suite, name, machine } in &plan.scenarios {
                    self.scenario(suite, name).machine.clone_from(machine);
                }
                self.left_out.extend(plan.left_out.iter().cloned());
            }
            Event::Goals(goals) => self.goals = goals.clone(),
            Event::MachineReady(ready) => self.machine_ready(ready),
            Event::CloneReady(clone) => self.machine(&clone.machine).clones_ms.push(clone.ms),
            Event::ScenarioStarted(started) => self.scenario_started(started, t_us),
            Event::Step(step) => self.attempt(&step.suite, &step.scenario, t_us).steps.push(step.clone()),
            Event::Metric(metric) => self.metrics.push(metric.clone()),
            Event::Series(series) => self.series.push(series.clone()),
            Event::CrashPoint(point) => self.crash_points.push(point.clone()),
            Event::Ledger(ledger) => {
                self.attempt(&ledger.suite, &ledger.scenario, t_us).ledger = Some(ledger.clone());
            }
            Event::ConsoleFinding(finding) => match (&finding.suite, &finding.scenario) {
                (Some(suite), Some(name)) => self.attempt(suite, name, t_us).findings.push(finding.clone()),
                _ => self.findings.push(finding.clone()),
            },
            Event::Log(message) => self.message(message),
            Event::ScenarioFinished(finished) => self.scenario_finished(finished, t_us),
            Event::RunFinished(finished) => self.run_finished(finished),
            Event::Unknown(_) => {}
        }
    }

    fn machine_ready(&mut self, ready: &MachineReady) {
        self.machine(&ready.machine).boots.push(ready.clone());
    }

    fn scenario_started(&mut self, started: &ScenarioStarted, t_us: u64) {
        let scenario = self.scenario(&started.suite, &started.name);
        scenario.machine.clone_from(&started.machine);
        scenario.attempts.push(Attempt::begin(started.attempt, Some(started.start), t_us));
    }

    fn scenario_finished(&mut self, finished: &ScenarioFinished, t_us: u64) {
        let scenario = self.scenario(&finished.suite, &finished.name);
        if scenario.attempts.last().is_none_or(|last| last.ended) {
            let number = scenario.attempts.len() as u32 + 1;
            scenario.attempts.push(Attempt::begin(number, None, t_us));
        }
        let attempt = self.attempt(&finished.suite, &finished.name, t_us);
        attempt.ended = true;
        attempt.outcome = finished.outcome;
        attempt.duration_ms = finished.duration_ms;
        attempt.reason.clone_from(&finished.reason);
        attempt.culprit = finished.culprit;
        attempt.capsule.clone_from(&finished.capsule);
        attempt.reproduce.clone_from(&finished.reproduce);
        attempt.host_cpu_ms = finished.host_cpu_ms;
    }

    fn run_finished(&mut self, finished: &RunFinished) {
        self.duration_ms = finished.duration_ms;
        self.ended = Some(finished.clone());
    }

    fn message(&mut self, message: &LogMessage) {
        if message.level <= Level::Warn {
            self.messages.push(message.clone());
        }
    }

    fn machine(&mut self, name: &str) -> &mut Machine {
        let place = self.machines.iter().position(|machine| machine.name == name).unwrap_or_else(|| {
            self.machines.push(Machine { name: name.to_owned(), ..Machine::default() });
            self.machines.len() - 1
        });
        &mut self.machines[place]
    }

    fn scenario(&mut self, suite: &str, name: &str) -> &mut Scenario {
        let place = *self.places.entry((suite.to_owned(), name.to_owned())).or_insert_with(|| {
            self.scenarios.push(Scenario {
                suite: suite.to_owned(),
                name: name.to_owned(),
                ..Scenario::default()
            });
            self.scenarios.len() - 1
        });
        &mut self.scenarios[place]
    }

    /// The attempt that goes on (or the last one), which lasts at least until now.
    fn attempt(&mut self, suite: &str, name: &str, t_us: u64) -> &mut Attempt {
        let attempts = &mut self.scenario(suite, name).attempts;
        if attempts.is_empty() {
            attempts.push(Attempt::begin(1, None, t_us));
        }
        let last = attempts.len() - 1;
        let attempt = &mut attempts[last];
        if !attempt.ended {
            attempt.duration_ms = t_us.saturating_sub(attempt.started_us) as f64 / 1000.0;
        }
        attempt
    }
}

#[cfg(test)]
mod tests;
