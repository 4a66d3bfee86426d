//! Processes, and what process 1 has open.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read as _;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use yakiros_guest::ledger::{Descriptor, DescriptorKind, Process};

use super::{Holders, lines};
use crate::exec;

/// `PF_KTHREAD` of the kernel's flags in `/proc/PID/stat`.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// The namespaces of a process, as `/proc/PID/ns` calls them.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// All processes by number, and who has which pipe or socket open. `speaking` tells whether any may have been given a
/// socket to speak on.
///
/// With hundreds of processes this is most of the work, so each is looked at through its own directory, which the kernel
/// then does not have to find for every file.
pub fn all(holders: &mut Holders, speaking: bool) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(|pid| process(pid, holders, speaking)).collect()
}

fn process(pid: i32, holders: &mut Holders, speaking: bool) -> Option<Process> {
    let folder = Folder(File::open(format!("/proc/{pid}")).ok()?);
    let (mut process, session, flags) = stat(&folder.text("stat")?)?;
    process.of_kernel = flags & KERNEL_THREAD != 0;
    if process.of_kernel {
        return Some(process);
    }
    let groups = folder.text("cgroup").unwrap_or_default();
    process.group =
        groups.lines().find_map(|line| line.strip_prefix("0::/")).map(str::to_owned).unwrap_or_default();
    process.of_agent =
        pid == std::process::id() as i32 || (process.group.is_empty() && exec::began_session(session));
    let namespace =
        |kind: &&str| Some(((*kind).to_owned(), in_brackets(&folder.link(&format!("ns/{kind}"))?)?));
    process.namespaces = NAMESPACES.iter().filter_map(namespace).collect();
    // The environment of others is what they were given by others.
    if speaking && process.parent == 1 && !process.group.is_empty() {
        process.notify_socket = variable(&folder.text("environ")?, "NOTIFY_SOCKET");
    }
    folder.for_each_descriptor(|target| {
        if let Some(inode) = inode(target) {
            holders.entry(inode).or_default().push(pid);
        }
    });
    Some(process)
}

/// The directory of one process. What cannot be read is of one that is gone.
struct Folder(File);

impl Folder {
    fn text(&self, name: &str) -> Option<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.0, name, flags, Mode::empty()).ok()?);
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn link(&self, name: &str) -> Option<String> {
        Some(readlinkat(&self.0, name).ok()?.to_string_lossy().into_owned())
    }

    fn for_each_descriptor(&self, mut each: impl FnMut(&str)) {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut folder) = Dir::openat(&self.0, "fd", flags, Mode::empty()) else { return };
        let names: Vec<CString> = folder.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
        for name in names {
            if let Ok(target) = readlinkat(&folder, name.as_c_str()) {
                each(&target.to_string_lossy());
            }
        }
    }
}

/// What proc_pid_stat(5) says: the process, its session and its flags.
fn stat(text: &str) -> Option<(Process, i32, u64)> {
    let (start, rest) = text.rsplit_once(')')?;
    let (pid, name) = start.split_once(" (")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first of them is the third of the manual page, the state.
    let field = |number: usize| fields.get(number - 3).copied();
    let process = Process {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        started: field(22)?.parse().ok()?,
        ..Process::default()
    };
    Some((process, field(6)?.parse().ok()?, field(9)?.parse().ok()?))
}

/// A variable of an environment as the kernel shows it.
fn variable(environment: &str, name: &str) -> Option<String> {
    let mut all = environment.split('\0').filter_map(|one| one.split_once('='));
    all.find_map(|(of, value)| (of == name).then(|| value.to_owned()))
}

/// The number in `socket:[123]`.
fn in_brackets(target: &str) -> Option<u64> {
    target.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// The same, of a pipe or a socket.
fn inode(target: &str) -> Option<u64> {
    let is_one = target.starts_with("pipe:") || target.starts_with("socket:");
    is_one.then(|| in_brackets(target)).flatten()
}

/// What process 1 has open, by number.
pub fn of_init(holders: &Holders) -> Vec<Descriptor> {
    let entries = fs::read_dir("/proc/1/fd").into_iter().flatten().flatten();
    let mut all: Vec<Descriptor> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            Some(descriptor(number, target, holders))
        })
        .collect();
    all.sort_unstable_by_key(|descriptor| descriptor.number);
    all
}

fn descriptor(number: i32, target: String, holders: &Holders) -> Descriptor {
    let kind = kind(&target);
    let holders = inode(&target).and_then(|inode| holders.get(&inode));
    let holders = holders.into_iter().flatten().copied().filter(|pid| *pid != 1).collect();
    let mut descriptor = Descriptor { number, kind, target, holders, ..Descriptor::default() };
    if matches!(kind, DescriptorKind::Pidfd | DescriptorKind::Timerfd) {
        for line in lines(&format!("/proc/1/fdinfo/{number}")) {
            match line.split_once(':') {
                Some(("Pid", pid)) => descriptor.pid = pid.trim().parse().ok(),
                Some(("it_value", left)) => descriptor.armed = left.trim() != "(0, 0)",
                _ => {}
            }
        }
    }
    descriptor
}

/// How the kernel begins the link of each kind.
const KINDS: [(&str, DescriptorKind); 18] = [
    ("pipe:", DescriptorKind::Pipe),
    ("socket:", DescriptorKind::Socket),
    ("anon_inode:[eventpoll]", DescriptorKind::Epoll),
    ("anon_inode:[eventfd]", DescriptorKind::Eventfd),
    ("anon_inode:[timerfd]", DescriptorKind::Timerfd),
    ("anon_inode:[signalfd]", DescriptorKind::Signalfd),
    ("anon_inode:inotify", DescriptorKind::Inotify),
    ("anon_inode:[pidfd]", DescriptorKind::Pidfd),
    // From Linux 6.9 on.
    ("pidfd:", DescriptorKind::Pidfd),
    ("/memfd:", DescriptorKind::Memfd),
    ("mnt:", DescriptorKind::Namespace),
    ("pid:", DescriptorKind::Namespace),
    ("net:", DescriptorKind::Namespace),
    ("uts:", DescriptorKind::Namespace),
    ("ipc:", DescriptorKind::Namespace),
    ("user:", DescriptorKind::Namespace),
    ("cgroup:", DescriptorKind::Namespace),
    ("time:", DescriptorKind::Namespace),
];

fn kind(target: &str) -> DescriptorKind {
    let known = KINDS.iter().find(|(start, _)| target.starts_with(start));
    match known {
        Some((_, kind)) => *kind,
        None if target.starts_with('/') => DescriptorKind::File,
        None => DescriptorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "412 (a) b (c)) S 1 400 400 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 5 6";
        let (process, session, flags) = stat(line).expect("a line");
        assert_eq!((process.pid, process.name.as_str(), process.state), (412, "a) b (c)", 'S'));
        assert_eq!((process.parent, process.started, session, flags), (1, 1234, 400, 4_194_560));
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = "NOTIFY_SOCKET_OF=1\0NOTIFY_SOCKET=/run/graph/notify/a=b\0PATH=/bin\0";
        assert_eq!(variable(environment, "NOTIFY_SOCKET").as_deref(), Some("/run/graph/notify/a=b"));
        assert_eq!(variable(environment, "NOTIFY"), None);
    }

    #[test]
    fn links_tell_kinds_and_inodes() {
        let table = [
            ("pipe:[84]", DescriptorKind::Pipe, Some(84)),
            ("socket:[75]", DescriptorKind::Socket, Some(75)),
            ("anon_inode:[pidfd]", DescriptorKind::Pidfd, None),
            ("pidfd:[7]", DescriptorKind::Pidfd, None),
            ("/memfd:state (deleted)", DescriptorKind::Memfd, None),
            ("mnt:[4026531832]", DescriptorKind::Namespace, None),
            ("/dev/null", DescriptorKind::File, None),
            ("anon_inode:bpf-prog", DescriptorKind::Other, None),
        ];
        for (target, expected, number) in table {
            assert_eq!((kind(target), inode(target)), (expected, number), "{target}");
        }
    }
}
