//! `graphctl lint`: the supervisor's own reader of component files, without a supervisor.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use yakiros_core::component::{FILE_LIMIT, parse_bytes};
use yakiros_core::control::VERSION;
use yakiros_core::diagnostic::{Diagnostic, rules};

use crate::output::{Output, count};

/// Check every file; 1 when one has an error (or, if strict, a warning).
pub fn run(files: &[PathBuf], strict: bool, output: &Output) -> ExitCode {
    let mut names: BTreeMap<String, &Path> = BTreeMap::new();
    let mut reports = Vec::new();
    let (mut errors, mut warnings) = (0_usize, 0_usize);
    for file in files {
        let (source, mut findings, name) = check(file);
        if let Some(name) = name
            && let Some(first) = names.insert(name.clone(), file)
        {
            let (first, second) = (first.display(), file.display());
            let message = format!("component {name:?} is declared by {first} and by {second}");
            findings.push(Diagnostic::whole_file(&rules::DUPLICATE_NAME, message));
        }
        errors += findings.iter().filter(|d| d.is_error()).count();
        warnings += findings.iter().filter(|d| !d.is_error()).count();
        let shown = file.display().to_string();
        if output.is_json() {
            reports.push(json!({"file": shown, "diagnostics": findings}));
            continue;
        }
        let colour = std::io::stdout().is_terminal();
        for finding in &findings {
            Output::text(&format!("{}\n\n", finding.render(&shown, &source, colour)));
        }
    }
    if output.is_json() {
        let value = json!({"version": VERSION, "files": reports, "errors": errors, "warnings": warnings});
        Output::value(&value);
    } else {
        let (errors, warnings) = (count(errors, "error"), count(warnings, "warning"));
        Output::text(&format!("{}: {errors}, {warnings}\n", count(files.len(), "file")));
    }
    let failed = errors > 0 || (strict && warnings > 0);
    ExitCode::from(u8::from(failed))
}

/// The text of a file, its findings, and the name it declares.
fn check(file: &Path) -> (String, Vec<Diagnostic>, Option<String>) {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(FILE_LIMIT + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let message = format!("failed to read the file: {error}");
        let finding = Diagnostic::whole_file(&rules::UNREADABLE, message);
        return (String::new(), vec![finding], None);
    }
    let parsed = parse_bytes(&bytes);
    let source = String::from_utf8(bytes).unwrap_or_default();
    let name = parsed.component.map(|component| component.name);
    (source, parsed.diagnostics, name)
}
