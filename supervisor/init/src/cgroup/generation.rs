//! A group for each process of a component that hands over, inside of the component's own.
//!
//! Two of its processes may live at once, and what ends one of them with all that it has started must not touch the other.
//! The limits are those of the component's group, and hold for both together (and see [`super::confine`]).
//!
//! No such group is ever used twice: in one that was killed nothing could be started (see [`Cgroups::kill`]).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

use yakiros_core::component::Component;

use super::{Cgroup, Cgroups, tree};
use crate::sys;

/// The most groups of earlier processes with the same number that are passed over. There is one only if the numbers began
/// anew, after the supervisor's state was lost, and something of that process cannot be ended.
const ATTEMPTS: usize = 8;

/// Between the name of a component and the number of its process.
const MARK: &str = ".gen-";

impl Cgroups {
    /// Make the group of one process of a component inside of `whole`, the component's.
    pub fn make_for(&self, whole: &Cgroup, component: &Component, generation: u64) -> io::Result<Cgroup> {
        if component.resources.memory_max.is_some() {
            whole.count_memory_apart();
        }
        let first = format!("{}{MARK}{generation}", component.name);
        let mut name = first.clone();
        for attempt in 1..=ATTEMPTS {
            let path = whole.path.join(&name);
            let is_held = self.groups.contains_key(&*path);
            if !is_held {
                tree::remove(&path).or_else(|error| if path.exists() { Err(error) } else { Ok(()) })?;
                fs::create_dir(&path)?;
                return Ok(Cgroup { path: path.into() });
            }
            name = format!("{first}.{attempt}");
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The group of the component that the group at `path` was made in for one of its processes, if it was.
    pub(super) fn whole_of(&self, path: &Path) -> Option<Rc<Path>> {
        let whole = path.parent().filter(|_| path.file_name().is_some_and(is_generation))?;
        let (whole, group) = self.groups.get_key_value(whole)?;
        (group.components > 0).then(|| Rc::clone(whole))
    }

    /// The group of the component that the group of one of its processes is in, or is.
    pub fn whole(&self, component: &str, own: &Cgroup) -> Cgroup {
        let whole = self.paths.get(component).filter(|path| own.path.starts_with(path));
        whole.map_or_else(|| own.clone(), |path| Cgroup { path: path.clone() })
    }
}

fn is_generation(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.contains(MARK))
}

/// The group at `path`, or that of a process inside of it, that has `pid` as a member.
pub(super) fn find(path: &Path, component: &Component, pid: i32) -> io::Result<Option<Cgroup>> {
    // What a group is given to may live in any that it has made there.
    let is_in = |group: &Path| match component.resources.delegate {
        None => has_member(group, pid),
        Some(_) => Ok(tree::all(group)?.iter().any(|inner| has_member(inner, pid).unwrap_or(false))),
    };
    let prefix = format!("{}{MARK}", component.name);
    for entry in fs::read_dir(path)?.flatten() {
        let own = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
        if own && is_in(&entry.path()).unwrap_or(false) {
            return Ok(Some(Cgroup { path: entry.path().into() }));
        }
    }
    Ok(is_in(path)?.then(|| Cgroup { path: path.into() }))
}

fn has_member(path: &Path, pid: i32) -> io::Result<bool> {
    let members = sys::read_small(&path.join("cgroup.procs"))?;
    Ok(members.lines().any(|line| line.parse() == Ok(pid)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake::{Bench, component};

    fn names(bench: &Bench, group: &str) -> Vec<String> {
        let entries = fs::read_dir(bench.path(group)).expect("a group").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_process_has_a_group_of_its_own_that_goes_with_it() {
        let mut bench = Bench::new();
        let web = component("web", "shop", "");
        let whole = match bench.prepare("web", "shop") {
            Ok(crate::cgroup::Prepared::Ready(Some(whole))) => whole,
            other => panic!("{other:?}"),
        };
        let make = |bench: &mut Bench, generation| {
            let own = bench.all.make_for(&whole, &web, generation).expect("a group");
            bench.all.hold(&own);
            own
        };
        let (first, second) = (make(&mut bench, 1), make(&mut bench, 2));
        assert_eq!(names(&bench, "shop"), ["web.gen-1", "web.gen-2"]);
        assert!(!bench.all.is_shared(&first) && !bench.all.is_shared(&second), "either can be emptied");
        // What is killed is that one, and the other can go on and be followed.
        bench.kill(&first);
        assert!(matches!(bench.prepare("web", "shop"), Ok(crate::cgroup::Prepared::Ready(_))));
        // The number began anew, and one of it lives.
        let again = make(&mut bench, 2);
        assert_eq!(names(&bench, "shop"), ["web.gen-1", "web.gen-2", "web.gen-2.1"]);
        for own in [&first, &second, &again] {
            assert_eq!(bench.all.whole("web", own).path, whole.path, "the limits are of all");
            bench.all.let_go(own);
        }
        assert_eq!(names(&bench, "shop"), [""; 0]);
        // One that was left behind by a supervisor before this one.
        fs::create_dir_all(bench.path("shop/web.gen-7/inner")).expect("directories");
        make(&mut bench, 7);
        assert!(!bench.path("shop/web.gen-7/inner").exists());
    }

    #[test]
    fn a_process_is_found_in_the_group_of_its_component_or_in_its_own() {
        let bench = Bench::new();
        let web = component("web", "shop", "");
        for (group, pids) in [("shop", "7\n"), ("shop/web.gen-3", "8\n"), ("shop/other.gen-3", "9\n")] {
            fs::create_dir_all(bench.path(group)).expect("a group");
            fs::write(bench.path(group).join("cgroup.procs"), pids).expect("members");
        }
        let found = |pid| find(&bench.path("shop"), &web, pid).expect("a group").map(|own| own.path);
        assert_eq!(found(7).as_deref(), Some(&*bench.path("shop")));
        assert_eq!(found(8).as_deref(), Some(&*bench.path("shop/web.gen-3")));
        assert_eq!(found(9), None, "another component's");
        // One that divides its group may live in a part of it.
        let nest = component("web", "shop", "delegate = true");
        let found = find(&bench.path("shop"), &nest, 9).expect("a group").map(|own| own.path);
        assert_eq!(found.as_deref(), Some(&*bench.path("shop")));
    }
}
