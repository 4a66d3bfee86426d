//! What a child can be told to do to itself. Everything that an operation needs is in it: texts, masks, lists.

use std::ffi::CString;

use nix::libc;

/// The most supplementary groups of a component: the child keeps them on its stack. Linux takes 65,536; a login has a
/// dozen.
pub const GROUPS_LIMIT: usize = 32;

/// The longest message about interfaces, in bytes: the child has one on its stack.
pub const MESSAGE_LIMIT: usize = 256;

/// A message of rtnetlink(7), and where the child puts what only it knows.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// At most [`MESSAGE_LIMIT`].
    pub bytes: Vec<u8>,
    /// The number of the interface that was found.
    pub link_at: Option<usize>,
    /// The child's number in its own namespace.
    pub process_at: Option<usize>,
}

/// One operation.
#[derive(Debug, PartialEq)]
pub enum Op {
    /// The user that [`Op::SetUser`] takes, and its group.
    User(u32),
    /// The same by its name in `/etc/passwd`.
    FindUser(CString),
    /// The group that [`Op::SetGroup`] takes.
    Group(u32),
    /// The same by its name in `/etc/group`.
    FindGroup(CString),
    /// One more for [`Op::SetGroups`].
    OtherGroup(u32),
    /// The same by its name in `/etc/group`.
    FindOtherGroup(CString),
    /// unshare(2).
    Unshare(libc::c_int),
    /// Write a text to a file of the kernel's, at once.
    Write {
        /// Its path.
        path: CString,
        /// What is written.
        text: Vec<u8>,
    },
    /// sethostname(2).
    HostName(CString),
    /// Connect to the interfaces of the namespace that the child is in now.
    OpenLinks,
    /// Find the interface of this name, for [`Op::Link`].
    FindLink(CString),
    /// Send a message about interfaces.
    Link(Message),
    /// Bring the interface of this name up.
    RaiseLink(CString),
    /// prlimit(2).
    Limit {
        /// Its number.
        resource: u32,
        /// Soft and hard.
        limit: libc::rlimit,
    },
    /// setpriority(2).
    Nice(i32),
    /// sched_setscheduler(2).
    Schedule {
        /// Its number.
        policy: libc::c_int,
        /// 0 for those without.
        priority: libc::c_int,
    },
    /// ioprio_set(2): class and level.
    IoPriority(u32),
    /// sched_setaffinity(2): a bit for each processor.
    Affinity(Vec<u64>),
    /// chdir(2).
    Directory(CString),
    /// prctl(2), `PR_CAPBSET_DROP` for each bit.
    Forbid(u64),
    /// prctl(2), `PR_SET_KEEPCAPS`.
    KeepCapabilities,
    /// prctl(2), `PR_SET_SECUREBITS`.
    SecureBits(u32),
    /// setgroups(2), with what was found.
    SetGroups,
    /// setresgid(2), with what was found.
    SetGroup,
    /// setresuid(2), with what was found.
    SetUser,
    /// capset(2): the permitted and effective set become those that the child has of `keep`.
    Capabilities {
        /// A bit for each.
        keep: u64,
        /// The inheritable set.
        inheritable: u64,
    },
    /// prctl(2), `PR_CAP_AMBIENT_RAISE` for each bit.
    Ambient(u64),
    /// prctl(2), `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
}
