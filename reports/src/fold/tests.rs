use proptest::prelude::*;

use super::*;
use crate::event::{
    Artifact, CloneReady, ConsoleFinding, Counts, Culprit, MachineOrigin, Metric, Outcome, Plan, RunStarted,
    StartKind, Step, UnknownEvent,
};
use crate::exit::{EXIT_FAILED, EXIT_INFRA, EXIT_PASSED, exit_code};
use crate::fixture::{EXPECTED, MACHINE, Stream, goals, model_run};
use crate::{SummaryOptions, junit_xml, report_json, summary};

#[test]
fn the_model_run_comes_to_what_the_model_says() {
    let summary = fold(&model_run());
    let scenarios: Vec<_> = summary
        .scenarios
        .iter()
        .map(|one| (one.suite.as_str(), one.name.as_str(), one.outcome(), one.culprit(), one.attempts.len()))
        .collect();
    assert_eq!(scenarios, EXPECTED);
    assert_eq!(summary.counts(), Counts { passed: 1, failed: 1, flaky: 2, skipped: 1, infra_failed: 2 });
    assert_eq!(exit_code(&summary), EXIT_FAILED);
    assert_eq!(summary.run.run_id, "20261121-143010-7f3a");
    assert_eq!(summary.duration_ms as u64, 84_250);
    assert_eq!(summary.machines[0].name, MACHINE);
    assert_eq!(summary.clone_ratio(), Some(0.045));
    assert_eq!(summary.messages.len(), 1);
    let failed = summary.scenarios[1].deciding().unwrap();
    assert_eq!(failed.failed_step().unwrap().name, "wait until the orphan is reaped");
    assert_eq!(summary.scenarios[2].reason(), Some("the last line is missing"));
}

#[test]
fn a_run_that_was_killed_is_reported_at_every_moment() {
    let records = model_run();
    for end in 0..records.len() {
        let summary = fold(&records[..end]);
        assert_ne!(exit_code(&summary), 0, "after {end} events");
        for scenario in
            summary.scenarios.iter().filter(|one| one.attempts.last().is_some_and(|last| !last.ended))
        {
            let attempt = scenario.attempts.last().unwrap();
            assert_eq!(attempt.outcome, Outcome::InfraFailed);
            assert_eq!(attempt.culprit, Some(Culprit::Harness));
            assert_eq!(attempt.reason.as_deref(), Some("the run ended before the scenario did"));
        }
    }
}

#[test]
fn the_attempt_that_decides() {
    use Outcome::{Failed, Flaky, InfraFailed, Passed, Skipped};
    let table: [(&[Outcome], Outcome, u32); 11] = [
        (&[Passed], Passed, 1),
        (&[Failed, Passed], Flaky, 1),
        (&[Failed, Failed, Passed], Flaky, 2),
        (&[Passed, Failed, Passed], Flaky, 2),
        (&[InfraFailed, Passed], Flaky, 1),
        (&[InfraFailed, Skipped], InfraFailed, 1),
        (&[Failed, InfraFailed], Failed, 1),
        (&[Failed, Skipped], Failed, 1),
        (&[Passed, Failed], Failed, 2),
        (&[InfraFailed, Failed], Failed, 2),
        (&[Flaky], Flaky, 1),
    ];
    for (attempts, outcome, deciding) in table {
        let mut stream = Stream::default();
        for (number, &outcome) in (1..).zip(attempts) {
            stream.start("basic", "one", number);
            stream.finish("basic", "one", outcome, 1.0, None);
        }
        let summary = fold(&stream.0);
        assert_eq!(summary.scenarios[0].outcome(), outcome, "{attempts:?}");
        assert_eq!(summary.scenarios[0].deciding().unwrap().number, deciding, "{attempts:?}");
    }
}

#[test]
fn a_scenario_that_goes_on_lasts_until_its_last_event() {
    let mut stream = Stream::default();
    stream.start("basic", "one", 1);
    stream.step("basic", "one", "first", Outcome::Passed);
    stream.step("basic", "one", "second", Outcome::Passed);
    stream.push(Event::log(Level::Info, "later"));
    let summary = fold(&stream.0);
    assert_eq!(summary.scenarios[0].duration_ms() as u64, 1000);
    assert_eq!(summary.duration_ms as u64, 1500);
    assert_eq!(exit_code(&summary), EXIT_INFRA);
}

#[test]
fn an_interrupted_run_is_not_green() {
    let mut stream = Stream::default();
    stream.start("basic", "one", 1);
    stream.finish("basic", "one", Outcome::Passed, 1.0, None);
    let closing = crate::closing(&fold(&stream.0), 2.0, true);
    assert_eq!(closing.exit_code, EXIT_INFRA);
    stream.push(Event::RunFinished(closing));
    assert_eq!(exit_code(&fold(&stream.0)), EXIT_INFRA);
}

#[test]
fn a_run_that_says_it_failed_is_not_turned_into_a_success() {
    let mut stream = Stream::default();
    stream.start("basic", "one", 1);
    stream.finish("basic", "one", Outcome::Passed, 1.0, None);
    let closing = RunFinished { exit_code: EXIT_INFRA, ..crate::closing(&fold(&stream.0), 2.0, false) };
    stream.push(Event::RunFinished(closing));
    assert_eq!(exit_code(&fold(&stream.0)), EXIT_INFRA);
}

#[test]
fn a_missed_bar_is_a_failure_that_the_closing_event_tells() {
    for (value, expected) in [(9.0, EXIT_PASSED), (11.0, EXIT_FAILED)] {
        let mut stream = Stream::default();
        // One of them has to be at most 10.
        stream.push(Event::Goals(goals()));
        stream.start("basic", "one", 1);
        let unit = "ms".into();
        stream.push(Event::Metric(Metric { name: "restart".into(), unit, value, ..Metric::default() }));
        stream.finish("basic", "one", Outcome::Passed, 1.0, None);
        let closing = crate::closing(&fold(&stream.0), 2.0, false);
        assert_eq!(closing.exit_code, expected, "{value}");
        stream.push(Event::RunFinished(closing));
        assert_eq!(exit_code(&fold(&stream.0)), expected, "{value}");
    }
}

/// Few names, so that events meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b-b".to_owned()), Just("b_b".to_owned()), ".{0,6}"]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    (0..Outcome::ALL.len()).prop_map(|place| Outcome::ALL[place])
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>().prop_filter("finite", |value| value.is_finite()), 0.0..1e6]
}

fn reason() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(".{0,200}")
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (name(), any::<Option<u64>>()).prop_map(|(run_id, seed)| Event::RunStarted(RunStarted {
            run_id,
            seed,
            ..Default::default()
        })),
        (name(), "[0-9a-f]{0,64}", any::<u64>()).prop_map(|(name, sha256, size_bytes)| {
            Event::Artifact(Artifact { name, sha256, size_bytes, ..Default::default() })
        }),
        proptest::collection::vec((name(), name(), name()), 0..5).prop_map(|list| {
            let planned = |(suite, name, machine)| PlannedScenario { suite, name, machine };
            Event::Plan(Plan { scenarios: list.into_iter().map(planned).collect(), ..Default::default() })
        }),
        (name(), any::<bool>(), number(), any::<u32>()).prop_map(|(machine, cold, ready_ms, cpus)| {
            let how = if cold { MachineOrigin::Cold } else { MachineOrigin::Saved };
            let kernel_release = machine.clone();
            let (os, boot_ms, memory_mb) = (None, ready_ms, 512);
            Event::MachineReady(MachineReady {
                machine,
                os,
                kernel_release,
                how,
                boot_ms,
                ready_ms,
                memory_mb,
                cpus,
            })
        }),
        (name(), number()).prop_map(|(machine, ms)| Event::CloneReady(CloneReady { machine, ms })),
        (name(), name(), any::<u32>()).prop_map(|(suite, name, attempt)| {
            let (machine, start) = (name.clone(), StartKind::Cold);
            Event::ScenarioStarted(ScenarioStarted { suite, name, machine, attempt, start })
        }),
        (name(), name(), number(), outcome()).prop_map(|(suite, scenario, t_ms, outcome)| {
            let (name, duration_ms) = (scenario.clone(), t_ms);
            Event::Step(Step { suite, scenario, name, t_ms, duration_ms, outcome })
        }),
        (name(), name(), number()).prop_map(|(name, unit, value)| Event::Metric(Metric {
            name,
            unit,
            value,
            ..Default::default()
        })),
        (reason(), reason(), proptest::collection::vec(".{0,99}", 0..12)).prop_map(
            |(suite, scenario, excerpt)| {
                Event::ConsoleFinding(ConsoleFinding { suite, scenario, excerpt, ..Default::default() })
            }
        ),
        ".{0,99}".prop_map(|message| Event::log(Level::Warn, message)),
        (name(), name(), outcome(), number(), reason()).prop_map(
            |(suite, name, outcome, duration_ms, reason)| {
                let (culprit, capsule, reproduce) = (Some(Culprit::Budget), reason.clone(), reason.clone());
                Event::ScenarioFinished(ScenarioFinished {
                    suite,
                    name,
                    outcome,
                    duration_ms,
                    reason,
                    culprit,
                    capsule,
                    reproduce,
                    host_cpu_ms: Some(duration_ms),
                })
            }
        ),
        (number(), any::<i32>(), any::<bool>()).prop_map(|(duration_ms, exit_code, interrupted)| {
            Event::RunFinished(RunFinished { duration_ms, exit_code, interrupted, ..Default::default() })
        }),
        name().prop_map(|name| Event::Unknown(UnknownEvent {
            name: format!("x{name}"),
            body: serde_json::Value::Null
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_in_any_order_make_reports(events in proptest::collection::vec((any::<u64>(), event()), 0..40)) {
        let mut stream = Stream::default();
        for (t_us, event) in events {
            stream.push(event);
            if let Some(last) = stream.0.last_mut() {
                last.t_us = t_us;
            }
        }
        let folded = fold(&stream.0);
        prop_assert_eq!(folded.counts().total() as usize, folded.scenarios.len());
        let report: serde_json::Value = serde_json::from_str(&report_json(&folded).unwrap()).unwrap();
        crate::report::tests::assert_valid(&report);
        junit_xml(&folded).unwrap();
        prop_assert!(summary(&folded, &SummaryOptions::default()).ends_with('\n'));
    }
}
