//! What the process sees of the file system.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use nix::libc;
use yakiros_core::component::{Namespace, Restriction};

use super::super::mounts::{self, Mount};
use super::Scene;

impl Scene<'_> {
    pub(super) fn files(&mut self) {
        let isolation = &self.component.isolation;
        if let Some(root) = &isolation.root {
            let there = fs::metadata(root).ok().map(|root| (root.dev(), root.ino()));
            let holds = there.is_some() && there == self.facts.root;
            let applies = if holds { root.clone() } else { "another directory".to_owned() };
            self.judge("isolation.root", Some(root.clone()), Some(applies), holds, None);
        }
        if isolation.has(Namespace::Mount) {
            let tied: Vec<_> = self.facts.mounts.iter().filter(|mount| mount.is_tied).collect();
            let applies = match &tied[..] {
                [] => "all private".to_owned(),
                [first, ..] => format!("{} is shared", first.path),
            };
            let asked = Some("all private".to_owned());
            self.judge("mount propagation", asked, Some(applies), tied.is_empty(), None);
        }
        self.each_place();
    }

    fn each_place(&mut self) {
        let isolation = &self.component.isolation;
        if isolation.hidepid {
            self.place(
                "isolation.hidepid /proc",
                "/proc",
                "hidepid",
                Some(Restriction::Kernelfs),
                |mount, _| {
                    mount.kind == "proc"
                        && mount.details.contains("hidepid=")
                        && !mount.details.contains("hidepid=0")
                },
            );
        }
        if isolation.private_tmp {
            self.place(
                "isolation.private_tmp /tmp",
                "/tmp",
                "tmpfs",
                Some(Restriction::Tmpfs),
                |mount, end| mount.path == end && mount.kind == "tmpfs",
            );
        }
        for tmpfs in &isolation.tmpfs {
            let asked =
                tmpfs.size.map_or_else(|| "tmpfs".to_owned(), |size| format!("tmpfs of {size} bytes"));
            // The kernel tells whole pages, in KiB, and only what it was told.
            let size = tmpfs.size.map(|size| format!("size={}k", size.div_ceil(PAGE) * PAGE / 1024));
            let aspect = format!("isolation.tmpfs {}", tmpfs.path);
            self.place(&aspect, &tmpfs.path, &asked, Some(Restriction::Tmpfs), |mount, end| {
                let of_size =
                    size.as_ref().is_none_or(|size| mount.details.split(',').any(|part| part == size));
                mount.path == end && mount.kind == "tmpfs" && of_size
            });
        }
        for bind in &isolation.binds {
            let asked =
                if bind.read_only { format!("{}, read-only", bind.source) } else { bind.source.clone() };
            let aspect = format!("isolation.binds {}", bind.target);
            let is_there =
                |mount: &Mount, end: &str| mount.path == end && (mount.is_read_only || !bind.read_only);
            self.place(&aspect, &bind.target, &asked, Some(Restriction::Binds), is_there);
        }
        for path in &isolation.read_only {
            let aspect = format!("isolation.read_only {path}");
            self.place(&aspect, path, "read-only", Some(Restriction::ReadOnly), |mount, _| {
                mount.is_read_only
            });
        }
        for path in &isolation.inaccessible {
            let aspect = format!("isolation.inaccessible {path}");
            // An empty directory in memory, or the device that holds nothing.
            let is_covered =
                |mount: &Mount, end: &str| mount.path == end && matches!(&*mount.kind, "tmpfs" | "devtmpfs");
            self.place(&aspect, path, "not to be seen", Some(Restriction::Inaccessible), is_covered);
        }
    }

    /// Where a path leads to for the process: mounts are where links end.
    fn resolved(&self, path: &str) -> String {
        let seen = format!("/proc/{}/root{path}", self.facts.pid);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(seen);
        let end = opened.and_then(|file| fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())));
        end.map_or_else(|_| path.to_owned(), |end| end.to_string_lossy().into_owned())
    }

    /// What is asked of the mount through which a path is reached.
    fn place(
        &mut self,
        aspect: &str,
        path: &str,
        asked: &str,
        may: Option<Restriction>,
        holds: impl Fn(&Mount, &str) -> bool,
    ) {
        let end = self.resolved(path);
        let mount = mounts::at(&self.facts.mounts, &end);
        let applies = mount.map(|mount| format!("{} on {} ({})", mount.kind, mount.path, mount.options));
        self.judge(
            aspect,
            Some(asked.to_owned()),
            applies,
            mount.is_some_and(|mount| holds(mount, &end)),
            may,
        );
    }
}

/// Sizes of file systems in memory are whole pages.
const PAGE: u64 = 4096;
