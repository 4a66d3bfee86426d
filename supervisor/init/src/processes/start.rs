//! The start of a process: everything that it needs is there before it exists, or it does not come to exist.
//!
//! Each start gives one event that says what became of it, at once or, if it has to wait, later (see [`super::pending`]).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use nix::libc;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;
use yakiros_core::component::{Check, Component, Readiness};
use yakiros_core::engine::{Event, Place, RunId};

use super::exec::watch_exec;
use super::{Process, Processes, Role, found, pending};
use crate::cgroup::{Cgroup, Prepared, Refusal};
use crate::handover;
use crate::lookup::Identity;
use crate::notify::Socket;
use crate::output::Log;
use crate::readiness;
use crate::spawn::{self, Descriptors, Image};
use crate::supervisor::Supervisor;
use crate::sys;

type StepError = (Rc<str>, io::Error);

/// The most components for which something is made ready at once: the event loop is not held up for more.
const FOLLOWERS: usize = 4;

/// What a start may have to wait for.
pub(super) struct Ready {
    /// What stands in the place of the readiness file.
    pub(super) before: Option<Identity>,
    pub(super) cgroup: Option<Cgroup>,
}

/// The pipes of a start, each with its reading end first.
pub(super) struct Pipes {
    log: (OwnedFd, OwnedFd),
    report: (AsyncFd<OwnedFd>, OwnedFd),
}

impl Pipes {
    fn new() -> Result<Self, StepError> {
        let at = |step: &'static str| move |error| (step.into(), error);
        let log = sys::pipe().map_err(at("create the log pipe"))?;
        let (read, write) = sys::pipe().map_err(at("create the report pipe"))?;
        Ok(Self { log, report: (sys::watch(read).map_err(at("watch the report pipe"))?, write) })
    }
}

/// Which start of a component it is.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Starts of the component so far, from 1.
    pub generation: u64,
    /// Which of its processes it is.
    pub place: Place,
}

impl Start {
    /// It is to take over from the process that serves.
    pub(super) fn is_successor(self) -> bool {
        self.place == Place::Successor
    }
}

impl Processes {
    /// A process was created and its program is not there yet, which takes a while: make ready what those need who start
    /// as soon as it is up, so that it does not have to be made between the one and the other.
    pub(super) fn make_way(supervisor: &Rc<Supervisor>, run: RunId) {
        let followers = supervisor.followers(run, FOLLOWERS);
        if followers.is_empty() {
            return;
        }
        let mut own = supervisor.processes.borrow_mut();
        // What fails here fails again at the start, and is told then.
        if own.pipes.is_none() {
            own.pipes = Pipes::new().ok();
        }
        for component in followers {
            // A group that others live in, or that has a process already, is left alone until the start.
            let lives = component.cgroup() != component.name || own.found.contains_key(&component.name);
            if !lives {
                let _ = own.cgroups.prepare(&component, &[]);
            }
        }
    }

    /// Start a process. The event says what became of it so far; there is none yet if the start has to
    /// wait (see [`pending`]).
    pub fn spawn(
        supervisor: &Rc<Supervisor>,
        run: RunId,
        component: Rc<Component>,
        start: Start,
    ) -> Option<Event> {
        if !start.is_successor() {
            let found = supervisor.processes.borrow_mut().found.remove(&component.name);
            if let Some(found) = found {
                return Some(found::take(supervisor, run, &component, found));
            }
        }
        let open = match supervisor.stores.open(supervisor, &component) {
            Ok(open) => open,
            Err((step, errno)) => return Some(not_executed(run, step, errno)),
        };
        let before = match &component.lifecycle.readiness {
            Readiness::File(path) if !start.is_successor() => {
                supervisor.lookups.identity_now(Path::new(path)).map(Result::ok)
            }
            _ => Some(None),
        };
        let slices = supervisor.slices_around(&component);
        let prepared = supervisor.processes.borrow_mut().prepare(&component, &slices, start);
        match (before, prepared) {
            (_, Err((step, errno))) => Some(not_executed(run, step, errno)),
            (Some(before), Ok(Prepared::Ready(cgroup))) if open => {
                Some(spawn_now(supervisor, run, &component, start, Ready { before, cgroup }))
            }
            _ => {
                pending::begin(supervisor, run, component, start);
                None
            }
        }
    }

    /// See [`Effect::Unconfine`](yakiros_core::engine::Effect::Unconfine).
    pub fn unconfine(&self, run: RunId) {
        let Some(process) = self.runs.get(&run) else { return };
        if let Some(own) = &process.cgroup {
            self.cgroups.unconfine(&process.name, own);
        }
    }

    /// Bring the control group of a component into the state that it is started in.
    pub(super) fn prepare(
        &mut self,
        component: &Component,
        slices: &[Rc<Component>],
        start: Start,
    ) -> Result<Prepared, (Rc<str>, i32)> {
        let prepared = match self.cgroups.prepare(component, slices) {
            Ok(Prepared::Ready(Some(whole))) if component.hands_over() => {
                let own = self.cgroups.make_for(&whole, component, start.generation);
                own.map(|own| {
                    if start.place != Place::Alone {
                        own.confine(&whole, &component.resources);
                    }
                    Prepared::Ready(Some(own))
                })
                .map_err(Refusal::from)
            }
            prepared => prepared,
        };
        prepared.map_err(|Refusal { step, error }| (step, number_of(&error)))
    }
}

pub(super) fn spawn_now(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Rc<Component>,
    start: Start,
    ready: Ready,
) -> Event {
    // That of one process was made for it alone.
    let own = if component.hands_over() { ready.cgroup.clone() } else { None };
    match try_spawn(supervisor, run, component, start, ready) {
        Ok(pid) => Event::Created { run, pid },
        Err((step, error)) => {
            own.iter().for_each(Cgroup::remove);
            not_executed(run, step, number_of(&error))
        }
    }
}

fn try_spawn(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Rc<Component>,
    start: Start,
    Ready { before, cgroup }: Ready,
) -> Result<i32, StepError> {
    let at = |step: &'static str| move |error| (step.into(), error);
    let named = |(step, errno): spawn::NotCompiled| (step.into(), io::Error::from_raw_os_error(errno));
    let delegated = component.resources.delegate.is_some();
    let given = cgroup.as_ref().filter(|_| delegated).map(Cgroup::delegated).unwrap_or_default();
    let steps = spawn::steps(component, &given).map_err(named)?;
    let step_names = spawn::step_names(&steps);
    let mut own = supervisor.processes.borrow_mut();
    let own = &mut *own;
    // That it is ready to take over is said elsewhere, and that the component is ready would be said by the other.
    let prepared = if start.is_successor() {
        readiness::Prepared::None
    } else {
        readiness::prepare(component, before).map_err(at("prepare the readiness channel"))?
    };
    let socket = component.has_notify_socket().then(|| Socket::open(run, &supervisor.state_dir));
    let socket = socket.transpose().map_err(at("prepare the notification socket"))?;
    let channel = component.hands_over().then(|| handover::Channel::open(start.place, start.generation));
    let channel = channel.transpose().map_err(at("prepare the channel for hot swaps"))?;
    let given = supervisor.stores.given(component);
    let mut environment = prepared.environment(given.fds.len());
    environment.extend(given.environment());
    environment.extend(socket.as_ref().map(Socket::variable));
    environment.extend(channel.as_ref().map(|_| handover::Channel::variable(given.fds.len())));
    let image = Image::new(component, start.generation, &environment, steps)
        .map_err(at("prepare the command line"))?;
    let pipes = own.pipes.take().map_or_else(Pipes::new, Ok)?;
    let Pipes { log: (log_read, log_write), report: (report, report_write) } = pipes;
    let log = Log::new(&own.logs, run, (&supervisor.state_dir, &component.name), log_read)
        .map_err(at("watch the log pipe"))?;
    if component.hands_over() {
        log.share(false);
    }
    let directory = cgroup.as_ref().map(Cgroup::open).transpose();
    let directory = directory.map_err(at("open the cgroup"))?;
    let fds = Descriptors {
        log: &log_write,
        given: &given.fds,
        notify: prepared.child_end(),
        handoff: channel.as_ref().map(handover::Channel::child_end),
        report: &report_write,
        cgroup: directory.as_ref(),
    };
    // For a lane to be free, and for a child that copies everything to find none that is lent for nothing.
    own.settle_loans();
    let started = spawn::start(image, &fds, &own.common).map_err(at("create the process"))?;
    // It ends by itself with the report; a handle would keep its memory as long as the component runs.
    spawn_local(watch_exec(Rc::clone(supervisor), run));
    let ready_signal = prepared.signal();
    let beat = match component.lifecycle.health.as_ref().map(|health| &health.check) {
        Some(Check::Signal(signal)) => Some((signal.0, false)),
        _ => None,
    };
    let pid = own.note(started, Role::Component(run));
    let process = Process {
        pid: Some(pid),
        name: component.name.as_str().into(),
        cgroup,
        delegated,
        events: None,
        report: Some(Rc::new(report)),
        steps: step_names,
        failure: None,
        speaking: None,
        log: Some(log),
        ready_signal,
        beat,
        channel: prepared.into_channel().map(Rc::new),
        watching: None,
        socket: socket.map(Rc::new),
        pressure: Vec::new(),
        ready: false,
        ended: None,
    };
    own.keep(run, process);
    if let Some(channel) = channel {
        supervisor.handovers.keep(run, channel);
    }
    Ok(pid)
}

pub(super) fn number_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

pub(super) fn not_executed(run: RunId, step: impl Into<Rc<str>>, errno: i32) -> Event {
    Event::NotExecuted { run, step: step.into(), errno }
}
