use super::*;
use crate::event::{Metric, read_log};

#[test]
fn events_come_back_as_they_were_emitted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let writer = EventWriter::create(&path).unwrap();
    let records: Vec<Record> =
        (0..3).map(|n| writer.emit(Event::log(Level::Info, format!("{n}\n\u{1}ä")))).collect();
    let log = read_log(&path).unwrap();
    assert_eq!(log.records, records);
    assert_eq!(log.problems, []);
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[test]
fn an_existing_file_is_not_overwritten() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = EventWriter::create(file.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn threads_write_whole_lines_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let writer = EventWriter::create(&path).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope
                .spawn(|| (0..200).for_each(|n| drop(writer.emit(Event::log(Level::Debug, format!("{n}"))))));
        }
    });
    let log = read_log(&path).unwrap();
    assert_eq!(log.problems, []);
    assert!(log.records.iter().map(|record| record.seq).eq(0..1600));
    assert!(log.records.is_sorted_by_key(|record| record.t_us));
}

#[test]
fn a_long_string_is_cut_on_a_character_and_marked() {
    let mut text = "ä".repeat(100);
    cut(&mut text, 51);
    assert_eq!(text, format!("{} … [200 bytes in all]", "ä".repeat(14)));
    assert!(text.len() <= 51);
    let mut short = "as it is".to_owned();
    cut(&mut short, 51);
    assert_eq!(short, "as it is");
}

#[test]
fn no_line_is_longer_than_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let writer = EventWriter::create(&path).unwrap();
    let finding = |lines: usize, length: usize| {
        Event::ConsoleFinding(crate::event::ConsoleFinding {
            class: "panic".into(),
            excerpt: vec!["\u{1}".repeat(length); lines],
            ..Default::default()
        })
    };
    let metric =
        |samples| Event::Metric(Metric { samples: Some(vec![0.123_456_789; samples]), ..Default::default() });
    for event in [finding(1, 2 << 20), finding(10_000, 300), finding(200_000, 10), metric(500_000)] {
        writer.emit(event);
    }
    let log = read_log(&path).unwrap();
    assert_eq!(log.problems, []);
    let names: Vec<&str> = log.records.iter().map(|record| record.event.name()).collect();
    assert_eq!(
        names,
        ["console_finding", "console_finding", "console_finding", "metric"],
        "cut, not dropped"
    );
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        assert!(line.len() < MAX_LINE_BYTES, "{} bytes", line.len());
    }
}

#[test]
fn a_metric_that_json_cannot_hold_becomes_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let writer = EventWriter::create(&folder.path().join("events.jsonl")).unwrap();
    for (value, samples) in [(f64::NAN, None), (f64::INFINITY, None), (1.0, Some(vec![1.0, f64::NAN]))] {
        let metric = Metric { name: "gap".into(), value, samples, ..Default::default() };
        let record = writer.emit(Event::Metric(metric));
        assert!(
            matches!(record.event, Event::Log(log) if log.level == Level::Warn && log.message.contains("gap"))
        );
    }
}

#[test]
fn a_full_disk_is_counted_and_does_not_panic() {
    let writer = EventWriter::from_file(OpenOptions::new().append(true).open("/dev/full").unwrap());
    writer.emit(Event::log(Level::Info, "lost"));
    writer.emit(Event::log(Level::Info, "lost too"));
    assert_eq!(writer.errors(), 2);
    assert!(writer.state.lock().unwrap().torn);
}

#[test]
fn a_line_after_half_a_line_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let writer = EventWriter::create(&path).unwrap();
    {
        let mut state = writer.state.lock().unwrap();
        state.file.write_all(b"{\"schema\":1,\"se").unwrap();
        state.torn = true;
    }
    let records: Vec<Record> = (0..2).map(|n| writer.emit(Event::log(Level::Info, format!("{n}")))).collect();
    let log = read_log(&path).unwrap();
    assert_eq!(log.records, records);
    assert_eq!(log.problems.len(), 1);
}
