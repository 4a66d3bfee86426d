//! Processes that were made from a checkpoint, by a child that goes; and the place for them.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::libc;
use yakiros_core::component::{Check, Component};
use yakiros_core::engine::RunId;

use super::reap::wait_until;
use super::{Process, Processes, Role, Start, family, pending};
use crate::cgroup::Cgroup;
use crate::notify::Socket;
use crate::output::Log;
use crate::supervisor::Supervisor;

/// A process that was made, and what belongs to it.
pub struct Fresh {
    /// Its number.
    pub pid: i32,
    /// The reading end of its log.
    pub log: OwnedFd,
    /// Where it says something about itself.
    pub socket: Option<Socket>,
    /// Its group, as [`prepare_place`] gave it.
    pub group: Option<Cgroup>,
}

/// Open what a component's process needs, and make a control group for it, as before any start. The group is held until
/// [`take_restored`] or [`clear_place`].
pub async fn prepare_place(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Component,
    start: Start,
) -> Result<Option<Cgroup>, Rc<str>> {
    let failed = |(step, errno): (Rc<str>, i32)| -> Rc<str> {
        format!("failed to {step}: {}", std::io::Error::from_raw_os_error(errno)).into()
    };
    supervisor.stores.open(supervisor, component).map_err(failed)?;
    let ready = pending::wait(supervisor, run, component, start, &std::cell::Cell::default()).await;
    let group = ready.map_err(failed)?.cgroup;
    if let Some(group) = &group {
        supervisor.processes.borrow_mut().cgroups.hold(group);
    }
    Ok(group)
}

/// Nothing was made, or not all, or it is not wanted: end what there is in the group, unless others share it, and the
/// process that was made with all below it; and let the group go. Takes no longer than the ends of two processes may.
pub async fn clear_place(supervisor: &Rc<Supervisor>, group: Option<&Cgroup>, made: Option<i32>) {
    let own = group.filter(|group| !supervisor.processes.borrow().cgroups.is_shared(group));
    if let Some(group) = own.filter(|group| group.has_processes()) {
        supervisor.processes.borrow_mut().cgroups.kill(group);
        wait_until(|| !group.has_processes()).await;
    }
    if let Some(pid) = made
        && supervisor.processes.borrow().end_made(pid)
    {
        wait_until(|| !is_child(pid)).await;
    }
    if let Some(group) = group {
        supervisor.processes.borrow_mut().cgroups.let_go(group);
    }
}

/// Take it for the run. An error if it is not there any more.
pub fn take_restored(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Rc<Component>,
    fresh: Fresh,
) -> Result<(), Rc<str>> {
    let Fresh { pid, log, socket, group } = fresh;
    let mut own = supervisor.processes.borrow_mut();
    if own.pids.contains_key(&pid) || !is_child(pid) {
        return Err("its process ended as soon as it was made".into());
    }
    let place = (&*supervisor.state_dir, component.name.as_str());
    let log = Log::new(&own.logs, run, place, log);
    let log = log.map_err(|error| format!("failed to watch the log pipe: {error}"))?;
    if component.hands_over() {
        log.share(true);
    }
    let beat = match component.lifecycle.health.as_ref().map(|health| &health.check) {
        Some(Check::Signal(signal)) => Some((signal.0, false)),
        _ => None,
    };
    let process = Process {
        pid: Some(pid),
        name: component.name.as_str().into(),
        cgroup: group,
        delegated: component.resources.delegate.is_some(),
        events: None,
        report: None,
        steps: Rc::default(),
        failure: None,
        speaking: None,
        log: Some(log),
        ready_signal: None,
        beat,
        channel: None,
        watching: None,
        socket: socket.map(Rc::new),
        pressure: Vec::new(),
        ready: true,
        ended: None,
    };
    own.pids.insert(pid, Role::Component(run));
    // Its group is held already.
    own.runs.insert(run, Box::new(process));
    Ok(())
}

/// Whether a number is that of a child, be it one that has ended and is not reaped.
fn is_child(pid: i32) -> bool {
    let Ok(id) = libc::id_t::try_from(pid) else { return false };
    // SAFETY: the structure is plain data, which the call fills; it takes nothing away.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, id, &raw mut info, options) == 0
    }
}

impl Processes {
    /// End a process that was made and is nobody's, and all below it. Whether it is there.
    fn end_made(&self, pid: i32) -> bool {
        let is_there = !self.pids.contains_key(&pid) && is_child(pid);
        if is_there {
            family::end_family(pid);
        }
        is_there
    }

    /// Whether a group is not that of one process alone.
    pub fn is_shared(&self, group: &Cgroup) -> bool {
        self.cgroups.is_shared(group)
    }

    /// Start a worker of checkpoints in the supervisor's own group.
    pub fn start_worker(
        &mut self,
        component: &str,
        words: &[&str],
        voice: &OwnedFd,
        given: &[std::os::fd::RawFd],
        number: u64,
    ) -> std::io::Result<(i32, OwnedFd)> {
        let image = crate::spawn::Image::probe(words, component)?;
        let (read, report) = crate::sys::pipe()?;
        let fds = crate::spawn::Descriptors {
            log: voice,
            given,
            notify: None,
            handoff: None,
            report: &report,
            cgroup: None,
        };
        self.settle_loans();
        let started = crate::spawn::start(image, &fds, &self.common)?;
        Ok((self.note(started, Role::Worker(number)), read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_and_is_not_wanted_is_ended_with_all_below_it_and_nobody_else() {
        use crate::cgroup::Cgroups;
        use crate::output::Logs;
        use family::tests::{letter, until_letter, with_child};
        let common = crate::machine::common().expect("/dev/null");
        let none = Cgroups::new(std::path::Path::new("/nonexistent"));
        let mut processes = Processes::new(none, common, Logs::new().expect("epoll"));
        let (mut made, below) = with_child();
        let pid = i32::try_from(made.id()).expect("a number");
        processes.pids.insert(pid, Role::Trial);
        assert!(!processes.end_made(pid) && !processes.end_made(below), "another's, and no child");
        assert!(letter(pid).is_some() && letter(below).is_some());
        processes.pids.clear();
        assert!(processes.end_made(pid));
        made.wait().expect("its end");
        until_letter(below, &[None, Some('Z')]);
        assert!(!processes.end_made(pid));
    }

    #[test]
    fn only_children_are_taken() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("a number");
        assert!(is_child(pid) && !is_child(1) && !is_child(-1));
        child.kill().expect("it is there");
        while crate::signals::next_ended() != Some(pid) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(is_child(pid), "it has ended, which is told later");
        child.wait().expect("its end");
        assert!(!is_child(pid));
    }
}
