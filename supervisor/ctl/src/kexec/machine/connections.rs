//! What the services are connected with: from the moment before the first of them is written down until all are there again
//! below the next kernel, nothing is to arrive on that.

use std::io;
use std::time::Duration;

use yakiros_checkpoint::barrier::{self, Connections};
use yakiros_checkpoint::criu::has_nf_tables;
use yakiros_core::engine::HOLD_LIMIT;
use yakiros_kexec::phases::{Note, Service};

use super::files;
use crate::client::Client;
use crate::inspect;

/// For process 1 to end everything else, from the word to execute the kernel: components have ten seconds each to stop where
/// they declare no longer, those that others need after those, and then the disks a minute and a half.
const END_LIMIT: Duration = Duration::from_secs(300);

/// The services' connections as they are now.
pub fn of(client: &mut Client, services: &[Service]) -> io::Result<Connections> {
    let supervisor = client.supervisor().ok();
    let pids = services.iter().flat_map(|Service { component, pid, .. }| {
        let group = supervisor.and_then(|own| inspect::group_of(*pid, own, component));
        files::processes(group.as_deref(), *pid)
    });
    Connections::of(pids.filter_map(|pid| pid.parse().ok()))
}

/// Have nothing arrive from now on. It ends by itself when the services go on by themselves.
pub fn close(connections: &Connections) -> Result<(), String> {
    raise(connections, HOLD_LIMIT)
}

/// The same until the kernel is executed.
pub fn close_for_good(connections: &Connections) -> Result<(), String> {
    raise(connections, END_LIMIT)
}

fn raise(connections: &Connections, limit: Duration) -> Result<(), String> {
    match barrier::raise(connections, limit) {
        // Without connections there is nothing that could be lost.
        Err(error) if !connections.pairs.is_empty() => {
            Err(format!("what is sent to the services meanwhile would be lost: nf_tables: {error}"))
        }
        _ => Ok(()),
    }
}

/// Let it arrive again.
pub fn open() -> Result<(), String> {
    if !has_nf_tables() {
        return Ok(());
    }
    barrier::lower().map(drop).map_err(|error| format!("connections are kept waiting: nf_tables: {error}"))
}

/// What becomes of connections.
pub fn note() -> Note {
    let detail = if has_nf_tables() {
        "what is sent to the services meanwhile waits"
    } else {
        "there are no nf_tables, so no service may have a connection"
    };
    Note { name: "connections".to_owned(), ok: true, detail: detail.to_owned(), fix: None }
}
