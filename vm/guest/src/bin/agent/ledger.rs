//! Counts what there is in the guest (see [`yakiros_guest::ledger`]).
//!
//! Whatever ends while it is looked at is left out: a process between two reads is no error.

mod files;
mod processes;
mod sockets;
mod tables;
mod watches;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use yakiros_guest::frame::{Kind, MAX_PAYLOAD_BYTES};
use yakiros_guest::ledger::{Ledger, Mounts, Process};
use yakiros_guest::protocol::{GuestError, Reply};

use crate::error::{invalid, system};
use crate::stream::Stream;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// What lies below is a socket that a component was given.
const NOTIFY: &str = "/run/graph/notify/";
/// Groups that are told at most: a limit against a scenario that makes them without end.
const MAX_GROUPS: usize = 8192;
/// Caches of the kernel whose objects stand for something that a supervisor makes.
const CACHES: [&str; 10] = [
    "task_struct",
    "cred_jar",
    "cred",
    "nsproxy",
    "mnt_cache",
    "pid_namespace",
    "net_namespace",
    "uts_namespace",
    "user_namespace",
    "sock_inode_cache",
];

/// Who has a pipe or a socket open, by its inode.
type Holders = HashMap<u64, Vec<i32>>;

/// Counts, and sends the result as data.
pub fn take(stream: &Stream) -> Result<Reply, GuestError> {
    let text = serde_json::to_vec(&count()).map_err(|error| invalid(format!("write the ledger: {error}")))?;
    for piece in text.chunks(MAX_PAYLOAD_BYTES) {
        let sent = stream.output.send(Kind::Data, piece.to_vec());
        sent.map_err(|error| system("send the ledger", &error))?;
    }
    Ok(Reply::Counted { bytes: text.len() as u64 })
}

fn count() -> Ledger {
    let mut holders = Holders::new();
    let files = files::all();
    let speaking = files.iter().any(|file| file.path.starts_with(NOTIFY));
    let processes = processes::all(&mut holders, speaking);
    let (descriptors, groups) = (processes::of_init(&holders), groups());
    Ledger {
        watches: watches::all(&descriptors, &groups),
        descriptors,
        groups,
        mounts: mounts(&processes),
        sockets: sockets::all(&processes, &holders),
        files,
        tables: tables::all(),
        release: lines("/proc/sys/kernel/osrelease").next().unwrap_or_default(),
        posix_timers: lines("/proc/1/timers").filter(|line| line.starts_with("ID:")).count() as u64,
        kernel: kernel(),
        processes,
    }
}

/// The lines of a file; none if it cannot be read.
fn lines(path: &str) -> impl Iterator<Item = String> + use<> {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

fn groups() -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(group) = waiting.pop() {
        for entry in fs::read_dir(Path::new(GROUPS).join(&group)).into_iter().flatten().flatten() {
            if found.len() < MAX_GROUPS && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if group.is_empty() { name } else { format!("{group}/{name}") };
                found.push(path.clone());
                waiting.push(path);
            }
        }
    }
    found.sort_unstable();
    found
}

/// One entry for each mount namespace: process 1 is the first process.
fn mounts(processes: &[Process]) -> Vec<Mounts> {
    let mut all: Vec<Mounts> = Vec::new();
    for process in processes.iter().filter(|process| !process.of_kernel) {
        let Some(&namespace) = process.namespaces.get("mnt") else { continue };
        if all.iter().any(|known| known.namespace == namespace) {
            continue;
        }
        let list: Vec<String> =
            lines(&format!("/proc/{}/mountinfo", process.pid)).filter_map(|line| mount(&line)).collect();
        let count = list.len() as u64;
        all.push(Mounts {
            namespace,
            of: process.pid,
            count,
            list: if process.pid == 1 { list } else { Vec::new() },
        });
    }
    all
}

/// A line of mountinfo(5) as `place (kind of source)`.
fn mount(line: &str) -> Option<String> {
    let (place, rest) = line.split_once(" - ")?;
    let place = place.split(' ').nth(4)?;
    let mut rest = rest.split(' ');
    Some(format!("{place} ({} of {})", rest.next()?, rest.next()?))
}

fn kernel() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    for line in lines("/proc/meminfo") {
        if let Some(value) = line.strip_prefix("SUnreclaim:").and_then(number) {
            all.insert("slab_kb".to_owned(), value);
        }
    }
    for line in lines(&format!("{GROUPS}/cgroup.stat")) {
        if let Some(value) = line.strip_prefix("nr_dying_descendants").and_then(number) {
            all.insert("dying_groups".to_owned(), value);
        }
    }
    for line in lines("/proc/slabinfo") {
        if let Some((name, rest)) = line.split_once(' ')
            && CACHES.contains(&name)
            && let Some(value) = number(rest)
        {
            all.insert(format!("cache.{name}"), value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_told_by_place_kind_and_source() {
        let line = "28 22 0:24 / /run rw,nosuid shared:1 - tmpfs none rw,mode=755";
        assert_eq!(mount(line).as_deref(), Some("/run (tmpfs of none)"));
        assert_eq!(mount("28 22"), None);
    }

    #[test]
    fn this_machine_is_counted() {
        let ledger = count();
        let own = std::process::id() as i32;
        let process = ledger.processes.iter().find(|process| process.pid == own).expect("this process");
        assert!(process.namespaces.contains_key("mnt") && !process.of_kernel && process.state != 'Z');
        assert!(!ledger.mounts.is_empty());
    }
}
