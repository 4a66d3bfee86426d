//! Groups that are kept from running (`cgroup.freeze`), with everything inside of them.
//!
//! The kernel stops each task on its way out of the kernel, and says in `cgroup.events` when all of them stand still
//! (`frozen 1`); the file tells of a change by itself, so nothing is asked meanwhile. What is killed goes also while it is
//! frozen. What is created in a frozen group is so from the beginning: nothing is started in one, and none is left frozen
//! when the last process of it is gone.

use std::io;
use std::mem;
use std::path::Path;
use std::rc::Rc;

use nix::libc;
use tracing::warn;

use super::controllers::{PREPARE, Refusal};
use super::{Cgroup, Cgroups, tree};
use crate::sys;

const FREEZE: &str = "cgroup.freeze";
pub(super) const EVENTS: &str = "cgroup.events";

/// The most tasks that are looked at to tell which hang: process 1 is not held up by one that has made thousands.
const LOOKED_AT: usize = 256;

/// The most of them that are named.
const NAMED: usize = 4;

impl Cgroups {
    /// Have the kernel freeze the group of a component, or thaw it, and tell when that is done.
    pub fn set_frozen(&mut self, path: &Rc<Path>, component: &Rc<str>, frozen: bool) -> io::Result<()> {
        let watch = self.watch.add(path, EVENTS);
        let before = mem::replace(&mut self.groups.entry(Rc::clone(path)).or_default().watched.events, watch);
        debug_assert!(before.is_none() || before == watch, "the kernel has one watch for a file");
        let file = path.join(FREEZE);
        tree::write(&file, if frozen { "1" } else { "0" }).inspect_err(|_| self.expect_no_word(path))?;
        if frozen {
            self.frozen.insert(Rc::clone(path), Rc::clone(component));
        } else {
            self.frozen.remove(path);
        }
        Ok(())
    }

    /// Nothing more is to be told of whether a group is frozen.
    pub fn expect_no_word(&mut self, path: &Path) {
        let watched = self.groups.get_mut(path).and_then(|group| group.watched.events.take());
        self.watch.remove_one(watched);
    }

    /// Whether everything in a group stands still, by the kernel's word; `None` if it says nothing.
    pub fn stands_still(path: &Path) -> Option<bool> {
        let text = sys::read_small(&path.join(EVENTS)).ok()?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("frozen "));
        Some(lines.next()?.trim() == "1")
    }

    /// A process of a component was found in this group, which may have been frozen before all was forgotten. Whether it
    /// is.
    pub fn adopt_frozen(&mut self, path: &Rc<Path>, component: &Rc<str>) -> bool {
        let frozen = sys::read_small(&path.join(FREEZE)).is_ok_and(|text| text.trim() == "1");
        if frozen {
            self.frozen.insert(Rc::clone(path), Rc::clone(component));
        }
        frozen
    }

    /// Groups that are frozen, each with the component for which that was asked, for the next process image.
    pub fn all_frozen(&self) -> Vec<(Rc<Path>, Rc<str>)> {
        self.frozen.iter().map(|(path, component)| (Rc::clone(path), Rc::clone(component))).collect()
    }

    /// From the process image before.
    pub fn take_frozen(&mut self, frozen: Vec<(Rc<Path>, Rc<str>)>) {
        self.frozen.extend(frozen);
    }

    /// A run has let its group go: if nobody is left in the one that is frozen with it, that can be used again.
    pub(super) fn thaw_left(&mut self, path: &Path) {
        if self.frozen.is_empty() {
            return;
        }
        let around = path.ancestors().filter_map(|around| self.frozen.get_key_value(around));
        let around = around.map(|(frozen, _)| Rc::clone(frozen));
        for frozen in around.collect::<Vec<_>>() {
            if !self.has_runs(&frozen) {
                self.thaw_for_good(&frozen);
            }
        }
    }

    /// Nothing may be started in a group that is frozen, or in one inside of it.
    pub(super) fn refuse_frozen(&self, path: &Path) -> Result<(), Refusal> {
        let around = || path.ancestors().find_map(|around| self.frozen.get_key_value(around));
        let Some((frozen, owner)) = Some(()).filter(|()| !self.frozen.is_empty()).and_then(|()| around())
        else {
            return Ok(());
        };
        let step = format!("{PREPARE} {}: it is frozen (graphctl thaw {owner})", frozen.display());
        Err(Refusal { step: step.into(), error: io::Error::from_raw_os_error(libc::EBUSY) })
    }

    /// A group that was there before this supervisor may be frozen, and nobody wants that any more.
    pub(super) fn thaw_for_good(&mut self, path: &Path) {
        self.frozen.remove(path);
        match tree::write(&path.join(FREEZE), "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!("failed to thaw {}: {error}", path.display());
            }
            _ => {}
        }
    }
}

impl Cgroup {
    /// Which of its tasks hang in the kernel, in words: those do not freeze.
    pub fn hanging(&self) -> String {
        let groups = tree::all(&self.path).unwrap_or_default();
        let members = groups.iter().filter_map(|group| sys::read_small(&group.join("cgroup.threads")).ok());
        let tasks = members.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        let hanging = tasks.take(LOOKED_AT).filter_map(|task| hanging(&task)).take(NAMED + 1);
        let mut named: Vec<_> = hanging.collect();
        if named.is_empty() {
            return "none of its processes hangs in the kernel; it may be busy there: try again".to_owned();
        }
        if named.len() > NAMED {
            named.truncate(NAMED);
            named.push("and more".to_owned());
        }
        format!("waiting in the kernel and not frozen (state D): {}", named.join(", "))
    }
}

/// Number and name of a task that hangs in the kernel.
fn hanging(task: &str) -> Option<String> {
    let stat = sys::read_small(Path::new(&format!("/proc/{task}/stat"))).ok()?;
    in_disk_sleep(&stat).map(|name| format!("{task} ({})", name.escape_debug()))
}

/// The name in `/proc/PID/stat`, of a task whose state is D. Any name may have blanks and parentheses in it.
fn in_disk_sleep(stat: &str) -> Option<&str> {
    let (before, rest) = stat.rsplit_once(") ")?;
    rest.starts_with("D ").then(|| before.split_once('(').map(|(_, name)| name)).flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::Prepared;
    use crate::cgroup::fake::Bench;

    /// What the kernel has of a group.
    fn offer(bench: &Bench, group: &str) {
        fs::write(bench.path(group).join(FREEZE), "0").expect("file");
        fs::write(bench.path(group).join(EVENTS), "populated 1\nfrozen 0\n").expect("file");
    }

    fn written(bench: &Bench, group: &str) -> String {
        fs::read_to_string(bench.path(group).join(FREEZE)).expect("file")
    }

    #[test]
    fn what_the_kernel_says_of_a_group_is_told_until_nobody_asks() {
        let mut bench = Bench::new();
        let web = bench.start("web", "web");
        let name = Rc::from("web");
        let refused = bench.all.set_frozen(web.path(), &name, true).expect_err("no such file");
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        offer(&bench, "web");
        bench.all.set_frozen(web.path(), &name, true).expect("a file");
        assert_eq!((written(&bench, "web").as_str(), Cgroups::stands_still(web.path())), ("1", Some(false)));
        assert!(bench.all.changed().0.is_empty());
        fs::write(web.path().join(EVENTS), "populated 1\nfrozen 1\n").expect("file");
        assert!(bench.all.changed().0.contains(web.path()));
        assert_eq!(Cgroups::stands_still(web.path()), Some(true));
        bench.all.expect_no_word(web.path());
        fs::write(web.path().join(EVENTS), "populated 1\nfrozen 0\n").expect("file");
        assert!(bench.all.changed().0.is_empty(), "nobody asks any more");
    }

    #[test]
    fn nothing_starts_in_a_frozen_group_and_none_is_left_frozen() {
        let mut bench = Bench::new();
        let web = bench.start("web", "shop");
        offer(&bench, "shop");
        // Others have the same group, without a process in it now.
        for name in ["a", "z"] {
            let other = bench.start(name, "shop");
            bench.all.let_go(&other);
        }
        bench.all.set_frozen(web.path(), &"web".into(), true).expect("a file");
        // The next process image knows.
        let (paths, frozen) = (bench.all.paths().clone(), bench.all.all_frozen());
        bench.all = Cgroups::below(bench.all.subtree.clone());
        bench.all.take(paths, Vec::new());
        bench.all.take_frozen(frozen);
        bench.all.hold(&web);
        for (name, group) in [("db", "shop"), ("back", "shop/inner")] {
            let refused = bench.prepare(name, group).expect_err("it would stand still from the beginning");
            let expected = format!(
                "prepare the cgroup {}: it is frozen (graphctl thaw web)",
                bench.path("shop").display()
            );
            assert_eq!(&*refused.step, expected);
        }
        bench.all.let_go(&web);
        assert_eq!(written(&bench, "shop"), "0");
        bench.start("db", "shop");
    }

    #[test]
    fn a_group_from_before_is_not_started_in_as_it_was_left() {
        let mut bench = Bench::new();
        fs::create_dir(bench.path("web")).expect("a group");
        offer(&bench, "web");
        fs::write(bench.path("web").join(FREEZE), "1").expect("file");
        // A child has to write its limits first, for it may be full.
        assert!(matches!(bench.prepare("web", "web"), Ok(Prepared::Unwritten(_))));
        assert_eq!(written(&bench, "web"), "0");
    }

    #[test]
    fn who_hangs_is_told_by_its_state() {
        for (stat, name) in [
            ("7 (dd) D 1 7 7 0", Some("dd")),
            ("7 (a) D b) D 1", Some("a) D b")),
            ("7 (a) D b) S 1", None),
            ("7 (dd) S 1 7", None),
            ("", None),
        ] {
            assert_eq!(in_disk_sleep(stat), name, "{stat}");
        }
    }
}
