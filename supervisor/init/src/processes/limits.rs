//! The limits of components that run: what is to be written for them, and by whom it is.
//!
//! Nothing is written to a control group here: a child does that (see [`crate::limits`]).

use std::io;

use nix::libc;
use yakiros_core::component::{Component, Resources};
use yakiros_core::engine::RunId;

use super::{Processes, Role};
use crate::cgroup::{Refusal, Work};
use crate::limits::Writer;

impl Processes {
    /// What is to be written for the control group of a run to have these limits; `None` if it has no group.
    pub fn limits_to_write(&self, run: RunId, resources: &Resources) -> Option<Result<Work, Refusal>> {
        let process = self.runs.get(&run)?;
        let whole = self.cgroups.whole(&process.name, process.cgroup.as_ref()?);
        Some(self.cgroups.change(&whole, resources))
    }

    /// The same for a slice; `None` if it has no group, for nothing is in it.
    pub fn slice_to_write(&self, slice: &Component) -> Option<Result<Work, Refusal>> {
        self.cgroups.change_slice(slice)
    }

    /// A child writes limits.
    pub fn limits_begun(&mut self, pid: i32, writer: Writer, work: &mut Work) {
        let role = match writer {
            Writer::Run(run) => Role::Limits(run),
            Writer::Slice(number) => Role::SliceLimits(number),
        };
        self.pids.insert(pid, role);
        self.cgroups.begin(work);
    }

    /// It has ended.
    pub fn limits_written(&mut self, work: Work, done: bool) {
        self.cgroups.conclude(work, done);
    }

    /// Set the limit of open files of a run's process; what it has started keeps its own.
    pub fn limit_files(&self, run: RunId, limit: Option<u64>) -> io::Result<()> {
        let Some(pid) = self.pid(run) else { return Ok(()) };
        let both = |limit| libc::rlimit { rlim_cur: limit, rlim_max: limit };
        let limit = limit.map_or(self.common.files, both);
        // SAFETY: the pointers are to a local and null.
        let done = unsafe {
            libc::prlimit(pid.as_raw(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
