//! Control groups (version 2) of components: made before the start, emptied at the end, removed with the last
//! component that has them.
//!
//! Layout: `ROOT/graph/<cgroup or name>`. Without a usable hierarchy components run without
//! groups, which is said once at the start; limits then do not hold.
//!
//! Nothing is started in a group that was killed: it is made anew first, for which it has to be empty.
//!
//! Lowering a limit of memory makes the kernel reclaim before the write returns, for as long as that takes, and what the
//! run before has read or written to files counts. So limits of memory are written here to new groups only. A group that
//! is empty is made anew for them; in one that is not, a child writes (see [`crate::limits`]).

mod tree;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound::{Included, Unbounded};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use memchr::memmem;
use nix::libc;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use yakiros_core::component::{Component, Resources};

use crate::sys;

/// The directory of all components below the root.
const SUBTREE: &str = "graph";

/// The groups of all components.
pub struct Cgroups {
    /// `ROOT/graph`, when there is a hierarchy to use.
    subtree: Option<PathBuf>,
    /// The path of each component that was started.
    paths: HashMap<String, Rc<Path>>,
    /// Each group that a component or a run has.
    groups: BTreeMap<Rc<Path>, Group>,
}

/// What there is to know of a group.
#[derive(Default)]
struct Group {
    /// Components whose group it is, of those that were started.
    components: u32,
    /// Runs that are in it now.
    runs: u32,
    /// Children that write its limits now.
    writers: u32,
    /// Children that ever did.
    works: u32,
    /// It was killed since it was made, or one that it is in (see [`Cgroups::kill`]).
    killed: bool,
    /// The limits that it was given last, by this process image; `None` if they are not known.
    written: Option<Written>,
}

/// Values by their file. A file that is not in it has what the kernel begins with.
type Written = BTreeMap<&'static str, String>;

/// The group of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cgroup {
    path: Rc<Path>,
}

/// A group before a start.
#[derive(Debug)]
pub enum Prepared {
    /// It can be started in; there is none without a hierarchy.
    Ready(Option<Cgroup>),
    /// It was killed and its processes are not gone yet, or a child writes its limits.
    Busy,
    /// A child has to write its limits first.
    Unwritten(Work),
}

/// Limits for a child to write.
#[derive(Debug)]
pub struct Work {
    /// The group.
    pub path: Rc<Path>,
    /// In the order in which they are written.
    pub limits: Vec<Limit>,
    after: Option<Written>,
    number: u32,
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
        Self { subtree, paths: HashMap::new(), groups: BTreeMap::new() }
    }

    /// The group of each component, for the next process image.
    pub fn paths(&self) -> &HashMap<String, Rc<Path>> {
        &self.paths
    }

    /// Groups in which nothing may be started, for the next process image.
    pub fn killed(&self) -> Vec<Rc<Path>> {
        let killed = self.groups.iter().filter(|(_, group)| group.killed);
        killed.map(|(path, _)| Rc::clone(path)).collect()
    }

    /// From the process image before.
    pub fn take(&mut self, paths: HashMap<String, Rc<Path>>, killed: Vec<Rc<Path>>) {
        for (name, path) in paths {
            self.assign(&name, &path);
        }
        for path in killed {
            self.groups.entry(path).or_default().killed = true;
        }
    }

    /// Make the group of a component and write its limits.
    pub fn prepare(&mut self, component: &Component) -> io::Result<Prepared> {
        let Some(subtree) = self.subtree.clone() else {
            return Ok(Prepared::Ready(None));
        };
        let relative = component.cgroup();
        let path: Rc<Path> = subtree.join(relative).into();
        self.assign(&component.name, &path);
        let is_empty = !self.has_runs(&path);
        let group = self.groups.entry(Rc::clone(&path)).or_default();
        if group.writers > 0 {
            return Ok(Prepared::Busy);
        }
        let mut new = tree::make(&subtree, relative)?;
        let reclaims = || group.plan(&component.resources).0.iter().any(Limit::may_reclaim);
        if !new && is_empty && (group.killed || reclaims()) && tree::remove(&path).is_ok() {
            new = tree::make(&subtree, relative)?;
        }
        if new {
            group.killed = false;
            group.written = Some(Written::new());
        } else if group.killed {
            return Ok(Prepared::Busy);
        }
        let (limits, after) = group.plan(&component.resources);
        if !new && limits.iter().any(Limit::may_reclaim) {
            return Ok(Prepared::Unwritten(Work { path, limits, after, number: 0 }));
        }
        group.written = None;
        limits.iter().try_for_each(|limit| limit.write(&path))?;
        group.written = after;
        Ok(Prepared::Ready(Some(Cgroup { path })))
    }

    /// What a child is to write for the group of a run to have other limits.
    pub fn change(&self, cgroup: &Cgroup, resources: &Resources) -> Work {
        let path = Rc::clone(&cgroup.path);
        let (limits, after) = self.groups.get(&path).map(|group| group.plan(resources)).unwrap_or_default();
        Work { path, limits, after, number: 0 }
    }

    /// A child begins to write.
    pub fn begin(&mut self, work: &mut Work) {
        let group = self.groups.entry(Rc::clone(&work.path)).or_default();
        group.writers += 1;
        group.works += 1;
        group.written = None;
        work.number = group.works;
    }

    /// The child has ended.
    pub fn conclude(&mut self, work: Work, done: bool) {
        let Some(group) = self.groups.get_mut(&work.path) else { return };
        group.writers = group.writers.saturating_sub(1);
        // Of two at once nobody knows which was the last.
        if done && group.works == work.number && group.writers == 0 {
            group.written = work.after;
        }
        self.tidy(&work.path);
    }

    /// From now on this is a component's group, and none that it had before.
    fn assign(&mut self, component: &str, path: &Rc<Path>) {
        if self.paths.get(component) == Some(path) {
            return;
        }
        self.groups.entry(Rc::clone(path)).or_default().components += 1;
        if let Some(before) = self.paths.insert(component.to_owned(), Rc::clone(path)) {
            self.leave(&before);
        }
    }

    /// A component has this group no longer.
    fn leave(&mut self, path: &Rc<Path>) {
        if let Some(group) = self.groups.get_mut(path) {
            group.components = group.components.saturating_sub(1);
            self.tidy(path);
        }
    }

    /// The group of a component that a process was found in, as it is; `None` without a hierarchy. An
    /// error if it is not in there.
    pub fn adopt(&mut self, component: &Component, pid: i32) -> io::Result<Option<Cgroup>> {
        let Some(subtree) = &self.subtree else {
            return Ok(None);
        };
        let path: Rc<Path> = subtree.join(component.cgroup()).into();
        let members = sys::read_small(&path.join("cgroup.procs"))?;
        if !members.lines().any(|line| line.parse() == Ok(pid)) {
            return Err(io::Error::other(format!("{pid} is not in {}", path.display())));
        }
        self.assign(&component.name, &path);
        Ok(Some(Cgroup { path }))
    }

    /// Groups with processes that neither are one of `kept`, nor hold one, nor lie in one.
    pub fn others(&self, kept: &[Cgroup]) -> Vec<Cgroup> {
        let near =
            |path: &Path| kept.iter().any(|kept| kept.path.starts_with(path) || path.starts_with(&kept.path));
        let groups = self.subtree.as_deref().map(|subtree| tree::all(subtree).unwrap_or_default());
        let groups = groups.unwrap_or_default().into_iter().skip(1).filter(|path| !near(path));
        groups.map(|path| Cgroup { path: path.into() }).filter(Cgroup::has_processes).collect()
    }

    /// End every process in a group that nothing is known of.
    pub fn end(&mut self, cgroup: &Cgroup) {
        self.groups.entry(Rc::clone(&cgroup.path)).or_default();
        self.kill(cgroup);
    }

    /// A run has this group from now on.
    pub fn hold(&mut self, cgroup: &Cgroup) {
        self.groups.entry(Rc::clone(&cgroup.path)).or_default().runs += 1;
    }

    /// The run that had this group is over.
    pub fn let_go(&mut self, cgroup: &Cgroup) {
        if let Some(group) = self.groups.get_mut(&cgroup.path) {
            group.runs = group.runs.saturating_sub(1);
            self.tidy(&cgroup.path);
        }
    }

    /// Remove a group that nobody has any more, what was made in it, and the groups that it alone was in.
    fn tidy(&mut self, path: &Rc<Path>) {
        let Some(group) = self.groups.get(path).filter(|group| group.is_nobodys()) else {
            return;
        };
        // One inside of it may be another component's.
        let removed = self.within(path).nth(1).is_none() && tree::remove(path).is_ok();
        // One that stays is not to be taken for another.
        if removed || !group.killed {
            self.groups.remove(path);
        }
        let Some(subtree) = self.subtree.as_ref().filter(|_| removed) else { return };
        for above in path.ancestors().skip(1).take_while(|above| above != subtree) {
            if self.groups.contains_key(above) || fs::remove_dir(above).is_err() {
                return;
            }
        }
    }

    /// A group, if anybody has it, and those inside of it.
    fn within<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Group)> {
        let from = self.groups.range::<Path, _>((Included(path), Unbounded));
        from.map(|(path, group)| (&**path, group)).take_while(move |(below, _)| below.starts_with(path))
    }

    /// Whether a run is in a group or inside of it.
    fn has_runs(&self, path: &Path) -> bool {
        self.within(path).any(|(_, group)| group.runs > 0)
    }

    /// Whether the group of a run is also that of another one that lives now, or is inside of its
    /// group, or has it inside: emptying it would end that one too.
    pub fn is_shared(&self, cgroup: &Cgroup) -> bool {
        let path = &*cgroup.path;
        let in_it = |above: &Path| self.groups.get(above).is_some_and(|group| group.runs > 0);
        let another = |(below, group): (&Path, &Group)| group.runs > u32::from(below == path);
        path.ancestors().skip(1).any(in_it) || self.within(path).any(another)
    }

    /// End every process in a group. Not for a shared one.
    ///
    /// Linux since 6.14 counts the kills of a group and of those inside of it, and ends a new process when the count has
    /// changed during its fork. For a child that is cloned into another group it takes the first count from its parent's
    /// group: whatever is started in a group that was ever killed is killed at once (`cgroup_css_set_fork`, b69bb476dee9).
    pub fn kill(&mut self, cgroup: &Cgroup) {
        let path = &*cgroup.path;
        if let Err(error) = tree::write(&path.join("cgroup.kill"), "1") {
            return warn!("failed to empty {}: {error}", path.display());
        }
        let from = self.groups.range_mut::<Path, _>((Included(path), Unbounded));
        for (_, group) in from.take_while(|(below, _)| below.starts_with(path)) {
            group.killed = true;
        }
    }

    /// Remove the group of a component that is no longer declared.
    pub fn remove(&mut self, name: &str) {
        if let Some(path) = self.paths.remove(name) {
            self.leave(&path);
        }
    }

    /// Remove all of them, at the end of a supervisor that is not the whole machine's.
    pub fn remove_all(&mut self) {
        let names: Vec<_> = self.paths.keys().cloned().collect();
        for name in names {
            self.remove(&name);
        }
        if let Some(subtree) = &self.subtree {
            // Another supervisor may have groups in it.
            let _ = fs::remove_dir(subtree);
        }
    }
}

#[cfg(test)]
impl Work {
    /// Some limits of some group.
    pub fn new(path: Rc<Path>, limits: Vec<Limit>) -> Self {
        Self { path, limits, after: None, number: 0 }
    }
}

#[cfg(test)]
impl Limit {
    /// One that a component asks for.
    pub fn declared(file: &'static str, value: &str) -> Self {
        Self { file, value: value.to_owned(), declared: true }
    }

    /// One that nobody asks for any more.
    pub fn lifted(file: &'static str, value: &str) -> Self {
        Self { declared: false, ..Self::declared(file, value) }
    }
}

impl Group {
    fn is_nobodys(&self) -> bool {
        self.components == 0 && self.runs == 0 && self.writers == 0
    }

    /// The limits that are not as they are to be, and all that it has when they are written, if that is known then. What
    /// is not declared is taken back, unless another component has the same group and may declare it. Of a group of
    /// which nothing is known everything is written.
    fn plan(&self, resources: &Resources) -> (Vec<Limit>, Option<Written>) {
        let shared = self.components > 1;
        let mut after = self.written.clone().or_else(|| (!shared).then(Written::new));
        let mut limits = Vec::new();
        for (file, value, default) in table(resources) {
            let declared = value.is_some();
            let value = value.unwrap_or_else(|| default.to_owned());
            let has = self.written.as_ref().map(|written| written.get(file).map_or(default, String::as_str));
            if (!declared && shared) || has == Some(&value) {
                continue;
            }
            if let Some(after) = &mut after {
                after.insert(file, value.clone());
            }
            limits.push(Limit { file, value, declared });
        }
        (limits, after)
    }
}

impl Limit {
    /// Whether writing it takes as long as the kernel needs to find memory.
    fn may_reclaim(&self) -> bool {
        self.file.starts_with("memory.")
    }

    /// Whether an error is none: without the controller there is no limit to be lifted.
    pub fn forgives(&self, errno: i32) -> bool {
        !self.declared && errno == libc::ENOENT
    }

    /// Write it to a group. A declared limit that cannot be set is an error: the component must not run without it.
    fn write(&self, group: &Path) -> io::Result<()> {
        match tree::write(&group.join(self.file), &self.value) {
            Err(error) if !self.forgives(error.raw_os_error().unwrap_or_default()) => {
                warn!("failed to write {} to {}/{}: {error}", self.value, group.display(), self.file);
                if self.declared { Err(error) } else { Ok(()) }
            }
            _ => Ok(()),
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

    /// Where the kernel says whether a process is left in it.
    pub fn events(&self) -> io::Result<Events> {
        File::open(self.path.join("cgroup.events")).map(Events)
    }
}

/// The state of a group, as long as it is held.
pub struct Events(File);

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
    let mut missing = tree::enable_controllers(root);
    missing.extend(tree::enable_controllers(&subtree));
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        info!("cgroup controllers not available: {}", missing.join(", "));
    }
    Ok(subtree)
}

/// A limit of a group.
#[derive(Debug)]
pub struct Limit {
    /// Its name in the group.
    pub file: &'static str,
    /// As the kernel takes it.
    pub value: String,
    /// Otherwise it is only lifted.
    declared: bool,
}

/// Each file of limits, what is declared for it, and what the kernel begins with.
fn table(resources: &Resources) -> [(&'static str, Option<String>, &'static str); 6] {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of some limits to a group of which this is known, as file and value.
    fn written(resources: &Resources, group: &Group) -> (Vec<(&'static str, String)>, Option<Written>) {
        let (limits, after) = group.plan(resources);
        (limits.into_iter().map(|limit| (limit.file, limit.value)).collect(), after)
    }

    #[test]
    fn what_differs_is_written_and_what_is_no_longer_declared_is_lifted() {
        let own = |(file, value): &(&'static str, &str)| (*file, (*value).to_owned());
        let resources = Resources { cpu_weight: Some(50), ..Resources::default() };
        let unknown = Group::default();
        let (files, after) = written(&resources, &unknown);
        let all = [
            ("memory.max", "max"),
            ("memory.high", "max"),
            ("cpu.weight", "50"),
            ("io.weight", "default 100"),
            ("cpu.max", "max 100000"),
            ("pids.max", "max"),
        ];
        assert_eq!(files, all.iter().map(own).collect::<Vec<_>>());
        let known = Group { written: after, ..Group::default() };
        assert_eq!(written(&resources, &known).0, []);
        let other = Resources { memory_max: Some(7), ..Resources::default() };
        let (files, after) = written(&other, &known);
        assert_eq!(files, [("memory.max", "7"), ("cpu.weight", "100")].iter().map(own).collect::<Vec<_>>());
        // What another component may have declared is left, and not known.
        let shared = Group { components: 2, written: after, ..Group::default() };
        assert_eq!(written(&resources, &shared).0, [own(&("cpu.weight", "50"))]);
        let unknown = Group { components: 2, ..Group::default() };
        assert_eq!(written(&resources, &unknown), (vec![own(&("cpu.weight", "50"))], None));
    }

    #[test]
    fn only_a_declared_limit_has_to_be_written() {
        let group = tempfile::tempdir().expect("temporary directory");
        let limit = Limit::declared("io.weight", "50");
        assert!(limit.write(group.path()).is_err());
        assert!(Limit::lifted("io.weight", "50").write(group.path()).is_ok());
        let file = group.path().join("io.weight");
        fs::write(&file, "default 100").expect("file");
        assert!(limit.write(group.path()).is_ok());
        assert_eq!(fs::read_to_string(file).expect("file"), "50");
    }

    #[test]
    fn a_group_is_shared_while_two_runs_are_in_it_or_one_in_the_others() {
        let mut all = Cgroups::below(None);
        let group = |path: &str| Cgroup { path: Path::new(path).into() };
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

    /// A hierarchy that is none of the kernel's: its groups have no files but those that are written here.
    struct Bench {
        root: tempfile::TempDir,
        all: Cgroups,
    }

    impl Bench {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("temporary directory");
            let subtree = root.path().join(SUBTREE);
            fs::create_dir(&subtree).expect("directory");
            Self { root, all: Cgroups::below(Some(subtree)) }
        }

        fn path(&self, group: &str) -> PathBuf {
            self.root.path().join(SUBTREE).join(group)
        }

        fn prepare(&mut self, name: &str, group: &str) -> io::Result<Prepared> {
            self.all.prepare(&component(name, group, ""))
        }

        fn start(&mut self, name: &str, group: &str) -> Cgroup {
            match self.prepare(name, group) {
                Ok(Prepared::Ready(Some(cgroup))) => {
                    self.all.hold(&cgroup);
                    cgroup
                }
                other => panic!("{other:?}"),
            }
        }

        fn kill(&mut self, cgroup: &Cgroup) {
            let file = cgroup.path.join("cgroup.kill");
            fs::write(&file, "").expect("file");
            self.all.kill(cgroup);
            assert_eq!(fs::read_to_string(&file).expect("file"), "1");
            // The kernel's files are no reason not to remove a directory.
            fs::remove_file(file).expect("file");
        }

        /// What shows that a group was made anew.
        fn mark(&self, group: &str) {
            fs::create_dir(self.path(group).join("made-by-itself")).expect("directory");
        }

        fn is_marked(&self, group: &str) -> bool {
            self.path(group).join("made-by-itself").exists()
        }
    }

    fn component(name: &str, group: &str, more: &str) -> Component {
        let text = format!(
            "[component]\nname = {name:?}\nbinary = \"/bin/true\"\n[resources]\ncgroup = {group:?}\n{more}\n"
        );
        yakiros_core::component::parse(&text).component.expect("a component")
    }

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

    #[test]
    fn nothing_starts_in_a_group_that_was_killed_before_it_is_made_anew() {
        let mut bench = Bench::new();
        let first = bench.start("a", "both");
        bench.mark("both");
        bench.kill(&first);
        assert!(matches!(bench.prepare("b", "both"), Ok(Prepared::Busy)), "the first one is still in it");
        assert!(bench.is_marked("both"));
        bench.all.let_go(&first);
        bench.start("b", "both");
        assert!(!bench.is_marked("both"));
        // One inside of it was killed with it.
        let (outer, inner) = (bench.start("c", "outer"), bench.start("d", "outer/inner"));
        bench.all.let_go(&inner);
        bench.mark("outer/inner");
        bench.kill(&outer);
        bench.start("d", "outer/inner");
        assert!(!bench.is_marked("outer/inner"));
        // The process image after knows.
        bench.mark("both");
        let both = Cgroup { path: bench.path("both").into() };
        bench.kill(&both);
        let (paths, killed) = (bench.all.paths().clone(), bench.all.killed());
        bench.all = Cgroups::below(bench.all.subtree.clone());
        bench.all.take(paths, killed);
        bench.start("a", "both");
        assert!(!bench.is_marked("both"));
    }

    #[test]
    fn limits_of_memory_are_not_written_here_where_the_kernel_would_have_to_reclaim() {
        const MAX: &str = "memory_max = 4096";
        let mut bench = Bench::new();
        let first = bench.start("a", "one");
        bench.mark("one");
        let lower = component("b", "one", MAX);
        let Ok(Prepared::Unwritten(mut work)) = bench.all.prepare(&lower) else {
            panic!("it is written where a process lives");
        };
        assert_eq!(work.limits.iter().map(|limit| limit.file).collect::<Vec<_>>(), ["memory.max"]);
        assert!(bench.is_marked("one"));
        // Nobody starts while it is written, and what was written is known then.
        bench.all.begin(&mut work);
        assert!(matches!(bench.all.prepare(&lower), Ok(Prepared::Busy)));
        bench.all.conclude(work, true);
        assert!(matches!(bench.all.prepare(&lower), Ok(Prepared::Ready(_))));
        // What a child did not write, or did while another wrote, is not.
        for failed in [true, false] {
            let other = Cgroup { path: bench.path("one").into() };
            let resources = Resources { memory_max: Some(1), ..Resources::default() };
            let (mut one, mut two) =
                (bench.all.change(&other, &resources), bench.all.change(&other, &resources));
            bench.all.begin(&mut one);
            if failed {
                bench.all.conclude(one, false);
            } else {
                bench.all.begin(&mut two);
                bench.all.conclude(two, true);
                bench.all.conclude(one, true);
            }
            assert!(matches!(bench.all.prepare(&lower), Ok(Prepared::Unwritten(_))));
        }
        // What was read and written in it is not left to a start: it is made anew when nobody is in it.
        bench.all.let_go(&first);
        let written = bench.all.prepare(&lower).expect_err("a directory without files");
        assert_eq!(written.kind(), io::ErrorKind::NotFound);
        assert!(!bench.is_marked("one"));
    }

    #[test]
    fn groups_go_with_the_last_that_has_them() {
        let mut bench = Bench::new();
        let outer = bench.start("c", "y");
        let (first, second) = (bench.start("a", "x/both"), bench.start("b", "x/both"));
        bench.mark("x/both");
        // Its group is another now.
        bench.all.let_go(&first);
        let first = bench.start("a", "y/deep/one");
        assert!(bench.is_marked("x/both"), "the other component has it still");
        bench.all.remove("b");
        assert!(bench.is_marked("x/both"), "its process is still there");
        bench.all.let_go(&second);
        assert!(!bench.path("x").exists());
        // One that is in another's.
        bench.all.let_go(&first);
        bench.all.remove("a");
        assert!(!bench.path("y/deep").exists() && bench.path("y").exists());
        bench.all.let_go(&outer);
        bench.start("d", "y/inner");
        bench.all.remove("c");
        assert!(bench.path("y/inner").exists());
        assert_eq!(bench.all.groups.len(), 1);
    }

    #[test]
    fn an_orderly_end_leaves_no_group() {
        let mut bench = Bench::new();
        for (name, group) in [("a", "x"), ("b", "x/y"), ("c", "z/deep")] {
            let cgroup = bench.start(name, group);
            bench.all.let_go(&cgroup);
        }
        bench.all.remove_all();
        assert!(!bench.path("").exists());
    }
}
