//! Groups before a start: with the limits of the component, and not killed.
//!
//! Nothing is started in a group that was killed: it is made anew first, for which it has to be empty. So is one that was
//! given to somebody, and one that hands controllers down: the kernel takes no process into it (`EBUSY`, "no internal processes" in its cgroup-v2.rst).
//!
//! Lowering a limit of memory makes the kernel reclaim before the write returns, for as long as that takes, and what the
//! run before has read or written to files counts. So limits of memory are written here to new groups only. A group that
//! is empty is made anew for them; in one that is not, a child writes (see [`crate::limits`]).

use std::path::Path;
use std::rc::Rc;

use yakiros_core::component::{Component, Resources, slice};

use super::controllers::{self, Refusal};
use super::limit::{Limit, Written};
use super::{Cgroup, Cgroups, Group, delegate, tree};

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
    /// Make the group of a component, and before it those of the slices that it lies in, the outermost first, and write
    /// their limits.
    pub fn prepare(&mut self, component: &Component, slices: &[Rc<Component>]) -> Result<Prepared, Refusal> {
        let Some(subtree) = self.subtree.clone() else {
            return Ok(Prepared::Ready(None));
        };
        let relative = &*component.cgroup();
        let path: Rc<Path> = subtree.join(relative).into();
        self.refuse_frozen(&path)?;
        let is_known = self.groups.contains_key(&path);
        self.assign(&component.name, &path);
        for slice in slices {
            match self.prepare_slice(&subtree, slice)? {
                Prepared::Ready(_) => {}
                waits => return Ok(waits),
            }
        }
        let is_empty = !self.has_runs(&path);
        let group = self.groups.entry(Rc::clone(&path)).or_default();
        if group.writers > 0 {
            return Ok(Prepared::Busy);
        }
        let mut new = tree::make(&subtree, relative)?;
        if !new && !is_known {
            self.thaw_for_good(&path);
        }
        let group = self.groups.entry(Rc::clone(&path)).or_default();
        // What has run in it may have handed controllers down to groups of its own (a process that hands over gets a group
        // inside of it), or have it still: who it was given to is not to keep it.
        let is_divided = || !component.hands_over() && controllers::are_handed_down(&path);
        if !new && is_empty && (delegate::is_given_away(&path) || is_divided()) {
            group.killed = true;
        }
        let plan = || group.plan(&path, &component.resources);
        let reclaims = || plan().map(|(limits, _)| limits.iter().any(Limit::may_reclaim));
        if !new && is_empty && (group.killed || reclaims()?) && tree::remove(&path).is_ok() {
            new = tree::make(&subtree, relative)?;
        }
        if new {
            controllers::verify_type(&path)?;
            group.killed = false;
            group.is_made(&mut self.watch);
            group.written = Some(Written::new());
        } else if group.killed {
            return Ok(Prepared::Busy);
        }
        let own = Rc::clone(&path);
        let prepared = group.set_limits(&subtree, own, &component.resources, new, "its control group")?;
        if component.resources.delegate.is_some() {
            delegate::bound(&path)?;
        }
        Ok(prepared)
    }

    /// The same for a slice.
    fn prepare_slice(&mut self, subtree: &Path, slice: &Component) -> Result<Prepared, Refusal> {
        let path: Rc<Path> = subtree.join(&slice.name).into();
        let is_empty = !self.has_runs(&path);
        let group = self.groups.entry(Rc::clone(&path)).or_default();
        group.is_slice = true;
        if group.writers > 0 {
            return Ok(Prepared::Busy);
        }
        let mut new = tree::make(subtree, &slice.name)?;
        if !new && is_empty && group.killed && tree::remove(&path).is_ok() {
            new = tree::make(subtree, &slice.name)?;
        }
        if new {
            controllers::verify_type(&path)?;
            tree::enable_controllers(&path);
            group.killed = false;
            group.is_made(&mut self.watch);
            group.written = Some(Written::new());
        } else if group.killed {
            return Ok(Prepared::Busy);
        }
        let whose = format!("slice {}", slice::name_of(&slice.name));
        group.set_limits(subtree, path, &slice.resources, new, &whose)
    }

    /// What a child is to write for the group of a slice to have its limits; `None` if nothing is in the slice.
    pub fn change_slice(&self, slice: &Component) -> Option<Result<Work, Refusal>> {
        let subtree = self.subtree.as_deref()?;
        let path: Rc<Path> = subtree.join(&slice.name).into();
        if !path.exists() {
            return None;
        }
        let unknown = Group::default();
        let plan = || {
            let (limits, after) = self.groups.get(&path).unwrap_or(&unknown).plan(&path, &slice.resources)?;
            controllers::ensure(subtree, &path, &limits, None)?;
            Ok((limits, after))
        };
        let work = plan();
        Some(work.map(|(limits, after)| Work { path, limits, after, number: 0 }))
    }

    /// What a child is to write for the group of a run to have other limits.
    pub fn change(&self, cgroup: &Cgroup, resources: &Resources) -> Result<Work, Refusal> {
        let path = Rc::clone(&cgroup.path);
        let plan = self.groups.get(&path).map(|group| group.plan(&path, resources)).transpose()?;
        let (limits, after) = plan.unwrap_or_default();
        if let Some(subtree) = &self.subtree {
            controllers::ensure(subtree, &path, &limits, resources.delegate.as_deref())?;
        }
        Ok(Work { path, limits, after, number: 0 })
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
        let group = self.groups.get(&work.path);
        if group.is_some_and(|group| self.is_in_use(&work.path, group)) {
            self.watch(&work.path);
        }
        self.tidy(&work.path);
    }
}

impl Group {
    /// Write the limits that it does not have yet, or have a child write them.
    fn set_limits(
        &mut self,
        subtree: &Path,
        path: Rc<Path>,
        resources: &Resources,
        new: bool,
        whose: &str,
    ) -> Result<Prepared, Refusal> {
        let (limits, after) = self.plan(&path, resources)?;
        controllers::ensure(subtree, &path, &limits, resources.delegate.as_deref())?;
        if !new && limits.iter().any(Limit::may_reclaim) {
            return Ok(Prepared::Unwritten(Work { path, limits, after, number: 0 }));
        }
        self.written = None;
        for limit in &limits {
            let step = || format!("set {} of {whose} to {:?}", limit.file, limit.value);
            limit.write(&path).map_err(|error| Refusal { step: step().into(), error })?;
        }
        self.written = after;
        Ok(Prepared::Ready(Some(Cgroup { path })))
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
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::fake::{Bench, component, slice};

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
    fn nothing_starts_in_a_group_that_hands_controllers_down_before_it_is_made_anew() {
        let mut bench = Bench::new();
        let first = bench.start("a", "own");
        bench.mark("own");
        let control = bench.path("own/cgroup.subtree_control");
        fs::write(&control, "\n").expect("file");
        bench.all.let_go(&first);
        let first = bench.start("a", "own");
        assert!(bench.is_marked("own"), "it hands nothing down");
        fs::write(&control, "memory pids\n").expect("file");
        assert!(matches!(bench.prepare("b", "own"), Ok(Prepared::Ready(_))), "the first one is still in it");
        bench.all.let_go(&first);
        // One that hands over is not started in the group itself.
        let server = component("c", "own", "[lifecycle]\nhandoff = \"fd-passing\"");
        assert!(server.hands_over());
        assert!(matches!(bench.all.prepare(&server, &[]), Ok(Prepared::Ready(_))));
        // This file is none of the kernel's, and keeps the directory.
        assert!(matches!(bench.prepare("a", "own"), Ok(Prepared::Busy)));
        fs::remove_file(&control).expect("file");
        bench.start("a", "own");
        assert!(!bench.is_marked("own"));
    }

    #[test]
    fn groups_of_slices_are_made_before_what_is_in_them_and_go_with_the_last_of_it() {
        let mut bench = Bench::new();
        let outer = slice("batch", "");
        let inner = |limit: &str| slice("batch/nightly", limit);
        let web = component("web", "web", "slice = \"batch/nightly\"");
        let prepare = |bench: &mut Bench, inner| bench.all.prepare(&web, &[Rc::clone(&outer), inner]);
        let Ok(Prepared::Ready(Some(own))) = prepare(&mut bench, inner("")) else {
            panic!("nothing is in the way");
        };
        assert_eq!(*own.path, *bench.path("batch.slice/nightly.slice/web"));
        bench.all.hold(&own);
        // A limit without its controller keeps from starting, and is named with its slice.
        let group = "batch.slice/nightly.slice";
        bench.offer(group, "cpu");
        let refusal = prepare(&mut bench, inner("pids_max = 5")).expect_err("no controller");
        assert!(
            refusal.step.contains("controller pids is not in") && refusal.step.contains(group),
            "{refusal:?}"
        );
        bench.offer(group, "pids memory");
        let refusal = prepare(&mut bench, inner("pids_max = 5")).expect_err("no such file");
        assert_eq!(&*refusal.step, "set pids.max of slice batch/nightly to \"5\"");
        // What makes the kernel reclaim is written by a child, for a start and for what runs.
        let Ok(Prepared::Unwritten(mut work)) = prepare(&mut bench, inner("memory_max = 4096")) else {
            panic!("it is written where a process lives");
        };
        assert_eq!(*work.path, *bench.path(group));
        bench.all.begin(&mut work);
        assert!(matches!(prepare(&mut bench, inner("memory_max = 4096")), Ok(Prepared::Busy)));
        bench.all.conclude(work, true);
        let change = |bench: &Bench, limit| {
            let work = bench.all.change_slice(&inner(limit)).expect("a group").expect("a change");
            work.limits.into_iter().map(|limit| (limit.file, limit.value)).collect::<Vec<_>>()
        };
        assert_eq!(change(&bench, "memory_max = 4096"), []);
        assert_eq!(change(&bench, "memory_max = 8192"), [("memory.max", "8192".to_owned())]);
        assert!(bench.all.change_slice(&slice("other", "pids_max = 5")).is_none(), "nothing is in it");
        // Another one keeps the slice; the last takes it along.
        bench.offer_nothing(group);
        let other = component("other", "other", "slice = \"batch\"");
        assert!(matches!(bench.all.prepare(&other, &[Rc::clone(&outer)]), Ok(Prepared::Ready(_))));
        bench.all.let_go(&own);
        bench.all.remove("web");
        assert!(!bench.path(group).exists() && bench.path("batch.slice/other").exists());
        bench.all.remove("other");
        assert!(!bench.path("batch.slice").exists());
        assert_eq!(bench.all.groups.len(), 0);
    }

    #[test]
    fn limits_of_memory_are_not_written_here_where_the_kernel_would_have_to_reclaim() {
        const MAX: &str = "memory_max = 4096";
        let mut bench = Bench::new();
        let first = bench.start("a", "one");
        bench.mark("one");
        bench.offer("one", "memory");
        let lower = component("b", "one", MAX);
        let Ok(Prepared::Unwritten(mut work)) = bench.all.prepare(&lower, &[]) else {
            panic!("it is written where a process lives");
        };
        assert_eq!(work.limits.iter().map(|limit| limit.file).collect::<Vec<_>>(), ["memory.max"]);
        assert!(bench.is_marked("one"));
        // Nobody starts while it is written, and what was written is known then.
        bench.all.begin(&mut work);
        assert!(matches!(bench.all.prepare(&lower, &[]), Ok(Prepared::Busy)));
        bench.all.conclude(work, true);
        assert!(matches!(bench.all.prepare(&lower, &[]), Ok(Prepared::Ready(_))));
        // What a child did not write, or did while another wrote, is not.
        for failed in [true, false] {
            let other = Cgroup { path: bench.path("one").into() };
            let resources = Resources { memory_max: Some(1), ..Resources::default() };
            let (mut one, mut two) = (bench.change(&other, &resources), bench.change(&other, &resources));
            bench.all.begin(&mut one);
            if failed {
                bench.all.conclude(one, false);
            } else {
                bench.all.begin(&mut two);
                bench.all.conclude(two, true);
                bench.all.conclude(one, true);
            }
            assert!(matches!(bench.all.prepare(&lower, &[]), Ok(Prepared::Unwritten(_))));
        }
        // What was read and written in it is not left to a start: it is made anew when nobody is in it.
        bench.all.let_go(&first);
        bench.offer_nothing("one");
        let written = bench.all.prepare(&lower, &[]).expect_err("a directory without files");
        assert_eq!(written.error.kind(), std::io::ErrorKind::NotFound);
        assert!(!bench.is_marked("one"));
    }
}
