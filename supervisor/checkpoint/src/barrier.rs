//! Connections whose ends are carried over to another kernel, one after the other: what is sent on them meanwhile does not
//! arrive, and is sent again.
//!
//! Before the first end is written down nothing may arrive any more: what one end has taken after it was written is lost to
//! it, and the other has forgotten it. Before the first end is made again nothing may arrive either: there is nobody for it,
//! and the kernel answers with a reset. So [`raise`] has the kernel drop what comes for these connections, until [`lower`].
//! TCP sends it again.
//!
//! Who wants to begin a connection to one of the ports on which the processes listen waits as well until the jump, and is not
//! refused. Afterwards ports are open: probes of what is there already must not fail, and what is started beside may need it.
//!
//! It is a table of nf_tables, with sets whose elements the kernel itself removes when their time is over: whoever was to
//! lower it and does not come to that keeps nobody waiting for longer.

mod rules;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::netfilter::remove_table;

/// Its name beside the manifest of a jump.
pub const FILE: &str = "connections.json";
/// Most connections of one: a hundred thousand take the kernel twenty megabytes.
const PAIRS_LIMIT: usize = 100_000;
/// The largest file that is read, in bytes: as many, each with two addresses.
const FILE_LIMIT: u64 = 16 << 20;
/// Most bytes of the kernel's table of sockets: some hundred thousand.
const TABLE_LIMIT: u64 = 64 << 20;
/// Write permission of the group or of others.
const OTHERS_WRITE: u32 = 0o022;
/// States of a socket in the kernel's table: nothing yet, or not any more; and one that listens.
const CLOSED: &str = "07";
const LISTENS: &str = "0A";
/// Columns of that table.
const LOCAL: usize = 1;
const REMOTE: usize = 2;
const STATE: usize = 3;
const INODE: usize = 9;

/// Of some processes: what they are connected with, and where they listen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Their ends, and the others' (which may be theirs as well).
    pub pairs: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Ports on which they listen, on whatever address.
    pub ports: BTreeSet<u16>,
}

impl Connections {
    /// Those of these processes, by TCP, in this process's network namespace. What has ended has none.
    ///
    /// # Errors
    /// Those of reading the kernel's tables, and more connections than are kept.
    pub fn of(pids: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let own = fs::read_link("/proc/self/ns/net")?;
        let mut inodes = BTreeSet::new();
        for pid in pids {
            let folder = Path::new("/proc").join(pid.to_string());
            if fs::read_link(folder.join("ns/net")).ok().as_ref() != Some(&own) {
                continue;
            }
            for descriptor in fs::read_dir(folder.join("fd")).into_iter().flatten().flatten() {
                let link = fs::read_link(descriptor.path()).unwrap_or_default();
                inodes.extend(link.to_str().and_then(inode_of));
            }
        }
        let mut found = Self::default();
        for name in ["tcp", "tcp6"] {
            let mut table = String::new();
            match File::open(Path::new("/proc/self/net").join(name)) {
                Ok(file) => drop(file.take(TABLE_LIMIT).read_to_string(&mut table)?),
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            found.add(&table, &inodes);
        }
        if found.pairs.len() > PAIRS_LIMIT {
            return Err(io::Error::other(format!("there are more than {PAIRS_LIMIT} connections")));
        }
        Ok(found)
    }

    /// What a table of the kernel's says of the sockets with these inodes.
    fn add(&mut self, table: &str, inodes: &BTreeSet<u64>) {
        for line in table.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let word = |at: usize| words.get(at).copied().unwrap_or_default();
            if !word(INODE).parse().is_ok_and(|inode| inodes.contains(&inode)) {
                continue;
            }
            let (Some(local), Some(remote)) = (address(word(LOCAL)), address(word(REMOTE))) else { continue };
            match word(STATE) {
                CLOSED => {}
                LISTENS => drop(self.ports.insert(local.port())),
                _ => drop(self.pairs.insert((local, remote))),
            }
        }
    }

    /// As it is written down.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Read what was written down. It has to be this user's own, with nobody else allowed to write to it.
    ///
    /// # Errors
    /// Those of reading it, and what is wrong with it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let status = file.metadata()?;
        if !status.is_file() || status.uid() != geteuid().as_raw() || status.mode() & OTHERS_WRITE != 0 {
            return Err(io::Error::other("it is not this user's own file, or others may write to it"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_LIMIT).read_to_end(&mut bytes)?;
        let read: Self = serde_json::from_slice(&bytes)?;
        if read.pairs.len() > PAIRS_LIMIT {
            return Err(io::Error::other(format!("it has more than {PAIRS_LIMIT} connections")));
        }
        Ok(read)
    }
}

/// Have nothing arrive on these connections, and nobody connect to these ports, for so long at most. What was raised before
/// is lowered.
///
/// # Errors
/// Those of the kernel, as where it has no nf_tables; then everything arrives.
pub fn raise(connections: &Connections, limit: Duration) -> io::Result<()> {
    let parts = rules::elements(connections);
    // All at once, as far as one message has room.
    let (first, rest) = parts.split_at(parts.len().min(rules::AT_ONCE));
    let table = first.iter().fold(rules::table(limit), rules::add);
    let raised = table.send().and_then(|()| rest.iter().try_for_each(rules::send));
    if raised.is_err() {
        // A part of it would be no use to anybody.
        let _ = lower();
    }
    raised
}

/// The same for these as well, as long as for those before.
///
/// # Errors
/// Those of the kernel.
pub fn more(connections: &Connections) -> io::Result<()> {
    rules::elements(connections).iter().try_for_each(rules::send)
}

/// Let everything arrive again. Whether there was anything in its way.
///
/// # Errors
/// Those of the kernel.
pub fn lower() -> io::Result<bool> {
    remove_table(rules::TABLE)
}

/// Of `socket:[4711]`.
pub(crate) fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Of `0100007F:1F90`: the address as it lies in memory, in numbers of four bytes. IPv4 may be written as IPv6.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests;
