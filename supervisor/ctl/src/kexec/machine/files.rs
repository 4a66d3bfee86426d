//! Files that a service has open and that are in memory: the jump ends them, unless they go along.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::{stat, statfs};

use super::look::IN_MEMORY;

/// The most groups below each other that are looked into.
const DEPTH_LIMIT: usize = 16;

/// What the files of a service are to the jump.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// On the root that a kernel's initrd becomes: they can go along with the next one's.
    pub along: BTreeSet<PathBuf>,
    /// On another file system in memory, of which nothing goes along; or on that root, and under another path than the
    /// process has for it.
    pub lost: BTreeSet<PathBuf>,
    /// Bytes of those that can go along.
    pub bytes: u64,
}

/// What the processes of a group have open, or one process where there is no group. What has no name any more is part of a
/// process's checkpoint, and so is what lies in a file system in memory that only its mount namespace has.
pub fn open(group: Option<&Path>, pid: i32) -> Files {
    let mut files = Files::default();
    let Ok(root) = fs::metadata("/") else { return files };
    let here = devices(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    for pid in processes(group, pid) {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let (Ok(named), Ok(found)) = (fs::read_link(descriptor.path()), fs::metadata(descriptor.path()))
            else {
                continue;
            };
            let is_here = here.contains(&found.dev());
            if found.is_file() && found.nlink() > 0 && is_here && is_in_memory(&descriptor.path()) {
                let goes_along = found.dev() == root.dev() && is_at(&found, &named);
                files.add(named, found.len(), goes_along);
            }
        }
    }
    files
}

/// The devices of what is mounted, by lines `22 1 0:21 / /proc …`.
fn devices(table: &str) -> BTreeSet<u64> {
    let of = |line: &str| {
        let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
        Some(stat::makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    table.lines().filter_map(of).collect()
}

/// Whether a path leads to this file here: a process with another root, or with other mounts, calls it otherwise.
fn is_at(found: &Metadata, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|here| (here.dev(), here.ino()) == (found.dev(), found.ino()))
}

impl Files {
    fn add(&mut self, named: PathBuf, len: u64, goes_along: bool) {
        if !goes_along {
            self.lost.insert(named);
        } else if self.along.insert(named) {
            self.bytes = self.bytes.saturating_add(len);
        }
    }

    /// Why the jump would end one of them, if it would; `packed` if what is kept goes along with the initrd.
    pub fn refusal(&self, packed: bool) -> Option<String> {
        let first = self.lost.first().or(self.along.first().filter(|_| !packed))?;
        Some(format!("{} is open, and is in memory: it does not outlast the jump", first.display()))
    }
}

/// All of a component's processes: they are in groups below its own.
pub fn processes(group: Option<&Path>, pid: i32) -> Vec<String> {
    let Some(group) = group else { return vec![pid.to_string()] };
    let (mut found, mut todo) = (Vec::new(), vec![(group.to_owned(), 0)]);
    while let Some((group, depth)) = todo.pop() {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().map(str::to_owned));
        let below = fs::read_dir(&group).into_iter().flatten().flatten().map(|entry| entry.path());
        if depth < DEPTH_LIMIT {
            todo.extend(below.filter(|path| path.is_dir()).map(|path| (path, depth + 1)));
        }
    }
    found
}

fn is_in_memory(path: &Path) -> bool {
    statfs::statfs(path).is_ok_and(|status| IN_MEMORY.contains(&status.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_is_in_memory_goes_along_with_the_initrd_or_is_lost() {
        let mut files = Files::default();
        assert_eq!(files.refusal(false), None);
        for _ in 0..2 {
            files.add("/var/data".into(), 7, true);
        }
        assert_eq!((files.bytes, files.refusal(true)), (7, None));
        assert!(files.refusal(false).is_some_and(|why| why.starts_with("/var/data is open")));
        files.add("/run/data".into(), 9, false);
        assert_eq!(files.bytes, 7);
        assert!(files.refusal(true).is_some_and(|why| why.starts_with("/run/data is open")));
    }

    #[test]
    fn a_path_of_another_mount_namespace_leads_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        for path in [&one, &other] {
            fs::write(path, "").expect("a file");
        }
        let found = fs::metadata(&one).expect("a file");
        assert!(is_at(&found, &one));
        assert!(!is_at(&found, &other) && !is_at(&found, &folder.path().join("none")));
    }

    #[test]
    fn what_only_the_process_has_mounted_is_in_its_checkpoint() {
        // Root's own, as in a sandbox; where that is not to be had there is nothing to look at.
        let script =
            "mount -t tmpfs none /mnt && echo x > /mnt/own && exec 3</mnt/own && echo up && exec cat";
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else { return };
        let mut said = [0; 3];
        if child.stdout.take().is_some_and(|mut out| out.read_exact(&mut said).is_ok()) {
            let pid = i32::try_from(child.id()).expect("a number");
            assert_eq!(open(None, pid), Files::default());
        }
        drop(child.stdin.take());
        child.wait().expect("its end");
        assert_eq!(devices("22 1 0:21 / /proc rw\n23 1 8:1 / / rw\n"), [0x15, 0x801].into());
    }

    #[test]
    fn the_processes_of_a_component_are_in_groups_below_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let group = folder.path().join("web");
        fs::create_dir_all(group.join("web.gen-1/inner")).expect("folders");
        for (place, text) in [("", ""), ("web.gen-1", "7\n8\n"), ("web.gen-1/inner", "9\n")] {
            fs::write(group.join(place).join("cgroup.procs"), text).expect("a file");
        }
        assert_eq!(processes(Some(&group), 7), ["7", "8", "9"]);
        assert_eq!(processes(None, 7), ["7"]);
    }

    #[test]
    fn a_file_on_a_disk_and_one_without_a_name_are_neither() {
        let own = i32::try_from(std::process::id()).expect("a number");
        let shared = Path::new("/dev/shm");
        if !is_in_memory(shared) {
            return;
        }
        let named = tempfile::NamedTempFile::new_in(shared).expect("a file");
        let nameless = tempfile::tempfile_in(shared).expect("a file");
        let here = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        let files = open(None, own);
        assert!(files.lost.contains(named.path()), "{files:?}");
        assert!(!files.lost.iter().chain(&files.along).any(|path| path == here.path()), "{files:?}");
        assert!(!files.lost.iter().any(|path| path.to_string_lossy().contains("(deleted)")), "{files:?}");
        drop(nameless);
    }
}
