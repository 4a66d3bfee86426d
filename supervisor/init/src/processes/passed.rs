//! Processes from one process image to the next: what is passed on, and how it is taken over.

use std::collections::HashMap;
use std::io;
use std::iter::repeat_with;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::libc;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;
use tracing::error;
use yakiros_core::engine::{Event, Place, Relayed, RunId};
use yakiros_core::journal::Exit;

use super::exec::{listen, watch_exec};
use super::reap::{drain, end_of};
use super::{Process, Processes, Role, Start, pending};
use crate::cgroup::{Cgroup, Counts};
use crate::kernel_log::Told;
use crate::notify::Socket;
use crate::output::Log;
use crate::readiness::{self, Channel};
use crate::reexec::Luggage;
use crate::supervisor::Supervisor;
use crate::sys;

/// A [`Process`] for the next process image.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    run: RunId,
    pid: Option<i32>,
    name: Rc<str>,
    cgroup: Option<Cgroup>,
    #[serde(default)]
    delegated: bool,
    report: Option<RawFd>,
    /// Names of its own steps, while one of them may still be told.
    #[serde(default)]
    steps: Rc<[Box<str>]>,
    failure: Option<(Rc<str>, i32)>,
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
    cgroups: HashMap<String, Rc<Path>>,
    /// Control groups in which nothing may be started.
    #[serde(default)]
    killed: Vec<Rc<Path>>,
    /// Control groups that are frozen.
    #[serde(default)]
    frozen: Vec<Rc<Path>>,
    /// The component for which that was asked, of each.
    #[serde(default)]
    frozen_for: Vec<Rc<str>>,
    /// What control groups had counted at the last look.
    #[serde(default)]
    counts: Vec<(Rc<Path>, Counts)>,
    /// The newest kill that was told of each.
    #[serde(default)]
    told: Vec<(Rc<Path>, Told)>,
    /// The limit of open files that the first image was started with.
    files: (u64, u64),
    /// Starts that wait, with their generation.
    #[serde(default)]
    pending: Vec<(RunId, u64)>,
    /// Those of them that are to take over from another.
    #[serde(default)]
    successors: Vec<RunId>,
    /// In which place they start; an image that did not tell knew of those two only.
    #[serde(default)]
    places: Vec<(RunId, Place)>,
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
        let mut runs: Vec<_> = self.runs.iter().map(|(run, process)| process.pass(*run)).collect();
        // The same processes give the same state.
        runs.sort_by_key(|passed| passed.run);
        let (frozen, frozen_for) = self.cgroups.all_frozen().into_iter().unzip();
        let successors = self.pending.iter().filter(|(_, pending)| pending.start.is_successor());
        PassedProcesses {
            runs,
            pids: self.pids.iter().map(|(pid, role)| (*pid, *role)).collect(),
            cgroups: self.cgroups.paths().clone(),
            killed: self.cgroups.killed(),
            frozen,
            frozen_for,
            counts: self.cgroups.counts(),
            told: self.cgroups.told(),
            files,
            pending: self.pending.iter().map(|(run, pending)| (*run, pending.start.generation)).collect(),
            successors: successors.map(|(run, _)| *run).collect(),
            places: self.pending.iter().map(|(run, pending)| (*run, pending.start.place)).collect(),
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
            delegated: self.delegated,
            report: self.report.as_ref().map(AsRawFd::as_raw_fd),
            steps: Rc::clone(&self.steps),
            failure: self.failure.clone(),
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
pub fn take_over(supervisor: &Rc<Supervisor>, passed: PassedProcesses, luggage: &mut Luggage) {
    {
        let mut own = supervisor.processes.borrow_mut();
        own.cgroups.take(passed.cgroups, passed.killed);
        let whose = passed.frozen_for.into_iter().chain(repeat_with(Rc::default));
        own.cgroups.take_frozen(passed.frozen.into_iter().zip(whose).collect());
        own.cgroups.take_counts(passed.counts);
        own.cgroups.take_told(passed.told);
        own.common.files = libc::rlimit { rlim_cur: passed.files.0, rlim_max: passed.files.1 };
        for (pid, role) in passed.pids {
            match role {
                Role::Trial | Role::Worker(_) => {}
                // The engine asks for the change again; this one must not come after it. What a process was giving is
                // not asked for again.
                Role::Limits(_) | Role::SliceLimits(_) | Role::Relay(_) => {
                    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
                    if let Role::Relay(taker) = role {
                        let why = "the supervisor executed itself again meanwhile".into();
                        supervisor.announce(Event::Relayed(taker, Relayed::NotTaken(why)));
                    }
                }
                role => {
                    own.pids.insert(pid, role);
                }
            }
        }
    }
    for (run, generation) in passed.pending {
        if let Some(component) = supervisor.started_with(run) {
            let told = passed.places.iter().find(|(other, _)| *other == run).map(|(_, place)| *place);
            let known = if passed.successors.contains(&run) { Place::Successor } else { Place::Alone };
            let place = told.unwrap_or(known);
            pending::begin(supervisor, run, component, Start { generation, place });
        }
    }
    for process in passed.runs {
        adopt(supervisor, process, luggage);
    }
}

/// What of a process did not come along.
#[derive(Default)]
struct Lost(Option<(&'static str, io::Error)>);

impl Lost {
    /// Take something if it was passed.
    fn found<P, T>(
        &mut self,
        what: &'static str,
        passed: Option<P>,
        take: impl FnOnce(P) -> io::Result<T>,
    ) -> Option<T> {
        match take(passed?) {
            Ok(taken) => Some(taken),
            Err(error) => {
                self.0.get_or_insert((what, error));
                None
            }
        }
    }
}

/// Take one process over. If something of it was lost it is ended, and the engine goes on from there as
/// from any other end: without its log it would end by itself, without its socket nobody would hear it.
fn adopt(supervisor: &Rc<Supervisor>, passed: Passed, luggage: &mut Luggage) {
    let run = passed.run;
    let mut lost = Lost::default();
    let report = lost.found("report of its start", passed.report, |fd| sys::watch(luggage.pipe(fd)?));
    if report.is_some() {
        spawn_local(watch_exec(Rc::clone(supervisor), run));
    }
    let logs = Rc::clone(&supervisor.processes.borrow().logs);
    let place = (&*supervisor.state_dir, &*passed.name);
    let log = lost.found("output", passed.log, |fd| Log::new(&logs, run, place, luggage.pipe(fd)?));
    if let Some(log) = log.as_ref().filter(|_| supervisor.handovers.has(run)) {
        log.share(true);
    }
    let socket = lost.found("notification socket", passed.socket, |socket| Socket::take(socket, luggage));
    let socket = socket.map(Rc::new);
    let channel = lost.found("readiness channel", passed.channel, |channel| Channel::take(channel, luggage));
    let (report, channel) = (report.map(Rc::new), channel.map(Rc::new));
    let executed = report.is_none();
    let failure = passed.failure;
    let process = Process {
        pid: passed.pid,
        name: passed.name,
        cgroup: passed.cgroup,
        delegated: passed.delegated,
        events: None,
        report,
        steps: passed.steps,
        failure: failure.clone(),
        speaking: None,
        log,
        ready_signal: passed.ready_signal,
        beat: passed.beat,
        channel,
        watching: None,
        socket,
        pressure: Vec::new(),
        ready: passed.ready,
        ended: passed.ended,
    };
    let name = Rc::clone(&process.name);
    supervisor.processes.borrow_mut().keep(run, process);
    if executed {
        listen(supervisor, run);
    }
    if let Some(exit) = passed.ended {
        spawn_local(drain(Rc::clone(supervisor), run, end_of(run, failure, exit)));
    } else if let Lost(Some((what, error))) = lost {
        error!("{name} is ended, for its {what} was lost on the way: {error}");
        supervisor.processes.borrow_mut().kill(run);
    }
}
