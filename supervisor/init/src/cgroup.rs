//! Control groups (version 2) of components: made before the start, emptied at the end.
//!
//! Layout: `ROOT/graph/<cgroup or name>`. Without a usable hierarchy components run without
//! groups, which is said once at the start; limits then do not hold.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use yakiros_core::component::{Component, Resources};

use crate::sys;

/// The directory of all components below the root.
const SUBTREE: &str = "graph";

/// Controllers that the keys of `[resources]` need.
const CONTROLLERS: &[&str] = &["cpu", "io", "memory", "pids"];

/// The most groups that are removed with a component's own: one that has made more is refused its next start rather
/// than that the event loop is held up.
const NESTED_LIMIT: usize = 1024;

/// The groups of all components.
pub struct Cgroups {
    /// `ROOT/graph`, when there is a hierarchy to use.
    subtree: Option<PathBuf>,
    /// The path of each component that was started.
    paths: HashMap<String, PathBuf>,
    /// How many runs have each path now.
    live: BTreeMap<PathBuf, usize>,
    /// The limits that each group was given last, by this process image.
    written: HashMap<PathBuf, Written>,
}

/// Values by their file. A file that is not in it has what the kernel begins with.
type Written = HashMap<&'static str, String>;

/// The group of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cgroup {
    path: PathBuf,
    /// `cgroup.kill` was written.
    killed: Cell<bool>,
}

impl Cgroups {
    /// Take `root` into use. What is not possible is said in the log.
    pub fn new(root: &Path) -> Self {
        let subtree = match set_up(root) {
            Ok(subtree) => Some(subtree),
            Err(error) => {
                let root = root.display();
                warn!("running without cgroups, limits do not hold: {root}: {error}");
                None
            }
        };
        Self::below(subtree)
    }

    fn below(subtree: Option<PathBuf>) -> Self {
        Self { subtree, paths: HashMap::new(), live: BTreeMap::new(), written: HashMap::new() }
    }

    /// Where the groups are, for the next process image.
    pub fn paths(&self) -> &HashMap<String, PathBuf> {
        &self.paths
    }

    /// From the process image before.
    pub fn set_paths(&mut self, paths: HashMap<String, PathBuf>) {
        self.paths = paths;
    }

    /// Make the group of a component and write its limits.
    pub fn prepare(&mut self, component: &Component) -> io::Result<Option<Cgroup>> {
        let Some(subtree) = &self.subtree else {
            return Ok(None);
        };
        let path = subtree.join(component.cgroup());
        let new = make_path(subtree, component.cgroup())?;
        let known = self.written.remove(&path);
        let known = if new { Some(Written::new()) } else { known };
        let also = self.is_declared_elsewhere(&component.name, &path);
        let written = write_limits(&path, &component.resources, also, known)?;
        self.written.insert(path.clone(), written);
        self.paths.insert(component.name.clone(), path.clone());
        Ok(Some(Cgroup { path, killed: Cell::new(false) }))
    }

    /// Whether another component that was started has this very group.
    fn is_declared_elsewhere(&self, component: &str, path: &Path) -> bool {
        self.paths.iter().any(|(name, other)| name != component && other == path)
    }

    /// A run has this group from now on.
    pub fn hold(&mut self, cgroup: &Cgroup) {
        *self.live.entry(cgroup.path.clone()).or_default() += 1;
    }

    /// The run that had this group is over.
    pub fn let_go(&mut self, cgroup: &Cgroup) {
        let left = self.live.remove(&cgroup.path).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            self.live.insert(cgroup.path.clone(), left);
        }
    }

    /// Whether the group of a run is also that of another one that lives now, or is inside of its
    /// group, or has it inside: emptying it would end that one too.
    pub fn is_shared(&self, cgroup: &Cgroup) -> bool {
        let path = cgroup.path.as_path();
        let after = self.live.range::<Path, _>((Excluded(path), Unbounded)).next();
        self.live.get(path).is_some_and(|runs| *runs > 1)
            || path.ancestors().skip(1).any(|above| self.live.contains_key(above))
            || after.is_some_and(|(below, _)| below.starts_with(path))
    }

    /// Where a component's group is, whose limits are about to be changed by somebody else, and
    /// whether another component has the same.
    pub fn give_away(&mut self, cgroup: &Cgroup, component: &str) -> (PathBuf, bool) {
        self.written.remove(&cgroup.path);
        (cgroup.path.clone(), self.is_declared_elsewhere(component, &cgroup.path))
    }

    /// Remove the group of a component that is no longer declared.
    pub fn remove(&mut self, name: &str) {
        if let Some(path) = self.paths.remove(name)
            && !self.paths.values().any(|other| *other == path)
        {
            self.written.remove(&path);
            // Fails while a shared parent is in use, which is right.
            let _ = fs::remove_dir(path);
        }
    }
}

impl Cgroup {
    /// The descriptor for `clone3`.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(&self.path)?;
        Ok(directory.into())
    }

    /// End every process in it. Not for a shared one.
    pub fn kill(&self) {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Ok(()) => self.killed.set(true),
            Err(error) => warn!("failed to empty {}: {error}", self.path.display()),
        }
    }

    /// Take a group that was killed away once it is empty; the next start makes a new one.
    ///
    /// Linux since 6.14 counts the kills of a group, and ends a new process when the count has changed during its
    /// fork. For a child that is cloned into another group it takes the first count from its parent's group: whatever
    /// is started in a group that was ever killed is killed at once (`cgroup_css_set_fork`, b69bb476dee9).
    pub fn retire(&self) {
        if !self.killed.get() {
            return;
        }
        if let Err(error) = remove_tree(&self.path) {
            warn!("failed to remove {}, nothing may run in it any more: {error}", self.path.display());
        }
    }

    /// Whether both processes are in the first one's group, by the kernel's word on both. In a
    /// shared group that says nothing on whose they are.
    pub fn has_both(leader: i32, other: i32) -> bool {
        let (Some(own), Some(other)) = (group_of(leader), group_of(other)) else {
            return false;
        };
        other.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether a process is left in it. A shared group says nothing: it is not ours alone.
    pub fn is_occupied(&self) -> bool {
        let events = sys::read_small(&self.path.join("cgroup.events"));
        events.is_ok_and(|text| text.contains("populated 1"))
    }
}

/// The group of a process, from the root of its hierarchy.
fn group_of(pid: i32) -> Option<String> {
    let text = sys::read_small(Path::new(&format!("/proc/{pid}/cgroup"))).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned())
}

fn set_up(root: &Path) -> io::Result<PathBuf> {
    let kind = statfs(root)?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        return Err(io::Error::other("not a cgroup v2 hierarchy"));
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

/// Enable each controller for the children of `path`; returns those that are not available.
fn enable_controllers(path: &Path) -> Vec<&'static str> {
    let control = path.join("cgroup.subtree_control");
    // One at a time: the kernel refuses the whole list for one that is missing.
    let refused = |name: &&&str| fs::write(&control, format!("+{name}")).is_err();
    CONTROLLERS.iter().filter(refused).copied().collect()
}

/// Create each directory of a relative path; inner ones pass the controllers on. Whether the last
/// one is new.
fn make_path(subtree: &Path, relative: &str) -> io::Result<bool> {
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

/// Remove an empty group and the groups that the component has made in it.
fn remove_tree(path: &Path) -> io::Result<()> {
    let mut groups = vec![path.to_path_buf()];
    let mut next = 0;
    while let Some(group) = groups.get(next) {
        for entry in fs::read_dir(group)?.flatten() {
            if groups.len() < NESTED_LIMIT && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                groups.push(entry.path());
            }
        }
        next += 1;
    }
    // Inner ones come after the ones they are in.
    groups.iter().rev().try_for_each(fs::remove_dir)
}

/// A file of limits, what is declared for it, and what the kernel begins with.
pub type Limit = (&'static str, Option<String>, &'static str);

/// All limits that a group can have.
pub fn limits(resources: &Resources) -> [Limit; 6] {
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    let cpu_max = resources.cpu_max.map(|max| {
        let quota = text(max.quota).unwrap_or_else(|| "max".to_owned());
        format!("{quota} {}", max.period)
    });
    [
        ("memory.max", text(resources.memory_max), "max"),
        ("memory.high", text(resources.memory_high), "max"),
        ("cpu.weight", text(resources.cpu_weight.map(u64::from)), "100"),
        ("io.weight", text(resources.io_weight.map(u64::from)), "default 100"),
        ("cpu.max", cpu_max, "max 100000"),
        ("pids.max", text(resources.pids_max), "max"),
    ]
}

/// Write the limits that are not as they are to be, and return what the group has then. What is not
/// declared is taken back, unless another component has the same group and may declare it. Of a
/// group that somebody else has made nothing is known, so everything is written.
///
/// A declared limit that cannot be set is an error: the component must not run without it.
fn write_limits(
    path: &Path,
    resources: &Resources,
    also_elsewhere: bool,
    known: Option<Written>,
) -> io::Result<Written> {
    let unknown = known.is_none();
    let mut written = known.unwrap_or_default();
    for (file, value, default) in limits(resources) {
        let declared = value.is_some();
        if !declared && also_elsewhere {
            continue;
        }
        let value = value.unwrap_or_else(|| default.to_owned());
        let before = written.get(file).map_or(default, String::as_str);
        if before == value && !unknown {
            continue;
        }
        match write_existing(&path.join(file), &value) {
            Ok(()) => {}
            // Without the controller there was no limit either.
            Err(error) if !declared && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!("failed to write {value} to {}/{file}: {error}", path.display());
                if declared {
                    return Err(error);
                }
            }
        }
        written.insert(file, value);
    }
    Ok(written)
}

/// Write to a file of the kernel's. It is never created, so that a missing one is told as missing.
fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_no_longer_declared_is_lifted() {
        let group = tempfile::tempdir().expect("temporary directory");
        let read = |file: &str| fs::read_to_string(group.path().join(file)).ok();
        for file in ["memory.max", "cpu.weight", "cpu.max"] {
            fs::write(group.path().join(file), "12345").expect("file");
        }
        let resources = Resources { cpu_weight: Some(50), ..Resources::default() };
        let known = write_limits(group.path(), &resources, false, None).expect("limits");
        assert_eq!(read("memory.max").as_deref(), Some("max"));
        assert_eq!(read("cpu.max").as_deref(), Some("max 100000"));
        assert_eq!(read("cpu.weight").as_deref(), Some("50"));
        // The controller is missing, and the limit is not asked for.
        assert_eq!(read("io.weight"), None);
        let asked = Resources { io_weight: Some(50), ..Resources::default() };
        assert!(write_limits(group.path(), &asked, false, None).is_err());
        // What is as it was is not written again; what has changed is, and what is gone is lifted.
        for file in ["memory.max", "cpu.weight", "cpu.max"] {
            fs::write(group.path().join(file), "untouched").expect("file");
        }
        let known = write_limits(group.path(), &resources, false, Some(known)).expect("limits");
        let all = || ["memory.max", "cpu.weight", "cpu.max"].map(|file| read(file).expect("a file"));
        assert_eq!(all(), ["untouched", "untouched", "untouched"]);
        let other = Resources { memory_max: Some(7), ..Resources::default() };
        write_limits(group.path(), &other, false, Some(known)).expect("limits");
        assert_eq!(all(), ["7", "100", "untouched"]);
    }

    #[test]
    fn a_group_is_shared_while_two_runs_are_in_it_or_one_in_the_others() {
        let mut all = Cgroups::below(None);
        let group = |path: &str| Cgroup { path: path.into(), killed: Cell::new(false) };
        let (web, back, beside) = (group("/g/web"), group("/g/web/a/back"), group("/g/web-b"));
        all.hold(&web);
        all.hold(&beside);
        assert!(!all.is_shared(&web) && !all.is_shared(&beside));
        // The first one in finds out too.
        all.hold(&group("/g/web"));
        assert!(all.is_shared(&web) && !all.is_shared(&beside));
        all.let_go(&web);
        assert!(!all.is_shared(&web));
        all.hold(&back);
        assert!(all.is_shared(&web) && all.is_shared(&back) && !all.is_shared(&beside));
        all.let_go(&web);
        assert!(!all.is_shared(&back));
    }

    #[test]
    fn a_group_is_new_once() {
        let root = tempfile::tempdir().expect("temporary directory");
        let made = || make_path(root.path(), "web/one").expect("path");
        assert_eq!([made(), made()], [true, false]);
    }
}
