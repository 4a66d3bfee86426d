//! Writes the reports of a run's folder, and makes them again from its event stream.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::event::read_log;
use crate::fold::fold;
use crate::html::html;
use crate::junit::junit_xml;
use crate::markdown::markdown;
use crate::model::RunSummary;
use crate::report::report_json;

/// The event stream in the folder of a run.
pub const EVENTS_FILE: &str = "events.jsonl";
/// The report in the folder of a run.
pub const REPORT_FILE: &str = "report.json";
/// The JUnit file in the folder of a run.
pub const JUNIT_FILE: &str = "junit.xml";

/// The page in the folder of a run.
pub const HTML_FILE: &str = "report.html";
/// The summary for CI services in the folder of a run.
pub const MARKDOWN_FILE: &str = "summary.md";

/// Why the reports of a run could not be made.
#[derive(Debug)]
pub struct RebuildError {
    path: PathBuf,
    kind: RebuildErrorKind,
}

/// That of whichever library writes a form.
type EncodeError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong with the file.
#[derive(Debug)]
enum RebuildErrorKind {
    Read(io::Error),
    Encode(EncodeError),
    Write(io::Error),
}

impl std::fmt::Display for RebuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            RebuildErrorKind::Read(_) => "read",
            RebuildErrorKind::Encode(_) => "encode",
            RebuildErrorKind::Write(_) => "write",
        };
        write!(f, "failed to {what} {}", self.path.display())
    }
}

impl std::error::Error for RebuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            RebuildErrorKind::Read(error) | RebuildErrorKind::Write(error) => Some(error),
            RebuildErrorKind::Encode(error) => Some(error.as_ref()),
        }
    }
}

/// Reads the event stream in `folder` and writes the reports beside it, see [`write_reports`].
///
/// Works for a run that was killed: its scenarios that did not end are infrastructure failures. Lines that cannot be
/// read are named in [`RunSummary::problems`]. The event stream is not changed.
pub fn rebuild(folder: &Path) -> Result<RunSummary, RebuildError> {
    let path = folder.join(EVENTS_FILE);
    let log = read_log(&path).map_err(|error| RebuildError { path, kind: RebuildErrorKind::Read(error) })?;
    let mut summary = fold(&log.records);
    summary.problems.extend(log.problems.iter().map(|problem| format!("{EVENTS_FILE}: {problem}")));
    write_reports(folder, &summary)?;
    Ok(summary)
}

/// Writes `report.json`, `junit.xml`, `report.html` and `summary.md` into `folder`. A reader sees the old file or the new one, never a half one.
pub fn write_reports(folder: &Path, summary: &RunSummary) -> Result<(), RebuildError> {
    let encoded: [(&str, Result<String, EncodeError>); 4] = [
        (REPORT_FILE, report_json(summary).map_err(Into::into)),
        (JUNIT_FILE, junit_xml(summary).map_err(Into::into)),
        (HTML_FILE, Ok(html(summary, Some(folder)))),
        (MARKDOWN_FILE, Ok(markdown(summary))),
    ];
    for (name, text) in encoded {
        let path = folder.join(name);
        let error = |kind| RebuildError { path: path.clone(), kind };
        let text = text.map_err(|source| error(RebuildErrorKind::Encode(source)))?;
        replace(&path, &text).map_err(|source| error(RebuildErrorKind::Write(source)))?;
    }
    Ok(())
}

/// Writes a file beside `path` and moves it there.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // The process id keeps two rebuilds of one folder apart.
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests;
