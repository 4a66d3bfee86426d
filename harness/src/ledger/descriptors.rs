//! The rule for descriptors of process 1.
//!
//! What it has open for itself does not change while it runs. Beyond that it has, by what its components are:
//! - for each process of a component: the reading end of its log's pipe; and the log's file, once something was written;
//! - for each that waits to be ready by `NOTIFY_FD`: the reading end of that pipe (not at rest);
//! - for each process that speaks sd_notify: its socket, in the directory of sockets;
//! - for each process of a component that hands over: the supervisor's end of its channel;
//! - files of the control group of a component that runs, which tell of what happens in it;
//! - as many as `graphctl status` says that it holds for components: declared sockets, and what they have stored;
//! - for each component with health probes: the connection of a probe that is under way;
//! - a connection for each client of the control socket that runs;
//! - one each of what it opens at the first need and keeps;
//! - two pipes, both ends of each, that were made for a next start ahead of time.
//!
//! After a jump into another kernel process 1 is another one, and of its own it has there what that kernel needs: see
//! [`LANES_SINCE`].

use std::collections::{BTreeMap, BTreeSet};

use yakiros_guest::ledger::{Descriptor, DescriptorKind, Socket};

use super::balance::{Finding, What};
use super::owners::{Owners, is_below};
use super::things::difference;
use crate::vm::Component;

/// The supervisor's directory of sockets on which components say something about themselves.
const NOTIFY: &str = "/run/graph/notify/";
/// Where the supervisor writes logs.
const LOGS: &str = "/run/graph/";
/// Its control socket.
const CONTROL: &str = "/run/graph-resolver.sock";
/// Who connects to it.
const CLIENT: &str = "graphctl";
/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup/";
/// What the kernel adds to the name of a file that is removed.
const DELETED: &str = " (deleted)";
/// What the supervisor opens at the first need and keeps: the table of mounts, to know which file systems may wait.
const OPENED_ONCE: [&str; 1] = ["/proc/1/mountinfo"];
/// Files that the supervisor has open for all of its life.
const FOR_LIFE: [&str; 3] = ["/dev/console", "/dev/kmsg", "/dev/null"];
/// How classes of sockets begin.
const SOCKET: &str = "socket";
/// Pipes that are made for a next start ahead of time: that of the log and that of the report.
const SPARE_PIPES: usize = 2;

/// The kernel from which on the supervisor keeps numbers for children that take a short copy of its table: four of three each
/// and one beside them, on `/dev/null`, and what they wake it with, which it has twice.
const LANES_SINCE: (u32, u32) = (6, 11);
/// See [`LANES_SINCE`].
const LANES: [(&str, usize); 2] = [("/dev/null", 4 * 3 + 1), ("eventfd", 2)];

/// What is left of the descriptors of process 1 when those of components are taken away, by what they are.
#[derive(Default)]
struct Own<'a> {
    by_class: BTreeMap<String, Vec<&'a Descriptor>>,
    /// What cannot be the supervisor's own, and is nobody's.
    lost: Vec<(&'a Descriptor, String)>,
}

/// Everything that process 1 has open is its own, as before, or a component's.
pub fn all(was: &Owners<'_>, is: &Owners<'_>) -> Vec<Finding> {
    let (before, after) = (own(was), own(is));
    let classes = |own: &Own<'_>| -> Vec<String> {
        own.by_class.iter().flat_map(|(class, all)| std::iter::repeat_n(class.clone(), all.len())).collect()
    };
    let (before, after_classes) = (under(classes(&before), has_lanes(was), has_lanes(is)), classes(&after));
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let after_classes: Vec<&str> = after_classes.iter().map(String::as_str).collect();
    let (mut more, mut less) = difference(&before, &after_classes);
    more.retain(|class| !OPENED_ONCE.contains(class) || before.contains(class));
    leave_out_probes(&mut more, is);
    less.retain(|class| is_for_life(class));
    let mut findings: Vec<Finding> =
        after.lost.iter().map(|(descriptor, why)| finding(descriptor, why)).collect();
    if !is_held(was, is, more.len(), less.len()) {
        let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
        for class in more {
            let nth = taken.entry(class).or_default();
            *nth += 1;
            let all = &after.by_class[class];
            findings.push(finding(all[all.len() - *nth], &why(is, all[all.len() - *nth])));
        }
        let lost =
            less.into_iter().map(|class| format!("process 1 has lost a descriptor of its own: {class}"));
        findings.extend(lost.map(|text| Finding::new(What::Descriptors, text)));
    }
    findings
}

/// What process 1 of the one kernel would have had of its own under the other.
fn under(mut classes: Vec<String>, had_lanes: bool, has_lanes: bool) -> Vec<String> {
    for (class, count) in LANES {
        if has_lanes && !had_lanes {
            classes.extend(std::iter::repeat_n(class.to_owned(), count));
        }
        let mut left = if had_lanes && !has_lanes { count } else { 0 };
        classes.retain(|one| {
            let is_one = left > 0 && one == class;
            left -= usize::from(is_one);
            !is_one
        });
    }
    classes
}

/// See [`LANES_SINCE`].
fn has_lanes(owners: &Owners<'_>) -> bool {
    let mut numbers = owners.account.ledger.release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= LANES_SINCE,
        _ => false,
    }
}

/// Whether the supervisor has things of a class from its begin to its end. Others may have been open just while it was
/// looked at before.
fn is_for_life(class: &str) -> bool {
    !class.starts_with(SOCKET) && (!class.starts_with('/') || FOR_LIFE.contains(&class))
}

/// Leave out as many connections as there may be probes under way. One that is leaked each time is soon one too many.
fn leave_out_probes(classes: &mut Vec<&str>, owners: &Owners<'_>) {
    let probed =
        |component: &&Component| component.pid.is_some() && !matches!(&*component.health, "" | "none");
    let mut left = owners.account.components.iter().filter(probed).count();
    classes.retain(|class| {
        let is_probe = left > 0 && class.starts_with(SOCKET);
        left -= usize::from(is_probe);
        !is_probe
    });
}

/// Whether a difference is that of what the supervisor says that it holds for components.
fn is_held(was: &Owners<'_>, is: &Owners<'_>, more: usize, less: usize) -> bool {
    let held = |owners: &Owners<'_>| -> usize {
        let all = owners.account.components.iter().flat_map(|component| &component.descriptors);
        all.map(|held| held.count as usize).sum()
    };
    let (before, after) = (held(was), held(is));
    before + more == after + less && more <= after && less <= before
}

fn finding(descriptor: &Descriptor, why: &str) -> Finding {
    let Descriptor { number, target, kind, .. } = descriptor;
    let (what, thing) = match kind {
        DescriptorKind::Pidfd => (What::Pidfds, "a pidfd of process 1"),
        DescriptorKind::Timerfd => (What::Timers, "a timer of process 1"),
        _ => (What::Descriptors, "a descriptor of process 1"),
    };
    Finding::new(what, format!("{thing} too much: number {number}, {target}: {why}"))
}

/// Who might know of a descriptor that belongs to nobody.
fn why(is: &Owners<'_>, descriptor: &Descriptor) -> String {
    let name = |pid: &i32| {
        let process = is.process(*pid);
        process.map_or_else(|| format!("{pid}, which is gone"), |process| format!("{pid} ({})", process.name))
    };
    match (descriptor.pid, &descriptor.holders[..]) {
        (Some(..=0), _) => "of a process that is gone".into(),
        (Some(pid), _) => format!("of process {}", name(&pid)),
        (None, []) if descriptor.kind == DescriptorKind::Pipe => "nobody is at its other end".into(),
        (None, []) => "it belongs to no component".into(),
        (None, all) => format!("shared with process {}", all.iter().map(name).collect::<Vec<_>>().join(", ")),
    }
}

/// Takes away what belongs to components.
fn own<'a>(owners: &Owners<'a>) -> Own<'a> {
    let mut own = Own::default();
    let all = &owners.account.ledger.descriptors;
    pipes(owners, &mut own);
    sockets(owners, &mut own);
    for descriptor in all {
        match descriptor.kind {
            DescriptorKind::Pipe | DescriptorKind::Socket => {}
            DescriptorKind::File if is_of_component(owners, descriptor) => {}
            DescriptorKind::Pidfd if descriptor.pid.is_some_and(|pid| is_owned(owners, pid)) => {}
            DescriptorKind::File | DescriptorKind::Memfd => own.add(plain(&descriptor.target), descriptor),
            kind => own.add(&format!("{kind:?}").to_lowercase(), descriptor),
        }
    }
    // Newer ones have higher numbers, mostly.
    own.by_class.values_mut().for_each(|all| all.sort_unstable_by_key(|descriptor| descriptor.number));
    own
}

impl<'a> Own<'a> {
    fn add(&mut self, class: &str, descriptor: &'a Descriptor) {
        self.by_class.entry(class.to_owned()).or_default().push(descriptor);
    }
}

fn plain(target: &str) -> &str {
    target.strip_suffix(DELETED).unwrap_or(target)
}

fn is_owned(owners: &Owners<'_>, pid: i32) -> bool {
    owners.process(pid).is_some_and(|process| owners.runs_in(&process.group).is_some())
}

/// A log of a component that runs, or a file of its control group.
fn is_of_component(owners: &Owners<'_>, descriptor: &Descriptor) -> bool {
    let target = plain(&descriptor.target);
    if let Some(path) = target.strip_prefix(GROUPS) {
        return owners.runs_in(path).is_some();
    }
    let name = target.strip_prefix(LOGS).map(|name| name.strip_suffix(".1").unwrap_or(name));
    let name = name.and_then(|name| name.strip_suffix(".log"));
    let running = owners.account.components.iter().filter(|component| component.pid.is_some());
    name.is_some_and(|name| running.into_iter().any(|component| component.name == name))
}

/// Pipes: one for the log of each process of a component, and one more while it is not ready.
fn pipes<'a>(owners: &Owners<'a>, own: &mut Own<'a>) {
    let all = owners.account.ledger.descriptors.iter().filter(|one| one.kind == DescriptorKind::Pipe);
    let mut by_pipe: BTreeMap<&str, Vec<&Descriptor>> = BTreeMap::new();
    for descriptor in all {
        by_pipe.entry(&descriptor.target).or_default().push(descriptor);
    }
    let mut silent = Vec::new();
    let mut of_components: BTreeMap<&str, usize> = BTreeMap::new();
    let mut spare = 0;
    for ends in by_pipe.values() {
        let component = ends
            .iter()
            .flat_map(|end| &end.holders)
            .find_map(|pid| owners.process(*pid).and_then(|process| owners.runs_in(&process.group)));
        match (&ends[..], component) {
            ([_], Some(component)) => *of_components.entry(&component.name).or_default() += 1,
            ([one], None) if one.holders.is_empty() => silent.push(*one),
            ([_, _], _) if spare < SPARE_PIPES => spare += 1,
            (ends, _) => own.lost.extend(ends.iter().map(|end| (*end, why(owners, end)))),
        }
    }
    // Who has closed its output has a log all the same.
    let runs = |name: &str| {
        let groups = owners.account.ledger.processes.iter().filter(|process| {
            let own = super::owners::generation(&process.group);
            own.is_some() && owners.runs_in(&process.group).is_some_and(|component| component.name == name)
        });
        groups
            .filter_map(|process| super::owners::generation(&process.group))
            .collect::<BTreeSet<_>>()
            .len()
            .max(1)
    };
    let running = owners.account.components.iter().filter(|component| component.pid.is_some());
    let may_be_silent: usize = running
        .map(|component| {
            let seen = of_components.get(component.name.as_str()).copied().unwrap_or(0);
            runs(&component.name).saturating_sub(seen)
        })
        .sum();
    for descriptor in silent.into_iter().skip(may_be_silent) {
        own.lost.push((descriptor, why(owners, descriptor)));
    }
}

/// Sockets: by their names, as far as they have one.
fn sockets<'a>(owners: &Owners<'a>, own: &mut Own<'a>) {
    let known: BTreeMap<String, &Socket> = owners
        .account
        .ledger
        .sockets
        .iter()
        .map(|socket| (format!("socket:[{}]", socket.inode), socket))
        .collect();
    let notify: BTreeSet<&str> =
        owners.owned().filter_map(|process| process.notify_socket.as_deref()).collect();
    let clients = owners.account.ledger.processes.iter().filter(|process| process.name == CLIENT).count();
    // One of the control socket is the one that listens.
    let (mut notify_left, mut control_left, mut channels_left) =
        (notify.len(), clients + 1, owners.generations());
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    // Of several names for one thing the oldest is the supervisor's own: it stays one.
    for descriptor in owners.account.ledger.descriptors.iter().rev() {
        if descriptor.kind != DescriptorKind::Socket || !seen.insert(&descriptor.target) {
            continue;
        }
        let name = known.get(&descriptor.target).map_or("", |socket| socket.name.as_str());
        let left = match name {
            CONTROL => &mut control_left,
            "" => &mut channels_left,
            name if name.starts_with(NOTIFY) => &mut notify_left,
            name => {
                own.add(&format!("{SOCKET} {name}"), descriptor);
                continue;
            }
        };
        if *left > 0 {
            *left -= 1;
        } else if name == CONTROL || is_below(name, NOTIFY.trim_end_matches('/')) {
            own.lost.push((descriptor, format!("{name}, and nobody is connected to it")));
        } else {
            own.add(&format!("{SOCKET} without a name"), descriptor);
        }
    }
}
