//! The rules for everything but the descriptors of process 1 (see [`super::balance`]).

use std::collections::BTreeSet;

use yakiros_guest::ledger::{Ledger, Process};

use super::balance::{Finding, What};
use super::owners::{Owners, SUBTREE, generation, is_below};

/// The supervisor's directory of logs and sockets.
const STATE: &str = "/run/graph/";
/// In it: sockets on which components say something about themselves, one for each process.
const NOTIFY: &str = "/run/graph/notify";
/// In it: a note for each process that another one serves in the place of, by its number, until it has ended.
const RELEASED: &str = "/run/graph/released";
/// What follows a component's name in the name of its log, of the older one, and of the mark that something is gone.
const LOGS: [&str; 3] = [".log", ".log.1", ".log.gone"];
/// What the kernel's own memory may grow by in a scenario, in KiB, without anything being lost: caches of its own for each
/// processor, pages of caches that are half empty, and what waits for the end of a grace period (RCU) after hundreds of
/// processes have ended.
const SLAB_TOLERANCE_KB: u64 = 8 * 1024;
/// The same for each process that is more than before, with its group and its descriptors: 58 KiB were measured with 300
/// components on Linux 6.18, a kernel stack among them.
const SLAB_OF_PROCESS_KB: u64 = 96;

/// Every process has an owner, and every zombie a parent that is not process 1.
pub fn processes(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for process in &is.account.ledger.processes {
        if let Some(why) = nobodys(process, was, is) {
            let Process { pid, name, .. } = process;
            findings.push(Finding::new(What::Processes, format!("process {pid} ({name}) too much: {why}")));
        }
    }
    for component in &is.account.components {
        if let Some(pid) = component.pid.filter(|pid| is.process(*pid).is_none()) {
            let text =
                format!("process {pid} of {} is lost: it is said to be {}", component.name, component.state);
            findings.push(Finding::new(What::Processes, text));
        }
    }
    findings
}

/// Why a process belongs to nobody.
fn nobodys(process: &Process, was: &Owners<'_>, is: &Owners<'_>) -> Option<String> {
    if process.of_kernel || process.pid == 1 {
        return None;
    }
    if process.state == 'Z' {
        return (process.parent == 1).then(|| "a zombie that process 1 has not reaped".into());
    }
    if process.of_agent || is.runs_in(&process.group).is_some() {
        return None;
    }
    if !is_below(&process.group, SUBTREE) {
        let before = was.process(process.pid).is_some_and(|one| one.started == process.started);
        let group = if process.group.is_empty() { "the root" } else { &process.group };
        return (!before).then(|| format!("of parent {}, in the control group {group}", process.parent));
    }
    Some(match is.of_group(&process.group) {
        Some(component) => format!("{} does not run, it is {}", component.name, component.state),
        None => format!("{} belongs to no component that is declared", process.group),
    })
}

/// Every control group has an owner.
pub fn groups(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let before: BTreeSet<&str> = was.account.ledger.groups.iter().map(String::as_str).collect();
    let nobodys = |path: &String| {
        if !is_below(path, SUBTREE) {
            return (!before.contains(path.as_str())).then(|| "it is not the supervisor's".to_owned());
        }
        if path == SUBTREE || is.is_above_one(path) {
            return None;
        }
        match (is.of_group(path), generation(path)) {
            (None, _) => Some("it belongs to no component that is declared".to_owned()),
            (Some(component), Some(own)) if !is.is_lived_in(own) => {
                Some(format!("the process of {} that it was for is gone", component.name))
            }
            (Some(_), _) => None,
        }
    };
    let groups = &is.account.ledger.groups;
    let found = groups.iter().filter_map(|path| Some((path, nobodys(path)?)));
    found
        .map(|(path, why)| Finding::new(What::Groups, format!("control group {path} too much: {why}")))
        .collect()
}

/// Process 1 watches files of control groups that are there, and of a component that is declared.
pub fn watches(_: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let nobodys = is.account.ledger.watches.iter().filter(|watch| watch.of_groups).filter_map(|watch| {
        let Some(file) = &watch.file else {
            return Some("of a file of a control group that is gone".to_owned());
        };
        let why = "which belongs to no component that is declared";
        is.of_group(file).is_none().then(|| format!("of {file}, {why}"))
    });
    nobodys
        .map(|what| Finding::new(What::Watches, format!("a watch of process 1 too much: {what}")))
        .collect()
}

/// Process 1 has the mounts that it had.
pub fn mounts(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let (before, after) = (of_init(&was.account.ledger), of_init(&is.account.ledger));
    let (more, less) = difference(&before, &after);
    let more = more.into_iter().map(|mount| format!("mount {mount} too much in the namespace of process 1"));
    let less = less.into_iter().map(|mount| format!("mount {mount} is gone from the namespace of process 1"));
    more.chain(less).map(|text| Finding::new(What::Mounts, text)).collect()
}

fn of_init(ledger: &Ledger) -> Vec<&str> {
    ledger.mounts.iter().flat_map(|mounts| &mounts.list).map(String::as_str).collect()
}

/// What the second list has beyond the first, and what it lacks. Both may have things more than once.
pub fn difference<T: Ord + Copy>(before: &[T], after: &[T]) -> (Vec<T>, Vec<T>) {
    let beyond = |from: &[T], than: &[T]| {
        let (mut from, mut than) = (from.to_vec(), than.to_vec());
        from.sort_unstable();
        than.sort_unstable();
        let mut than = than.into_iter().peekable();
        from.retain(|one| {
            while than.next_if(|other| other < one).is_some() {}
            than.next_if(|other| other == one).is_none()
        });
        from
    };
    (beyond(after, before), beyond(before, after))
}

/// Somebody has each socket open.
pub fn sockets(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let before: BTreeSet<u64> = was.account.ledger.sockets.iter().map(|socket| socket.inode).collect();
    let nobodys = is.account.ledger.sockets.iter().filter(|socket| socket.holders.is_empty());
    let new = nobodys.filter(|socket| !before.contains(&socket.inode));
    new.map(|socket| {
        let name = if socket.name.is_empty() { "without a name" } else { &socket.name };
        let text = format!("{} socket {name} too much: no process has it open", socket.protocol);
        Finding::new(What::Sockets, text)
    })
    .collect()
}

/// Every file in the supervisor's directory has an owner.
pub fn files(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let names: BTreeSet<&str> = is.account.components.iter().map(|component| &*component.name).collect();
    let removed: BTreeSet<&str> = was.account.components.iter().map(|component| &*component.name).collect();
    let sockets: BTreeSet<&str> = is.owned().filter_map(|one| one.notify_socket.as_deref()).collect();
    let before: BTreeSet<&str> = was.account.ledger.files.iter().map(|file| file.path.as_str()).collect();
    let nobodys = |path: &str| {
        let name = path.strip_prefix(STATE)?;
        if path == NOTIFY || path == RELEASED {
            return None;
        }
        if let Some(pid) = path.strip_prefix(RELEASED) {
            let pid = pid.trim_start_matches('/').parse().ok().and_then(|pid| is.process(pid));
            let lives = pid.is_some_and(|process| is.runs_in(&process.group).is_some());
            return (!lives).then(|| "the process of that number has ended".to_owned());
        }
        if is_below(path, NOTIFY) {
            return (!sockets.contains(path)).then(|| "no process that runs was given it".to_owned());
        }
        let of = LOGS.iter().find_map(|end| name.strip_suffix(end));
        match of {
            Some(of) if names.contains(of) => None,
            Some(of) if removed.contains(of) => Some(format!("{of} is no longer declared")),
            _ => (!before.contains(path)).then(|| "it belongs to no component that is declared".to_owned()),
        }
    };
    let files = &is.account.ledger.files;
    let found = files.iter().filter_map(|file| Some((&file.path, nobodys(&file.path)?)));
    found.map(|(path, why)| Finding::new(What::Files, format!("file {path} too much: {why}"))).collect()
}

/// Process 1 has no POSIX timers but those that it had. Timers that are descriptors are counted with those.
pub fn timers(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let (before, after) = (was.account.ledger.posix_timers, is.account.ledger.posix_timers);
    let text = || format!("POSIX timers of process 1: {after}, and before {before}");
    (before != after).then(|| Finding::new(What::Timers, text())).into_iter().collect()
}

/// Nothing is in the way of packets that was not before.
pub fn tables(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let (more, _) = difference(&names(&was.account.ledger), &names(&is.account.ledger));
    let too_much =
        more.into_iter().map(|name| format!("table {name} of nf_tables too much: somebody has left it"));
    too_much.map(|text| Finding::new(What::Tables, text)).collect()
}

fn names(ledger: &Ledger) -> Vec<&str> {
    ledger.tables.iter().map(String::as_str).collect()
}

/// The kernel holds no more for itself than it may.
pub fn kernel(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let held = |owners: &Owners<'_>| owners.account.ledger.kernel.get("slab_kb").copied();
    let (Some(before), Some(after)) = (held(was), held(is)) else { return Vec::new() };
    let count = |owners: &Owners<'_>| owners.account.ledger.processes.len() as u64;
    let processes = count(is).saturating_sub(count(was));
    let grown = after.saturating_sub(before);
    let text = format!("{grown} KiB of kernel slab too much: {before} KiB before, {after} KiB now");
    (grown > SLAB_TOLERANCE_KB + processes * SLAB_OF_PROCESS_KB)
        .then(|| Finding::new(What::Slab, text))
        .into_iter()
        .collect()
}

/// How many namespaces have a process in them.
pub fn namespaces(all: &Ledger) -> u64 {
    let pairs = all.processes.iter().flat_map(|process| &process.namespaces);
    pairs.collect::<BTreeSet<_>>().len() as u64
}
