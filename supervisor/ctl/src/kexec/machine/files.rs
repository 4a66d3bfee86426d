//! Files that a service has open and that are in memory: the jump ends them, unless they go along.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs;

use super::look::IN_MEMORY;

/// The most groups below each other that are looked into.
const DEPTH_LIMIT: usize = 16;

/// What the files of a service are to the jump.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// On the root that a kernel's initrd becomes: they can go along with the next one's.
    pub along: BTreeSet<PathBuf>,
    /// On another file system in memory, of which nothing goes along.
    pub lost: BTreeSet<PathBuf>,
    /// Bytes of those that can go along.
    pub bytes: u64,
}

/// What the processes of a group have open, or one process where there is no group. What has no name any more is part of a
/// process's checkpoint.
pub fn open(group: Option<&Path>, pid: i32) -> Files {
    let mut files = Files::default();
    let Ok(root) = fs::metadata("/") else { return files };
    for pid in processes(group, pid) {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let (Ok(named), Ok(found)) = (fs::read_link(descriptor.path()), fs::metadata(descriptor.path()))
            else {
                continue;
            };
            if found.is_file() && found.nlink() > 0 && is_in_memory(&descriptor.path()) {
                files.add(named, found.len(), found.dev() == root.dev());
            }
        }
    }
    files
}

impl Files {
    fn add(&mut self, named: PathBuf, len: u64, on_root: bool) {
        if !on_root {
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
