//! The checkpoints that are kept: what each component would be restored from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use yakiros_checkpoint::store::{Outline, Store, StoreError};
use yakiros_core::analysis::Analysis;
use yakiros_core::control::{GraphNode, VERSION};
use yakiros_kexec::manifest::{self, Entry, Manifest};

use super::{absolute, figures, refused};
use crate::Failure;
use crate::client::Client;
use crate::clock::rfc3339;
use crate::output::{Output, count};
use crate::tables::{Cell, draw};

/// When a component is to be restored, by name: its layer in the graph.
pub fn priorities(nodes: &[GraphNode]) -> BTreeMap<String, u32> {
    let analysis = Analysis::new(nodes);
    let layers = analysis.layers().into_iter().zip(0..);
    layers.flat_map(|(names, layer)| names.into_iter().map(move |name| (name.to_owned(), layer))).collect()
}

/// `--list-checkpoints`.
pub fn list(dir: &Path, output: &Output) -> Result<ExitCode, Failure> {
    let entries = newest(&absolute(dir), &BTreeMap::new())?;
    if output.is_json() {
        Output::value(&json!({ "version": VERSION, "checkpoints": entries }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                Cell::plain(&entry.component_name),
                Cell::plain(&entry.checkpoint_id),
                Cell::plain(rfc3339(entry.timestamp.saturating_mul(1000))),
                Cell::plain(entry.original_pid.to_string()),
                Cell::plain(entry.checkpoint_path.display().to_string()),
            ]
        })
        .collect();
    let table = draw(&["COMPONENT", "CHECKPOINT", "TIME", "PID", "PATH"], &rows);
    Output::text(&format!("{table}Total: {}\n", count(entries.len(), "component")));
    Ok(ExitCode::SUCCESS)
}

/// `--create-manifest`.
pub fn create(
    file: &Path,
    dir: &Path,
    kernel: Option<&Path>,
    initrd: Option<&Path>,
    client: &mut Client,
    output: &Output,
) -> Result<ExitCode, Failure> {
    // The order is the graph's. Without a supervisor there is none, and any order will do.
    let order = client.graph().map_or_else(
        |_| {
            Output::note("no supervisor says in which order the components depend on each other");
            BTreeMap::new()
        },
        |nodes| priorities(&nodes),
    );
    let entries = newest(&absolute(dir), &order)?;
    let running = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let failed = |error: io::Error| refused(&format!("failed to write {}: {error}", file.display()));
    let jump = manifest::random().map_err(failed)?;
    let manifest = Manifest {
        version: manifest::VERSION,
        creation_time: chrono::Utc::now().timestamp(),
        old_kernel_version: super::machine::release(),
        new_kernel_path: kernel.map(absolute),
        initrd_path: initrd.map(absolute),
        cmdline: figures::command_line(&running, "", &jump),
        last_pid: figures::last_pid(),
        jump,
        entries,
    };
    manifest.write(file).map_err(failed)?;
    if output.is_json() {
        Output::value(&json!({ "version": VERSION, "file": file, "manifest": manifest }));
    } else {
        let entries = count(manifest.entries.len(), "component");
        let (file, argument, jump) = (file.display(), manifest::JUMP, &manifest.jump);
        Output::text(&format!(
            "{file}: a manifest of {entries}, for a kernel that is told {argument}{jump}\n"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest checkpoint of each component that is plainly usable, in the order of restoring.
fn newest(base: &Path, order: &BTreeMap<String, u32>) -> Result<Vec<Entry>, Failure> {
    let outlines = match Store::open(base) {
        Err(StoreError::Failed { error, .. }) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        store => store?.list(None)?,
    };
    let mut named = BTreeSet::new();
    let mut entries: Vec<Entry> = Vec::new();
    // Newest first, so the first of each is the one.
    for Outline { component, id, metadata, damage, .. } in outlines {
        let Some(metadata) = metadata.filter(|_| damage.is_none()) else { continue };
        if named.insert(component.clone()) {
            entries.push(Entry {
                checkpoint_path: base.join(&component).join(id.as_str()),
                checkpoint_id: id.as_str().to_owned(),
                original_pid: metadata.original_pid,
                timestamp: metadata.timestamp,
                restore_priority: order.get(&component).copied().unwrap_or_default(),
                component_name: component,
            });
        }
    }
    let key = |entry: &Entry| (entry.restore_priority, entry.component_name.clone());
    entries.sort_by_key(key);
    Ok(entries)
}
