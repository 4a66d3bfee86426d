use super::*;
use crate::event::{EventWriter, Outcome, Record};
use crate::exit::{EXIT_FAILED, exit_code};
use crate::fixture::model_run;

/// A run's folder whose event stream is cut off in the middle of a line.
fn killed_run(keep: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> =
        model_run().iter().map(|record: &Record| serde_json::to_string(record).unwrap()).collect();
    let torn = &lines[keep][..lines[keep].len() / 2];
    fs::write(folder.path().join(EVENTS_FILE), format!("{}\n{torn}", lines[..keep].join("\n"))).unwrap();
    folder
}

#[test]
fn a_killed_run_can_be_reported() {
    let records = model_run();
    let keep = records.len() / 2;
    let folder = killed_run(keep);
    let summary = rebuild(folder.path()).unwrap();
    assert_eq!(summary.scenarios, fold(&records[..keep]).scenarios);
    assert_eq!(exit_code(&summary), EXIT_FAILED);
    assert_eq!(summary.problems.len(), 1);
    assert!(summary.problems[0].contains("torn last line"), "{}", summary.problems[0]);
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join(REPORT_FILE)).unwrap()).unwrap();
    crate::report::tests::assert_valid(&report);
    assert_eq!(report["complete"], false);
    assert!(fs::read_to_string(folder.path().join(JUNIT_FILE)).unwrap().contains("<testsuites"));
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [EVENTS_FILE, JUNIT_FILE, HTML_FILE, REPORT_FILE, MARKDOWN_FILE]);
}

#[test]
fn a_rebuild_gives_what_the_run_gave() {
    let folder = tempfile::tempdir().unwrap();
    let writer = EventWriter::create(&folder.path().join(EVENTS_FILE)).unwrap();
    let mut live = RunSummary::default();
    for record in model_run() {
        live.apply(&writer.emit(record.event));
    }
    write_reports(folder.path(), &live).unwrap();
    let written = fs::read_to_string(folder.path().join(REPORT_FILE)).unwrap();
    assert_eq!(rebuild(folder.path()).unwrap(), live);
    assert_eq!(fs::read_to_string(folder.path().join(REPORT_FILE)).unwrap(), written);
    assert_eq!(live.counts().get(Outcome::Failed), 1);
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = rebuild(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to read {}", folder.path().join(EVENTS_FILE).display()));
    assert!(std::error::Error::source(&error).is_some());
    let gone = folder.path().join("gone");
    let error = write_reports(&gone, &RunSummary::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to write {}", gone.join(REPORT_FILE).display()));
}
