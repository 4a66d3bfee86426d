//! What there is of a supervisor and of what it runs, counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The kernel takes namespaces, groups and what hangs on them down after the last process is gone. Within this time it
/// has, or something still holds them.
const SETTLING: Duration = Duration::from_secs(10);

/// Pause between two counts.
const LOOK: Duration = Duration::from_millis(100);

/// Counts that have to agree for the machine to be at rest.
const AGREEING: usize = 3;

/// Numbers of things, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<String, usize>);

impl Ledger {
    /// Count when nothing changes any more.
    pub fn settled(pid: i32) -> io::Result<Self> {
        let end = Instant::now() + SETTLING;
        let (mut last, mut same) = (Self::count(pid)?, 1);
        while same < AGREEING && Instant::now() < end {
            sleep(LOOK);
            let next = Self::count(pid)?;
            same = if next == last { same + 1 } else { 1 };
            last = next;
        }
        Ok(last)
    }

    fn count(pid: i32) -> io::Result<Self> {
        let place = format!("/proc/{pid}");
        let mut counts = BTreeMap::new();
        for entry in fs::read_dir(format!("{place}/fd"))?.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            let kind =
                target.split(['/', ':']).next().filter(|kind| !kind.is_empty()).unwrap_or("file").to_owned();
            *counts.entry(format!("descriptors of process 1: {kind}")).or_default() += 1;
        }
        let inside = descendants(pid)?;
        let kinds = ["mnt", "pid", "uts", "ipc", "net", "cgroup"];
        let number = |(pid, kind): (&i32, &str)| fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok();
        let all = inside.iter().flat_map(|pid| kinds.iter().map(move |kind| (pid, *kind)));
        let namespaces: BTreeSet<_> = all.filter_map(number).map(|namespace| namespace.ino()).collect();
        counts.insert("processes".to_owned(), inside.len());
        counts.insert("their namespaces".to_owned(), namespaces.len());
        counts.insert("mounts".to_owned(), fs::read_to_string(format!("{place}/mountinfo"))?.lines().count());
        let root = format!("{place}/root");
        for (what, folder) in
            [("groups", "sys/fs/cgroup"), ("files in /run", "run"), ("files in /tmp", "tmp")]
        {
            let folders_only = what == "groups";
            counts.insert(what.to_owned(), entries(&Path::new(&root).join(folder), folders_only));
        }
        Ok(Self(counts))
    }

    /// What differs, in words.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let kinds: BTreeSet<_> = self.0.keys().chain(before.0.keys()).collect();
        let count = |ledger: &Self, kind: &str| ledger.0.get(kind).copied().unwrap_or_default();
        let differing = kinds.into_iter().filter(|kind| count(self, kind) != count(before, kind));
        differing
            .map(|kind| format!("{kind}: {} before, {} after", count(before, kind), count(self, kind)))
            .collect()
    }
}

/// A process and all that descend from it.
fn descendants(first: i32) -> io::Result<BTreeSet<i32>> {
    let parent = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")?.flatten().filter_map(parent).collect();
    let mut found = BTreeSet::from([first]);
    loop {
        let more = parents.iter().filter(|(pid, parent)| found.contains(parent) && !found.contains(pid));
        let more: Vec<_> = more.map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            return Ok(found);
        }
        found.extend(more);
    }
}

fn entries(folder: &Path, folders_only: bool) -> usize {
    let below = |entry: fs::DirEntry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let inside = if is_folder { entries(&entry.path(), folders_only) } else { 0 };
        usize::from(is_folder || !folders_only) + inside
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(below).sum()
}
