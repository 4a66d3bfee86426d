//! `inspect`: what really applies to a component's process, next to what its file asks for.
//!
//! Everything is read by this program from `/proc` and the control group; process 1 only says what is declared and which
//! process runs.

mod accounts;
mod aspects;
mod facts;
mod mounts;
mod processes;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::json;
use yakiros_core::control::{Answer, Declaration, Request, VERSION};

use crate::client::Client;
use crate::output::Output;
use crate::tables::{Cell, draw};
use crate::{Failure, unexpected};
use accounts::Accounts;
use aspects::{Aspect, Verdict};
use facts::Facts;

/// How often a process is looked for that is replaced while it is looked at. One that is more often than this is
/// restarted all the time.
const ATTEMPTS: usize = 5;

/// The control group of a component, of this path below the supervisor's, whose process has this number for the
/// supervisor, which has this one here.
pub fn group_of(pid: i32, supervisor: i32, declared: &str) -> Option<PathBuf> {
    let pid = processes::seen_from_here(pid, supervisor)?;
    facts::group(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?, declared)
}

/// Compare, print, and fail if there is a difference.
pub fn run(client: &mut Client, output: &Output, name: &str) -> Result<ExitCode, Failure> {
    let supervisor = client.supervisor()?;
    let broken = |what: String| {
        move |error: std::io::Error| Failure::Broken(format!("failed to read {what}: {error}"))
    };
    let place = PathBuf::from(format!("/proc/{supervisor}"));
    let own =
        facts::namespaces(&place).map_err(broken("the supervisor's namespaces (root may)".to_owned()))?;
    for _ in 0..ATTEMPTS {
        let shown = declaration(client, name)?;
        let Some(pid) = shown.pid else {
            return Err(no_process(client, name));
        };
        let Some(pid) = processes::seen_from_here(pid, supervisor) else { continue };
        // The first process of its namespace is the supervisor's, and waits for the program.
        let pid = if shown.component.isolation.init { processes::child(pid) } else { Some(pid) };
        let Some(facts) = pid.and_then(|pid| Facts::read(pid, &shown.component.cgroup()).ok()) else {
            continue;
        };
        let again = declaration(client, name)?;
        if (again.pid, again.freezer) != (shown.pid, shown.freezer) || !facts.is_current() {
            continue;
        }
        let mut aspects = aspects::compare(&shown.component, &facts, &own, &Accounts::read());
        aspects.extend(aspects::freezer(shown.freezer, &facts));
        return Ok(show(output, &shown, facts.pid, &aspects));
    }
    Err(Failure::Broken(format!("{name} had another process each time it was looked at")))
}

/// What a component is declared as.
pub fn declaration(client: &mut Client, name: &str) -> Result<Declaration, Failure> {
    match client.ask(Request::Declaration { name: name.to_owned() }, Duration::ZERO)? {
        Answer::Declaration(declaration) => Ok(*declaration),
        other => Err(unexpected(other)),
    }
}

/// There is nothing that anything could apply to. Why not is what the supervisor says of its state.
fn no_process(client: &mut Client, name: &str) -> Failure {
    let status = match client.status(Some(name)) {
        Ok(status) => status,
        Err(failure) => return failure,
    };
    let found = status.components.into_iter().next();
    let why = found.map(|one| match one.detail {
        Some(detail) => format!(": it is {}: {detail}", one.state),
        None => format!(": it is {}", one.state),
    });
    let message = format!("{name} has no process to inspect{}", why.unwrap_or_default());
    Failure::Refused { message, near: Vec::new() }
}

fn show(output: &Output, shown: &Declaration, pid: i32, aspects: &[Aspect]) -> ExitCode {
    let differences = aspects.iter().filter(|aspect| aspect.verdict == Verdict::Differs).count();
    if output.is_json() {
        Output::value(&json!({
            "version": VERSION,
            "component": shown.component.name,
            "pid": pid,
            "generation": shown.generation,
            "outdated": shown.outdated,
            "differences": differences,
            "aspects": aspects,
        }));
    } else {
        Output::text(&text(shown, pid, aspects));
    }
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn text(shown: &Declaration, pid: i32, aspects: &[Aspect]) -> String {
    let row = |aspect: &Aspect| {
        let dash = |text: &Option<String>| Cell::plain(text.clone().unwrap_or_else(|| "-".to_owned()));
        let (word, style) = match aspect.verdict {
            Verdict::Holds => ("holds", AnsiColor::Green.on_default()),
            Verdict::Differs => ("DIFFERS", AnsiColor::Red.on_default().bold()),
            Verdict::DoesWithout => ("does without", AnsiColor::Yellow.on_default()),
            Verdict::NotAsked => ("", Style::new()),
            Verdict::NotShown => ("not shown by the kernel", Style::new()),
        };
        vec![Cell::plain(&aspect.what), dash(&aspect.asked), dash(&aspect.applies), Cell::styled(word, style)]
    };
    let mut text = format!("{}: process {pid}, generation {}\n", shown.component.name, shown.generation);
    if let Some(key) = &shown.outdated {
        let _ = writeln!(text, "{key} was changed since it was started; the next start has it");
    }
    let rows: Vec<_> = aspects.iter().map(row).collect();
    text.push_str(&draw(&["ASPECT", "ASKED FOR", "APPLIES", ""], &rows));
    text
}
