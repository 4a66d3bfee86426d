//! The tables.

use super::{Descriptor, Finding, Mapping, Process, Socket, Tree, Verdict, mounts};
use crate::criu::Options;
use crate::store::Version;

/// Largest file without a name that is put into the images, in bytes: what is larger is data that belongs to a disk.
const GHOST_LIMIT: u64 = 256 << 20;
/// What CRIU allows without being told.
const GHOST_USUAL: u64 = 1 << 20;

/// Of any CRIU that is in use.
const ALWAYS: Version = Version { major: 0, minor: 0, patch: 0 };
/// Kinds of anonymous inodes that CRIU knows, and since when. Of tables of programs in the kernel it knows hashes and
/// arrays, and says so itself of others.
const KNOWN: [(&str, Version); 8] = [
    ("eventfd", ALWAYS),
    ("eventpoll", ALWAYS),
    ("signalfd", ALWAYS),
    ("timerfd", ALWAYS),
    ("inotify", ALWAYS),
    ("fanotify", ALWAYS),
    ("bpf-map", Version { major: 3, minor: 16, patch: 0 }),
    ("pidfd", Version { major: 4, minor: 1, patch: 0 }),
];

/// Kinds that it does not, with what is asked for by them.
const UNKNOWN: [(&str, &str, &str); 6] = [
    ("io_uring", "requests may be under way in the kernel", "have it use epoll while checkpoints are wanted"),
    ("userfaultfd", "page faults of it would be nobody's", "have it close that before"),
    ("bpf-prog", "programs in the kernel are not read back", "load them by another component"),
    ("bpf-link", "what a program in the kernel hangs on is not read back", "load it by another component"),
    ("perf_event", "counters in the kernel are not read back", "have it stop measuring before"),
    ("kvm-vm", "a machine's state is in the kernel", "have its own means save it"),
];

/// Devices that are the same after it as before.
const DEVICES: [&str; 10] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts/ptmx",
    "/dev/net/tun",
];
/// The interface that each network namespace has.
const LOOPBACK: &str = "lo";
/// Why such a file is in the way.
const FROM_OUTSIDE: &str = "it was opened outside of its mount namespace";
/// Why a socket is in the way that is in no table of its process's network, such as the channel of a hot swap.
const OF_ANOTHER_NETWORK: &str = "it was made in another network, where CRIU does not find it";
/// Terminals.
const TERMINALS: &str = "/dev/pts/";
/// What begins the names of memory that has a file's form, and is in no directory that could be mounted.
const NOWHERE: [&str; 4] = ["/memfd:", "/dev/zero (deleted)", "/[aio]", "/SYSV"];
/// What the kernel maps into every process.
const KERNELS_OWN: [&str; 4] = ["[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"];

/// What CRIU maps into a process while it writes it.
const CRIUS_OWN: &str = "/memfd:CRIUMFD";

/// Judge a tree for this version of CRIU; its first process is the first.
pub fn judge(tree: &Tree, criu: Version) -> Verdict {
    let mut verdict = Verdict { processes: tree.processes.len(), ..Verdict::default() };
    namespaces(tree, &mut verdict);
    for process in &tree.processes {
        process_itself(tree, process, &mut verdict);
        for descriptor in &process.descriptors {
            if let Some((why, fix)) = open(tree, descriptor, criu, &mut verdict.options) {
                let what = format!("descriptor {} ({})", descriptor.number, descriptor.target);
                verdict.findings.push(Finding { pid: process.pid, what, why, fix });
            }
        }
        for mapping in &process.mappings {
            if let Some((why, fix)) = mapped(tree, mapping, criu) {
                let what = format!("memory at {} ({})", mapping.range, mapping.name);
                verdict.findings.push(Finding { pid: process.pid, what, why, fix });
            }
        }
    }
    let mut descriptors = tree.processes.iter().flat_map(|process| &process.descriptors);
    verdict.options.file_locks = descriptors.any(|descriptor| descriptor.is_locked);
    verdict
}

/// What the first process has for itself.
fn namespaces(tree: &Tree, verdict: &mut Verdict) {
    let own = &tree.isolation.namespaces;
    verdict.options.cgroup_namespace = own.contains("cgroup");
    let pid = tree.processes[0].pid;
    let mut found = |what: &str, (why, fix): (&str, &str)| {
        let [what, why, fix] = [what, why, fix].map(str::to_owned);
        verdict.findings.push(Finding { pid, what, why, fix });
    };
    if own.contains("user") {
        let why = "CRIU cannot mount what is mounted there as one of its users";
        found("its user namespace", (why, "do without `user` in its namespaces, or without checkpoints"));
    }
    for name in tree.interfaces.iter().filter(|name| *name != LOOPBACK) {
        let why = "what is at the other end of this interface is not connected again";
        found(&format!("its network ({name})"), (why, "do without `network`, or without checkpoints"));
    }
    if !own.contains("mnt") {
        return;
    }
    if tree.root.is_none() {
        let why = "the machine does not have that file system mounted";
        found("its root directory", (why, "have the machine mount it"));
    }
    for mount in tree.inside.iter().filter(|mount| mount.target != "/") {
        if let Some(reason) = mounts::obstacle(mount, &tree.inside, &tree.outside) {
            found(&format!("what is mounted at {} ({})", mount.target, mount.kind), reason);
        }
    }
    // Have CRIU find the mounts that it is to take from the machine.
    verdict.options.external.push("mnt[]:ms".to_owned());
    verdict.options.root.clone_from(&tree.root);
}

/// Whether a file was opened where its process is not any more, by whoever started it.
fn is_from_outside(tree: &Tree, name: &str, mount: Option<u64>) -> bool {
    let is_inside = |id: u64| tree.inside.iter().any(|mount| mount.id == id);
    let is_file = name.starts_with('/') && !NOWHERE.iter().any(|begin| name.starts_with(begin));
    is_file && mount.is_some_and(|id| !is_inside(id))
}

/// Why something is in the way, and what would help.
type Reason = (String, String);

fn reason(why: impl Into<String>, fix: impl Into<String>) -> Reason {
    (why.into(), fix.into())
}

fn process_itself(tree: &Tree, process: &Process, verdict: &mut Verdict) {
    let first = &tree.processes[0];
    let in_tree = |pid: i32| tree.processes.iter().any(|other| other.pid == pid);
    let mut found = |what: &str, (why, fix): Reason| {
        verdict.findings.push(Finding { pid: process.pid, what: what.to_owned(), why, fix });
    };
    if process.state == 'Z' && process.pid == first.pid {
        found("itself", ("it has ended and waits for its parent".into(), "start it again".into()));
    }
    if process.tracer != 0 {
        let why = format!("process {} traces it, and only one can", process.tracer);
        found("itself", (why, "end the debugger".into()));
    }
    // A session of number 0 is one that this namespace does not see. In place of a leader that has ended CRIU makes one
    // again for the time of the restore, but not for the first process.
    let is_made_again = process.session != 0 && !process.has_leader && process.pid != first.pid;
    if process.state != 'Z' && !in_tree(process.session) && !is_made_again {
        let why = format!("the leader of its session, {}, is not among its processes", process.session);
        found("its session", (why, "have it begin a session of its own, as setsid does".into()));
    }
    // What has ended is in none any more.
    if process.state != 'Z' && process.mount_namespace != first.mount_namespace {
        let why = "it has other file systems than the first process".to_owned();
        found("its mount namespace", (why, "have it use those of the component".into()));
    }
    if process.state != 'Z' && process.user_namespace != first.user_namespace {
        let why = "it is in another user namespace than the first process".to_owned();
        found("its user namespace", (why, "have it use that of the component".into()));
    }
}

fn open(tree: &Tree, descriptor: &Descriptor, criu: Version, options: &mut Options) -> Option<Reason> {
    let target = descriptor.target.as_str();
    if let Some(kind) = target.strip_prefix("anon_inode:") {
        return anonymous(kind, criu);
    }
    if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
        let socket = inode.parse().ok().and_then(|inode: u64| tree.sockets.get(&inode));
        options.tcp_established |= socket == Some(&Socket::TcpConnected);
        // CRIU asks the network of the process about it. (In the machine's one that is neither bound nor connected is in no
        // table and is found by CRIU all the same.)
        let is_foreign = socket.is_none() && tree.isolation.namespaces.contains("net");
        return is_foreign.then(|| reason(OF_ANOTHER_NETWORK, "do without `net` in its namespaces"));
    }
    if is_from_outside(tree, target, descriptor.place.map(|(mount, _)| mount)) {
        // It is opened anew by whoever has it restored.
        if let (true, Some((mount, inode))) = (descriptor.is_null, descriptor.place) {
            let name = format!("file[{mount:x}:{inode:x}]");
            if !options.external.contains(&name) {
                options.external.push(name);
            }
            return None;
        }
        return Some(reason(FROM_OUTSIDE, "have it open that itself"));
    }
    if descriptor.is_device {
        let known = DEVICES.contains(&target) || target.starts_with(TERMINALS);
        options.shell_job |= target.starts_with(TERMINALS) && !target.ends_with("ptmx");
        let why = "what a device knows of who has it open is not read back";
        return (!known).then(|| reason(why, "have it close the device before"));
    }
    if descriptor.is_unlinked && !target.starts_with("/memfd:") {
        if descriptor.size > GHOST_LIMIT {
            let why = format!(
                "no directory has this file any more, and its {} bytes are too many",
                descriptor.size
            );
            return Some(reason(why, "have it keep large files under a name"));
        }
        if descriptor.size > GHOST_USUAL {
            options.ghost_limit = Some(options.ghost_limit.unwrap_or(0).max(descriptor.size));
        }
    }
    None
}

/// `[eventfd]`, `inotify`, `bpf-map`, `[eventfd:17]`.
fn anonymous(kind: &str, criu: Version) -> Option<Reason> {
    let kind = kind.trim_start_matches('[').trim_end_matches(']');
    let kind = kind.split(':').next().unwrap_or(kind);
    if let Some((_, since)) = KNOWN.iter().find(|(name, _)| *name == kind) {
        let why = || format!("CRIU knows this kind since {since}, and here is {criu}");
        return (criu < *since).then(|| reason(why(), "install a newer CRIU, or have it close that before"));
    }
    Some(match UNKNOWN.iter().find(|(name, ..)| *name == kind) {
        Some((_, why, fix)) => reason(*why, *fix),
        None => reason("CRIU knows nothing of this kind", "have it close that before"),
    })
}

fn mapped(tree: &Tree, mapping: &Mapping, criu: Version) -> Option<Reason> {
    if let Some(kind) = mapping.name.strip_prefix("anon_inode:") {
        return anonymous(kind, criu);
    }
    if mapping.name.starts_with(CRIUS_OWN) {
        let why = "a CRIU was killed when it was at work in this process, and has left its code there";
        return Some(reason(why, "restart the component"));
    }
    if is_from_outside(tree, &mapping.name, mapping.mount) {
        return Some(reason(FROM_OUTSIDE, "do without `init`, and have it execute a program inside"));
    }
    if mapping.name == "[uprobes]" {
        return Some(reason("somebody traces its functions", "end what traces them"));
    }
    let is_kernels = KERNELS_OWN.contains(&mapping.name.as_str());
    (mapping.is_device && !is_kernels)
        .then(|| reason("it is memory of a device", "have it unmap that before"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::preflight::Isolation;

    const CRIU: Version = Version { major: 4, minor: 2, patch: 0 };

    fn judge(tree: &Tree) -> Verdict {
        super::judge(tree, CRIU)
    }

    /// A process that leads its session.
    fn process(descriptors: Vec<Descriptor>, mappings: Vec<Mapping>) -> Process {
        let user_namespace = "user:[1]".to_owned();
        let (pid, state, session) = (7, 'S', 7);
        Process {
            pid,
            state,
            session,
            has_leader: true,
            user_namespace,
            descriptors,
            mappings,
            ..Process::default()
        }
    }

    fn with(descriptor: Descriptor) -> Verdict {
        let sockets = [(11, Socket::Tcp), (12, Socket::TcpConnected), (13, Socket::Unix)].into();
        judge(&Tree { processes: vec![process(vec![descriptor], Vec::new())], sockets, ..Tree::default() })
    }

    fn target(target: &str) -> Descriptor {
        Descriptor { number: 3, target: target.to_owned(), ..Descriptor::default() }
    }

    #[test]
    fn what_is_ordinary_is_not_in_the_way() {
        let devices =
            ["/dev/null", "/dev/urandom"].map(|path| Descriptor { is_device: true, ..target(path) });
        let others = [
            "/etc/passwd",
            "pipe:[5]",
            "socket:[11]",
            "socket:[13]",
            "anon_inode:[eventfd]",
            "anon_inode:inotify",
            "anon_inode:[eventpoll]",
            "anon_inode:[pidfd]",
            "anon_inode:bpf-map",
            "/memfd:x (deleted)",
            "net:[4026531840]",
        ];
        for descriptor in others.map(target).into_iter().chain(devices) {
            let verdict = with(descriptor.clone());
            assert_eq!(verdict, Verdict { processes: 1, ..Verdict::default() }, "{descriptor:?}");
        }
        let mappings = ["", "/lib/libc.so.6", "[heap]", "/dev/zero (deleted)", "/[aio] (deleted)"];
        let vdso = Mapping { name: "[vdso]".to_owned(), is_device: true, ..Mapping::default() };
        let mappings = mappings.map(|name| Mapping { name: name.to_owned(), ..Mapping::default() });
        let mappings = mappings.into_iter().chain([vdso]).collect();
        let tree = Tree { processes: vec![process(Vec::new(), mappings)], ..Tree::default() };
        assert_eq!(judge(&tree).findings, []);
    }

    #[test]
    fn what_is_in_the_way_is_named_with_what_would_help() {
        // What is open, and a part of what is said.
        let device = Descriptor { is_device: true, ..target("/dev/kvm") };
        let large = Descriptor { is_unlinked: true, size: GHOST_LIMIT + 1, ..target("/tmp/x (deleted)") };
        let cases = [
            (target("anon_inode:[io_uring]"), "(anon_inode:[io_uring]): requests may be under way"),
            (target("anon_inode:[userfaultfd]"), "page faults"),
            (target("anon_inode:bpf-prog"), "programs in the kernel"),
            (target("anon_inode:[fscontext]"), "CRIU knows nothing of this kind"),
            (device, "descriptor 3 (/dev/kvm): what a device knows"),
            (large, "are too many"),
        ];
        for (descriptor, expected) in cases {
            let findings = with(descriptor.clone()).findings;
            assert_eq!(findings.len(), 1, "{descriptor:?}");
            let said = findings[0].to_string();
            assert!(said.starts_with("process 7, descriptor 3 (") && said.contains(expected), "{said}");
        }
        let cases = [("[uprobes]", false, "traces its functions"), ("/dev/mem", true, "memory of a device")];
        for (name, is_device, expected) in cases {
            let mapping =
                Mapping { range: "1000-2000".to_owned(), name: name.to_owned(), is_device, mount: None };
            let tree = Tree { processes: vec![process(Vec::new(), vec![mapping])], ..Tree::default() };
            let said = judge(&tree).findings.iter().map(ToString::to_string).collect::<String>();
            assert!(
                said.starts_with("process 7, memory at 1000-2000 (") && said.contains(expected),
                "{said}"
            );
        }
    }

    #[test]
    fn switches_follow_from_what_is_there() {
        assert!(with(target("socket:[12]")).options.tcp_established);
        let terminal = Descriptor { is_device: true, ..target("/dev/pts/3") };
        assert!(with(terminal).options.shell_job);
        let ghost = Descriptor { is_unlinked: true, size: 5 << 20, ..target("/tmp/x (deleted)") };
        assert_eq!(with(ghost).options.ghost_limit, Some(5 << 20));
        assert!(!with(target("/run/lock")).options.file_locks);
        assert!(with(Descriptor { is_locked: true, ..target("/run/lock") }).options.file_locks);
    }

    #[test]
    fn what_is_known_depends_on_the_version() {
        let of = |kind: &str, major, minor| {
            let tree = Tree { processes: vec![process(vec![target(kind)], Vec::new())], ..Tree::default() };
            let findings = super::judge(&tree, Version { major, minor, patch: 0 }).findings;
            findings.iter().map(ToString::to_string).collect::<String>()
        };
        assert_eq!(of("anon_inode:[pidfd]", 4, 1), "");
        assert!(
            of("anon_inode:[pidfd]", 4, 0)
                .contains("knows this kind since 4.1.0, and here is 4.0.0; install")
        );
        assert_eq!(of("anon_inode:bpf-map", 3, 16), "");
        assert!(of("anon_inode:bpf-map", 3, 15).contains("since 3.16.0"));
    }

    #[test]
    fn processes_that_cannot_be_dumped_are_named() {
        let first = process(Vec::new(), Vec::new());
        let of = |change: &dyn Fn(&mut Process)| {
            let mut second = Process { pid: 8, ..first.clone() };
            change(&mut second);
            let tree = Tree { processes: vec![first.clone(), second], ..Tree::default() };
            judge(&tree).findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(of(&|_| {}), "");
        let ended = |p: &mut Process| *p = Process { pid: 8, state: 'Z', session: 7, ..Process::default() };
        assert_eq!(of(&ended), "", "its parent is dumped, too, and nothing else is known of it");
        assert!(of(&|p| p.tracer = 99).starts_with("process 8, itself: process 99 traces it"));
        assert!(of(&|p| p.session = 1).contains("the leader of its session, 1, is not among its processes"));
        let dead = |p: &mut Process| (p.session, p.has_leader) = (6, false);
        assert_eq!(of(&dead), "", "CRIU makes a leader again");
        let unseen = |p: &mut Process| (p.session, p.has_leader) = (0, false);
        assert!(of(&unseen).contains("the leader of its session, 0, is not among"));
        assert!(of(&|p| p.user_namespace = "user:[2]".into()).contains("another user namespace"));
        assert!(of(&|p| p.mount_namespace = "mnt:[2]".into()).contains("other file systems"));
        let dead = Process { state: 'Z', ..first.clone() };
        let dead = judge(&Tree { processes: vec![dead], ..Tree::default() });
        assert!(dead.findings[0].why.contains("has ended"));
    }

    #[test]
    fn namespaces_that_cannot_be_made_again_are_named() {
        let of = |kind: &str, interfaces: &[&str]| {
            let isolation = Isolation { namespaces: [kind.to_owned()].into(), ..Isolation::default() };
            let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
            let processes = vec![process(Vec::new(), Vec::new())];
            let verdict = judge(&Tree { processes, isolation, interfaces, ..Tree::default() });
            verdict.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        for (kind, interfaces) in [("net", &["lo"][..]), ("ipc", &[]), ("time", &[]), ("pid", &[])] {
            assert_eq!(of(kind, interfaces), "");
        }
        assert!(of("user", &[]).starts_with("process 7, its user namespace: CRIU cannot mount"));
        assert!(
            of("net", &["lo", "eth0"]).starts_with("process 7, its network (eth0): what is at the other")
        );
    }

    #[test]
    fn a_socket_of_another_network_is_named() {
        let of = |kind: &str, inode: u64| {
            let isolation = Isolation { namespaces: [kind.to_owned()].into(), ..Isolation::default() };
            let descriptor =
                Descriptor { number: 3, target: "socket:[13]".to_owned(), ..Descriptor::default() };
            let sockets = [(inode, Socket::Unix)].into();
            let processes = vec![process(vec![descriptor], Vec::new())];
            let verdict = judge(&Tree { processes, sockets, isolation, ..Tree::default() });
            verdict.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert!(of("net", 12).contains("descriptor 3 (socket:[13]): it was made in another network"));
        assert_eq!(of("net", 13), "");
        assert_eq!(of("uts", 12), "");
    }

    #[test]
    fn a_mount_namespace_is_made_again_where_it_can_be() {
        let outside = mounts::parse("1 0 254:0 / / rw - ext4 /dev/vda rw\n");
        let inside = "5 4 254:0 / / rw - ext4 /dev/vda rw\n6 5 0:45 / /tmp rw - tmpfs tmpfs rw\n";
        let of = |descriptor: Descriptor, mount: u64, more: &str, root: Option<&str>| {
            let mapping = Mapping { name: "/bin/sh".to_owned(), mount: Some(mount), ..Mapping::default() };
            let isolation =
                Isolation { namespaces: ["cgroup", "mnt"].map(str::to_owned).into(), ..Isolation::default() };
            judge(&Tree {
                processes: vec![process(vec![descriptor], vec![mapping])],
                outside: outside.clone(),
                inside: mounts::parse(&format!("{inside}{more}")),
                isolation,
                root: root.map(PathBuf::from),
                ..Tree::default()
            })
        };
        let null = Descriptor { is_device: true, is_null: true, place: Some((36, 16)), ..target("/null") };
        let verdict = of(null, 5, "", Some("/"));
        assert_eq!(verdict.findings, []);
        assert_eq!(verdict.options.external, ["mnt[]:ms", "file[24:10]"]);
        assert_eq!(verdict.options.root.as_deref(), Some(Path::new("/")));
        assert!(verdict.options.cgroup_namespace);
        let file = Descriptor { place: Some((6, 9)), ..target("/tmp/x") };
        let memory = Descriptor { place: Some((99, 9)), ..target("/memfd:x (deleted)") };
        for descriptor in [file.clone(), memory, target("pipe:[5]")] {
            assert_eq!(of(descriptor, 5, "", Some("/")).findings, []);
        }
        let said = |verdict: Verdict| verdict.findings.iter().map(ToString::to_string).collect::<String>();
        let outside = Descriptor { place: Some((99, 9)), ..file.clone() };
        let expected = "process 7, descriptor 3 (/tmp/x): it was opened outside of its mount namespace";
        assert!(said(of(outside, 5, "", Some("/"))).starts_with(expected));
        assert!(said(of(file.clone(), 99, "", Some("/"))).contains("(/bin/sh): it was opened outside"));
        let disk = "7 5 8:1 / /mnt rw - ext4 /dev/sda1 rw\n";
        let expected = "process 7, what is mounted at /mnt (ext4): the machine does not";
        assert!(said(of(file.clone(), 5, disk, Some("/"))).starts_with(expected));
        assert!(said(of(file, 5, "", None)).starts_with("process 7, its root directory: the machine does"));
    }
}
