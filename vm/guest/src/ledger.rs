//! What there is in a guest, as the agent counts it: the facts of the conservation ledger.
//!
//! Facts only: whose a thing is, and whether there is one too many, is for the host to judge. Everything comes from the
//! kernel (`/proc`, `/sys/fs/cgroup`), so it holds whatever process 1 believes. It is not taken at one moment: who compares
//! two of them does so at rest, and looks again before something is called lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything that was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// All processes, by number.
    pub processes: Vec<Process>,
    /// What process 1 has open, by number.
    pub descriptors: Vec<Descriptor>,
    /// Files that process 1 has the kernel tell of (inotify).
    pub watches: Vec<Watch>,
    /// Control groups below the root, as paths without a slash at the start, sorted.
    pub groups: Vec<String>,
    /// Mounts of each distinct mount namespace, that of process 1 first.
    pub mounts: Vec<Mounts>,
    /// Sockets of each distinct network namespace.
    pub sockets: Vec<Socket>,
    /// What is in `/run` and `/tmp`, sorted. At most [`MAX_FILES`].
    pub files: Vec<File>,
    /// Names of the tables of nf_tables, sorted.
    pub tables: Vec<String>,
    /// The kernel's release: after a jump it may be another.
    pub release: String,
    /// POSIX timers of process 1; none where the kernel does not tell.
    pub posix_timers: u64,
    /// What the kernel itself holds, by name: `slab_kb` (SUnreclaim), `dying_groups`, and objects in its caches as
    /// `cache.task_struct`. A kernel that does not tell lacks the name.
    pub kernel: BTreeMap<String, u64>,
}

/// Files that are told at most, so that a scenario that makes a million does not make a million lines.
pub const MAX_FILES: usize = 4096;

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Clock ticks from boot to its start: with the number the process's identity.
    pub started: u64,
    /// Its short name.
    pub name: String,
    /// The letter of its state; `Z` for a zombie.
    pub state: char,
    /// A thread of the kernel.
    pub of_kernel: bool,
    /// The agent, or of a session that the agent began.
    pub of_agent: bool,
    /// Its control group as in [`Ledger::groups`]; empty for the root.
    pub group: String,
    /// Inodes of its namespaces by kind: `mnt`, `pid`, `net`, `uts`, `ipc`, `user`, `cgroup`, `time`.
    pub namespaces: BTreeMap<String, u64>,
    /// The `NOTIFY_SOCKET` that it was given at its start, for children of process 1 in a group.
    pub notify_socket: Option<String>,
}

/// One descriptor of process 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// What it is.
    pub kind: DescriptorKind,
    /// Where it leads, as the kernel's link says: a path, `pipe:[123]`.
    pub target: String,
    /// Pipes and sockets: other processes that have the same one open.
    pub holders: Vec<i32>,
    /// A pidfd: of whom, -1 when that one is gone.
    pub pid: Option<i32>,
    /// A timer that is set.
    pub armed: bool,
}

/// Kinds of descriptors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DescriptorKind {
    /// A file or directory with a name.
    #[default]
    File,
    /// memfd_create(2).
    Memfd,
    /// pipe(2).
    Pipe,
    /// socket(2).
    Socket,
    /// epoll_create(2).
    Epoll,
    /// eventfd(2).
    Eventfd,
    /// timerfd_create(2).
    Timerfd,
    /// signalfd(2).
    Signalfd,
    /// inotify_init(2).
    Inotify,
    /// pidfd_open(2).
    Pidfd,
    /// A namespace of `/proc/*/ns`.
    Namespace,
    /// Another one without a name.
    Other,
}

/// One file that process 1 has the kernel tell of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// It is on the file system of control groups.
    pub of_groups: bool,
    /// A file of a control group that is there, as a path like those of [`Ledger::groups`].
    pub file: Option<String>,
}

/// The mounts of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    /// Inode of the namespace.
    pub namespace: u64,
    /// A process in it.
    pub of: i32,
    /// How many there are.
    pub count: u64,
    /// Each as `place (kind of source)`, in the kernel's order; of process 1 only.
    pub list: Vec<String>,
}

/// One socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Inode of its network namespace.
    pub namespace: u64,
    /// As its file in `/proc/net` is called: `tcp`, `unix`.
    pub protocol: String,
    /// Its inode.
    pub inode: u64,
    /// Path or local address, as the kernel writes it; empty without one.
    pub name: String,
    /// Processes that have it open.
    pub holders: Vec<i32>,
}

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct File {
    /// Absolute.
    pub path: String,
    /// `file`, `dir`, `link`, `socket` or `other`.
    pub kind: String,
}
