//! What a child can be told to do to itself. Everything that an operation needs is in it: texts, masks, lists.

use std::ffi::CString;
use std::rc::Rc;

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
/// The most files and directories that a component may take from outside: the child keeps their numbers on its stack.
pub const SOURCES_LIMIT: usize = 64;

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
    /// lchown(2) to the user and the group that were found.
    Own(CString),
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
    /// Let nothing that is mounted here be seen elsewhere, nor the other way round.
    PrivateMounts,
    /// mkdir(2). What it is for tells if it did not work.
    MakeDirectory(CString),
    /// mount(2) of a file system without a source.
    Mount {
        /// Its type.
        kind: CString,
        /// Where.
        target: CString,
        /// `MS_…`.
        flags: libc::c_ulong,
        /// Options of the type.
        data: CString,
    },
    /// pivot_root(2).
    EnterRoot {
        /// What becomes `/`.
        path: CString,
        /// Nothing can be written below.
        read_only: bool,
    },
    /// Let go of the root from before [`Op::EnterRoot`].
    LeaveOldRoot,
    /// A copy of what is mounted at a path and below, as it is before anything is changed: one more source, for
    /// [`Op::Bind`].
    Tree(CString),
    /// Open what is to be read or seen elsewhere, before anything is mounted: one more source, for [`Op::Hide`] and
    /// [`Op::Secret`].
    Source {
        /// Its path.
        path: CString,
        /// `O_PATH`, or what reading needs.
        flags: libc::c_int,
    },
    /// A part of the file system in another place.
    Bind {
        /// Which of the sources.
        source: usize,
        /// Where.
        target: CString,
        /// Nothing can be written below.
        read_only: bool,
    },
    /// Nothing can be written below.
    ReadOnly(CString),
    /// Nothing can be written in a file system of [`Op::Mount`] any more.
    Seal(CString),
    /// An empty directory, or a file that cannot be opened, in the place of this.
    Hide {
        /// Its path.
        path: CString,
        /// Which of the sources is the null device.
        null: usize,
    },
    /// Copy a file for the user that was found.
    Secret {
        /// Which of the sources.
        source: usize,
        /// Where.
        target: CString,
    },
    /// landlock_create_ruleset(2): what is forbidden from [`Op::LandlockRestrict`] on.
    LandlockBegin(u64),
    /// landlock_add_rule(2).
    LandlockAllow {
        /// Below what.
        path: CString,
        /// `LANDLOCK_ACCESS_FS_…`.
        access: u64,
    },
    /// landlock_restrict_self(2).
    LandlockRestrict,
    /// setresgid(2) and setresuid(2) to 0.
    BecomeRoot,
    /// Enter the time namespace that was unshared.
    EnterTime,
    /// Become the first process of the pid namespace, and go on as another.
    Init,
    /// seccomp(2).
    Filter(Rc<[Instruction]>),
}

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What is done.
    pub code: u16,
    /// Instructions to jump over if it holds.
    pub jump_true: u8,
    /// The same if it does not.
    pub jump_false: u8,
    /// Its operand.
    pub operand: u32,
}
