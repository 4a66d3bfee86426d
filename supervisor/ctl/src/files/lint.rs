//! `graphctl lint`: the supervisor's own reader of component files, without a supervisor.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use yakiros_core::component::{Component, Declared, check_together};
use yakiros_core::control::VERSION;
use yakiros_core::diagnostic::{Diagnostic, rules};
use yakiros_files::{DIRECTORY, Files, Loaded};

use super::arguments::Lint;
use super::programs;
use crate::Failure;
use crate::output::Output;

/// A file that was looked at.
struct Checked {
    /// Its path.
    file: String,
    /// Its text; empty if it could not be read.
    source: String,
    component: Option<Component>,
    findings: Vec<Diagnostic>,
}

/// Check every file; 1 when one has an error (or, if strict, a warning).
pub fn run(options: &Lint, output: &Output) -> Result<ExitCode, Failure> {
    let root = options.root.as_deref().unwrap_or(Path::new("/"));
    let (files, whole) = files(options, root)?;
    let mut checked: Vec<_> = files.iter().map(|(shown, path)| check(shown, path, root)).collect();
    if whole || checked.len() > 1 {
        add_common_findings(&mut checked);
    }
    for file in &mut checked {
        file.findings.sort_by_key(|d| (d.line, d.column));
    }
    let all = || checked.iter().flat_map(|file| &file.findings);
    let errors = all().filter(|finding| finding.is_error()).count();
    let warnings = all().count() - errors;
    if output.is_json() {
        let report = |file: &Checked| json!({"file": file.file, "diagnostics": file.findings});
        let reports: Vec<_> = checked.iter().map(report).collect();
        Output::value(&json!({"version": VERSION, "files": reports, "errors": errors, "warnings": warnings}));
    } else {
        print(&checked, errors, warnings);
    }
    // A build that checks the wrong directory must not pass for its emptiness.
    let failed = errors > 0 || (options.strict && (warnings > 0 || checked.is_empty()));
    Ok(ExitCode::from(u8::from(failed)))
}

/// The files to look at, and whether a whole directory is among them.
fn files(options: &Lint, root: &Path) -> Result<(Files, bool), Failure> {
    let default = [root.join(DIRECTORY.trim_start_matches('/'))];
    let paths = if options.paths.is_empty() { &default[..] } else { &options.paths };
    let mut files = Files::new();
    let mut whole = false;
    for path in paths {
        if path.is_dir() || options.paths.is_empty() {
            let found = yakiros_files::list(path).map_err(|error| {
                let message = format!("failed to read {}: {error}", path.display());
                Failure::Refused { message, near: Vec::new() }
            })?;
            files.extend(found);
            whole = true;
        } else {
            files.insert(path.to_string_lossy().into_owned(), path.clone());
        }
    }
    Ok((files, whole))
}

fn check(shown: &str, path: &Path, root: &Path) -> Checked {
    let file = shown.to_owned();
    let Some(Loaded { bytes, parsed }) = yakiros_files::load(path) else {
        let finding = Diagnostic::whole_file(&rules::UNREADABLE, "the file does not exist");
        return Checked { file, source: String::new(), component: None, findings: vec![finding] };
    };
    let source = String::from_utf8(bytes).unwrap_or_default();
    let mut findings = parsed.diagnostics;
    if let Some(component) = &parsed.component {
        findings.extend(programs::check(component, &source, root));
    }
    Checked { file, source, component: parsed.component, findings }
}

fn add_common_findings(checked: &mut [Checked]) {
    let declaring = || checked.iter().enumerate().filter(|(_, file)| file.component.is_some());
    let declared: Vec<_> = declaring()
        .filter_map(|(_, file)| {
            let Checked { file, source, component, .. } = file;
            component.as_ref().map(|component| Declared { file, source, component })
        })
        .collect();
    let positions: Vec<usize> = declaring().map(|(position, _)| position).collect();
    for (position, findings) in positions.into_iter().zip(check_together(&declared)) {
        checked[position].findings.extend(findings);
    }
}

fn print(checked: &[Checked], errors: usize, warnings: usize) {
    let colour = std::io::stdout().is_terminal();
    for Checked { file, source, findings, .. } in checked {
        for finding in findings {
            Output::text(&format!("{}\n\n", finding.render(file, source, colour)));
        }
    }
    if checked.is_empty() {
        return Output::text("no component files (*.toml) there\n");
    }
    let (files, errors) = (counted(checked.len(), "file"), counted(errors, "error"));
    Output::text(&format!("{files}: {errors}, {}\n", counted(warnings, "warning")));
}

/// `1 file`, `2 files`.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
