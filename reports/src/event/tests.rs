use std::io::Cursor;

use serde_json::json;

use super::*;
use crate::fixture::model_run;

fn line(event: &serde_json::Value) -> String {
    json!({"schema": 1, "seq": 0, "t_us": 5, "wall": "2026-11-21T14:30:10.000000Z", "event": event})
        .to_string()
        + "\n"
}

fn read(text: &str) -> Log {
    read_log_from(Cursor::new(text)).unwrap()
}

#[test]
fn every_event_has_its_name_and_comes_back() {
    let mut names = std::collections::BTreeSet::new();
    for record in model_run() {
        let text = serde_json::to_string(&record).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["event"].get(record.event.name()).is_some(), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        names.insert(record.event.name().to_owned());
    }
    assert_eq!(names, EVENT_NAMES.iter().map(|&name| name.to_owned()).collect());
}

#[test]
fn names_are_those_of_the_stream() {
    for outcome in Outcome::ALL {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
    }
    for culprit in [
        Culprit::Supervisor,
        Culprit::Component,
        Culprit::GuestKernel,
        Culprit::Vmm,
        Culprit::Host,
        Culprit::Harness,
        Culprit::Budget,
    ] {
        assert_eq!(serde_json::to_value(culprit).unwrap(), culprit.name());
    }
}

#[test]
fn an_old_reader_ignores_new_fields_and_keeps_new_events() {
    let future = json!({"snapshot_saved": {"bytes": 7}});
    let text =
        line(&json!({"clone_ready": {"machine": "a", "ms": 80.0, "transport": "vsock"}})) + &line(&future);
    let log = read(&text);
    assert_eq!(log.problems, []);
    assert_eq!(log.records[0].event, Event::CloneReady(CloneReady { machine: "a".into(), ms: 80.0 }));
    assert_eq!(log.records[1].event.name(), "snapshot_saved");
    assert_eq!(serde_json::to_value(&log.records[1]).unwrap()["event"], future);
}

#[test]
fn a_new_reader_fills_in_what_old_writers_did_not_know() {
    let log = read(
        &(line(&json!({"run_started": {"run_id": "r", "version": "0.0.1"}}))
            + &line(&json!({"console_finding": {"class": "oops", "title": "t"}}))),
    );
    assert_eq!(log.problems, []);
    assert_eq!(
        log.records[0].event,
        Event::RunStarted(RunStarted {
            run_id: "r".into(),
            version: "0.0.1".into(),
            ..RunStarted::default()
        })
    );
}

#[test]
fn a_torn_last_line_is_reported_and_everything_before_it_is_read() {
    let whole = line(&json!({"log": {"level": "info", "message": "ä"}}));
    for cut in 1..whole.len() - 1 {
        let bytes = [whole.as_bytes(), &whole.as_bytes()[..cut]].concat();
        let log = read_log_from(Cursor::new(bytes)).unwrap();
        assert_eq!(log.records.len(), 1, "cut at {cut}");
        assert_eq!(log.problems.len(), 1, "cut at {cut}");
        assert!(log.problems[0].torn && log.problems[0].line == 2, "cut at {cut}");
    }
}

#[test]
fn a_bad_line_costs_only_itself() {
    let good = line(&json!({"log": {"level": "info", "message": "m"}}));
    let bad = [
        ("not json\n".to_owned(), "expected"),
        (line(&json!({"log": {"level": "shout", "message": "m"}})), "shout"),
        (line(&json!({"log": {}, "step": {}})), "one key"),
        (line(&json!({})), "one key"),
        (good.replace("\"schema\":1", "\"schema\":2"), "schema version 2"),
        ("x".repeat(MAX_LINE_BYTES + 10) + "\n", "longer than"),
    ];
    for (bad, expected) in bad {
        let log = read(&format!("{good}\n{bad}{good}"));
        assert_eq!(log.records.len(), 2);
        assert_eq!(log.problems.len(), 1);
        let problem = &log.problems[0];
        assert!(problem.line == 3 && !problem.torn && problem.message.contains(expected), "{problem}");
    }
}

#[test]
fn the_problems_of_a_file_that_is_no_stream_are_bounded() {
    assert_eq!(read(&"x\n".repeat(1000)).problems.len(), 100);
}

#[test]
fn run_ids_sort_by_time_and_differ() {
    let id = new_run_id();
    let parts: Vec<&str> = id.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 6, 4], "{id}");
    let ids: std::collections::BTreeSet<String> = (0..10).map(|_| new_run_id()).collect();
    assert!(ids.len() > 1);
}

#[test]
fn durations_are_milliseconds() {
    assert!((ms(Duration::from_nanos(1_234_567)) - 1.234).abs() < 1e-9);
}
