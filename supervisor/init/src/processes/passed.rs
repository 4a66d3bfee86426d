//! Processes from one process image to the next: what is passed on, and how it is taken over.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use nix::libc;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;
use yakiros_core::engine::RunId;
use yakiros_core::journal::Exit;

use super::{Process, Processes, Role, drain, end_of, pending, watch_exec};
use crate::cgroup::Cgroup;
use crate::notify::Socket;
use crate::output::Log;
use crate::readiness::{self, Channel};
use crate::reexec::Luggage;
use crate::spawn;
use crate::supervisor::Supervisor;
use crate::sys;

/// A [`Process`] for the next process image.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    run: RunId,
    pid: Option<i32>,
    name: Rc<str>,
    cgroup: Option<Cgroup>,
    report: Option<RawFd>,
    failure: Option<(String, i32)>,
    log: Option<RawFd>,
    ready_signal: Option<i32>,
    beat: Option<(i32, bool)>,
    channel: Option<readiness::Passed>,
    socket: Option<(RawFd, PathBuf)>,
    ready: bool,
    ended: Option<Exit>,
}

/// [`Processes`] for the next process image.
#[derive(Debug, Serialize, Deserialize)]
pub struct PassedProcesses {
    runs: Vec<Passed>,
    pids: Vec<(i32, Role)>,
    cgroups: HashMap<String, PathBuf>,
    /// The limit of open files that the first image was started with.
    files: (u64, u64),
    /// Starts that wait for a file system, with their generation.
    #[serde(default)]
    pending: Vec<(RunId, u64)>,
}

impl PassedProcesses {
    /// All descriptors.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.runs.iter().flat_map(|passed| {
            let channel = match passed.channel {
                Some(readiness::Passed::Notify(fd)) => Some(fd),
                _ => None,
            };
            let socket = passed.socket.as_ref().map(|(fd, _)| *fd);
            [passed.report, passed.log, channel, socket].into_iter().flatten()
        })
    }
}

impl Processes {
    /// For the next process image.
    pub fn pass(&self) -> PassedProcesses {
        let files = (self.common.files.rlim_cur, self.common.files.rlim_max);
        PassedProcesses {
            runs: self.runs.iter().map(|(run, process)| process.pass(*run)).collect(),
            pids: self.pids.iter().map(|(pid, role)| (*pid, *role)).collect(),
            cgroups: self.cgroups.paths().clone(),
            files,
            pending: self.pending.iter().map(|(run, start)| (*run, start.generation)).collect(),
        }
    }
}

impl Process {
    fn pass(&self, run: RunId) -> Passed {
        Passed {
            run,
            pid: self.pid,
            name: Rc::clone(&self.name),
            cgroup: self.cgroup.clone(),
            report: self.report.as_ref().map(AsRawFd::as_raw_fd),
            failure: self.failure.map(|(step, errno)| (step.to_owned(), errno)),
            log: self.log.as_ref().map(Log::pass),
            ready_signal: self.ready_signal,
            beat: self.beat,
            channel: self.channel.as_ref().map(|channel| channel.pass()),
            socket: self.socket.as_ref().map(|socket| socket.pass()),
            ready: self.ready,
            ended: self.ended,
        }
    }
}

/// Take the processes over from the process image before, and go on watching them.
pub fn take_over(
    supervisor: &Rc<Supervisor>,
    passed: PassedProcesses,
    luggage: &mut Luggage,
) -> io::Result<()> {
    {
        let mut own = supervisor.processes.borrow_mut();
        own.cgroups.set_paths(passed.cgroups);
        own.common.files = libc::rlimit { rlim_cur: passed.files.0, rlim_max: passed.files.1 };
        for (pid, role) in passed.pids {
            match role {
                Role::Trial => {}
                // The engine asks for the change again; this one must not come after it.
                Role::Limits(_) => {
                    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                role => {
                    own.pids.insert(pid, role);
                }
            }
        }
    }
    for (run, generation) in passed.pending {
        if let Some(component) = supervisor.started_with(run) {
            pending::begin(supervisor, run, component, generation);
        }
    }
    passed.runs.into_iter().try_for_each(|process| adopt(supervisor, process, luggage))
}

fn adopt(supervisor: &Rc<Supervisor>, passed: Passed, luggage: &mut Luggage) -> io::Result<()> {
    let run = passed.run;
    let report = passed.report.map(|fd| sys::watch(luggage.pipe(fd)?)).transpose()?.map(Rc::new);
    if report.is_some() {
        spawn_local(watch_exec(Rc::clone(supervisor), run));
    }
    let logs = Rc::clone(&supervisor.processes.borrow().logs);
    let place = (&*supervisor.state_dir, &*passed.name);
    let log = passed.log.map(|fd| Log::new(&logs, run, place, luggage.pipe(fd)?)).transpose()?;
    let socket = passed.socket.map(|socket| Socket::take(socket, luggage)).transpose()?.map(Rc::new);
    let speaking = socket
        .as_ref()
        .map(|socket| spawn_local(Rc::clone(socket).serve(Rc::clone(supervisor), run)).abort_handle());
    let channel = passed.channel.map(|channel| Channel::take(channel, luggage)).transpose()?.map(Rc::new);
    let mut watching = None;
    if let (Some(channel), Some(component)) = (&channel, supervisor.started_with(run)) {
        let task = Rc::clone(channel).watch(supervisor, run, &component);
        watching = Some(spawn_local(task).abort_handle());
    }
    let failure = passed.failure.map(|(step, errno)| (spawn::step(&step).unwrap_or("start"), errno));
    let process = Process {
        pid: passed.pid,
        name: passed.name,
        cgroup: passed.cgroup,
        report,
        failure,
        speaking,
        log,
        ready_signal: passed.ready_signal,
        beat: passed.beat,
        channel,
        watching,
        socket,
        ready: passed.ready,
        ended: passed.ended,
    };
    supervisor.processes.borrow_mut().keep(run, process);
    if let Some(exit) = passed.ended {
        spawn_local(drain(Rc::clone(supervisor), run, end_of(run, failure, exit)));
    }
    Ok(())
}
