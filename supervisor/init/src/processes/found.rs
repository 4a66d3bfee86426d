//! Processes that were found running, each taken in the place of its component's start.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::task::spawn_local;
use tracing::warn;
use yakiros_core::component::{Check, Component, Kind};
use yakiros_core::engine::{Event, RunId};

use super::{Process, Processes, Role};
use crate::cgroup::Cgroup;
use crate::notify::Socket;
use crate::output::Log;
use crate::supervisor::Supervisor;

/// A process of a component, started by a supervisor that nothing else is known of.
pub struct FoundProcess {
    /// Its number. It is a child and not reaped.
    pub pid: i32,
    /// The reading end of its log, if that could be told from others.
    pub log: Option<OwnedFd>,
    /// Where it says something about itself.
    pub socket: Option<Socket>,
    /// Its group, once that is known to be its component's.
    pub cgroup: Option<Cgroup>,
}

impl Processes {
    /// Keep a process that was found for the start of its component. `false` if there is one already,
    /// or if it is not in the group of that component, so that it may be anything.
    pub fn keep_found(&mut self, component: &Component, mut found: FoundProcess) -> bool {
        if self.found.contains_key(&component.name) {
            return false;
        }
        match self.cgroups.adopt(component, found.pid) {
            // Without a group it may as well be what a oneshot has left behind.
            Ok(None) if component.kind == Kind::Oneshot => return false,
            Ok(cgroup) => {
                // It may have been about to take over.
                if let Some(own) = &cgroup {
                    self.cgroups.unconfine(&component.name, own);
                }
                found.cgroup = cgroup;
            }
            Err(error) => {
                warn!("{}: a process that says it is its own is not taken: {error}", component.name);
                return false;
            }
        }
        self.found.insert(component.name.clone(), found);
        true
    }

    /// Groups with processes that no process that was found belongs to.
    pub fn groups_of_nobody(&self) -> Vec<Cgroup> {
        let kept: Vec<_> = self.found.values().filter_map(|found| found.cgroup.clone()).collect();
        self.cgroups.others(&kept)
    }

    /// End what is in groups that no process that was found belongs to.
    pub fn end_groups(&mut self, groups: &[Cgroup]) {
        for group in groups {
            self.cgroups.end(group);
        }
    }

    /// End the processes that were found and that no start has taken.
    pub fn end_found(&mut self) {
        for (name, found) in self.found.drain() {
            warn!("{name}: its process from before the state was lost is ended, for nothing has started it");
            match &found.cgroup {
                Some(cgroup) if !self.cgroups.is_shared(cgroup) => self.cgroups.kill(cgroup),
                _ => {}
            }
            // It is not reaped, so the number is its own, and that of its session's first group.
            let _ = signal::killpg(Pid::from_raw(found.pid), Signal::SIGKILL);
        }
    }
}

/// Take it in the place of a new process.
pub fn take(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Rc<Component>,
    found: FoundProcess,
) -> Event {
    let FoundProcess { pid, log, socket, cgroup } = found;
    let mut own = supervisor.processes.borrow_mut();
    let place = (&*supervisor.state_dir, component.name.as_str());
    let log = log.and_then(|pipe| Log::new(&own.logs, run, place, pipe).ok());
    let socket = socket.map(Rc::new);
    let speaking = socket
        .as_ref()
        .map(|socket| spawn_local(Rc::clone(socket).serve(Rc::clone(supervisor), run)).abort_handle());
    let beat = match component.lifecycle.health.as_ref().map(|health| &health.check) {
        Some(Check::Signal(signal)) => Some((signal.0, false)),
        _ => None,
    };
    let process = Process {
        pid: Some(pid),
        name: component.name.as_str().into(),
        cgroup,
        delegated: component.resources.delegate.is_some(),
        events: None,
        report: None,
        steps: Rc::default(),
        failure: None,
        speaking,
        log,
        ready_signal: None,
        beat,
        channel: None,
        watching: None,
        socket,
        pressure: Vec::new(),
        ready: true,
        ended: None,
    };
    own.pids.insert(pid, Role::Component(run));
    let whole = process.cgroup.as_ref().map(|group| own.cgroups.whole(&process.name, group));
    let name = Rc::clone(&process.name);
    own.keep(run, process);
    if whole.is_some_and(|whole| own.cgroups.adopt_frozen(whole.path(), &name)) {
        // After the event that it is there.
        let supervisor = Rc::clone(supervisor);
        spawn_local(async move { supervisor.dispatch(Event::Frozen(run, Ok(()))) });
    }
    Event::Adopted { run, pid }
}
