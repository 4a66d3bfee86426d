//! `security.seccomp`: names of system calls, and sets of them by purpose.
//!
//! A list allows what it names and nothing else; one of which each item begins with `~` forbids what it names and nothing
//! else. The sets follow those of systemd.exec(5), which are what people know.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syscalls::{aarch64, x86_64};
use toml::de::DeValue;

use super::keys::{Word, nearest};
use super::values::{Problem, list};
use crate::diagnostic::rules;

/// What becomes of a system call that may not be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompAction {
    /// It fails with EPERM.
    #[default]
    Errno,
    /// It ends the process by SIGSYS.
    Kill,
    /// It is made, and the kernel logs it.
    Log,
}

impl Word for SeccompAction {
    const WORDS: &'static [(&'static str, Self)] =
        &[("errno", Self::Errno), ("kill", Self::Kill), ("log", Self::Log)];
}

/// What a filter always lets through, whatever is listed: without these no program begins or ends, none that fails could say
/// so, and none that is given descriptors would know that they are its own (`LISTEN_PID`).
pub const ALWAYS: &[&str] =
    &["execve", "exit", "exit_group", "getpid", "restart_syscall", "rt_sigreturn", "write"];

/// Sets by purpose. An item is a system call or, with `@`, another set.
pub const SETS: &[(&str, &[&str])] = &[
    (
        "@aio",
        &[
            "io_cancel",
            "io_destroy",
            "io_getevents",
            "io_pgetevents",
            "io_setup",
            "io_submit",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
        ],
    ),
    (
        "@basic-io",
        &[
            "close",
            "close_range",
            "dup",
            "dup2",
            "dup3",
            "lseek",
            "pread64",
            "preadv",
            "preadv2",
            "pwrite64",
            "pwritev",
            "pwritev2",
            "read",
            "readv",
            "write",
            "writev",
        ],
    ),
    ("@chown", &["chown", "fchown", "fchownat", "lchown"]),
    ("@clock", &["adjtimex", "clock_adjtime", "clock_settime", "settimeofday"]),
    (
        "@debug",
        &["perf_event_open", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace", "kcmp"],
    ),
    (
        "@default",
        &[
            "arch_prctl",
            "brk",
            "clock_getres",
            "clock_gettime",
            "clock_nanosleep",
            "execve",
            "exit",
            "exit_group",
            "futex",
            "futex_waitv",
            "futex_wake",
            "futex_wait",
            "futex_requeue",
            "get_robust_list",
            "get_thread_area",
            "getegid",
            "geteuid",
            "getgid",
            "getgroups",
            "getpgid",
            "getpgrp",
            "getpid",
            "getppid",
            "getrandom",
            "getresgid",
            "getresuid",
            "getrlimit",
            "getsid",
            "gettid",
            "gettimeofday",
            "getuid",
            "membarrier",
            "mmap",
            "mprotect",
            "mseal",
            "munmap",
            "nanosleep",
            "pause",
            "prlimit64",
            "restart_syscall",
            "rseq",
            "rt_sigreturn",
            "sched_getaffinity",
            "sched_yield",
            "set_robust_list",
            "set_thread_area",
            "set_tid_address",
            "time",
            "uname",
        ],
    ),
    (
        "@file-system",
        &[
            "access",
            "chdir",
            "chmod",
            "close",
            "creat",
            "faccessat",
            "faccessat2",
            "fallocate",
            "fchdir",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "fcntl",
            "fgetxattr",
            "flistxattr",
            "fremovexattr",
            "fsetxattr",
            "fstat",
            "fstatfs",
            "ftruncate",
            "futimesat",
            "getcwd",
            "getdents",
            "getdents64",
            "getxattr",
            "getxattrat",
            "inotify_add_watch",
            "inotify_init",
            "inotify_init1",
            "inotify_rm_watch",
            "lgetxattr",
            "link",
            "linkat",
            "listxattr",
            "listxattrat",
            "llistxattr",
            "lremovexattr",
            "lsetxattr",
            "lstat",
            "mkdir",
            "mkdirat",
            "mknod",
            "mknodat",
            "newfstatat",
            "open",
            "openat",
            "openat2",
            "readlink",
            "readlinkat",
            "removexattr",
            "removexattrat",
            "rename",
            "renameat",
            "renameat2",
            "rmdir",
            "setxattr",
            "setxattrat",
            "stat",
            "statfs",
            "statx",
            "symlink",
            "symlinkat",
            "truncate",
            "unlink",
            "unlinkat",
            "utime",
            "utimensat",
            "utimes",
        ],
    ),
    (
        "@io-event",
        &[
            "epoll_create",
            "epoll_create1",
            "epoll_ctl",
            "epoll_pwait",
            "epoll_pwait2",
            "epoll_wait",
            "eventfd",
            "eventfd2",
            "poll",
            "ppoll",
            "pselect6",
            "select",
        ],
    ),
    (
        "@ipc",
        &[
            "memfd_create",
            "mq_getsetattr",
            "mq_notify",
            "mq_open",
            "mq_timedreceive",
            "mq_timedsend",
            "mq_unlink",
            "msgctl",
            "msgget",
            "msgrcv",
            "msgsnd",
            "pipe",
            "pipe2",
            "process_madvise",
            "process_vm_readv",
            "process_vm_writev",
            "semctl",
            "semget",
            "semop",
            "semtimedop",
            "shmat",
            "shmctl",
            "shmdt",
            "shmget",
        ],
    ),
    ("@keyring", &["add_key", "keyctl", "request_key"]),
    ("@memlock", &["mlock", "mlock2", "mlockall", "munlock", "munlockall"]),
    ("@module", &["delete_module", "finit_module", "init_module"]),
    (
        "@mount",
        &[
            "chroot",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "pivot_root",
            "umount2",
        ],
    ),
    (
        "@network-io",
        &[
            "accept",
            "accept4",
            "bind",
            "connect",
            "getpeername",
            "getsockname",
            "getsockopt",
            "listen",
            "recvfrom",
            "recvmmsg",
            "recvmsg",
            "sendmmsg",
            "sendmsg",
            "sendto",
            "setsockopt",
            "shutdown",
            "socket",
            "socketpair",
        ],
    ),
    (
        "@obsolete",
        &[
            "_sysctl",
            "create_module",
            "get_kernel_syms",
            "query_module",
            "sysfs",
            "uselib",
            "ustat",
            "vserver",
        ],
    ),
    ("@pkey", &["pkey_alloc", "pkey_free", "pkey_mprotect"]),
    (
        "@privileged",
        &[
            "@chown",
            "@clock",
            "@module",
            "@raw-io",
            "@reboot",
            "@swap",
            "acct",
            "bpf",
            "capset",
            "chroot",
            "fanotify_init",
            "fanotify_mark",
            "nfsservctl",
            "open_by_handle_at",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "setfsuid",
            "setfsgid",
            "setgroups",
            "sethostname",
            "setresuid",
            "setreuid",
            "setuid",
            "vhangup",
        ],
    ),
    (
        "@process",
        &[
            "arch_prctl",
            "capget",
            "clone",
            "clone3",
            "execveat",
            "fork",
            "getrusage",
            "kill",
            "pidfd_open",
            "pidfd_send_signal",
            "prctl",
            "rt_sigqueueinfo",
            "rt_tgsigqueueinfo",
            "setns",
            "swapcontext",
            "tgkill",
            "times",
            "tkill",
            "unshare",
            "vfork",
            "wait4",
            "waitid",
        ],
    ),
    ("@raw-io", &["ioperm", "iopl"]),
    ("@reboot", &["kexec_file_load", "kexec_load", "reboot"]),
    (
        "@resources",
        &[
            "ioprio_set",
            "mbind",
            "migrate_pages",
            "move_pages",
            "sched_setaffinity",
            "sched_setattr",
            "sched_setparam",
            "sched_setscheduler",
            "set_mempolicy",
            "set_mempolicy_home_node",
            "setpriority",
            "setrlimit",
        ],
    ),
    ("@sandbox", &["landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"]),
    ("@setuid", &["setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid"]),
    (
        "@signal",
        &[
            "rt_sigaction",
            "rt_sigpending",
            "rt_sigprocmask",
            "rt_sigsuspend",
            "rt_sigtimedwait",
            "sigaltstack",
            "signalfd",
            "signalfd4",
        ],
    ),
    ("@swap", &["swapoff", "swapon"]),
    ("@sync", &["fdatasync", "fsync", "msync", "sync", "sync_file_range", "syncfs"]),
    (
        "@timer",
        &[
            "alarm",
            "getitimer",
            "setitimer",
            "timer_create",
            "timer_delete",
            "timer_getoverrun",
            "timer_gettime",
            "timer_settime",
            "timerfd_create",
            "timerfd_gettime",
            "timerfd_settime",
        ],
    ),
    (
        "@service",
        &[
            "@aio",
            "@basic-io",
            "@chown",
            "@default",
            "@file-system",
            "@io-event",
            "@ipc",
            "@keyring",
            "@memlock",
            "@network-io",
            "@process",
            "@resources",
            "@sandbox",
            "@setuid",
            "@signal",
            "@sync",
            "@timer",
            "capset",
            "copy_file_range",
            "fadvise64",
            "flock",
            "get_mempolicy",
            "getcpu",
            "getpriority",
            "ioctl",
            "ioprio_get",
            "madvise",
            "mincore",
            "mremap",
            "name_to_handle_at",
            "personality",
            "readahead",
            "remap_file_pages",
            "sched_get_priority_max",
            "sched_get_priority_min",
            "sched_getattr",
            "sched_getparam",
            "sched_getscheduler",
            "sched_rr_get_interval",
            "sendfile",
            "setfsgid",
            "setfsuid",
            "setpgid",
            "setsid",
            "splice",
            "sysinfo",
            "tee",
            "umask",
            "userfaultfd",
            "vmsplice",
        ],
    ),
];

/// What a list means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Whether it forbids what it names, and not everything else.
    pub forbids: bool,
    /// The system calls it names, without sets.
    pub calls: BTreeSet<&'static str>,
}

/// What a list of names means that was read from a component file: system calls that only other processors have are in
/// it, too.
pub fn meaning_of(items: &[String]) -> Meaning {
    let forbids = items.first().is_some_and(|item| item.starts_with(DENY));
    let mut calls = BTreeSet::new();
    for item in items {
        add(item.strip_prefix(DENY).unwrap_or(item), &mut calls);
    }
    Meaning { forbids, calls }
}

/// Before a name that is forbidden.
const DENY: char = '~';

fn add(name: &str, calls: &mut BTreeSet<&'static str>) {
    if let Some((_, members)) = SETS.iter().find(|(set, _)| *set == name) {
        members.iter().for_each(|member| add(member, calls));
    } else if let Some(known) = call(name) {
        calls.insert(known);
    }
}

/// The name of a system call of a processor that this runs on, or that stands in a set.
fn call(name: &str) -> Option<&'static str> {
    let x86_64 = name.parse::<x86_64::Sysno>().ok().map(|call| call.name());
    let aarch64 = || name.parse::<aarch64::Sysno>().ok().map(|call| call.name());
    let in_set = || SETS.iter().flat_map(|(_, members)| *members).copied().find(|member| *member == name);
    x86_64.or_else(aarch64).or_else(in_set)
}

/// A list of system calls and sets.
pub(super) fn rules_of(value: &DeValue<'_>) -> Result<Vec<String>, Problem> {
    let items = list(value)?;
    for item in &items {
        let name = item.strip_prefix(DENY).unwrap_or(item);
        let is_known =
            SETS.iter().any(|(set, _)| *set == name) || (!name.starts_with('@') && call(name).is_some());
        if !is_known {
            return Err(unknown(item, name));
        }
    }
    let forbidden = items.iter().filter(|item| item.starts_with(DENY)).count();
    if forbidden > 0 && forbidden < items.len() {
        let problem = Problem::new(&rules::SECCOMP_MIXED, "allows some system calls and forbids others");
        return Err(problem.help("begin each item with ~, or none"));
    }
    Ok(items)
}

fn unknown(item: &str, name: &str) -> Problem {
    let sets = SETS.iter().map(|(set, _)| *set);
    let calls = x86_64::Sysno::iter().map(|call| call.name());
    let near = if name.starts_with('@') { nearest(name, sets) } else { nearest(name, calls) };
    let problem = Problem::new(&rules::UNKNOWN_SYSCALL, format!("names an unknown system call {item:?}"));
    problem.help(match near {
        Some(near) => format!("did you mean {near:?}?"),
        None => "docs/reference/system-calls.md lists the sets; syscalls(2) lists the calls".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_known_members_and_end() {
        for (set, members) in SETS {
            for member in *members {
                let is_set = SETS.iter().any(|(other, _)| other == member && other != set);
                assert!(is_set || !member.starts_with('@'), "{set}: {member}");
            }
            let meaning = meaning_of(&[(*set).to_owned()]);
            assert!(!meaning.forbids && !meaning.calls.is_empty(), "{set}");
        }
    }

    #[test]
    fn a_list_allows_or_forbids() {
        let meaning = meaning_of(&["~@swap".to_owned(), "~ptrace".to_owned()]);
        assert!(meaning.forbids);
        assert_eq!(meaning.calls.into_iter().collect::<Vec<_>>(), ["ptrace", "swapoff", "swapon"]);
        let service = meaning_of(&["@service".to_owned()]);
        assert!(!service.forbids && service.calls.contains("openat"));
        for dangerous in ["mount", "init_module", "ptrace", "reboot", "settimeofday", "swapon", "bpf"] {
            assert!(!service.calls.contains(dangerous), "{dangerous}");
        }
    }
}
