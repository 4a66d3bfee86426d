//! What CRIU finds around itself when it makes processes that have namespaces of their own: a mount namespace in which
//! their root directory is mounted where it can be `--root`, and a cgroup namespace that they inherit.
//!
//! All of it is CRIU's alone and ends with it: nothing is mounted on the machine, whoever is killed.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Options;

/// Where the root directory is, in CRIU's working directory.
const ROOT: &str = "root";

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Room {
    root: Option<Root>,
    cgroup_namespace: bool,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    from: CString,
    to: CString,
}

impl Room {
    /// For what is made with these options by a CRIU that works in this directory.
    pub(crate) fn prepare(options: &Options, work: &Path) -> io::Result<Self> {
        let root = options.root.as_ref().map(|from| {
            let path = work.join(ROOT);
            DirBuilder::new().mode(0o700).create(&path)?;
            let [from, to] = [from, &path].map(|path| CString::new(path.as_os_str().as_bytes()));
            io::Result::Ok(Root { path, from: from?, to: to? })
        });
        Ok(Self { root: root.transpose()?, cgroup_namespace: options.cgroup_namespace })
    }

    /// What is to be `--root`.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_ref().map(|root| root.path.as_path())
    }

    /// Have a program begin there.
    pub(crate) fn enter(self, command: &mut Command) {
        let Self { root, cgroup_namespace } = self;
        let set_up = move || {
            if cgroup_namespace {
                // Its root is the group that this process is in.
                // SAFETY: it changes what this process sees, and no memory.
                unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }?;
            }
            if let Some(Root { from, to, .. }) = &root {
                // SAFETY: the same; this child has one thread.
                unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
                mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
                mount_bind(from.as_c_str(), to.as_c_str())?;
            }
            Ok(())
        };
        // SAFETY: these are system calls, which touch no memory.
        unsafe { command.pre_exec(set_up) };
    }
}
