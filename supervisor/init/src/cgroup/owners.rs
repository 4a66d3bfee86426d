//! Whose group is which: a group is there as long as a component or a run has it, and no longer.

use std::fs;
use std::ops::Bound::{Included, Unbounded};
use std::path::Path;
use std::rc::Rc;

use super::{Cgroup, Cgroups, Group, tree};

impl Cgroups {
    /// From now on this is a component's group, and none that it had before.
    pub(super) fn assign(&mut self, component: &str, path: &Rc<Path>) {
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

    /// A run has this group from now on.
    pub fn hold(&mut self, cgroup: &Cgroup) {
        self.groups.entry(Rc::clone(&cgroup.path)).or_default().runs += 1;
        self.watch(&cgroup.path);
        // What the limits of all hold up is told of the group that has them.
        if let Some(whole) = self.whole_of(&cgroup.path) {
            self.watch(&whole);
        }
    }

    /// The run that had this group is over.
    pub fn let_go(&mut self, cgroup: &Cgroup) {
        if let Some(group) = self.groups.get_mut(&cgroup.path) {
            group.runs = group.runs.saturating_sub(1);
            self.thaw_left(&cgroup.path);
            self.tidy(&cgroup.path);
        }
    }

    /// Remove a group that nobody has any more, what was made in it, and the groups that it alone was in.
    pub(super) fn tidy(&mut self, path: &Rc<Path>) {
        let Some(group) = self.groups.get(path).filter(|group| group.is_nobodys()) else {
            return;
        };
        // One inside of it may be another component's.
        let is_empty = self.within(path).nth(1).is_none();
        if group.is_slice && !is_empty {
            return;
        }
        let removed = is_empty && tree::remove(path).is_ok();
        // One that stays is not to be taken for another.
        if (removed || !group.killed)
            && let Some(group) = self.groups.remove(path)
        {
            self.watch.remove(group.watched);
        }
        let Some(subtree) = self.subtree.as_ref().filter(|_| removed) else { return };
        for above in path.ancestors().skip(1).take_while(|above| above != subtree) {
            // That of a slice is nobody's, and goes with the last that is in it.
            let is_used = self.groups.get(above).is_some_and(|group| !group.is_nobodys());
            if is_used
                || self.within(above).any(|(below, _)| below != above)
                || fs::remove_dir(above).is_err()
            {
                return;
            }
            if let Some(group) = self.groups.remove(above) {
                self.watch.remove(group.watched);
            }
        }
    }

    /// A group, if anybody has it, and those inside of it.
    fn within<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Group)> {
        let from = self.groups.range::<Path, _>((Included(path), Unbounded));
        from.map(|(path, group)| (&**path, group)).take_while(move |(below, _)| below.starts_with(path))
    }

    /// Whether a run is in a group or inside of it.
    pub(super) fn has_runs(&self, path: &Path) -> bool {
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

impl Group {
    fn is_nobodys(&self) -> bool {
        self.components == 0 && self.runs == 0 && self.writers == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake::Bench;

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
