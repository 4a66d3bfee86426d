//! Controllers of the kernel: no component runs without those that its limits need, and where one is missing it is said
//! which and why.
//!
//! A controller has to be handed down by each group above (`cgroup.subtree_control`). The usual ones are from the start;
//! others once a component needs them, for each costs at the creation of every group.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::libc;
use yakiros_core::component::Controller;

use super::limit::Limit;
use super::tree;
use crate::sys;

/// Why a group cannot be used. The step completes "failed to …".
#[derive(Debug)]
pub struct Refusal {
    /// The step that was not done.
    pub step: Rc<str>,
    /// Why not.
    pub error: io::Error,
}

/// The step that brings a group into its state, where nothing more is known.
pub const PREPARE: &str = "prepare the cgroup";

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { step: PREPARE.into(), error }
    }
}

/// What is known of a controller that is missing in a group.
struct Circumstances<'a> {
    controller: &'static str,
    /// The group at the top of what is ours, and whether it is that of the whole machine.
    root: &'a Path,
    is_machine: bool,
    /// `cgroup.controllers` there.
    offered: String,
    /// `/proc/cgroups`.
    known: String,
    /// `/proc/cmdline`.
    arguments: String,
    /// The group that does not hand it down.
    refused: Option<(PathBuf, io::Error)>,
}

/// See to it that a group has the controllers that these limits need, and those that are to be given away with it.
pub(super) fn ensure(
    subtree: &Path,
    group: &Path,
    limits: &[Limit],
    delegate: Option<&[Controller]>,
) -> Result<(), Refusal> {
    let limits = limits.iter().filter_map(|limit| Some((limit.needs()?, Some(limit))));
    let delegated = delegate.into_iter().flatten().map(|controller| (controller.name(), None));
    let mut needed = limits.chain(delegated).peekable();
    if needed.peek().is_none() {
        return Ok(());
    }
    let file = group.join("cgroup.controllers");
    let mut has = sys::read_small(&file)?;
    for (controller, limit) in needed {
        if lists(&has, controller) {
            continue;
        }
        let refused = hand_down(subtree, group, controller);
        has = sys::read_small(&file)?;
        if !lists(&has, controller) {
            let reason = look_around(subtree, controller, refused).reason();
            let act = limit.map_or_else(
                || format!("delegate {controller}"),
                |limit| format!("set {} for {}", limit.file, limit.key()),
            );
            let step = format!("{act}: the controller {controller} is not in {}: {reason}", file.display());
            return Err(Refusal { step: step.into(), error: io::Error::from_raw_os_error(libc::ENOENT) });
        }
    }
    Ok(())
}

/// A group that was just made can hold processes of its own.
pub(super) fn verify_type(group: &Path) -> Result<(), Refusal> {
    // One that cannot be read is one of no kernel's.
    let kind = sys::read_small(&group.join("cgroup.type")).unwrap_or_else(|_| "domain".to_owned());
    let kind = kind.trim();
    if kind == "domain" {
        return Ok(());
    }
    let group = group.display();
    let step = format!(
        "use {group}: its cgroup.type is {kind:?} and not \"domain\", for a group above it is threaded"
    );
    Err(Refusal { step: step.into(), error: io::Error::from_raw_os_error(libc::EOPNOTSUPP) })
}

/// Whether a group hands any controller down to those in it.
pub(super) fn are_handed_down(group: &Path) -> bool {
    sys::read_small(&group.join("cgroup.subtree_control")).is_ok_and(|control| !control.trim().is_empty())
}

/// Have each group above pass a controller on. The first that refuses, and why.
fn hand_down(subtree: &Path, group: &Path, controller: &str) -> Option<(PathBuf, io::Error)> {
    let inner = group.strip_prefix(subtree).ok()?.components().count();
    let mut above: Vec<_> = group.ancestors().skip(1).take(inner + 1).collect();
    above.reverse();
    above.into_iter().find_map(|group| {
        let enabled = tree::write(&group.join("cgroup.subtree_control"), &format!("+{controller}"));
        enabled.err().map(|error| (group.to_path_buf(), error))
    })
}

fn look_around<'a>(
    subtree: &'a Path,
    controller: &'static str,
    refused: Option<(PathBuf, io::Error)>,
) -> Circumstances<'a> {
    let root = subtree.parent().unwrap_or(subtree);
    let read = |path: &Path| sys::read_small(path).unwrap_or_default();
    Circumstances {
        controller,
        root,
        // The group of the whole machine has no type.
        is_machine: fs::symlink_metadata(root.join("cgroup.type")).is_err(),
        offered: read(&root.join("cgroup.controllers")),
        known: read(Path::new("/proc/cgroups")),
        arguments: read(Path::new("/proc/cmdline")),
        refused,
    }
}

impl Circumstances<'_> {
    fn reason(&self) -> String {
        let Self { controller, root, .. } = self;
        let root = root.display();
        if lists(&self.offered, controller) {
            return match &self.refused {
                Some((group, error)) => refusal(group, error),
                None => "another takes it away from a group above".to_owned(),
            };
        }
        if !self.is_machine {
            return format!(
                "it is not in {root}/cgroup.controllers, which whoever made {root} has to hand down"
            );
        }
        if self.is_disabled() {
            return format!(
                "it is disabled by the kernel argument cgroup_disable={}; boot without that, or take the key away",
                self.old_name()
            );
        }
        if self.hierarchy().is_some_and(|hierarchy| hierarchy != 0) {
            return "it is in use by a hierarchy of version 1 (see /proc/cgroups); unmount that, or boot with \
                    cgroup_no_v1=all"
                .to_owned();
        }
        format!("it is not in {root}/cgroup.controllers: this kernel does not have it")
    }

    /// What version 1 calls it.
    fn old_name(&self) -> &'static str {
        if self.controller == "io" { "blkio" } else { self.controller }
    }

    fn is_disabled(&self) -> bool {
        let mut values =
            self.arguments.split_whitespace().filter_map(|word| word.strip_prefix("cgroup_disable="));
        values.any(|value| value.split(',').any(|name| name == self.old_name() || name == self.controller))
    }

    /// The number of its hierarchy by `/proc/cgroups`; version 2 has none.
    fn hierarchy(&self) -> Option<u32> {
        let mut rows = self.known.lines().map(str::split_whitespace);
        rows.find_map(|mut row| (row.next() == Some(self.old_name())).then(|| row.next()?.parse().ok())?)
    }
}

/// Why a group does not hand a controller down that it has.
fn refusal(group: &Path, error: &io::Error) -> String {
    let group = group.display();
    let mut text = format!("it is not in {group}/cgroup.subtree_control, which cannot be changed: {error}");
    if error.raw_os_error() == Some(libc::EBUSY) {
        let _infallible = write!(text, "; processes are in {group} itself");
    }
    text
}

fn lists(controllers: &str, controller: &str) -> bool {
    controllers.split_whitespace().any(|name| name == controller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake::{Bench, component};

    const V1: &str =
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t9\t1\t1\nblkio\t0\t1\t0\n";

    fn reason(
        controller: &'static str,
        offered: &str,
        arguments: &str,
        is_machine: bool,
        busy: bool,
    ) -> String {
        let refused = busy.then(|| (PathBuf::from("/c/graph"), io::Error::from_raw_os_error(libc::EBUSY)));
        let (offered, known, arguments) = (offered.to_owned(), V1.to_owned(), arguments.to_owned());
        let root = Path::new("/c");
        Circumstances { controller, root, is_machine, offered, known, arguments, refused }.reason()
    }

    #[test]
    fn the_reason_for_a_missing_controller_is_told() {
        let cases = [
            (reason("io", "cpu", "quiet cgroup_disable=memory,blkio", true, false), "cgroup_disable=blkio"),
            (reason("memory", "cpu", "quiet", true, false), "a hierarchy of version 1"),
            (reason("cpuset", "cpu", "quiet", true, false), "this kernel does not have it"),
            (reason("cpu", "io", "quiet", false, false), "has to hand down"),
            (
                reason("cpu", "io cpu", "", true, true),
                "/c/graph/cgroup.subtree_control, which cannot be changed",
            ),
            (reason("cpu", "io cpu", "", true, true), "processes are in /c/graph itself"),
            (reason("cpu", "cpu", "", true, false), "another takes it away"),
        ];
        for (reason, part) in cases {
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn a_start_without_a_controller_that_it_needs_is_refused_by_name() {
        let mut bench = Bench::new();
        let web = component("web", "shop/web", "pids_max = 5");
        bench.start("web", "shop/web");
        for group in ["", "shop", "shop/web"] {
            fs::write(bench.path(group).join("cgroup.controllers"), "cpu memory\n").expect("file");
        }
        fs::write(bench.root.path().join("cgroup.controllers"), "cpu pids\n").expect("file");
        let refusal = bench.all.prepare(&web, &[]).expect_err("no controller");
        let said = refusal.step.to_string();
        let expected = "set pids.max for resources.pids_max: the controller pids is not in ";
        assert!(said.starts_with(expected), "{said}");
        // The first group that would have to hand it down cannot.
        let root = bench.root.path().join("cgroup.subtree_control");
        assert!(
            said.contains(&format!("it is not in {}, which cannot be changed", root.display())),
            "{said}"
        );
        // So is a start of one that is to give it away.
        let delegating = component("web", "shop/web", "delegate = [\"pids\"]");
        let refusal = bench.all.prepare(&delegating, &[]).expect_err("no controller");
        assert!(
            refusal.step.starts_with("delegate pids: the controller pids is not in "),
            "{}",
            refusal.step
        );
        // With it, the limit is set; each group above was told.
        for group in ["..", ".", "shop"] {
            fs::write(bench.path(group).join("cgroup.subtree_control"), "").expect("file");
        }
        let offered = bench.path("shop/web/cgroup.controllers");
        fs::write(&offered, "cpu pids\n").expect("file");
        fs::write(bench.path("shop/web/pids.max"), "max\n").expect("file");
        bench.all.prepare(&web, &[]).expect("it is there");
        assert_eq!(fs::read_to_string(bench.path("shop/web/pids.max")).expect("file"), "5");
    }

    #[test]
    fn a_group_of_another_type_is_refused() {
        let folder = tempfile::tempdir().expect("temporary directory");
        fs::write(folder.path().join("cgroup.type"), "domain\n").expect("file");
        assert!(verify_type(folder.path()).is_ok());
        fs::write(folder.path().join("cgroup.type"), "domain invalid\n").expect("file");
        let refusal = verify_type(folder.path()).expect_err("no domain");
        assert!(refusal.step.contains("\"domain invalid\""), "{}", refusal.step);
    }
}
