//! One group as the kernel shows it: a descriptor of it, and what is in it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;

use memchr::memmem;
use nix::libc;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::tree;
use crate::sys;

/// The group of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cgroup {
    pub(super) path: Rc<Path>,
}

/// The state of a group, as long as it is held.
pub struct Events(File);

impl Cgroup {
    /// One that need not be there.
    #[cfg(test)]
    pub fn at(path: &str) -> Self {
        Self { path: Path::new(path).into() }
    }

    /// The descriptor for `clone3`.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(&self.path)?;
        Ok(directory.into())
    }

    /// Whether both processes are in the first one's group, by the kernel's word on both. In a
    /// shared group that says nothing on whose they are.
    pub fn has_both(leader: i32, other: i32) -> bool {
        let (Some(own), Some(other)) = (group_of(leader), group_of(other)) else {
            return false;
        };
        other.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Remove it, once it is empty and nothing is known of it. The next start makes it anew.
    pub fn remove(&self) {
        if let Err(error) = tree::remove(&self.path) {
            warn!("failed to remove {}: {error}", self.path.display());
        }
    }

    /// Whether a process is left in it, looked up by its name.
    pub fn has_processes(&self) -> bool {
        self.events().is_ok_and(|events| events.is_occupied())
    }

    /// The numbers of the processes in it and in those inside of it. Of more groups than may be made in one, or more
    /// processes than a page of a million bytes has, the rest is left out.
    pub fn members(&self) -> Vec<i32> {
        let groups = tree::all(&self.path).unwrap_or_default();
        let lists = groups.iter().filter_map(|group| sys::read_small(&group.join("cgroup.procs")).ok());
        lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// Where the kernel says whether a process is left in it.
    pub fn events(&self) -> io::Result<Events> {
        File::open(self.path.join("cgroup.events")).map(Events)
    }
}

impl Events {
    /// Whether a process is left in it. A shared group says nothing: it is not ours alone.
    pub fn is_occupied(&self) -> bool {
        /// Two short lines.
        const SIZE: usize = 128;
        let mut text = [0; SIZE];
        let length = self.0.read_at(&mut text, 0).unwrap_or(0);
        memmem::find(&text[..length], b"populated 1").is_some()
    }
}

/// The group of a process, from the root of its hierarchy.
fn group_of(pid: i32) -> Option<String> {
    let text = sys::read_small(Path::new(&format!("/proc/{pid}/cgroup"))).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_group_is_looked_at_anew_each_time() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let file = folder.path().join("cgroup.events");
        let group = Cgroup { path: folder.path().into() };
        assert!(group.events().is_err());
        fs::write(&file, "populated 1\nfrozen 0\n").expect("file");
        let events = group.events().expect("events");
        let occupied = events.is_occupied();
        fs::write(&file, "populated 0\nfrozen 0\n").expect("file");
        assert_eq!((occupied, events.is_occupied()), (true, false));
    }
}
