//! What `/proc` shows. What goes away while it is read is left out, as it will not be dumped either.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Descriptor, Isolation, Mapping, Process, Socket, Tree, mounts, network};
use crate::barrier::inode_of;

/// Most processes of a tree that are looked at.
const PROCESSES_LIMIT: usize = 16_384;
/// Most bytes of a file of `/proc`: some hundred thousand sockets or parts of memory.
const FILE_LIMIT: u64 = 64 << 20;
/// Bytes that are asked for at once: at each call the kernel looks for where it was, in a table of sockets from its begin.
const AT_ONCE: usize = 64 << 10;
/// The state of a TCP socket that listens, and of one that is nothing yet.
const LISTEN: &str = "0A";
const CLOSED: &str = "07";

/// The flag of a unix socket that listens (`SO_ACCEPTCON` of the kernel's `linux/net.h`).
const LISTENS: u32 = 1 << 16;

/// The letter of a process that was stopped by a signal.
const STOPPED: char = 'T';

/// All kinds of namespaces.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// The device number of `/dev/null`.
const NULL: (u32, u32) = (1, 3);

/// Tables of sockets below `/proc/PID/net`, and the column with the inode. What most have is first: a table that is not
/// needed is not read, which may take a millisecond.
const TABLES: [(&str, Socket, usize); 9] = [
    ("unix", Socket::Unix, 6),
    ("tcp", Socket::Tcp, 9),
    ("tcp6", Socket::Tcp, 9),
    ("udp", Socket::Udp, 9),
    ("udp6", Socket::Udp, 9),
    ("raw", Socket::Raw, 9),
    ("raw6", Socket::Raw, 9),
    ("packet", Socket::Packet, 8),
    ("netlink", Socket::Netlink, 9),
];
/// The column with a TCP socket's state.
const STATE: usize = 3;

/// Read all of a tree, by its first process.
pub fn read(pid: i32) -> io::Result<Tree> {
    let mount_namespace = namespace(Path::new("/proc/self"), "mnt")?;
    let mut tree = Tree { mount_namespace, ..Tree::default() };
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        if tree.processes.len() == PROCESSES_LIMIT {
            return Err(io::Error::other(format!("more than {PROCESSES_LIMIT} processes")));
        }
        match process(pid, &tree.mount_namespace) {
            Ok((process, children)) => {
                tree.processes.push(process);
                left.extend(children);
            }
            Err(error) if tree.processes.is_empty() => return Err(error),
            // Of one that goes away in between the kernel says that its namespaces may not be looked at.
            Err(error) if is_gone(&error) || !folder_of(pid).exists() => {}
            Err(error) => return Err(error),
        }
    }
    namespaces(pid, &mut tree)?;
    let open = tree.processes.iter().flat_map(|process| &process.descriptors);
    let mut wanted: BTreeSet<u64> = open.filter_map(|descriptor| inode_of(&descriptor.target)).collect();
    for (name, kind, column) in TABLES {
        if wanted.is_empty() {
            break;
        }
        // What the kernel does not know it has no table for.
        let table = text(&folder_of(pid).join("net").join(name)).unwrap_or_default();
        if kind == Socket::Unix {
            tree.paths.extend(paths(&table).filter(|(inode, _)| wanted.contains(inode)));
        }
        tree.sockets.extend(sockets(&table, kind, column).filter(|(inode, _)| wanted.remove(inode)));
    }
    if tree.isolation.namespaces.contains("net") {
        unlisted(&mut tree);
    }
    Ok(tree)
}

/// Sockets of its own network that no table has. Of any other it is not known where it was made.
fn unlisted(tree: &mut Tree) {
    for process in &tree.processes {
        for descriptor in &process.descriptors {
            let inode = inode_of(&descriptor.target);
            let Some(inode) = inode.filter(|inode| !tree.sockets.contains_key(inode)) else { continue };
            // It may be closed by now.
            if let Ok(Some(kind)) = network::own(process.pid, descriptor.number) {
                tree.sockets.insert(inode, kind);
            }
        }
    }
}

/// What a process has for itself, other than whoever looks.
pub fn isolation(pid: i32) -> io::Result<Isolation> {
    let (folder, own) = (folder_of(pid), Path::new("/proc/self"));
    let mut found = Isolation::default();
    for kind in NAMESPACES {
        // What the kernel does not know nobody has for himself.
        let Ok(machine) = namespace(own, kind) else { continue };
        if namespace(&folder, kind)? != machine {
            found.namespaces.insert(kind.to_owned());
        }
    }
    if found.namespaces.contains("mnt") {
        found.mounts = mounts::seen(&mounts::parse(&text(&folder.join("mountinfo"))?));
    }
    Ok(found)
}

fn namespaces(pid: i32, tree: &mut Tree) -> io::Result<()> {
    // What has ended is judged by that.
    if tree.processes[0].state == 'Z' {
        return Ok(());
    }
    tree.isolation = isolation(pid)?;
    if tree.isolation.namespaces.contains("net") {
        // Two lines of heads, then lines `    lo: 0 0 …`.
        let table = text(&folder_of(pid).join("net/dev"))?;
        let names = table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        tree.interfaces = names.collect();
    }
    if tree.isolation.namespaces.contains("mnt") {
        let folder = folder_of(pid);
        tree.inside = mounts::parse(&text(&folder.join("mountinfo"))?);
        tree.outside = mounts::parse(&text(Path::new("/proc/self/mountinfo"))?);
        let is_root = |path: &PathBuf| is_same(path, &folder.join("root/."));
        tree.root = mounts::roots(&tree.inside, &tree.outside).find(is_root);
    }
    Ok(())
}

/// Whether it has file systems in memory with files that have to be kept.
pub fn keeps_files(tree: &Tree) -> bool {
    mounts::keeps_files(&tree.inside, &tree.outside)
}

/// Whether two paths lead to the same file.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let found = [one, other].map(|path| fs::metadata(path).map(|found| (found.dev(), found.ino())));
    matches!(found, [Ok(one), Ok(other)] if one == other)
}

/// Bytes of memory that a tree has now. Those that several of its processes share are counted with each.
pub fn resident(tree: &Tree) -> u64 {
    let pages = tree.processes.iter().map(|process| {
        // What has ended has none.
        let text = text(&folder_of(process.pid).join("statm")).unwrap_or_default();
        text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0)
    });
    pages.fold(0, u64::saturating_add).saturating_mul(rustix::param::page_size() as u64)
}

/// Bytes of memory that a tree has now and that no file has: what is written of it. CRIU writes memory that several of its
/// processes have after a fork with each of them, and memory that they share once.
pub fn written(tree: &Tree) -> u64 {
    let of = |process: &Process| {
        let folder = folder_of(process.pid);
        // What has ended has none.
        let [status, shared] =
            ["status", "smaps_rollup"].map(|name| text(&folder.join(name)).unwrap_or_default());
        written_of(&status, &shared)
    };
    tree.processes.iter().map(of).fold(0, u64::saturating_add)
}

/// By the lines `RssAnon:  123 kB` and `VmSwap:` of `status`, and `Pss_Shmem:` of `smaps_rollup`: a process's part of what it
/// shares. A kernel without that line (before 5.4) tells all of it, as `RssShmem:`.
fn written_of(status: &str, shared: &str) -> u64 {
    let of = |text: &str, name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let own = ["RssAnon", "VmSwap"].iter().filter_map(|name| of(status, name)).fold(0, u64::saturating_add);
    let shared = of(shared, "Pss_Shmem").or_else(|| of(status, "RssShmem")).unwrap_or(0);
    own.saturating_add(shared).saturating_mul(1024)
}

/// Let go on what was not stopped before: who was killed while it had these processes may have left them so, or with the
/// signal on its way.
pub fn resume(before: &Tree) {
    for process in before.processes.iter().filter(|process| process.state != STOPPED) {
        let Some(pid) = Pid::from_raw(process.pid) else { continue };
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            // It has ended meanwhile: then there is nothing to let go on.
            let _ = pidfd_send_signal(&pidfd, Signal::CONT);
        }
    }
}

/// Stop a process and all below it, as by SIGSTOP. While they are traced, and so do not run, they stop as soon as they
/// would.
pub fn stop(pid: i32) -> io::Result<()> {
    let (mut left, mut count) = (vec![pid], 0);
    while let Some(pid) = left.pop() {
        count += 1;
        if count > PROCESSES_LIMIT {
            return Err(io::Error::other(format!("more than {PROCESSES_LIMIT} processes")));
        }
        let process = pidfd_open(Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())?;
        pidfd_send_signal(&process, Signal::STOP)?;
        left.extend(children(&folder_of(pid))?);
    }
    Ok(())
}

fn process(pid: i32, machine: &str) -> io::Result<(Process, Vec<i32>)> {
    let folder = folder_of(pid);
    let status = text(&folder.join("status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map_or("", str::trim)
    };
    let state = field("State").chars().next().unwrap_or('?');
    // Of a process that is in a pid namespace below there are more numbers: ours is the first.
    let session = field("NSsid").split_whitespace().next().and_then(|sid| sid.parse().ok()).unwrap_or(0);
    let mut read = Process {
        pid,
        state,
        tracer: field("TracerPid").parse().unwrap_or(0),
        session,
        has_leader: session != 0 && folder_of(session).exists(),
        ..Process::default()
    };
    // What has ended has nothing more to show.
    if state != 'Z' {
        read.user_namespace = namespace(&folder, "user")?;
        read.mount_namespace = namespace(&folder, "mnt")?;
        let is_elsewhere = read.mount_namespace != machine;
        read.descriptors = descriptors(&folder, is_elsewhere)?;
        read.mappings = mappings(&text(&folder.join("smaps"))?);
        if is_elsewhere {
            for mapping in &mut read.mappings {
                mapping.mount = mount_of_mapping(&folder, &mapping.range);
            }
        }
    }
    Ok((read, children(&folder)?))
}

/// As `mnt:[4026531841]`.
fn namespace(folder: &Path, kind: &str) -> io::Result<String> {
    Ok(fs::read_link(folder.join("ns").join(kind))?.to_string_lossy().into_owned())
}

pub(super) fn folder_of(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Of all threads: each may have made some.
fn children(folder: &Path) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(folder.join("task"))? {
        match text(&thread?.path().join("children")) {
            Err(error) if is_gone(&error) => {}
            children => found.extend(children?.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
        }
    }
    Ok(found)
}

/// The mount through which a file that is mapped was opened.
fn mount_of_mapping(folder: &Path, range: &str) -> Option<u64> {
    // It tells of what is mapped, and not of what has its name now.
    let path = folder.join("map_files").join(range);
    let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    mount_of(format!("/proc/self/fdinfo/{}", opened.as_raw_fd()))
}

/// The line `mnt_id:\t29` of what is told of a descriptor.
fn mount_of(path: impl AsRef<Path>) -> Option<u64> {
    let told = text(path.as_ref()).ok()?;
    told.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

fn descriptors(folder: &Path, is_elsewhere: bool) -> io::Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join("fd"))? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        let (Some(number), Ok(target)) = (number, fs::read_link(&path)) else { continue };
        // Of what is open, and not of what has its name now.
        let Ok(status) = fs::metadata(&path) else { continue };
        let kind = status.file_type();
        let info = folder.join("fdinfo").join(number.to_string());
        let mount = if is_elsewhere { mount_of(&info) } else { None };
        let device = (rustix::fs::major(status.rdev()), rustix::fs::minor(status.rdev()));
        found.push(Descriptor {
            number,
            target: target.to_string_lossy().into_owned(),
            is_device: kind.is_char_device() || kind.is_block_device(),
            is_unlinked: kind.is_file() && status.nlink() == 0,
            size: status.len(),
            is_locked: kind.is_file() && is_locked(&info),
            is_null: kind.is_char_device() && device == NULL,
            place: mount.map(|mount| (mount, status.ino())),
        });
    }
    found.sort_by_key(|descriptor| descriptor.number);
    Ok(found)
}

/// `smaps`: a line with addresses and a name, then lines with a key, the last of them with flags.
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("VmFlags:") => {
                if let Some(newest) = found.last_mut() {
                    // Memory of a device; page frames without pages.
                    newest.is_device = words.any(|flag| flag == "io" || flag == "pf");
                }
            }
            Some(range) if range.contains('-') && !range.ends_with(':') => {
                let name = words.skip(4).collect::<Vec<_>>().join(" ");
                found.push(Mapping { range: range.to_owned(), name, ..Mapping::default() });
            }
            _ => {}
        }
    }
    found.retain(|mapping| mapping.is_device || !mapping.name.is_empty());
    found
}

fn sockets(table: &str, kind: Socket, column: usize) -> impl Iterator<Item = (u64, Socket)> {
    table.lines().skip(1).filter_map(move |line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let inode = words.get(column)?.parse().ok()?;
        let kind = match (kind, *words.get(STATE)?) {
            (Socket::Tcp, LISTEN) => Socket::TcpListening,
            (Socket::Tcp, CLOSED) => Socket::Tcp,
            (Socket::Tcp, _) => Socket::TcpConnected,
            (kind, _) => kind,
        };
        Some((inode, kind))
    })
}

/// Of lines `0000: 00000002 00000000 00010000 0001 01 4711 /run/x`. A path with a newline in it is not found.
fn paths(table: &str) -> impl Iterator<Item = (u64, PathBuf)> {
    table.lines().skip(1).filter_map(|line| {
        // No number before it has a slash.
        let path = line.find('/').map(|at| &line[at..])?;
        let mut words = line.split_whitespace();
        let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
        let inode = words.nth(2)?.parse().ok()?;
        (flags & LISTENS != 0 && !line.contains(" @")).then(|| (inode, path.into()))
    })
}

/// Whether there is a line `lock: 1: OFDLCK ADVISORY  WRITE -1 fe:00:10938183 0 EOF`. It is there for each kind of lock,
/// by whoever it was taken, and not for who waits for one: `/proc/locks` does not name the holders of some.
fn is_locked(path: &Path) -> bool {
    text(path).is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:")))
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(AT_ONCE);
    File::open(path)?.take(FILE_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn memory_of_files_is_not_written() {
        let status = "RssAnon:\t  100 kB\nRssFile:\t  590 kB\nRssShmem:\t    10 kB\nVmSwap:\t    1000 kB\nThreads: 1\n";
        assert_eq!(written_of(status, ""), 1110 << 10);
        assert_eq!(written_of(status, "Pss:   600 kB\nPss_Shmem:   5 kB\n"), 1105 << 10);
        assert_eq!(written_of("", ""), 0);
    }

    #[test]
    fn this_process_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"12345").unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let tree = read(pid).unwrap();
        let first = &tree.processes[0];
        assert_eq!(first.pid, pid);
        assert!("RS".contains(first.state) && first.user_namespace.starts_with("user:["), "{first:?}");
        let at = |fd: i32| {
            first.descriptors.iter().find(|descriptor| descriptor.number == fd).expect("it is open")
        };
        let unlinked = at(file.as_raw_fd());
        assert!(unlinked.is_unlinked && unlinked.size == 5, "{unlinked:?}");
        let kind = |fd: i32| tree.sockets.get(&inode_of(&at(fd).target).unwrap()).copied();
        assert_eq!(kind(listener.as_raw_fd()), Some(Socket::TcpListening));
        assert_eq!(kind(stream.as_raw_fd()), Some(Socket::TcpConnected));
        assert!(first.mappings.iter().any(|mapping| mapping.name == "[vdso]"), "{:?}", first.mappings);
        let criu = crate::store::Version { major: 4, minor: 2, patch: 0 };
        assert!(super::super::judge(&tree, criu).options.tcp_established);
    }

    #[test]
    fn children_that_come_and_go_are_in_nobodys_way() {
        // A hundred a second at least, each of them looked at with some luck while it ends.
        let script = "while :; do /bin/true & /bin/true; wait; done";
        let mut family = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(family.id()).unwrap();
        let looked: Vec<_> = (0..300).map(|_| read(pid)).collect();
        family.kill().and_then(|()| family.wait()).unwrap();
        for tree in looked {
            assert!(!tree.unwrap().processes.is_empty());
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        // Larger than any process number may be.
        assert!(is_gone(&read(i32::MAX).expect_err("there is none")));
    }

    #[test]
    fn parts_of_memory_are_read() {
        let smaps = "7f00-7f10 r-xp 00000000 fe:00 9  /lib/a b.so (deleted)\nRss: 4 kB\nVmFlags: rd ex mr\n\
                     7f20-7f30 rw-s 00000000 00:06 9  /dev/mem\nVmFlags: rd wr io pf dd\n\
                     7f40-7f50 rw-p 00000000 00:00 0 \nVmFlags: rd wr\n";
        let of = |range: &str, name: &str, is_device| Mapping {
            range: range.into(),
            name: name.into(),
            is_device,
            mount: None,
        };
        let expected = [of("7f00-7f10", "/lib/a b.so (deleted)", false), of("7f20-7f30", "/dev/mem", true)];
        assert_eq!(mappings(smaps), expected);
    }

    #[test]
    fn paths_of_unix_sockets_that_listen_are_read() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                     0000: 00000002 00000000 00010000 0001 01 4711 /run/a b.sock\n\
                     0000: 00000003 00000000 00000000 0001 03 4712 /run/a b.sock\n\
                     0000: 00000002 00000000 00010000 0001 01 4713 @/hidden\n\
                     0000: 00000002 00000000 00010000 0001 01 4714\n";
        let found: Vec<_> = paths(table).collect();
        assert_eq!(found, [(4711, PathBuf::from("/run/a b.sock"))]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let tree = read(i32::try_from(std::process::id()).unwrap()).unwrap();
        let own = tree.processes[0].descriptors.iter().find(|one| one.number == listener.as_raw_fd());
        let inode = own.unwrap().target.strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap();
        assert_eq!(tree.paths.get(&inode.parse().unwrap()), Some(&path));
    }

    #[test]
    fn locks_of_each_kind_are_seen() {
        use rustix::fs::{FlockOperation, fcntl_lock, flock};
        let is_locked = |file: &File| {
            let found = descriptors(Path::new("/proc/self"), false).unwrap();
            found.iter().find(|descriptor| descriptor.number == file.as_raw_fd()).expect("open").is_locked
        };
        let file = tempfile::tempfile().unwrap();
        assert!(!is_locked(&file));
        flock(&file, FlockOperation::LockExclusive).unwrap();
        assert!(is_locked(&file));
        let file = tempfile::tempfile().unwrap();
        fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
        assert!(is_locked(&file));
        // One of an open file description, which has no process.
        let file = tempfile::tempfile().unwrap();
        let lock = nix::libc::flock {
            l_type: nix::libc::F_WRLCK as i16,
            l_whence: nix::libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert!(is_locked(&file));
    }
}
