//! Commands that ask about a component: whether it is ready, and whether it is well.
//!
//! They run in its control group, so that its limits hold for them and its end is theirs, and what they write is nobody's.
//! None that asks whether a component is ready outlives the question.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::unistd::Pid;
use yakiros_core::engine::{Event, ProbeId, RunId};
use yakiros_core::journal::Exit;

use super::{Processes, Role};
use crate::cgroup::Cgroup;
use crate::readiness::Channel;
use crate::spawn::{self, Descriptors, Image};
use crate::supervisor::Supervisor;
use crate::sys;

impl Processes {
    /// Start the command of a health probe. Returns its process id and where a failure before exec
    /// is reported.
    pub fn check(&mut self, probe: ProbeId, run: RunId, words: &[&str]) -> io::Result<(i32, OwnedFd)> {
        self.start_command(run, words, Role::Health(probe))
    }

    /// Start a readiness command.
    pub fn ask(&mut self, run: RunId, words: &[&str]) -> io::Result<()> {
        let (pid, report) = self.start_command(run, words, Role::Probe(run))?;
        self.reports.insert(pid, report);
        Ok(())
    }

    /// Start a command that asks about a component, in its cgroup unless that is given away.
    fn start_command(&mut self, run: RunId, words: &[&str], role: Role) -> io::Result<(i32, OwnedFd)> {
        let process = self.runs.get(&run).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let image = Image::probe(words, &process.name)?;
        let (read, report) = sys::pipe()?;
        // Into one that is given away nothing of ours goes: it may hand controllers down, and then takes no process.
        let cgroup = process.cgroup.as_ref().filter(|_| !process.delegated);
        let directory = cgroup.map(Cgroup::open).transpose()?;
        let fds = Descriptors {
            log: &self.common.null,
            given: &[],
            notify: None,
            handoff: None,
            report: &report,
            cgroup: directory.as_ref(),
        };
        let started = spawn::start(image, &fds, &self.common)?;
        Ok((self.note(started, role), read))
    }

    /// Kill the readiness commands of a run that still run.
    pub fn kill_probes(&self, run: RunId) {
        for (pid, role) in &self.pids {
            if matches!(role, Role::Probe(of) if *of == run) {
                sys::end_child(Pid::from_raw(*pid));
            }
        }
    }

    /// A process is ready: nothing asks any more whether it is.
    pub fn is_ready(&mut self, run: RunId) {
        self.stop_asking(run);
        if let Some(process) = self.runs.get_mut(&run) {
            process.ready = true;
            process.channel = None;
        }
    }

    /// End what watches for readiness, and the readiness commands that still run.
    pub(super) fn stop_asking(&mut self, run: RunId) {
        let Some(process) = self.runs.get_mut(&run) else {
            return;
        };
        if let Some(watching) = process.watching.take() {
            watching.abort();
        }
        if matches!(process.channel.as_deref(), Some(Channel::Command(_))) {
            self.kill_probes(run);
        }
    }
}

/// A readiness command has ended.
pub(super) fn answered(supervisor: &Rc<Supervisor>, run: RunId, pid: i32, exit: Exit) {
    let report = supervisor.processes.borrow_mut().reports.remove(&pid);
    let event = match spawn::outcome("readiness_check", report.as_ref(), exit) {
        Ok(()) => Event::Ready(run),
        Err(reason) => Event::NotYetReady(run, reason),
    };
    supervisor.dispatch(event);
}
