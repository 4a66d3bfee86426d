//! Processes are written, ended and made again, by one worker, which keeps the sockets meanwhile on which they listen.
//!
//! To clients nothing is closed: who connects while no process is there waits in the queue of the kernel. When the
//! processes are there again they listen on sockets of their own at the same places, and what waits goes over to those
//! (`net.ipv4.tcp_migrate_req`, which is whoever gives the order's to set).
//!
//! From one kernel to another nothing can be kept so: there is the [`barrier`].

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::listeners::Listeners;
use super::restore::Making;
use super::{Done, dump, failed, named};
use crate::barrier::{self, Connections};
use crate::criu::{Known, Options};
use crate::order::{After, Dump, Ear, Event, Failure, Move, Step, Teller};

pub(super) fn carry_out<W: Write>(
    base: &Path,
    order: &Move,
    known: Option<&Known>,
    ear: &mut Ear,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let begun = Instant::now();
    // Clients in a queue stay there.
    let options = Options { skip_in_flight: true, ..order.dump.options.clone() };
    let dump = Dump { options, after: After::End, ..order.dump.clone() };
    let ready = dump::prepare(base, &dump, known, teller)?;
    let listeners = teller.step(Step::Preflight, || Listeners::keep(&ready.tree, &dump.given))?;
    // No disk is waited for while nobody serves.
    let (metadata, held) = ready.write(&dump, begun, true, teller)?;
    let checkpoint = teller.step(Step::Find, || ready.store.find(&dump.component, Some(&metadata.id)))?;
    drop(held);
    // Its bytes were hashed a moment ago by this very process, in a directory where nobody else comes.
    let making =
        Making { criu: &ready.criu, checkpoint: &checkpoint, metadata: &metadata, how: &order.restore };
    let made = teller
        .step(Step::Restore, || listeners.make_way())
        .and_then(|()| making.wait(ear, teller))
        .and_then(|()| making.make(&listeners, teller));
    drop(listeners);
    if made.is_err() {
        making.let_peers_go();
    }
    let pid = made?;
    // Who waits in these queues goes over to the processes when they are closed everywhere.
    making.let_go();
    teller.found(Step::Restore, Event::Restored { pid })?;
    teller.step(Step::Sync, || ready.store.sync(&checkpoint, &metadata))?;
    ready.retain(&dump, teller)?;
    let message = format!("moved {} by {} to process {pid}", dump.component, metadata.id);
    Ok((message, Some(named(&dump.component, &metadata.id))))
}

/// Have nothing arrive on connections that are carried over from another kernel, until their ends are there again.
pub(super) fn raise<W: Write>(list: &Path, limit: Duration, teller: &mut Teller<W>) -> Result<Done, Failure> {
    let count = teller.step(Step::Barrier, || -> Result<_, String> {
        let mut read = Connections::read(list).map_err(|error| failed("read", list, &error))?;
        // Who connects anew finds those that are there already, as their probes do and what is started beside them.
        read.ports.clear();
        barrier::raise(&read, limit).map_err(|error| format!("nf_tables: {error}"))?;
        Ok(read.pairs.len())
    })?;
    Ok((format!("{count} connections wait for their processes"), None))
}

/// Let it arrive.
pub(super) fn lower<W: Write>(teller: &mut Teller<W>) -> Result<Done, Failure> {
    let was_there =
        teller.step(Step::Barrier, || barrier::lower().map_err(|error| format!("nf_tables: {error}")))?;
    let message = if was_there { "connections go on" } else { "no connection waits" };
    Ok((message.to_owned(), None))
}
