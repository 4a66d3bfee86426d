//! What a process may use of the component's memory while it is not the component's yet.
//!
//! When a group is at its limit the kernel ends the largest process in it: of two versions that may be the one that serves.
//! So the one that starts beside it has a limit of its own, at what the other leaves, and if it needs more it is the one
//! that goes. (The kernel is not to be trusted with the choice even where the new one is the largest: while the threads of
//! one that it has ended give their memory back, it can take the group for full and end another, `css_task_iter_advance`.)

use std::io;
use std::path::Path;

use tracing::warn;
use yakiros_core::component::Resources;

use super::{Cgroup, Cgroups, tree};
use crate::sys;

/// The limit of memory in a group.
const LIMIT: &str = "memory.max";

/// What the one that serves may come to need until the other has taken over, as a part of the limit.
const RESERVE_PART: u64 = 16;

impl Cgroup {
    /// Have the groups of single processes in this one count memory of their own, so that each can have a limit.
    pub(super) fn count_memory_apart(&self) {
        // Where that cannot be, it is told when a limit is to be set.
        let _ = tree::write(&self.path.join("cgroup.subtree_control"), "+memory");
    }

    /// Keep what will start in this group, which is new, to what is left in `whole`, the component's.
    pub fn confine(&self, whole: &Self, resources: &Resources) {
        let Some(limit) = resources.memory_max else { return };
        let confined = used(&whole.path)
            .and_then(|used| tree::write(&self.path.join(LIMIT), &room(limit, used).to_string()));
        if let Err(error) = confined {
            let path = self.path.display();
            warn!("want of memory in a new version can end the one that serves: {path}/{LIMIT}: {error}");
        }
    }
}

impl Cgroups {
    /// A process of a component, in the group `own`, may use all that the component may. Raising a limit never makes the
    /// kernel reclaim.
    pub fn unconfine(&self, component: &str, own: &Cgroup) {
        if self.whole(component, own).path == own.path {
            return;
        }
        match tree::write(&own.path.join(LIMIT), "max") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!("failed to lift {}/{LIMIT}: {error}", own.path.display());
            }
            _ => {}
        }
    }
}

/// What a second process may use where the first uses `used`, in bytes: never all that is left. Where that is next to
/// nothing, the second cannot be created or is ended at once, and the first serves on.
fn room(limit: u64, used: u64) -> u64 {
    let left = limit.saturating_sub(used);
    left.saturating_sub(limit / RESERVE_PART).max(left / 2)
}

/// The memory that a group needs, in bytes: without what the kernel would drop for want of it.
fn used(group: &Path) -> io::Result<u64> {
    let all = sys::read_small(&group.join("memory.current"))?;
    let all: u64 = all.trim().parse().map_err(io::Error::other)?;
    Ok(all.saturating_sub(droppable(&sys::read_small(&group.join("memory.stat"))?)))
}

/// What of its memory a group can do without, by its `memory.stat`: copies of what is on disks.
fn droppable(stat: &str) -> u64 {
    let value = |name: &str| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0_u64)
    };
    // Of the files that are counted, those in memory are on no disk, and what is locked stays.
    let files = value("file").saturating_sub(value("shmem")).saturating_sub(value("unevictable"));
    files + value("slab_reclaimable")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::fake::Bench;

    #[test]
    fn a_second_process_gets_what_the_first_leaves_but_for_a_reserve() {
        assert_eq!(room(1600, 500), 1000);
        // However little is left, something of it stays.
        for (used, rest) in [(1400, 100), (1440, 80), (1500, 50), (1600, 0), (1700, 0)] {
            assert_eq!(room(1600, used), rest, "{used}");
        }
    }

    #[test]
    fn only_what_one_process_was_kept_to_is_lifted() {
        let mut bench = Bench::new();
        let web = bench.start("web", "shop");
        let own = Cgroup { path: bench.path("shop/web.gen-2").into() };
        fs::create_dir(&own.path).expect("a group");
        for group in [&web, &own] {
            fs::write(group.path.join(LIMIT), "4096").expect("file");
            bench.all.unconfine("web", group);
        }
        let limit = |group: &Cgroup| fs::read_to_string(group.path.join(LIMIT)).expect("file");
        assert_eq!(
            [limit(&web), limit(&own)],
            ["4096", "max"],
            "the first one is what the component declares"
        );
    }

    #[test]
    fn what_the_kernel_would_drop_is_not_counted_as_used() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (whole, own) = (folder.path().join("web"), folder.path().join("web/web.gen-2"));
        fs::create_dir_all(&own).expect("groups");
        let [whole, own] = [whole, own].map(|path| Cgroup { path: path.into() });
        fs::write(whole.path.join("memory.current"), "900\n").expect("file");
        let stat = "anon 300\nfile 350\nkernel 20\nshmem 50\nslab_reclaimable 100\n";
        fs::write(whole.path.join("memory.stat"), stat).expect("file");
        fs::write(own.path.join(LIMIT), "max\n").expect("file");
        let limit = || fs::read_to_string(own.path.join(LIMIT)).expect("file");
        own.confine(&whole, &Resources::default());
        assert_eq!(limit(), "max\n", "no limit is declared");
        own.confine(&whole, &Resources { memory_max: Some(1600), ..Resources::default() });
        assert_eq!(limit(), "1000");
    }
}
