//! Checkpoints: they are made and used by the supervisor. Kept they are files, about which nobody is asked.

pub mod arguments;
mod supervised;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::json;
use yakiros_checkpoint::archive::{self, ArchiveError};
use yakiros_checkpoint::probe::{Feature, Found, KEPT, Report, Verdict};
use yakiros_checkpoint::store::{Outline, Policy, Store, StoreError};
use yakiros_checkpoint::worker;
use yakiros_core::control::VERSION;

use crate::Failure;
use crate::client::Client;
use crate::clock::rfc3339;
use crate::output::{Output, count};
use crate::tables::{Cell, draw};
use arguments::{CheckpointCommand, Cleanup, Make, Migrate, Place};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused { message: error.to_string(), near: Vec::new() }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        Self::Refused { message: error.to_string(), near: Vec::new() }
    }
}

/// Carry out a command.
pub fn run(command: &CheckpointCommand, client: &mut Client, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        CheckpointCommand::Checkpoint(Make { name: Some(name), hold, timeout, .. }) => {
            supervised::make(client, output, name, *hold, *timeout)?;
        }
        CheckpointCommand::Checkpoint(Make { criu, .. }) => {
            return Ok(check(&Report::known(criu, Path::new(KEPT)), output));
        }
        CheckpointCommand::Continue => supervised::go_on(client, output)?,
        CheckpointCommand::Restore(wanted) => supervised::restore(client, output, wanted)?,
        CheckpointCommand::CheckpointList { name, place } => list(place, name.as_deref(), output)?,
        CheckpointCommand::CheckpointRm { name, id, place } => {
            Store::open(&place.dir)?.remove(name, id)?;
            if output.is_json() {
                Output::value(&json!({ "version": VERSION, "component": name, "id": id }));
            } else {
                Output::text(&format!("removed {name} {id}\n"));
            }
        }
        CheckpointCommand::CheckpointCleanup(wanted) => cleanup(wanted, output)?,
        CheckpointCommand::Migrate(wanted) => migrate(wanted, output)?,
        CheckpointCommand::CheckpointUsage { place } => usage(place, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// None if nothing was ever kept there.
fn open(place: &Place) -> Result<Option<Store>, Failure> {
    match Store::open(&place.dir) {
        Err(StoreError::Failed { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn check(report: &Report, output: &Output) -> ExitCode {
    let usable = report.is_usable();
    if output.is_json() {
        let Report { criu, features, .. } = report;
        Output::value(&json!({ "version": VERSION, "usable": usable, "criu": criu, "features": features }));
    } else {
        Output::text(&check_text(report));
    }
    if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check_text(report: &Report) -> String {
    let rows = report.features.iter().map(|Feature { name, purpose, required, verdict }| {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        let (word, style, more) = match verdict {
            Verdict::Supported => ("yes", colour(AnsiColor::Green), purpose.clone()),
            Verdict::Missing { why, help } => {
                let (word, bad) =
                    if *required { ("MISSING", AnsiColor::Red) } else { ("no", AnsiColor::Yellow) };
                (word, colour(bad), format!("{purpose}: {why}; {help}"))
            }
        };
        vec![Cell::plain(name), Cell::styled(word, style), Cell::plain(more)]
    });
    let head = match &report.criu {
        Some(Found { path, version }) => format!("CRIU {version} at {}\n", path.display()),
        None => "no CRIU\n".to_owned(),
    };
    let tail = if report.is_usable() {
        "Checkpoints can be made here.\n"
    } else {
        "No checkpoints can be made here.\n"
    };
    head + &draw(&["FEATURE", "THERE", "FOR"], &rows.collect::<Vec<_>>()) + tail
}

fn list(place: &Place, name: Option<&str>, output: &Output) -> Result<(), Failure> {
    let outlines = match open(place)? {
        Some(store) => store.list(name)?,
        None => Vec::new(),
    };
    if output.is_json() {
        Output::value(&json!({ "version": VERSION, "checkpoints": outlines }));
    } else {
        Output::text(&list_text(&outlines));
    }
    Ok(())
}

fn list_text(outlines: &[Outline]) -> String {
    let rows = outlines.iter().map(|outline| {
        let Outline { component, id, bytes, metadata, damage } = outline;
        let dash = || "-".to_owned();
        let made = metadata.as_ref();
        vec![
            Cell::plain(component),
            Cell::plain(id.as_str()),
            Cell::plain(rfc3339(id.micros() / 1000)),
            Cell::plain(bytes.to_string()),
            Cell::plain(made.map_or_else(dash, |metadata| metadata.original_pid.to_string())),
            Cell::plain(made.map_or_else(dash, |metadata| metadata.kernel.clone())),
            Cell::plain(damage.as_deref().unwrap_or("usable")),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let table = draw(&["COMPONENT", "ID", "TIME", "BYTES", "PID", "KERNEL", "VERDICT"], &rows);
    format!("{table}Total: {}\n", count(outlines.len(), "checkpoint"))
}

fn cleanup(wanted: &Cleanup, output: &Output) -> Result<(), Failure> {
    let policy = Policy { per_component: wanted.keep, quota: wanted.quota, max_age: wanted.max_age };
    let (swept, removed) = match open(&wanted.place)? {
        Some(store) => (worker::sweep(&store)?, store.retain(&policy, None)?),
        None => (worker::Swept::default(), Vec::new()),
    };
    if output.is_json() {
        let worker::Swept { removed: half_made, others_at_work } = &swept;
        Output::value(&json!({
            "version": VERSION, "removed": removed, "half_made": half_made, "others_at_work": others_at_work,
        }));
        return Ok(());
    }
    let bytes: u64 = removed.iter().filter(|removed| !removed.in_use).map(|removed| removed.size).sum();
    for removed in &removed {
        let what = if removed.in_use { "in use " } else { "removed" };
        Output::text(&format!("{what} {} {}\n", removed.component, removed.id));
    }
    let gone = removed.iter().filter(|removed| !removed.in_use).count();
    Output::text(&sum(gone, bytes, &swept));
    Ok(())
}

fn sum(gone: usize, bytes: u64, swept: &worker::Swept) -> String {
    let (gone, half) = (count(gone, "checkpoint"), swept.removed.len());
    let left = if swept.others_at_work {
        "Others are at work on checkpoints: what is half made was left alone. Do it again when they have ended.\n"
    } else {
        ""
    };
    format!("Removed: {gone} with {bytes} bytes, and {half} half made\n{left}")
}

fn migrate(wanted: &Migrate, output: &Output) -> Result<(), Failure> {
    let (component, id, path) = match wanted {
        Migrate { from: Some(from), quota, place, .. } => {
            let (component, id) = archive::import_from(&Store::make(&place.dir)?, from, *quota)?;
            (component, id, from)
        }
        Migrate { name: Some(name), id, to: Some(to), place, .. } => {
            let checkpoint = Store::open(&place.dir)?.find(name, id.as_ref())?;
            archive::export_to(&checkpoint, to)?;
            (name.clone(), checkpoint.id().clone(), to)
        }
        // The arguments do not allow it.
        Migrate { .. } => {
            let message = "say where to, or where from".to_owned();
            return Err(Failure::Refused { message, near: Vec::new() });
        }
    };
    let bytes = path.metadata().map_or(0, |status| status.len());
    if output.is_json() {
        Output::value(
            &json!({ "version": VERSION, "component": component, "id": id, "file": path, "bytes": bytes }),
        );
    } else {
        let what = if wanted.from.is_some() { "took in" } else { "wrote" };
        let way = if wanted.from.is_some() { "from" } else { "to" };
        Output::text(&format!("{what} {component} {id} {way} {}, {bytes} bytes\n", path.display()));
    }
    Ok(())
}

fn usage(place: &Place, output: &Output) -> Result<(), Failure> {
    let (usage, free) = match open(place)? {
        Some(store) => (store.usage()?, Some(store.room()?)),
        None => (Vec::new(), None),
    };
    let bytes: u64 = usage.iter().map(|usage| usage.bytes).sum();
    if output.is_json() {
        Output::value(&json!({ "version": VERSION, "components": usage, "bytes": bytes, "free": free }));
        return Ok(());
    }
    let rows = usage.iter().map(|usage| {
        let numbers = [usage.checkpoints.to_string(), usage.bytes.to_string()];
        std::iter::once(Cell::plain(&usage.component)).chain(numbers.map(Cell::plain)).collect()
    });
    let free = free.map_or(String::new(), |free| format!(", {free} bytes free"));
    let table = draw(&["COMPONENT", "CHECKPOINTS", "BYTES"], &rows.collect::<Vec<_>>());
    Output::text(&format!("{table}Total: {bytes} bytes{free}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use yakiros_checkpoint::probe::{Help, Key};

    use super::*;

    #[test]
    fn what_is_missing_is_shown_with_what_would_help() {
        let feature = |name: &str, required, verdict| Feature {
            name: name.to_owned(),
            purpose: "processes with sockets".to_owned(),
            required,
            verdict,
        };
        let missing = |help| Verdict::Missing { why: "No such file or directory".to_owned(), help };
        let features = vec![
            feature("rights", true, Verdict::Supported),
            feature("netfilter-netlink", true, missing(Help::Module("nfnetlink".to_owned()))),
            feature("dirty-tracking", false, missing(Help::Option("CONFIG_MEM_SOFT_DIRTY".to_owned()))),
        ];
        let report = Report { key: Key::now(Path::new("criu")), criu: None, features };
        insta::assert_snapshot!(anstream::adapter::strip_str(&check_text(&report)));
    }

    #[test]
    fn that_others_are_at_work_is_told() {
        let mut swept = worker::Swept { removed: vec!["/k/web/.new-1".into()], others_at_work: false };
        assert_eq!(sum(2, 30, &swept), "Removed: 2 checkpoints with 30 bytes, and 1 half made\n");
        swept = worker::Swept { removed: Vec::new(), others_at_work: true };
        let said = sum(0, 0, &swept);
        assert!(said.contains("0 half made\nOthers are at work") && said.contains("left alone"), "{said}");
    }
}
