//! Connections whose ends are carried over to another kernel, one after the other: what is sent on them meanwhile does not
//! arrive, and is sent again.
//!
//! Before the first end is written down nothing may arrive any more: what one end has taken after it was written is lost to
//! it, and the other has forgotten it. Before the first end is made again nothing may arrive either: there is nobody for it,
//! and the kernel answers with a reset. So a [`Barrier`] has the kernel drop what comes for these connections, as long as it is
//! there. TCP sends it again.
//!
//! Who wants to begin a connection to a place where the processes listen waits as well until the jump, and is not refused.
//! Afterwards these places are open: probes of what is there already must not fail, and what is started beside may need it.
//! What the processes themselves begin meanwhile nothing keeps from it: one looks again ([`Barrier::more`]).
//!
//! It is a table of nf_tables that belongs to a socket: the kernel removes it when that is closed, however its owner ends,
//! and lets nobody else change it, which `nft flush ruleset` leaves alone. The elements of its sets have their time as well.
//! Only from the word to execute another kernel on is there one without an owner ([`leave`]), for the owner is ended then.

mod connections;
mod rules;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::netfilter::{self, Batch, remove_table};

pub use connections::Connections;

/// The name of the list of connections beside the manifest of a jump.
pub const FILE: &str = "connections.json";
/// The directory that is locked by who is on the way into another kernel.
pub const ON_THE_WAY: &str = "/run/graph";

/// The table's name.
const TABLE: &str = "yakiros-jump";
/// That of the one that outlasts who has raised it.
const LEFT: &str = "yakiros-jump-left";
/// That of one that closes nothing.
const TRIAL: &str = "yakiros-jump-trial";

/// Connections are closed as long as it is there.
#[derive(Debug)]
pub struct Barrier {
    /// The table's owner.
    socket: OwnedFd,
    closed: Connections,
}

impl Barrier {
    /// Have nothing arrive on these connections, and nobody connect to these places, for so long at most.
    ///
    /// # Errors
    /// Those of the kernel, as where it has no nf_tables, or where somebody else has one; then everything arrives.
    pub fn raise(connections: &Connections, limit: Duration) -> io::Result<Self> {
        let socket = netfilter::open()?;
        // A part of it would be no use to anybody: it is gone with the socket.
        build(TABLE, Some(&socket), connections, limit)?;
        Ok(Self { socket, closed: connections.clone() })
    }

    /// What is closed.
    pub fn closed(&self) -> &Connections {
        &self.closed
    }

    /// The same for what there is beyond it by now, as long as for what was closed before. How many connections these are.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn more(&mut self, now: &Connections) -> io::Result<usize> {
        let new = now.beyond(&self.closed);
        for part in rules::elements(&new) {
            rules::add(Batch::new(), TABLE, &part).send_by(&self.socket)?;
        }
        let count = new.pairs.len();
        self.closed.extend(new);
        Ok(count)
    }

    /// A connection among these that is not closed, and how many more there are.
    pub fn open(&self, now: &Connections) -> Option<((SocketAddr, SocketAddr), usize)> {
        let open = now.beyond(&self.closed).pairs;
        open.first().map(|first| (*first, open.len() - 1))
    }
}

/// Whether there is one, whoever has raised it.
pub fn is_raised() -> bool {
    netfilter::tables().is_ok_and(|tables| tables.contains(TABLE))
}

/// The same without an owner: it stays when this process ends, until the kernel does, or until that time is over. One that
/// was left before is replaced.
///
/// # Errors
/// See [`Barrier::raise`].
pub fn leave(connections: &Connections, limit: Duration) -> io::Result<()> {
    build(LEFT, None, connections, limit).inspect_err(|_| drop(take_left()))
}

/// Take away what was left. Whether there was anything.
///
/// # Errors
/// Those of the kernel.
pub fn take_left() -> io::Result<bool> {
    remove_table(LEFT)
}

/// The same, unless somebody is on the way into another kernel, by the directory that is locked then.
///
/// # Errors
/// Those of the kernel.
pub fn take_left_by_nobody(on_the_way: &Path) -> io::Result<bool> {
    // Who is there is not kept from it by another who looks: that one has ended in a moment.
    let directory = File::open(on_the_way)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => take_left(),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// See whether the kernel would do it. Nothing is closed.
///
/// # Errors
/// See [`Barrier::raise`].
pub fn try_out() -> io::Result<()> {
    let socket = netfilter::open()?;
    build(TRIAL, Some(&socket), &Connections::default(), Duration::from_secs(1))
}

/// All at once, as far as one batch has room for it, and the rest after that.
fn build(table: &str, owner: Option<&OwnedFd>, connections: &Connections, limit: Duration) -> io::Result<()> {
    let send = |batch: Batch| match owner {
        Some(socket) => batch.send_by(socket),
        None => batch.send(),
    };
    let parts = rules::elements(connections);
    let (first, rest) = parts.split_at(parts.len().min(rules::AT_ONCE));
    let whole = rules::table(table, owner.is_some(), limit);
    send(first.iter().fold(whole, |batch, part| rules::add(batch, table, part)))?;
    rest.iter().try_for_each(|part| send(rules::add(Batch::new(), table, part)))
}

/// Of `socket:[4711]`.
pub(crate) fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests;
