//! What `graphctl kexec --json` says.

use std::time::Duration;

use serde::Deserialize;
use yakiros_guest::protocol::ExitStatus;

use super::LOADED;
use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// All of it.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub ok: bool,
    pub phases: Vec<Phase>,
    pub taken_back: Vec<TakenBack>,
    pub took_ms: u64,
}

/// One phase.
#[derive(Debug, Deserialize)]
pub struct Phase {
    pub number: usize,
    pub name: String,
    pub ok: bool,
    pub detail: String,
    pub took_ms: u64,
    pub notes: Vec<Note>,
}

/// One thing that it found.
#[derive(Debug, Deserialize)]
pub struct Note {
    pub name: String,
    pub ok: bool,
    pub detail: String,
    pub fix: Option<String>,
}

/// One thing that was undone.
#[derive(Debug, Deserialize)]
pub struct TakenBack {
    pub what: String,
    pub error: Option<String>,
}

impl Report {
    /// What the first phase says of one thing.
    pub fn note(&self, name: &str) -> Result<&Note, Failure> {
        let notes = self.phases.first().map(|phase| &phase.notes);
        let found = notes.into_iter().flatten().find(|note| note.name == name);
        found.ok_or_else(|| Failure::supervisor(format!("the first phase says nothing of {name}: {self:?}")))
    }
}

/// Runs graphctl with these arguments and `--json`.
pub async fn run(vm: &Vm, arguments: &[&str], limit: Duration) -> Result<Report, Failure> {
    let argv = [&["graphctl", "--json"], arguments].concat();
    let output = vm.run(&argv, vm.limit(limit)).await?;
    let text = output.text();
    let report: Report = serde_json::from_str(&text).map_err(|error| {
        let said = output.error_text();
        Failure::supervisor(format!("`{}` printed no report: {error}: {text} {said}", argv.join(" ")))
    })?;
    let code = ExitStatus::Code(i32::from(!report.ok));
    check!(output.status == code, "it ended with {:?} and said {text}", output.status);
    Ok(report)
}

/// Runs what is to be refused in the first phase; gives what that says.
pub async fn refused(vm: &Vm, arguments: &[&str], limit: Duration) -> Result<Report, Failure> {
    let report = run(vm, arguments, limit).await?;
    check!(!report.ok, "`{}` was done: {report:?}", arguments.join(" "));
    check!(
        report.phases.len() == 1 && report.taken_back.is_empty(),
        "`{}` went further than looking: {report:?}",
        arguments.join(" ")
    );
    nothing_is_loaded(vm).await?;
    Ok(report)
}

/// No kernel is loaded.
pub async fn nothing_is_loaded(vm: &Vm) -> Result<(), Failure> {
    let loaded = vm.read(LOADED).await?;
    check!(loaded.trim() == "0", "{LOADED} is {}", loaded.trim());
    Ok(())
}
