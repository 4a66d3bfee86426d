//! Control groups (version 2) of components: made before the start, emptied at the end, removed with the last
//! component that has them.
//!
//! The files are read and written here and by no library (cgroups-rs): a limit that cannot be set has to keep a component
//! from starting, and to be named, and process 1 must not wait for a write that makes the kernel reclaim.
//!
//! Layout: `ROOT/graph/<cgroup or name>`, with `<slice>.slice/` before it for each slice around, and in that one for each
//! process of a component that hands over. Without a usable hierarchy components run without groups, which is said once at
//! the start; limits then do not hold.

mod confine;
mod controllers;
mod delegate;
#[cfg(test)]
pub mod fake;
mod freezer;
mod generation;
mod handle;
mod limit;
mod owners;
mod prepare;
mod tree;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound::{Included, Unbounded};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tracing::warn;
use yakiros_core::component::Component;

pub use controllers::{PREPARE, Refusal};
pub use handle::{Cgroup, Events};
pub use limit::Limit;
pub use prepare::{Prepared, Work};
pub use watch::Counts;

use crate::kernel_log::Told;
use limit::Written;
use watch::{Watch, Watched};

/// The groups of all components.
pub struct Cgroups {
    /// `ROOT/graph`, when there is a hierarchy to use.
    subtree: Option<PathBuf>,
    /// The path of each component that was started.
    paths: HashMap<String, Rc<Path>>,
    /// Each group that a component or a run has.
    groups: BTreeMap<Rc<Path>, Group>,
    /// Those that are frozen, each with the component for which that was asked.
    frozen: BTreeMap<Rc<Path>, Rc<str>>,
    /// Where the kernel tells what happens in them.
    watch: Watch,
}

/// What there is to know of a group.
#[derive(Default)]
struct Group {
    /// Components whose group it is, of those that were started.
    components: u32,
    /// Runs that are in it now.
    runs: u32,
    /// It is a slice's: nobody's own, and there as long as anything is in it.
    is_slice: bool,
    /// Children that write its limits now.
    writers: u32,
    /// Children that ever did.
    works: u32,
    /// Nothing may be started in it: it was killed since it was made, or one that it is in (see [`Cgroups::kill`]), or it
    /// hands controllers down, or was given to somebody.
    killed: bool,
    /// The limits that it was given last, by this process image; `None` if they are not known.
    written: Option<Written>,
    /// What it had counted at the last look; `None` before the first at one that was there before.
    counts: Option<Counts>,
    /// The newest kill that was told of it: what is as old is not told for another.
    told: Option<Told>,
    watched: Watched,
}

impl Cgroups {
    /// Take `root` into use. What is not possible is said in the log.
    pub fn new(root: &Path) -> Self {
        let subtree = match tree::set_up(root) {
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
        let watch = Watch::new(subtree.is_some());
        Self { subtree, paths: HashMap::new(), groups: BTreeMap::new(), frozen: BTreeMap::new(), watch }
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

    /// The group of a component that a process was found in, as it is; `None` without a hierarchy. An
    /// error if it is not in there.
    pub fn adopt(&mut self, component: &Component, pid: i32) -> io::Result<Option<Cgroup>> {
        let Some(subtree) = &self.subtree else {
            return Ok(None);
        };
        let path: Rc<Path> = subtree.join(&*component.cgroup()).into();
        let Some(own) = generation::find(&path, component, pid)? else {
            return Err(io::Error::other(format!("{pid} is not in {}", path.display())));
        };
        self.assign(&component.name, &path);
        Ok(Some(own))
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
}
