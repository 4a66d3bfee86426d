use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::*;
use crate::event::{EVENT_NAMES, Record};
use crate::fixture::{Stream, model_run};
use crate::fold;

/// The environment variable that makes the tests rewrite the committed schemas.
const BLESS: &str = "YAKIROS_BLESS";

fn schema_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema").join(name)
}

fn assert_schema_is_current(name: &str, generated: &schemars::Schema) {
    let path = schema_path(name);
    let text = serde_json::to_string_pretty(generated).unwrap() + "\n";
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{} differs from the types; run the tests with {BLESS}=1 to rewrite it",
        path.display()
    );
}

fn validator(name: &str) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema_path(name)).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Panics unless `report` is valid under the committed schema. Used by the tests of the fold as well.
#[track_caller]
pub fn assert_valid(report: &Value) {
    static VALIDATOR: std::sync::LazyLock<jsonschema::Validator> =
        std::sync::LazyLock::new(|| validator("report-v1.schema.json"));
    let errors: Vec<String> =
        VALIDATOR.iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn the_committed_schema_of_the_report_is_that_of_the_types() {
    // Writers promise every key.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    assert_schema_is_current(
        "report-v1.schema.json",
        &settings.into_generator().into_root_schema_for::<Report>(),
    );
}

#[test]
fn the_committed_schema_of_the_events_is_that_of_the_types() {
    // Readers accept lines of older writers, so what has a default may be missing.
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Record>();
    let variants = schema.pointer("/$defs/Event/oneOf").and_then(Value::as_array).unwrap();
    let names: Vec<&str> = variants.iter().filter_map(|one| one["required"][0].as_str()).collect();
    assert_eq!(names, EVENT_NAMES);
    assert_schema_is_current("events-v1.schema.json", &schema);
}

#[test]
fn reports_and_events_are_valid_under_their_schemas() {
    let records = model_run();
    let events = validator("events-v1.schema.json");
    for record in &records {
        let line = serde_json::to_value(record).unwrap();
        assert!(events.is_valid(&line), "{line}");
    }
    assert!(
        !events
            .is_valid(&json!({"schema": 1, "seq": 0, "t_us": 0, "wall": "", "event": {"log": {"level": 1}}}))
    );
    for end in [0, 1, 5, records.len() - 1, records.len()] {
        assert_valid(&serde_json::to_value(Report::new(&fold(&records[..end]))).unwrap());
    }
}

#[test]
fn the_report_has_the_keys_of_the_plan() {
    let report = serde_json::to_value(Report::new(&fold(&model_run()))).unwrap();
    assert_eq!(report["yakiros_version"], "0.1.0");
    assert_eq!(report["test_run_id"], "20261121-143010-7f3a");
    assert_eq!(
        report["vm_config"],
        json!({"machine": "alpine-512m-2cpu", "ram_mb": 512, "cpus": 2, "os": "Alpine Linux v3.23", "kernel": "6.18.2-0-virt"})
    );
    assert_eq!(
        report["test_results"],
        json!({
            "basic": {
                "passed": 1, "failed": 1, "skipped": 0, "flaky": 2, "infra_failed": 0, "duration_ms": 76_711,
                "reason": "orphan-is-reaped failed: process 123 is still a zombie 5 s after it exited, and PID 1 is \
                           asleep in do_wait (and 2 more)",
            },
            "hot_swap": {
                "passed": 0, "failed": 0, "skipped": 1, "flaky": 0, "infra_failed": 2, "duration_ms": 10,
                "reason": "no-gap infra_failed: QEMU ended with signal 9 (and 2 more)",
            },
        })
    );
    assert_eq!(
        report["performance_metrics"],
        json!({
            "yakiros_memory_kb": 1100.0,
            "restart_ms": 13.5,
            "cold_boot_ms": 2000.0,
            "clone_ms": 90.0,
            "clone_to_cold_boot_ratio": 0.045,
            "memory_mb": 1100.0 / 1024.0,
        })
    );
    assert_eq!(report["profile"], json!({"name": "ci", "budget_s": 60.0, "within_budget": false}));
    assert_eq!(report["success_criteria"]["functional"][0]["verdict"], "met");
    assert_eq!(report["targets"][3]["verdict"], "not_measured");
    assert_eq!(report["outcome"], "failed");
    assert_eq!(report["exit_code"], 1);
}

#[test]
fn a_failure_can_be_understood_from_the_report_alone() {
    let report = Report::new(&fold(&model_run()));
    let failed = &report.scenarios[1];
    assert_eq!(failed.failed_step.as_deref(), Some("wait until the orphan is reaped"));
    assert_eq!(failed.culprit, Some(Culprit::Supervisor));
    assert_eq!(failed.console_excerpt.len(), 10);
    assert_eq!(failed.reproduce.as_deref(), Some(crate::fixture::REPRODUCE));
    assert_eq!(failed.attempts.len(), 2);
    assert_eq!(failed.attempts[0].steps.len(), 2);
}

#[test]
fn a_report_comes_back_as_it_was_written() {
    let summary = fold(&model_run());
    let text = report_json(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), Report::new(&summary));
}

#[test]
fn suites_that_differ_only_in_dashes_are_counted_together() {
    let mut stream = Stream::default();
    for suite in ["hot-swap", "hot_swap"] {
        stream.start(suite, "one", 1);
        stream.finish(suite, "one", Outcome::Passed, 10.0, None);
    }
    let results = test_results(&fold(&stream.0));
    assert_eq!(results.len(), 1);
    assert_eq!((results["hot_swap"].passed, results["hot_swap"].duration_ms), (2, 20));
}

#[test]
fn metrics_are_called_by_name_and_unit() {
    let table = [
        ("restart", "ms", "restart_ms"),
        ("restart_ms", "ms", "restart_ms"),
        ("hot-swap gap", "ms", "hot_swap_gap_ms"),
        ("components", "count", "components"),
        ("ratio", "", "ratio"),
    ];
    for (name, unit, key) in table {
        assert_eq!(metric_key(name, unit), key);
    }
}
