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
use crate::barrier::{self, Barrier, Connections};
use crate::criu::{Known, Options, has_nf_tables};
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

/// Have nothing arrive on connections that are carried over from another kernel, until the word comes that their ends are
/// there again. Whatever ends this process opens them.
pub(super) fn raise<W: Write>(
    list: &Path,
    limit: Duration,
    ear: &mut Ear,
    teller: &mut Teller<W>,
) -> Result<Done, Failure> {
    let (barrier, count) = teller.step(Step::Barrier, || -> Result<_, String> {
        let read = Connections::read(list).map_err(|error| failed("read", list, &error))?;
        let barrier = Barrier::raise(&read, limit).map_err(|error| format!("nf_tables: {error}"))?;
        Ok((barrier, read.pairs.len()))
    })?;
    teller.found(Step::Barrier, Event::Closed { count })?;
    // Who is not there any more wants nothing else.
    let told = ear.go(limit);
    drop(barrier);
    let how = told.err().map(|why| format!(", and nobody has said so: {why}")).unwrap_or_default();
    Ok((format!("{count} connections go on{how}"), None))
}

/// Let arrive what somebody has left closed who was on the way into another kernel and has come to nothing.
pub(super) fn lower<W: Write>(on_the_way: &Path, teller: &mut Teller<W>) -> Result<Done, Failure> {
    let was_there = teller.step(Step::Barrier, || -> Result<_, String> {
        // Where there are no nf_tables nothing is closed.
        if !has_nf_tables() {
            return Ok(false);
        }
        barrier::take_left_by_nobody(on_the_way).map_err(|error| format!("nf_tables: {error}"))
    })?;
    let message = if was_there { "what was left closed is open" } else { "nothing was left closed" };
    Ok((message.to_owned(), None))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::thread;

    use super::*;
    use crate::alone::alone;
    use crate::netfilter::tables;

    #[test]
    fn connections_are_closed_until_the_word_or_until_nobody_is_there_to_say_it() {
        alone(
            "worker::passage::tests::connections_are_closed_until_the_word_or_until_nobody_is_there_to_say_it",
            || {
                let folder = tempfile::tempdir().expect("a folder");
                let list = folder.path().join(barrier::FILE);
                fs::write(&list, Connections::default().to_bytes()).expect("a list");
                fs::set_permissions(&list, Permissions::from_mode(0o600)).expect("a mode");
                for (word, expected) in [
                    (&b"{}\n"[..], "0 connections go on"),
                    (b"", "0 connections go on, and nobody has said so"),
                ] {
                    let [(listens, mut speaks), (heard, says)] = [(); 2]
                        .map(|()| rustix::pipe::pipe().expect("a pipe"))
                        .map(|(from, to)| (File::from(from), File::from(to)));
                    let list = list.clone();
                    let worker = thread::spawn(move || {
                        raise(&list, Duration::from_secs(600), &mut Ear::new(listens), &mut Teller::new(says))
                    });
                    let mut lines = BufReader::new(heard).lines().map(|line| line.expect("a line"));
                    assert!(lines.any(|line| line.contains("\"closed\"")), "it ends before that");
                    // It stays so.
                    thread::sleep(Duration::from_millis(100));
                    assert_eq!(tables().expect("a list").len(), 1);
                    speaks.write_all(word).expect("it listens");
                    drop(speaks);
                    let (message, _) = worker.join().expect("its end").expect("done");
                    assert!(message.starts_with(expected), "{message}");
                    assert_eq!(tables().expect("a list").len(), 0);
                }
            },
        );
    }
}
