//! Groups that are given to whom they are for (`resources.delegate`): what of them is given, that what is made in them can be
//! removed, and that they come back.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use yakiros_core::component::Resources;

use super::Cgroup;
use super::controllers::Refusal;
use super::tree::{self, NESTED_LIMIT};
use crate::sys;

/// The most groups that may be made in a given one, at any depth: all of them are removed with it.
const DESCENDANTS_MAX: usize = NESTED_LIMIT - 1;

/// How deep they may lie in each other. They are removed by their paths, of which the kernel takes 4,096 bytes: with names
/// of 255 bytes these are the half, and the other is left for the group itself.
const DEPTH_MAX: usize = 8;

/// The file that the number of groups is limited by.
const DESCENDANTS: &str = "cgroup.max.descendants";

impl Cgroup {
    /// What of it belongs to whom it is given to: itself, and those files of which the kernel says that they are of no harm
    /// (`/sys/kernel/cgroup/delegate`; "Delegation" in its cgroup-v2.rst). What a component can declare is not among them:
    /// the kernel names `memory.oom.group`, and who has it could switch off what is declared.
    pub fn delegated(&self) -> Vec<PathBuf> {
        /// What every kernel has that has groups of version 2.
        const LEAST: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";
        let named =
            sys::read_small(Path::new("/sys/kernel/cgroup/delegate")).unwrap_or_else(|_| LEAST.to_owned());
        self.given_of(&named)
    }

    fn given_of(&self, named: &str) -> Vec<PathBuf> {
        let limits = Resources::default().limit_files().map(|(file, ..)| file);
        let files = named.lines().filter(|file| !limits.contains(file)).map(|file| self.path.join(file));
        [self.path.to_path_buf()].into_iter().chain(files.filter(|file| file.exists())).collect()
    }
}

/// Bound what can be made in a group that is given away. The files stay the supervisor's.
pub(super) fn bound(group: &Path) -> Result<(), Refusal> {
    for (file, most) in [(DESCENDANTS, DESCENDANTS_MAX), ("cgroup.max.depth", DEPTH_MAX)] {
        tree::write(&group.join(file), &most.to_string()).map_err(|error| {
            let step = format!("delegate the control group with {file} set to {most}");
            Refusal { step: step.into(), error }
        })?;
    }
    Ok(())
}

/// Whether a group was given away: it is another user's, or what can be made in it is bounded.
pub(super) fn is_given_away(group: &Path) -> bool {
    fs::metadata(group).is_ok_and(|it| it.uid() != geteuid().as_raw())
        || sys::read_small(&group.join(DESCENDANTS)).is_ok_and(|most| most.trim() != "max")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Prepared;
    use crate::cgroup::fake::{Bench, component};

    #[test]
    fn what_is_given_are_no_limits_that_can_be_declared() {
        let mut bench = Bench::new();
        let nest = bench.start("nest", "nest");
        for file in ["cgroup.procs", "memory.oom.group", "memory.reclaim"] {
            fs::write(nest.path.join(file), "").expect("file");
        }
        let given = nest.given_of("cgroup.procs\ncgroup.threads\nmemory.oom.group\nmemory.reclaim\n");
        let expected = ["nest", "nest/cgroup.procs", "nest/memory.reclaim"].map(|file| bench.path(file));
        assert_eq!(given, expected);
    }

    #[test]
    fn a_group_is_given_with_bounds_or_not_at_all() {
        let mut bench = Bench::new();
        let nest = component("nest", "nest", "delegate = true");
        let refusal = bench.all.prepare(&nest, &[]).expect_err("a directory without files");
        assert!(refusal.step.contains("cgroup.max.descendants set to 1023"), "{}", refusal.step);
        let files = [DESCENDANTS, "cgroup.max.depth"].map(|file| bench.path("nest").join(file));
        for file in &files {
            fs::write(file, "max\n").expect("file");
        }
        assert!(!is_given_away(&bench.path("nest")));
        assert!(matches!(bench.all.prepare(&nest, &[]), Ok(Prepared::Ready(_))));
        let [descendants, depth] = &files;
        let read = |file: &PathBuf| fs::read_to_string(file).expect("file");
        assert_eq!([read(descendants), read(depth)], ["1023", "8"]);
        // It comes back for the next start: these files are none of the kernel's, and keep the directory.
        assert!(is_given_away(&bench.path("nest")));
        assert!(matches!(bench.prepare("nest", "nest"), Ok(Prepared::Busy)));
        for file in &files {
            fs::remove_file(file).expect("file");
        }
        bench.start("nest", "nest");
        assert!(!is_given_away(&bench.path("nest")));
    }

    #[test]
    fn all_that_can_be_made_in_a_group_is_removed_with_it() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let group = folder.path().join("nest");
        let mut deepest = group.clone();
        deepest.extend(std::iter::repeat_n("n".repeat(255), DEPTH_MAX));
        fs::create_dir_all(&deepest).expect("directories");
        for number in DEPTH_MAX..DESCENDANTS_MAX {
            fs::create_dir(group.join(number.to_string())).expect("a directory");
        }
        tree::remove(&group).expect("all of it");
        assert!(!group.exists());
    }
}
