//! What would make a dump of a process tree fail, said before anything is frozen.
//!
//! What is known of the tree is read in one place and judged in another, by tables. What is found may have changed until
//! the dump: CRIU has the last word. Which of CRIU's switches the tree needs follows from the same look.

mod judge;
mod mounts;
mod network;
mod program;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::barrier::inode_of;
use crate::criu::Options;

pub use judge::judge;
pub use mounts::{Isolation, Mount, Seen};
pub use program::is_replaced;
pub(crate) use read::{is_same, keeps_files};
pub use read::{isolation, read, resident, resume, stop, written};

/// A process tree as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The first process, and all below it.
    pub processes: Vec<Process>,
    /// Sockets of its network namespace, by inode.
    pub sockets: BTreeMap<u64, Socket>,
    /// The mount namespace of whoever looks.
    pub mount_namespace: String,
    /// What is mounted there, if the first process has another.
    pub outside: Vec<Mount>,
    /// What is mounted in that.
    pub inside: Vec<Mount>,
    /// What the first process has for itself.
    pub isolation: Isolation,
    /// Interfaces of its network namespace, if it has one of its own.
    pub interfaces: Vec<String>,
    /// Where whoever looks finds the root directory of that, if it can be found.
    pub root: Option<PathBuf>,
    /// Paths of unix sockets that listen there, by inode.
    pub paths: BTreeMap<u64, PathBuf>,
}

impl Tree {
    /// The kinds of sockets that its processes have open.
    pub fn kinds(&self) -> BTreeSet<Socket> {
        let descriptors = self.processes.iter().flat_map(|process| &process.descriptors);
        descriptors.filter_map(|open| self.sockets.get(&inode_of(&open.target)?).copied()).collect()
    }
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The letter for its state.
    pub state: char,
    /// Who traces it, or 0.
    pub tracer: i32,
    /// Its session.
    pub session: i32,
    /// Whether a process with that number is there, in the tree or elsewhere.
    pub has_leader: bool,
    /// Its user namespace, as the kernel writes it.
    pub user_namespace: String,
    /// Its mount namespace, too.
    pub mount_namespace: String,
    /// What it has open.
    pub descriptors: Vec<Descriptor>,
    /// What it has mapped, where that is not ordinary.
    pub mappings: Vec<Mapping>,
}

/// Something open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is asked of the kernel, and none follows from another"
)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// What the kernel calls it: a path, `socket:[4711]`, `anon_inode:[eventfd]`.
    pub target: String,
    /// A character or block device.
    pub is_device: bool,
    /// A regular file that no directory has any more.
    pub is_unlinked: bool,
    /// Its size in bytes.
    pub size: u64,
    /// There is a lock on it, of whatever kind, that is held by it or by the process.
    pub is_locked: bool,
    /// It is the null device, whatever its name.
    pub is_null: bool,
    /// The mount through which it was opened, and its inode, of a process with a mount namespace of its own.
    pub place: Option<(u64, u64)>,
}

/// A part of the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: String,
    /// What is mapped, or nothing.
    pub name: String,
    /// It is memory of a device.
    pub is_device: bool,
    /// The mount through which the file was opened, of a process with a mount namespace of its own.
    pub mount: Option<u64>,
}

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Socket {
    /// With a connection that is up, or on its way.
    TcpConnected,
    /// That listens for connections of TCP.
    TcpListening,
    /// Any other of TCP.
    Tcp,
    /// Of UDP.
    Udp,
    /// Raw internet sockets.
    Raw,
    /// Unix sockets.
    Unix,
    /// Packet sockets.
    Packet,
    /// Netlink sockets.
    Netlink,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What is in the way.
    pub findings: Vec<Finding>,
    /// The switches that the tree needs.
    pub options: Options,
    /// How many processes were looked at.
    pub processes: usize,
}

/// Something that CRIU cannot dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which process has it.
    pub pid: i32,
    /// A descriptor, a part of its memory, or the process itself.
    pub what: String,
    /// Why it is in the way.
    pub why: String,
    /// What would help.
    pub fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, what, why, fix } = self;
        write!(f, "process {pid}, {what}: {why}; {fix}")
    }
}
