//! A small machine, one thing too much or too little at a time, and the line that names it.

use yakiros_guest::ledger::{Descriptor, DescriptorKind, File, Mounts, Process, Socket, Watch};

use super::*;
use crate::vm::{Component, HeldDescriptors};

const CHANNEL_GROUP: &str = "graph/web/web.gen-1";

fn process(pid: i32, parent: i32, name: &str, group: &str) -> Process {
    let namespaces = [("mnt".to_owned(), 1)].into();
    let (name, group) = (name.to_owned(), group.to_owned());
    Process { pid, parent, name, group, state: 'S', started: pid as u64, namespaces, ..Process::default() }
}

fn descriptor(number: i32, kind: DescriptorKind, target: &str) -> Descriptor {
    Descriptor { number, kind, target: target.into(), ..Descriptor::default() }
}

fn pipe(number: i32, inode: u64, holders: &[i32]) -> Descriptor {
    let holders = holders.to_vec();
    Descriptor { holders, ..descriptor(number, DescriptorKind::Pipe, &format!("pipe:[{inode}]")) }
}

fn socket(inode: u64, name: &str, holder: i32) -> Socket {
    Socket { namespace: 1, protocol: "unix".into(), inode, name: name.into(), holders: vec![holder] }
}

fn component(name: &str, state: &str, pid: Option<i32>) -> Component {
    Component { name: name.into(), state: state.into(), pid, ..Component::default() }
}

fn watch(file: &str) -> Watch {
    Watch { of_groups: true, file: Some(file.into()) }
}

fn file(path: &str) -> File {
    File { path: path.into(), kind: "file".into() }
}

/// Process 1 with `web`, which hands over, and `log`, which speaks sd_notify; a `once` that is done; and the agent.
fn machine() -> Account {
    let components = vec![
        component("log", "ACTIVE", Some(20)),
        component("once", "DONE", None),
        component("web", "ACTIVE", Some(10)),
    ];
    let mut account = Account { components, ..Account::default() };
    let ledger = &mut account.ledger;
    ledger.processes = vec![
        process(1, 0, "graph-resolver", ""),
        Process { of_kernel: true, ..process(2, 0, "kthreadd", "") },
        Process { of_agent: true, ..process(5, 0, "yakiros-agent", "") },
        process(10, 1, "web", CHANNEL_GROUP),
        Process {
            notify_socket: Some("/run/graph/notify/secret".into()),
            ..process(20, 1, "log", "graph/log")
        },
    ];
    ledger.descriptors = vec![
        descriptor(0, DescriptorKind::File, "/dev/console"),
        descriptor(3, DescriptorKind::Epoll, "anon_inode:[eventpoll]"),
        descriptor(4, DescriptorKind::Timerfd, "anon_inode:[timerfd]"),
        descriptor(5, DescriptorKind::Socket, "socket:[50]"),
        descriptor(6, DescriptorKind::Socket, "socket:[51]"),
        descriptor(7, DescriptorKind::Socket, "socket:[52]"),
        descriptor(8, DescriptorKind::Socket, "socket:[53]"),
        pipe(9, 60, &[10]),
        pipe(10, 61, &[20]),
        descriptor(11, DescriptorKind::File, "/run/graph/log.log"),
        pipe(12, 62, &[]),
        pipe(13, 62, &[]),
    ];
    ledger.sockets = vec![
        socket(50, "/run/graph-resolver.sock", 1),
        socket(51, "", 1),
        socket(52, "", 1),
        socket(53, "/run/graph/notify/2", 1),
    ];
    ledger.groups =
        ["graph", "graph/log", "graph/once", "graph/web", CHANNEL_GROUP].map(String::from).to_vec();
    ledger.mounts = vec![Mounts { namespace: 1, of: 1, count: 1, list: vec!["/proc (proc of proc)".into()] }];
    ledger.files = ["/run/graph", "/run/graph/log.log", "/run/graph/notify", "/run/graph/notify/secret"]
        .map(file)
        .to_vec();
    // One is of no group: the directory of component files.
    ledger.watches = vec![Watch::default(), watch("graph/log/memory.events")];
    ledger.kernel = [("slab_kb".to_owned(), 20_000)].into();
    account
}

/// What is found after a change to the machine.
fn found(change: impl FnOnce(&mut Account)) -> Vec<String> {
    let before = machine();
    let mut after = machine();
    change(&mut after);
    compare(&before, &after).findings.into_iter().map(|finding| finding.text).collect()
}

#[test]
fn what_does_not_change_balances() {
    assert_eq!(found(|_| ()), Vec::<String>::new());
    let balance = compare(&machine(), &machine());
    assert_eq!(balance.rows.len(), ROWS.len());
    assert_eq!((balance.rows[0].before, balance.rows[0].after), (4, 4));
}

#[test]
fn a_component_comes_and_goes_with_all_that_is_its_own() {
    let more = |account: &mut Account| {
        account.components.push(component("new", "ACTIVE", Some(30)));
        let ledger = &mut account.ledger;
        ledger.processes.push(process(30, 1, "new", "graph/new"));
        ledger.processes.push(process(31, 30, "worker", "graph/new/inner"));
        ledger.groups.extend(["graph/new".into(), "graph/new/inner".into()]);
        ledger.descriptors.push(pipe(30, 70, &[30, 31]));
        ledger.descriptors.push(descriptor(31, DescriptorKind::File, "/run/graph/new.log (deleted)"));
        ledger.descriptors.push(descriptor(
            32,
            DescriptorKind::File,
            "/sys/fs/cgroup/graph/new/memory.events",
        ));
        ledger.files.push(file("/run/graph/new.log.1"));
        ledger.watches.push(watch("graph/new/memory.events"));
    };
    assert_eq!(found(more), Vec::<String>::new());
    let mut before = machine();
    more(&mut before);
    assert!(compare(&before, &machine()).findings.is_empty());
    // Its declaration is gone, and nothing of it went.
    let mut after = before.clone();
    after.components.pop();
    let texts: Vec<_> = compare(&before, &after).findings.into_iter().map(|finding| finding.text).collect();
    assert_eq!(
        texts,
        [
            "process 30 (new) too much: graph/new belongs to no component that is declared",
            "process 31 (worker) too much: graph/new/inner belongs to no component that is declared",
            "control group graph/new too much: it belongs to no component that is declared",
            "control group graph/new/inner too much: it belongs to no component that is declared",
            "a watch of process 1 too much: of graph/new/memory.events, which belongs to no component that is declared",
            "a descriptor of process 1 too much: number 30, pipe:[70]: shared with process 30 (new), 31 (worker)",
            "a descriptor of process 1 too much: number 31, /run/graph/new.log (deleted): it belongs to no component",
            "a descriptor of process 1 too much: number 32, /sys/fs/cgroup/graph/new/memory.events: it belongs to no component",
            "file /run/graph/new.log.1 too much: new is no longer declared",
        ]
    );
}

/// What is found when one thing is there that should not be, or is not there that should.
#[test]
fn each_thing_is_named() {
    type Change = fn(&mut Account);
    let table: [(Change, &str); 25] = [
        (
            |account| account.ledger.processes.push(process(40, 1, "lost", "")),
            "process 40 (lost) too much: of parent 1, in the control group the root",
        ),
        (
            |account| account.ledger.processes.push(process(41, 1, "late", "graph/once")),
            "process 41 (late) too much: once does not run, it is DONE",
        ),
        (
            |account| account.ledger.processes.push(Process { state: 'Z', ..process(42, 1, "dead", "") }),
            "process 42 (dead) too much: a zombie that process 1 has not reaped",
        ),
        (
            |account| account.components[0].pid = Some(21),
            "process 21 of log is lost: it is said to be ACTIVE",
        ),
        (
            |account| account.ledger.groups.push("graph/web/web.gen-7".into()),
            "control group graph/web/web.gen-7 too much: the process of web that it was for is gone",
        ),
        (
            |account| account.ledger.groups.push("graph/left".into()),
            "control group graph/left too much: it belongs to no component that is declared",
        ),
        (
            |account| account.ledger.watches.push(Watch { of_groups: true, file: None }),
            "a watch of process 1 too much: of a file of a control group that is gone",
        ),
        (
            |account| account.ledger.watches.push(watch("graph/left/memory.events")),
            "a watch of process 1 too much: of graph/left/memory.events, which belongs to no component that is declared",
        ),
        (
            |account| account.ledger.groups.push("other".into()),
            "control group other too much: it is not the supervisor's",
        ),
        (
            |account| {
                let pidfd = descriptor(20, DescriptorKind::Pidfd, "anon_inode:[pidfd]");
                account.ledger.descriptors.push(Descriptor { pid: Some(-1), ..pidfd });
            },
            "a pidfd of process 1 too much: number 20, anon_inode:[pidfd]: of a process that is gone",
        ),
        (
            |account| {
                account.ledger.descriptors.push(descriptor(
                    20,
                    DescriptorKind::Timerfd,
                    "anon_inode:[timerfd]",
                ));
            },
            "a timer of process 1 too much: number 20, anon_inode:[timerfd]: it belongs to no component",
        ),
        (
            |account| {
                account.ledger.descriptors.push(descriptor(
                    20,
                    DescriptorKind::Memfd,
                    "/memfd:state (deleted)",
                ));
            },
            "a descriptor of process 1 too much: number 20, /memfd:state (deleted): it belongs to no component",
        ),
        (
            |account| account.ledger.descriptors.push(pipe(20, 99, &[])),
            "a descriptor of process 1 too much: number 20, pipe:[99]: nobody is at its other end",
        ),
        (
            |account| account.ledger.descriptors.push(pipe(20, 99, &[5])),
            "a descriptor of process 1 too much: number 20, pipe:[99]: shared with process 5 (yakiros-agent)",
        ),
        (
            |account| {
                account.ledger.descriptors.push(descriptor(20, DescriptorKind::Socket, "socket:[98]"));
                account.ledger.sockets.push(socket(98, "/run/graph/notify/1", 1));
            },
            "a descriptor of process 1 too much: number 8, socket:[53]: /run/graph/notify/2, and nobody is connected to it",
        ),
        (
            |account| {
                account.ledger.descriptors.push(descriptor(20, DescriptorKind::Socket, "socket:[98]"));
                account.ledger.sockets.push(socket(98, "", 1));
            },
            "a descriptor of process 1 too much: number 7, socket:[52]: it belongs to no component",
        ),
        (
            |account| drop(account.ledger.descriptors.remove(1)),
            "process 1 has lost a descriptor of its own: epoll",
        ),
        (
            |account| account.ledger.mounts[0].list.push("/mnt (tmpfs of none)".into()),
            "mount /mnt (tmpfs of none) too much in the namespace of process 1",
        ),
        (
            |account| account.ledger.mounts[0].list.clear(),
            "mount /proc (proc of proc) is gone from the namespace of process 1",
        ),
        (
            |account| account.ledger.sockets.push(Socket { holders: Vec::new(), ..socket(97, "@left", 1) }),
            "unix socket @left too much: no process has it open",
        ),
        (
            |account| account.ledger.files.push(file("/run/graph/notify/stale")),
            "file /run/graph/notify/stale too much: no process that runs was given it",
        ),
        (
            |account| account.ledger.files.push(file("/run/graph/released/99")),
            "file /run/graph/released/99 too much: the process of that number has ended",
        ),
        (
            |account| account.ledger.files.push(file("/run/graph/core")),
            "file /run/graph/core too much: it belongs to no component that is declared",
        ),
        (|account| account.ledger.posix_timers = 1, "POSIX timers of process 1: 1, and before 0"),
        (
            |account| account.ledger.kernel.extend([("slab_kb".to_owned(), 90_000)]),
            "70000 KiB of kernel slab too much: 20000 KiB before, 90000 KiB now",
        ),
    ];
    for (change, expected) in table {
        assert_eq!(found(change), [expected]);
    }
}

#[test]
fn what_is_held_for_a_component_is_its_own() {
    let hold = |account: &mut Account| {
        account.components[0].descriptors.push(HeldDescriptors { count: 2 });
        account.ledger.descriptors.push(descriptor(20, DescriptorKind::Eventfd, "anon_inode:[eventfd]"));
        account.ledger.descriptors.push(descriptor(21, DescriptorKind::Socket, "socket:[96]"));
        account.ledger.sockets.push(socket(96, "0100007F:1F90", 1));
    };
    assert_eq!(found(hold), Vec::<String>::new());
    let one_more = found(|account| {
        hold(account);
        account.components[0].descriptors[0].count = 1;
    });
    assert_eq!(one_more.len(), 2, "{one_more:?}");
}

#[test]
fn a_client_that_runs_and_a_group_that_is_declared_are_owned() {
    let client = found(|account| {
        let waiting = Process { of_agent: true, ..process(50, 5, "graphctl", "") };
        account.ledger.processes.push(waiting);
        account.ledger.descriptors.push(descriptor(20, DescriptorKind::Socket, "socket:[95]"));
        account.ledger.sockets.push(socket(95, "/run/graph-resolver.sock", 1));
    });
    assert_eq!(client, Vec::<String>::new());
    let elsewhere = found(|account| {
        account.groups.insert("once".into(), "jobs/night".into());
        account.ledger.groups.extend(["graph/jobs".into(), "graph/jobs/night".into()]);
        account.ledger.groups.retain(|group| group != "graph/once");
    });
    assert_eq!(elsewhere, Vec::<String>::new());
    // A process that was there before, outside of the supervisor's groups, is nobody's business.
    let (mut before, mut after) = (machine(), machine());
    for account in [&mut before, &mut after] {
        account.ledger.processes.push(process(60, 1, "early", ""));
    }
    assert!(compare(&before, &after).findings.is_empty());
    after.ledger.processes.last_mut().expect("a process").started = 61;
    assert_eq!(compare(&before, &after).findings.len(), 1, "another process of that number");
}

#[test]
fn each_probe_may_be_under_way_and_no_more() {
    let probe = |number: i32| {
        move |account: &mut Account| {
            account.components[0].health = "failing".into();
            for probe in 0..number {
                let socket =
                    descriptor(40 + probe, DescriptorKind::Socket, &format!("socket:[{}]", 200 + probe));
                account.ledger.descriptors.push(socket);
            }
        }
    };
    assert_eq!(found(probe(1)), Vec::<String>::new());
    assert_eq!(found(probe(2)).len(), 1);
}

#[test]
fn a_table_that_is_left_is_named() {
    assert_eq!(
        found(|after| after.ledger.tables = vec!["yakiros-jump".into()]),
        ["table yakiros-jump of nf_tables too much: somebody has left it"]
    );
    let mut before = machine();
    before.ledger.tables = vec!["filter".into()];
    assert!(compare(&before, &before.clone()).findings.is_empty());
    assert!(compare(&before, &machine()).findings.is_empty(), "who has made it may take it away");
}

/// Process 1 of one kernel has numbers for its children that it does not have under another.
#[test]
fn another_kernel_needs_other_descriptors() {
    let under = |release: &str, nulls: i32| {
        let mut account = machine();
        account.ledger.release = release.into();
        let of = |kind, target: &str, numbers: std::ops::Range<i32>| {
            numbers.map(|number| descriptor(number, kind, target)).collect::<Vec<_>>()
        };
        account.ledger.descriptors.extend(of(DescriptorKind::File, "/dev/null", 100..100 + nulls));
        let wakes = if nulls > 1 { 2 } else { 0 };
        account.ledger.descriptors.extend(of(
            DescriptorKind::Eventfd,
            "anon_inode:[eventfd]",
            200..200 + wakes,
        ));
        account
    };
    let texts = |before: &Account, after: &Account| -> Vec<String> {
        compare(before, after).findings.into_iter().map(|finding| finding.text).collect()
    };
    let (newer, older) = (under("6.18.56-0-virt", 14), under("6.1.0-56-cloud-amd64", 1));
    for (before, after) in [(&newer, &older), (&older, &newer), (&newer, &newer), (&older, &older)] {
        assert_eq!(texts(before, after), Vec::<String>::new());
    }
    let lost = "process 1 has lost a descriptor of its own: /dev/null";
    assert_eq!(texts(&newer, &under("6.1.0-56-cloud-amd64", 0)), [lost]);
    assert_eq!(texts(&older, &under("6.18.56-0-virt", 13)), [lost]);
    assert_eq!(
        texts(&newer, &under("6.1.0-56-cloud-amd64", 14)).len(),
        15,
        "what is not needed there is too much"
    );
}
