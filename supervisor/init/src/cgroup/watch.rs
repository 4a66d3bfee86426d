//! What happens in groups, by the kernel's word: kills for want of memory, and limits that were reached.
//!
//! The kernel counts in `memory.events` and `pids.events` and tells of a change at most every 10 ms
//! (`CGROUP_FILE_NOTIFY_MIN_INTV`), so that nothing is asked while nothing happens. Of a kill its log tells sooner. One
//! descriptor is for all groups. Each event is told once: what a group has counted before is kept with it, also for the
//! next process image.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use serde::{Deserialize, Serialize};
use tracing::warn;
use yakiros_core::component::slice;
use yakiros_core::journal::Bytes;

use super::{Cgroup, Cgroups, Group};
use crate::kernel_log::{self, Kill, Scope, Told};
use crate::sys;

/// Reads of the descriptor before everybody else gets a chance; each gives many changes.
const READ_BUDGET: usize = 8;

const MEMORY: &str = "memory.events";
const PIDS: &str = "pids.events";

/// What a group has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Processes that were killed for want of memory, in it or inside of it.
    pub kills: u64,
    /// Times that its own `memory.high` was exceeded.
    pub high: u64,
    /// Processes that could not be created for its own `pids.max`.
    pub pids: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { kills: self.kills + other.kills, high: self.high + other.high, pids: self.pids + other.pids }
    }
}

impl Counts {
    fn of(group: &Path) -> Self {
        let memory = read(group, MEMORY);
        Self {
            kills: value(&memory, "oom_kill"),
            high: own_value(group, MEMORY, &memory, "high"),
            pids: own_value(group, PIDS, &read(group, PIDS), "max"),
        }
    }

    /// What came to it since `before`. A count does not go back, but for a group that was made anew behind our back.
    fn since(self, before: Self) -> Self {
        Self {
            kills: self.kills.saturating_sub(before.kills),
            high: self.high.saturating_sub(before.high),
            pids: self.pids.saturating_sub(before.pids),
        }
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Where the kernel tells.
pub(super) struct Watch {
    /// `None` without a hierarchy, or where nothing can be watched: then each end of a process tells.
    inotify: Option<Inotify>,
    groups: HashMap<WatchDescriptor, Rc<Path>>,
}

/// What is watched of one group.
#[derive(Clone, Copy, Default)]
pub(super) struct Watched {
    memory: Option<WatchDescriptor>,
    pids: Option<WatchDescriptor>,
    /// Whether it is frozen, while somebody waits for that.
    pub(super) events: Option<WatchDescriptor>,
}

impl Watch {
    /// For groups, or for none.
    pub(super) fn new(wanted: bool) -> Self {
        let inotify = wanted.then(|| Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK));
        let told =
            |error: &Errno| warn!("failed to watch control groups, their events are told late: {error}");
        Self { inotify: inotify.and_then(|made| made.inspect_err(told).ok()), groups: HashMap::new() }
    }

    pub(super) fn add(&mut self, group: &Rc<Path>, file: &str) -> Option<WatchDescriptor> {
        match self.inotify.as_ref()?.add_watch(&group.join(file), AddWatchFlags::IN_MODIFY) {
            Ok(watch) => {
                self.groups.insert(watch, Rc::clone(group));
                Some(watch)
            }
            // Without the controller there is no such file, and nothing to be told.
            Err(Errno::ENOENT) => None,
            Err(error) => {
                warn!("failed to watch {}/{file}, its events are told late: {error}", group.display());
                None
            }
        }
    }

    /// Be told of a group no longer. The kernel tells nothing of the end of a group's files, and keeps what watches them
    /// until it is removed (see inotify(7); kernfs marks no inode as deleted).
    pub(super) fn remove(&mut self, watched: Watched) {
        for watch in [watched.memory, watched.pids, watched.events] {
            self.remove_one(watch);
        }
    }

    /// The same of one file.
    pub(super) fn remove_one(&mut self, watch: Option<WatchDescriptor>) {
        let Some(watch) = watch else { return };
        self.groups.remove(&watch);
        // The kernel may have removed it by itself: then there is nothing to do.
        let _ = self.inotify.as_ref().map(|inotify| inotify.rm_watch(watch));
    }
}

impl Cgroups {
    /// A descriptor that becomes readable when something has happened in a group.
    pub fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        Some(self.watch.inotify.as_ref()?.as_fd().try_clone_to_owned())
    }

    /// What every group with a run has counted so far, for the next process image.
    pub fn counts(&self) -> Vec<(Rc<Path>, Counts)> {
        let known = self.groups.iter().filter(|(path, group)| self.is_in_use(path, group));
        known.filter_map(|(path, group)| Some((Rc::clone(path), group.counts?))).collect()
    }

    /// The newest kill that was told of each group, for the next process image.
    pub fn told(&self) -> Vec<(Rc<Path>, Told)> {
        let told =
            self.groups.iter().filter_map(|(path, group)| Some((Rc::clone(path), group.told.clone()?)));
        told.collect()
    }

    /// From the process image before.
    pub fn take_told(&mut self, told: Vec<(Rc<Path>, Told)>) {
        for (path, told) in told {
            self.groups.entry(path).or_default().told = Some(told);
        }
    }

    /// From the process image before.
    pub fn take_counts(&mut self, counts: Vec<(Rc<Path>, Counts)>) {
        for (path, counts) in counts {
            self.groups.entry(path).or_default().counts = Some(counts);
        }
    }

    /// Have the kernel tell of a group that a run is in.
    pub(super) fn watch(&mut self, path: &Rc<Path>) {
        let Some(group) = self.groups.get_mut(path) else { return };
        if group.watched.memory.is_none() {
            group.watched.memory = self.watch.add(path, MEMORY);
        }
        if group.watched.pids.is_none() && group.may_limit_pids() {
            group.watched.pids = self.watch.add(path, PIDS);
        }
        group.counts.get_or_insert_with(|| Counts::of(path));
    }

    /// Groups in which something has happened, and whether there are more.
    pub fn changed(&mut self) -> (BTreeSet<Rc<Path>>, bool) {
        let mut changed = BTreeSet::new();
        for _ in 0..READ_BUDGET {
            let Some(Ok(events)) = self.watch.inotify.as_ref().map(Inotify::read_events) else {
                return (changed, false);
            };
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    changed.extend(self.in_use());
                } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.forget_watch(event.wd);
                } else {
                    changed.extend(self.watch.groups.get(&event.wd).cloned());
                }
            }
        }
        (changed, true)
    }

    /// Groups with a run, or whose component has one in a group inside.
    pub fn in_use(&self) -> Vec<Rc<Path>> {
        let used = self.groups.iter().filter(|(path, group)| self.is_in_use(path, group));
        used.map(|(path, _)| Rc::clone(path)).collect()
    }

    pub(super) fn is_in_use(&self, path: &Path, group: &Group) -> bool {
        group.runs > 0 || (group.components > 0 && self.has_runs(path))
    }

    /// What has happened in a group since the last look; `None` if nothing has.
    pub fn look(&mut self, path: &Path) -> Option<Counts> {
        let group = self.groups.get_mut(path)?;
        let now = Counts::of(path);
        let mut happened = now.since(group.counts.replace(now)?);
        if group.runs == 0 {
            // Those were in the groups inside, and are told of them.
            happened.kills = 0;
        }
        (!happened.is_nothing()).then_some(happened)
    }

    /// The file is gone with its group, or was never ours.
    fn forget_watch(&mut self, watch: WatchDescriptor) {
        let Some(path) = self.watch.groups.remove(&watch) else { return };
        let Some(group) = self.groups.get_mut(&path) else { return };
        let Watched { memory, pids, events } = &mut group.watched;
        for one in [memory, pids, events] {
            one.take_if(|known| *known == watch);
        }
    }

    /// Kills in a group that the kernel's log has and that were not told before, the newest first; no more than `count`.
    pub fn kills(&mut self, path: &Path, log: &str, count: u64) -> Vec<Kill> {
        let told = self.groups.get(path).and_then(|group| group.told.as_ref());
        let name = self.name_in_log(path).to_string_lossy();
        let kills = kernel_log::kills(log, &name, count, told);
        if let (Some(group), Some(newest)) = (self.groups.get_mut(path), kills.first()) {
            group.told = Some(newest.told());
        }
        kills
    }

    /// Groups with a run that the kernel's log calls `full`, or that one is inside of.
    pub fn named_in_log(&self, full: &str) -> Vec<Rc<Path>> {
        let named = |path: &Path| kernel_log::is_within(full, &self.name_in_log(path).to_string_lossy());
        let used = self.groups.iter().filter(|(path, group)| group.runs > 0 && named(path));
        used.map(|(path, _)| Rc::clone(path)).collect()
    }

    /// Where there was no room, in words; with the limit of a slice.
    pub fn name_of(&self, scope: &Scope) -> Rc<str> {
        match scope {
            Scope::Slice(group) => {
                let root = self.subtree.as_deref().and_then(Path::parent).unwrap_or(Path::new("/"));
                let limit = Cgroup { path: root.join(&**group).into() }.number("memory.max");
                let limit = limit.map(|limit| format!(" (memory.max {})", Bytes(limit))).unwrap_or_default();
                let name = group.split_once('/').map_or(&**group, |(_, inner)| inner);
                format!("the limit of slice {}{limit}", slice::name_of(name)).into()
            }
            Scope::Inner(path) | Scope::Group(path) => format!("the group {path}").into(),
            Scope::Nodes => "the nodes that it may use".into(),
            Scope::Machine => "the machine".into(),
        }
    }

    /// The path of a group from the directory of all components on, as the kernel's log has it at its end.
    fn name_in_log<'a>(&self, path: &'a Path) -> &'a Path {
        self.subtree.as_ref().and_then(|subtree| path.strip_prefix(subtree.parent()?).ok()).unwrap_or(path)
    }
}

impl Group {
    /// It was made just now: nothing has happened in it, and nothing of it is watched.
    pub(super) fn is_made(&mut self, watch: &mut Watch) {
        self.counts = Some(Counts::default());
        watch.remove(mem::take(&mut self.watched));
    }

    fn may_limit_pids(&self) -> bool {
        let limit = self.written.as_ref().map(|written| written.get(&("pids.max", None)).map(String::as_str));
        limit.is_none_or(|limit| limit.is_some_and(|limit| limit != "max"))
    }
}

impl Cgroup {
    /// One of its files as a number; `None` if it says `max` or is not there.
    pub fn number(&self, file: &str) -> Option<u64> {
        read(&self.path, file).trim().parse().ok()
    }

    /// Where it is.
    pub fn path(&self) -> &Rc<Path> {
        &self.path
    }
}

/// What a file of a group says; nothing if it is not there.
fn read(group: &Path, file: &str) -> String {
    sys::read_small(&group.join(file)).unwrap_or_default()
}

/// The value of a key, one on each line.
fn value(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

/// The same, of the limits of the group itself and of none inside of it: those are the business of whoever has set them.
/// Linux before 6.11 has no `pids.events.local`, and counts nothing in `pids.events` that was inside.
fn own_value(group: &Path, file: &str, all: &str, key: &str) -> u64 {
    let all = value(all, key);
    if all == 0 {
        return 0;
    }
    sys::read_small(&group.join(format!("{file}.local"))).map_or(all, |own| value(&own, key))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::cgroup::Prepared;
    use crate::cgroup::fake::{Bench, component};
    use crate::cgroup::tree::SUBTREE;

    fn count(bench: &Bench, kills: u64, pids: u64) {
        let text = format!("low 0\nhigh 2\nmax 9\noom {kills}\noom_kill {kills}\noom_group_kill 0\n");
        fs::write(bench.path("web").join(MEMORY), text).expect("file");
        fs::write(bench.path("web").join(PIDS), format!("max {pids}\n")).expect("file");
    }

    #[test]
    fn what_happens_in_a_group_is_told_once() {
        let mut bench = Bench::new();
        let web = bench.start("web", "web");
        count(&bench, 0, 0);
        // As if a second run came: the files are there by now.
        bench.all.hold(&web);
        let mut told = || {
            let (changed, more) = bench.all.changed();
            assert!(!more);
            changed.iter().filter_map(|path| bench.all.look(path)).collect::<Vec<_>>()
        };
        assert_eq!(told(), [], "nothing has happened");
        let group = web.path.to_path_buf();
        let write =
            |kills| fs::write(group.join(MEMORY), format!("high 2\noom_kill {kills}\n")).expect("file");
        write(3);
        assert_eq!(told(), [Counts { kills: 3, high: 2, pids: 0 }]);
        assert_eq!(told(), []);
        write(4);
        write(5);
        assert_eq!(told(), [Counts { kills: 2, high: 0, pids: 0 }]);
        // Another process image knows what was told.
        write(6);
        let counts = bench.all.counts();
        bench.all.take_counts(counts);
        assert_eq!(bench.all.look(&group).map(|happened| happened.kills), Some(1));
    }

    #[test]
    fn limits_of_groups_inside_are_not_told() {
        let mut bench = Bench::new();
        let web = bench.start("web", "web");
        count(&bench, 0, 7);
        fs::write(web.path.join("memory.events.local"), "high 0\noom_kill 0\n").expect("file");
        fs::write(web.path.join("pids.events.local"), "max 0\n").expect("file");
        assert_eq!(bench.all.look(&web.path), None);
        fs::write(web.path.join("memory.events.local"), "high 1\noom_kill 0\n").expect("file");
        fs::write(web.path.join("pids.events.local"), "max 3\n").expect("file");
        assert_eq!(bench.all.look(&web.path), Some(Counts { kills: 0, high: 1, pids: 3 }));
    }

    #[test]
    fn what_holds_a_component_up_that_hands_over_is_told_of_its_whole_group() {
        let mut bench = Bench::new();
        let web = component("web", "web", "[lifecycle]\nhandoff = \"fd-passing\"");
        let Ok(Prepared::Ready(Some(whole))) = bench.all.prepare(&web, &[]) else { panic!("no group") };
        count(&bench, 0, 0);
        let own = bench.all.make_for(&whole, &web, 1).expect("a group");
        bench.all.hold(&own);
        let told = |bench: &mut Bench| {
            let (changed, _) = bench.all.changed();
            changed.iter().filter_map(|path| bench.all.look(path)).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut bench), []);
        // A kill is also counted in the group that it was in, and told of that one.
        count(&bench, 2, 7);
        let text = "high 5\noom_kill 2\n";
        fs::write(bench.path("web").join(MEMORY), text).expect("file");
        assert_eq!(told(&mut bench), [Counts { kills: 0, high: 5, pids: 7 }]);
        // Another process image goes on from there.
        let counts = bench.all.counts();
        assert!(counts.iter().any(|(path, _)| path == whole.path()), "{counts:?}");
        assert!(bench.all.in_use().contains(whole.path()));
        bench.all.let_go(&own);
        assert!(!bench.all.in_use().contains(whole.path()), "nobody is held up");
    }

    #[test]
    fn a_group_that_is_made_anew_counts_from_the_beginning() {
        let mut bench = Bench::new();
        let web = bench.start("web", "web");
        count(&bench, 5, 0);
        assert_eq!(bench.all.look(&web.path).map(|happened| happened.kills), Some(5));
        fs::remove_dir_all(&web.path).expect("group");
        bench.all.let_go(&web);
        let again = bench.start("web", "web");
        count(&bench, 2, 0);
        assert_eq!(bench.all.look(&again.path).map(|happened| happened.kills), Some(2));
        // Of one of which nothing is known, what it has counted before is not news.
        bench.all.groups.get_mut(&again.path).expect("a group").counts = None;
        bench.all.hold(&again);
        assert_eq!(bench.all.look(&again.path), None);
        count(&bench, 3, 1);
        assert_eq!(bench.all.look(&again.path), Some(Counts { kills: 1, high: 0, pids: 1 }));
    }

    #[test]
    fn a_kill_that_the_log_does_not_have_is_not_taken_for_the_one_before() {
        let mut bench = Bench::new();
        let (web, shop) = (bench.start("web", "web"), bench.start("shop", "shop"));
        let line = |second: u32, group: &str, pid: u32| {
            format!(
                "<6>[   {second}.000000] oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/{SUBTREE}/{group},task_memcg=/{SUBTREE}/{group},task=a,pid={pid},uid=0\n"
            )
        };
        let mut log = [line(1, "web", 7), line(2, "shop", 8)].concat();
        let told = |bench: &mut Bench, of: &Cgroup, log: &str| {
            let kills = bench.all.kills(&of.path, log, 1);
            kills.iter().map(|kill| kill.victim.pid).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut bench, &shop, &log), [8]);
        assert_eq!(told(&mut bench, &web, &log), [7], "it is older than another group's");
        assert_eq!(told(&mut bench, &web, &log), [0; 0], "of the second one the kernel did not write");
        log += &line(3, "web", 9);
        assert_eq!(told(&mut bench, &web, &log), [9]);
        // A group of the same name that is made anew has not had that one either.
        bench.kill(&web);
        bench.all.let_go(&web);
        let web = bench.start("web", "web");
        assert_eq!(told(&mut bench, &web, &log), [0; 0]);
    }

    /// What is watched, by the kernel's word and by ours.
    fn watches(bench: &Bench) -> [usize; 2] {
        let inotify = bench.all.watch.inotify.as_ref().expect("a descriptor").as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{inotify}")).expect("a descriptor");
        let kernels = info.lines().filter(|line| line.starts_with("inotify wd:")).count();
        [kernels, bench.all.watch.groups.len()]
    }

    /// Start a component in a group whose files, as the kernel's do, outlive their names for whoever watches them.
    fn start_watched(bench: &mut Bench, round: &str) -> Cgroup {
        let web = bench.start("web", "web");
        count(bench, 0, 0);
        for file in [MEMORY, PIDS] {
            let kept = bench.root.path().join(format!("{file}.{round}"));
            fs::hard_link(web.path.join(file), kept).expect("a second name");
        }
        bench.all.groups.get_mut(&web.path).expect("a group").written = None;
        bench.all.watch(&web.path);
        assert_eq!(watches(bench), [2, 2], "{round}");
        web
    }

    #[test]
    fn a_group_that_is_gone_is_watched_no_longer() {
        let mut bench = Bench::new();
        let unlink = |web: &Cgroup| {
            [MEMORY, PIDS]
                .into_iter()
                .try_for_each(|file| fs::remove_file(web.path.join(file)))
                .expect("files");
        };
        let web = start_watched(&mut bench, "killed");
        unlink(&web);
        bench.kill(&web);
        bench.all.let_go(&web);
        // It is made anew, and has no files yet.
        let web = bench.start("web", "web");
        assert_eq!(watches(&bench), [0, 0], "of the group before");
        bench.all.let_go(&web);
        let web = start_watched(&mut bench, "removed");
        unlink(&web);
        bench.all.let_go(&web);
        assert_eq!(watches(&bench), [2, 2], "the component is still there, and so is its group");
        bench.all.remove("web");
        assert!(!web.path.exists());
        assert_eq!(watches(&bench), [0, 0], "of a group that was removed");
        // One that stays, for it has something in it, is nobody's.
        let web = start_watched(&mut bench, "left");
        bench.all.let_go(&web);
        bench.all.remove("web");
        assert!(web.path.exists());
        assert_eq!(watches(&bench), [0, 0], "of a group that was left behind");
        // What the kernel says of all that is of no group.
        let (changed, more) = bench.all.changed();
        assert!(changed.is_empty() && !more, "{changed:?}");
    }

    #[test]
    fn processes_are_counted_where_they_are_limited() {
        let limit = |value: Option<&str>| Group {
            written: Some(value.map(|value| (("pids.max", None), value.to_owned())).into_iter().collect()),
            ..Group::default()
        };
        assert!(limit(Some("5")).may_limit_pids() && Group::default().may_limit_pids());
        assert!(!limit(Some("max")).may_limit_pids() && !limit(None).may_limit_pids());
    }
}
