//! Signals to the processes of components, and those that these send to say how they are.
//!
//! A number gets a signal only while it is the process's own, which is until it is reaped.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use yakiros_core::engine::{Event, RunId};

use super::{Processes, Role, family};
use crate::sys;

impl Processes {
    /// The signal of its end to the process and its session's first group, so that a shell's child gets it too. A
    /// start that waits is given up, and the event says so.
    pub fn terminate(&mut self, run: RunId, number: i32) -> Option<Event> {
        if let Some(event) = self.give_up(run) {
            return Some(event);
        }
        if let Some(pid) = self.pid(run) {
            // Before setsid there is no group of that number. Real-time signals have no name in the wrapper.
            // SAFETY: calls on two numbers.
            unsafe {
                if libc::killpg(pid.as_raw(), number) != 0 && Errno::last() == Errno::ESRCH {
                    libc::kill(pid.as_raw(), number);
                }
            }
        }
        None
    }

    /// End the process and everything in its group. A start that waits is given up, and the event
    /// says so.
    pub fn kill(&mut self, run: RunId) -> Option<Event> {
        if let Some(event) = self.give_up(run) {
            return Some(event);
        }
        if let Some(cgroup) = self.own_cgroup(run).cloned() {
            self.cgroups.kill(&cgroup);
        }
        if let Some(pid) = self.pid(run) {
            sys::end_child(pid);
        }
        None
    }

    /// Send a signal to everything in the control group of a process if that is its own, and else to all below the process;
    /// and to its session's first group.
    pub fn signal_all(&self, run: RunId, number: i32) {
        // What it was may be gone by now. The numbers are those of the members as long as they are not reaped, and who takes
        // one in between is sent what does no harm to who is not stopped.
        family::send(self.members(run).into_iter(), number);
        if let Some(pid) = self.pid(run) {
            // SAFETY: a call on two numbers.
            unsafe { libc::killpg(pid.as_raw(), number) };
        }
    }

    /// Send the process itself a signal.
    pub fn signal(&self, run: RunId, number: i32) {
        if let Some(pid) = self.pid(run) {
            // SAFETY: a call on two numbers; real-time signals have no name in the wrapper.
            unsafe { libc::kill(pid.as_raw(), number) };
        }
    }

    /// Whether a child is one of ours that needs its group ended before it is reaped.
    pub fn end_group_before_reaping(&self, pid: i32) {
        if let Some(Role::Component(_)) = self.pids.get(&pid) {
            // While it is not reaped its number, and so the group's, cannot be another's.
            let _ = signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// The run that `pid` belongs to and that waits for `signal` as its readiness.
    pub fn ready_by_signal(&mut self, pid: i32, signal: i32) -> Option<RunId> {
        let Some(Role::Component(run)) = self.pids.get(&pid).copied() else {
            return None;
        };
        let process = self.runs.get_mut(&run)?;
        (process.ready_signal == Some(signal)).then(|| {
            process.ready_signal = None;
            process.ready = true;
            run
        })
    }

    /// A signal from a component that sends it while it is well. Whether it was one.
    pub fn take_beat(&mut self, pid: i32, signal: i32) -> bool {
        let Some(Role::Component(run)) = self.pids.get(&pid).copied() else {
            return false;
        };
        match self.runs.get_mut(&run).and_then(|process| process.beat.as_mut()) {
            Some((number, came)) if *number == signal => {
                *came = true;
                true
            }
            _ => false,
        }
    }

    /// Whether the signal that `run` sends while it is well has come since the last look.
    pub fn has_beaten(&mut self, run: RunId, signal: i32) -> bool {
        let Some(process) = self.runs.get_mut(&run) else {
            return false;
        };
        let beat = process.beat.get_or_insert((signal, false));
        if beat.0 != signal {
            *beat = (signal, false);
        }
        std::mem::take(&mut beat.1)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::cgroup::Cgroups;
    use crate::output::Logs;
    use crate::processes::Process;

    fn process(pid: Option<i32>) -> Process {
        Process {
            pid,
            name: "a".into(),
            cgroup: None,
            delegated: false,
            events: None,
            report: None,
            steps: std::rc::Rc::default(),
            failure: None,
            speaking: None,
            log: None,
            ready_signal: None,
            beat: None,
            channel: None,
            watching: None,
            socket: None,
            pressure: Vec::new(),
            ready: false,
            ended: None,
        }
    }

    #[test]
    fn a_reaped_number_gets_no_signal() {
        let common = crate::machine::common().expect("/dev/null");
        let mut processes =
            Processes::new(Cgroups::new(Path::new("/nonexistent")), common, Logs::new().expect("epoll"));
        let mut other =
            std::process::Command::new("/bin/sleep").arg("1000").process_group(0).spawn().expect("sleep");
        let pid = i32::try_from(other.id()).expect("a process id");
        let run = RunId(1);
        for pid in [None, Some(pid)] {
            processes.runs.insert(run, Box::new(process(pid)));
            processes.terminate(run, libc::SIGTERM);
            processes.signal(run, libc::SIGTERM);
            processes.kill(run);
            if pid.is_none() {
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(other.try_wait().expect("status"), None, "it runs on");
            }
        }
        assert!(!other.wait().expect("status").success());
    }
    #[test]
    fn what_is_in_no_own_group_hears_what_all_are_to_hear_and_is_left_with_it() {
        use family::tests::{until_letter, with_child};
        let common = crate::machine::common().expect("/dev/null");
        let mut processes =
            Processes::new(Cgroups::new(Path::new("/nonexistent")), common, Logs::new().expect("epoll"));
        let (mut parent, child) = with_child();
        let pid = i32::try_from(parent.id()).expect("a number");
        let run = RunId(1);
        processes.runs.insert(run, Box::new(process(Some(pid))));
        let all = processes.left();
        assert!(all.contains(&pid) && all.contains(&child), "{all:?}");
        family::send([pid, child].into_iter(), libc::SIGSTOP);
        for pid in [pid, child] {
            until_letter(pid, &[Some('T')]);
        }
        processes.signal_all(run, libc::SIGCONT);
        for pid in [pid, child] {
            until_letter(pid, &[Some('S'), Some('R')]);
        }
        family::end_family(pid);
        parent.wait().expect("its end");
    }
}
