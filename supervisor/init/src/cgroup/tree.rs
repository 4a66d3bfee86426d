//! The directories of control groups: made with those they are in, removed with those in them. And their files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use tracing::info;

use crate::sys;

/// The directory of all components below the root.
pub(super) const SUBTREE: &str = "graph";

/// The directory of a supervisor whose root is a group that it was started in.
const ASIDE: &str = "supervisor";

/// Controllers that the keys of `[resources]` need.
const CONTROLLERS: &[&str] = &["cpu", "io", "memory", "pids"];

/// The most groups that are removed with a component's own: one that has made more is refused its next start rather
/// than that the event loop is held up. To whom a group is given can make no more (see [`super::delegate`]).
pub(super) const NESTED_LIMIT: usize = 1024;

pub fn set_up(root: &Path) -> io::Result<PathBuf> {
    let kind = statfs(root)?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        return Err(io::Error::other("not a cgroup v2 hierarchy"));
    }
    // Where that is not possible, it is told what cannot be handed down.
    if let Err(error) = step_aside(root) {
        info!("{} keeps its processes: {error}", root.display());
    }
    let subtree = root.join(SUBTREE);
    match fs::create_dir(&subtree) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut missing = enable_controllers(root);
    missing.extend(enable_controllers(&subtree));
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        info!("cgroup controllers not available: {}", missing.join(", "));
    }
    Ok(subtree)
}

/// Leave a group for one in it: a group that has processes hands no controllers down ("No Internal Process Constraint" in
/// the kernel's cgroup-v2.rst). That of the whole machine may, and stays.
fn step_aside(root: &Path) -> io::Result<()> {
    let is_machine = !root.join("cgroup.type").exists();
    let own = std::process::id().to_string();
    if is_machine || !sys::read_small(&root.join("cgroup.procs"))?.lines().any(|pid| pid == own) {
        return Ok(());
    }
    let aside = root.join(ASIDE);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    write(&aside.join("cgroup.procs"), &own)
}

/// Write to a file of the kernel's. It is never created, so that a missing one is told as missing.
pub fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path)?.write_all(value.as_bytes())
}

/// Enable each controller for the children of `path`; returns those that are not available.
pub fn enable_controllers(path: &Path) -> Vec<&'static str> {
    let control = path.join("cgroup.subtree_control");
    // One at a time: the kernel refuses the whole list for one that is missing.
    let refused = |name: &&&str| write(&control, &format!("+{name}")).is_err();
    CONTROLLERS.iter().filter(refused).copied().collect()
}

/// Create each directory of a relative path; inner ones pass the controllers on. Whether the last
/// one is new.
pub fn make(subtree: &Path, relative: &str) -> io::Result<bool> {
    let mut path = subtree.to_path_buf();
    let mut new = false;
    let mut parts = relative.split('/').peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        new = match fs::create_dir(&path) {
            Ok(()) if parts.peek().is_some() => {
                enable_controllers(&path);
                true
            }
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
    }
    Ok(new)
}

/// Remove an empty group and the groups that were made in it, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    all(path)?.iter().rev().try_for_each(fs::remove_dir)
}

/// A group and the groups in it, inner ones after the ones they are in; not more than [`NESTED_LIMIT`].
pub fn all(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut groups = vec![path.to_path_buf()];
    let mut next = 0;
    while groups.len() < NESTED_LIMIT
        && let Some(group) = groups.get(next)
    {
        let entries = fs::read_dir(group)?.flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        // No further is read: whoever makes groups may make any number.
        groups.extend(inner.map(|entry| entry.path()).take(NESTED_LIMIT - groups.len()));
        next += 1;
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_leaves_the_group_that_it_divides() {
        let root = tempfile::tempdir().expect("temporary directory");
        let file = |path: &str, text: &str| fs::write(root.path().join(path), text).expect("file");
        let own = std::process::id().to_string();
        file("cgroup.procs", &format!("7\n{own}\n"));
        step_aside(root.path()).expect("the machine's own group");
        assert!(!root.path().join(ASIDE).exists());
        file("cgroup.type", "domain\n");
        // No kernel puts the file there.
        assert_eq!(step_aside(root.path()).expect_err("no kernel").kind(), io::ErrorKind::NotFound);
        file("supervisor/cgroup.procs", "");
        step_aside(root.path()).expect("a group");
        assert_eq!(fs::read_to_string(root.path().join("supervisor/cgroup.procs")).expect("file"), own);
        // It is not in there any more.
        file("cgroup.procs", "7\n");
        file("supervisor/cgroup.procs", "");
        step_aside(root.path()).expect("nothing to do");
        assert_eq!(fs::read_to_string(root.path().join("supervisor/cgroup.procs")).expect("file"), "");
    }

    #[test]
    fn groups_that_are_too_many_are_not_all_read() {
        let root = tempfile::tempdir().expect("temporary directory");
        for number in 0..NESTED_LIMIT + 10 {
            fs::create_dir(root.path().join(number.to_string())).expect("a directory");
        }
        assert_eq!(all(root.path()).expect("groups").len(), NESTED_LIMIT);
    }

    #[test]
    fn a_group_is_new_once() {
        let root = tempfile::tempdir().expect("temporary directory");
        let made = || make(root.path(), "web/one").expect("path");
        assert_eq!([made(), made()], [true, false]);
    }
}
