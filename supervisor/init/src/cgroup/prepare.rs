//! Groups before a start: with the limits of the component, and not killed.
//!
//! Nothing is started in a group that was killed: it is made anew first, for which it has to be empty. So is one that
//! hands controllers down: the kernel takes no process into it (`EBUSY`, "no internal processes" in its cgroup-v2.rst).
//!
//! Lowering a limit of memory makes the kernel reclaim before the write returns, for as long as that takes, and what the
//! run before has read or written to files counts. So limits of memory are written here to new groups only. A group that
//! is empty is made anew for them; in one that is not, a child writes (see [`crate::limits`]).

use std::path::Path;
use std::rc::Rc;

use yakiros_core::component::{Component, Resources};

use super::controllers::{self, Refusal};
use super::limit::{Limit, Written};
use super::{Cgroup, Cgroups, tree};

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
    /// Make the group of a component and write its limits.
    pub fn prepare(&mut self, component: &Component) -> Result<Prepared, Refusal> {
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
        // What has run in it may have handed controllers down to groups of its own. A process that hands over gets a
        // group inside of it.
        if !new && is_empty && !component.hands_over() && controllers::are_handed_down(&path) {
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
        let (limits, after) = group.plan(&path, &component.resources)?;
        controllers::ensure(&subtree, &path, &limits)?;
        if !new && limits.iter().any(Limit::may_reclaim) {
            return Ok(Prepared::Unwritten(Work { path, limits, after, number: 0 }));
        }
        group.written = None;
        for limit in &limits {
            let step = || format!("set {} of its control group to {:?}", limit.file, limit.value);
            limit.write(&path).map_err(|error| Refusal { step: step().into(), error })?;
        }
        group.written = after;
        Ok(Prepared::Ready(Some(Cgroup { path })))
    }

    /// What a child is to write for the group of a run to have other limits.
    pub fn change(&self, cgroup: &Cgroup, resources: &Resources) -> Result<Work, Refusal> {
        let path = Rc::clone(&cgroup.path);
        let plan = self.groups.get(&path).map(|group| group.plan(&path, resources)).transpose()?;
        let (limits, after) = plan.unwrap_or_default();
        if let Some(subtree) = &self.subtree {
            controllers::ensure(subtree, &path, &limits)?;
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
        if group.runs > 0 {
            self.watch(&work.path);
        }
        self.tidy(&work.path);
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
    use crate::cgroup::fake::{Bench, component};

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
        assert!(matches!(bench.all.prepare(&server), Ok(Prepared::Ready(_))));
        // This file is none of the kernel's, and keeps the directory.
        assert!(matches!(bench.prepare("a", "own"), Ok(Prepared::Busy)));
        fs::remove_file(&control).expect("file");
        bench.start("a", "own");
        assert!(!bench.is_marked("own"));
    }

    #[test]
    fn limits_of_memory_are_not_written_here_where_the_kernel_would_have_to_reclaim() {
        const MAX: &str = "memory_max = 4096";
        let mut bench = Bench::new();
        let first = bench.start("a", "one");
        bench.mark("one");
        bench.offer("one", "memory");
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
            let (mut one, mut two) = (bench.change(&other, &resources), bench.change(&other, &resources));
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
        bench.offer_nothing("one");
        let written = bench.all.prepare(&lower).expect_err("a directory without files");
        assert_eq!(written.error.kind(), std::io::ErrorKind::NotFound);
        assert!(!bench.is_marked("one"));
    }
}
