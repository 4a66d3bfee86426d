//! The processes of components, and what belongs to each: cgroup, log, readiness, probes.
//!
//! A run is reported as ended only when its process is reaped *and* its group is empty, so that a
//! component never has two processes. Descriptors: two for the log of each running component (its
//! pipe and its file), and those of its start and readiness until these are over.

mod found;
mod passed;
mod pending;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, spawn_local};
use tracing::warn;
use yakiros_core::component::{Check, Component, Readiness, Resources};
use yakiros_core::engine::{Alive, Event, ProbeId, RunId, Stage};
use yakiros_core::journal::Exit;

use crate::cgroup::{self, Cgroup, Cgroups, Prepared, Work};
use crate::health;
use crate::limits;
use crate::lookup::Identity;
use crate::notify::{self, Socket};
use crate::output::{Log, Logs};
use crate::readiness::{self, Channel};
use crate::spawn::{self, Common, Descriptors, Image, Loan, Started};
use crate::supervisor::Supervisor;
use crate::sys;

pub use found::FoundProcess;
use pending::Pending;

pub use passed::{PassedProcesses, take_over};

/// Longest time to wait for a killed group to become empty, and for a log to catch up. What is left then hangs in the
/// kernel; the component is not held back for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// First pause between two looks at a group that was killed; doubles up to [`DRAIN_STEP_MAX`].
const DRAIN_STEP: Duration = Duration::from_millis(1);

/// See [`DRAIN_STEP`].
const DRAIN_STEP_MAX: Duration = Duration::from_millis(100);

/// One process of a component.
struct Process {
    /// `None` once it is reaped: the number may be another's from then on.
    pid: Option<i32>,
    name: Rc<str>,
    cgroup: Option<Cgroup>,
    /// Of its group, once its end is near.
    events: Option<cgroup::Events>,
    /// Where exec reports; `None` once it has.
    report: Option<Rc<AsyncFd<OwnedFd>>>,
    /// What the report said, until the process is reaped.
    failure: Option<(&'static str, i32)>,
    log: Option<Log>,
    /// The number of the signal that means ready, while it is waited for.
    ready_signal: Option<i32>,
    /// The signal that it sends while it is well, and whether it came since the last look.
    beat: Option<(i32, bool)>,
    /// The channel of its readiness, while that is waited for.
    channel: Option<Rc<Channel>>,
    /// The task that watches it.
    watching: Option<AbortHandle>,
    socket: Option<Rc<Socket>>,
    /// The task that reads it.
    speaking: Option<AbortHandle>,
    /// It has reported ready.
    ready: bool,
    /// How it ended, once it is reaped and only its group is waited for.
    ended: Option<Exit>,
}

/// What a child process is to us.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Role {
    Component(RunId),
    /// A readiness command of this run.
    Probe(RunId),
    /// The command of a health probe.
    Health(ProbeId),
    /// Writes the limits of this run.
    Limits(RunId),
    /// Tries whether a program can take over.
    Trial,
}

/// See the module documentation.
pub struct Processes {
    cgroups: Cgroups,
    common: Common,
    logs: Rc<Logs>,
    runs: HashMap<RunId, Box<Process>>,
    pids: HashMap<i32, Role>,
    /// What children use that have not executed yet.
    loans: HashMap<i32, Loan>,
    /// Where readiness commands tell why they could not be executed.
    reports: HashMap<i32, OwnedFd>,
    /// Starts that wait.
    pending: HashMap<RunId, Pending>,
    /// Processes that were found running, by component; each is taken when its component is started.
    found: HashMap<String, FoundProcess>,
}

impl Processes {
    /// No process yet.
    pub fn new(cgroups: Cgroups, common: Common, logs: Rc<Logs>) -> Self {
        Self {
            cgroups,
            common,
            logs,
            runs: HashMap::new(),
            pids: HashMap::new(),
            loans: HashMap::new(),
            reports: HashMap::new(),
            pending: HashMap::new(),
            found: HashMap::new(),
        }
    }

    /// Start a process. The event says what became of it so far; there is none yet if the start has to
    /// wait (see [`pending`]).
    pub fn spawn(
        supervisor: &Rc<Supervisor>,
        run: RunId,
        component: Rc<Component>,
        generation: u64,
    ) -> Option<Event> {
        if let Some((_, what)) = component.isolation.unsupported().next() {
            return Some(Event::Unsupported { run, what: what.into() });
        }
        let found = supervisor.processes.borrow_mut().found.remove(&component.name);
        if let Some(found) = found {
            return Some(found::take(supervisor, run, &component, found));
        }
        let before = match &component.lifecycle.readiness {
            Readiness::File(path) => supervisor.lookups.identity_now(Path::new(path)).map(Result::ok),
            _ => Some(None),
        };
        let prepared = supervisor.processes.borrow_mut().prepare(&component);
        match (before, prepared) {
            (_, Err((step, errno))) => Some(not_executed(run, step, errno)),
            (Some(before), Ok(Prepared::Ready(cgroup))) => {
                Some(spawn_now(supervisor, run, &component, generation, Ready { before, cgroup }))
            }
            _ => {
                pending::begin(supervisor, run, component, generation);
                None
            }
        }
    }

    /// Bring the control group of a component into the state that it is started in.
    fn prepare(&mut self, component: &Component) -> Result<Prepared, (&'static str, i32)> {
        self.cgroups.prepare(component).map_err(|error| (PREPARE, number_of(&error)))
    }

    /// SIGTERM to the process and its session's first group, so that a shell's child gets it too. A
    /// start that waits is given up, and the event says so.
    pub fn terminate(&mut self, run: RunId) -> Option<Event> {
        if let Some(event) = self.give_up(run) {
            return Some(event);
        }
        if let Some(pid) = self.pid(run) {
            // Before setsid there is no group of that number.
            if signal::killpg(pid, Signal::SIGTERM) == Err(Errno::ESRCH) {
                let _ = signal::kill(pid, Signal::SIGTERM);
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

    /// Send the process itself a signal.
    pub fn signal(&self, run: RunId, number: i32) {
        if let Some(pid) = self.pid(run) {
            // SAFETY: a call on two numbers; real-time signals have no name in the wrapper.
            unsafe { libc::kill(pid.as_raw(), number) };
        }
    }

    /// The process's number while it is its own, which is until it is reaped.
    fn pid(&self, run: RunId) -> Option<Pid> {
        self.runs.get(&run)?.pid.map(Pid::from_raw)
    }

    /// The component is no longer declared.
    pub fn forget(&mut self, name: &str) {
        self.cgroups.remove(name);
    }

    /// The end of all: what is left of components goes with the supervisor.
    pub fn forget_all(&mut self) {
        self.cgroups.remove_all();
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

    /// What is to be written for the control group of a run to have these limits; `None` if it has no group.
    pub fn limits_to_write(&self, run: RunId, resources: &Resources) -> Option<Work> {
        Some(self.cgroups.change(self.runs.get(&run)?.cgroup.as_ref()?, resources))
    }

    /// The control group of a run while no other one is in it.
    fn own_cgroup(&self, run: RunId) -> Option<&Cgroup> {
        let cgroup = self.runs.get(&run)?.cgroup.as_ref()?;
        (!self.cgroups.is_shared(cgroup)).then_some(cgroup)
    }

    /// Whether something is left in a control group that is the run's alone.
    fn is_occupied(&mut self, run: RunId) -> bool {
        if self.own_cgroup(run).is_none() {
            return false;
        }
        self.expect_end(run);
        let events = self.runs.get(&run).and_then(|process| process.events.as_ref());
        events.is_some_and(cgroup::Events::is_occupied)
    }

    /// The output of a run has ended, so the run is likely to do so in a moment, once the kernel has taken it apart: have at
    /// hand what is asked then.
    pub fn expect_end(&mut self, run: RunId) {
        if let Some(process) = self.runs.get_mut(&run)
            && let (None, Some(cgroup)) = (&process.events, &process.cgroup)
        {
            process.events = cgroup.events().ok();
        }
    }

    fn keep(&mut self, run: RunId, process: Process) {
        if let Some(cgroup) = &process.cgroup {
            self.cgroups.hold(cgroup);
        }
        self.runs.insert(run, Box::new(process));
    }

    /// Whether much is left to be copied of what a run has written.
    fn is_log_behind(&self, run: RunId, written: Option<u64>) -> bool {
        let behind = written.and_then(|written| self.with_log(run, |log| log.is_behind(written)));
        behind.unwrap_or(false)
    }

    /// Look at the log of a run, unless that is over.
    pub fn with_log<T>(&self, run: RunId, look: impl FnOnce(&Log) -> T) -> Option<T> {
        self.runs.get(&run)?.log.as_ref().map(look)
    }

    /// A child writes the limits of a run.
    pub fn limits_begun(&mut self, pid: i32, run: RunId, work: &mut Work) {
        self.pids.insert(pid, Role::Limits(run));
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

    /// Whether `pid` is one of the processes of a run. That takes more than a system call only if
    /// `may_look` allows it.
    pub fn belongs(&self, run: RunId, pid: i32, may_look: impl FnOnce() -> bool) -> bool {
        let Some(process) = self.runs.get(&run) else {
            return false;
        };
        let Some(leader) = process.pid else {
            return false;
        };
        // 0 is for a process outside of this one's namespace.
        let near = pid == leader || notify::in_session(Pid::from_raw(leader), pid);
        near || (pid > 0 && self.own_cgroup(run).is_some() && may_look() && Cgroup::has_both(leader, pid))
    }

    /// Where the processes of a run say something about themselves.
    pub fn socket(&self, run: RunId) -> Option<Rc<Socket>> {
        self.runs.get(&run)?.socket.clone()
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

    /// Whether a child is one of ours that needs its group ended before it is reaped.
    pub fn end_group_before_reaping(&self, pid: i32) {
        if let Some(Role::Component(_)) = self.pids.get(&pid) {
            // While it is not reaped its number, and so the group's, cannot be another's.
            let _ = signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

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

    /// Start a command that asks about a component, in its cgroup.
    fn start_command(&mut self, run: RunId, words: &[&str], role: Role) -> io::Result<(i32, OwnedFd)> {
        let process = self.runs.get(&run).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let image = Image::probe(words, &process.name)?;
        let (read, report) = sys::pipe()?;
        let directory = process.cgroup.as_ref().map(Cgroup::open).transpose()?;
        let fds =
            Descriptors { log: &self.common.null, notify: None, report: &report, cgroup: directory.as_ref() };
        let started = spawn::start(image, &fds, &self.common)?;
        Ok((self.note(started, role), read))
    }

    /// A child was created.
    fn note(&mut self, started: Started, role: Role) -> i32 {
        let pid = started.pid;
        self.pids.insert(pid, role);
        self.loans.extend(started.loan.map(|loan| (pid, loan)));
        pid
    }

    /// Free what a child used before exec.
    ///
    /// # Safety
    /// It must have executed or ended.
    unsafe fn end_loan(&mut self, pid: i32) {
        if let Some(loan) = self.loans.remove(&pid) {
            // SAFETY: by the caller's promise.
            unsafe { loan.end() };
        }
    }

    /// Kill the readiness commands of a run that still run.
    pub fn kill_probes(&self, run: RunId) {
        for (pid, role) in &self.pids {
            if matches!(role, Role::Probe(of) if *of == run) {
                sys::end_child(Pid::from_raw(*pid));
            }
        }
    }

    /// End a child that nobody listens to any more.
    pub fn disown(&mut self, pid: i32) {
        self.pids.remove(&pid);
        sys::end_child(Pid::from_raw(pid));
    }

    /// A child that tries whether a program can take over.
    pub fn note_trial(&mut self, pid: i32) {
        self.pids.insert(pid, Role::Trial);
    }

    /// What there is, for the engine to compare with.
    pub fn alive(&self) -> BTreeMap<RunId, Alive> {
        let alive = |process: &Process| Alive {
            pid: process.pid,
            stage: match (process.ready, &process.report, process.failure) {
                (true, ..) => Stage::Ready,
                (false, None, None) => Stage::Executed,
                _ => Stage::Created,
            },
        };
        let waiting = self.pending.keys().map(|run| (*run, Alive { pid: None, stage: Stage::Created }));
        self.runs.iter().map(|(run, process)| (*run, alive(process))).chain(waiting).collect()
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
    fn stop_asking(&mut self, run: RunId) {
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

    /// Stop reading for a run and drop what belongs to it.
    fn release(&mut self, run: RunId) -> Option<Box<Process>> {
        self.stop_asking(run);
        let process = self.runs.remove(&run)?;
        if let Some(speaking) = &process.speaking {
            speaking.abort();
        }
        if let Some(log) = &process.log {
            log.finish();
        }
        if let Some(cgroup) = &process.cgroup {
            self.cgroups.let_go(cgroup);
        }
        Some(process)
    }
}

type StepError = (&'static str, io::Error);

/// The step of a start that brings the control group into its state.
const PREPARE: &str = "prepare the cgroup";

/// What a start may have to wait for.
struct Ready {
    /// What stands in the place of the readiness file.
    before: Option<Identity>,
    cgroup: Option<Cgroup>,
}

fn spawn_now(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Rc<Component>,
    generation: u64,
    ready: Ready,
) -> Event {
    match try_spawn(supervisor, run, component, generation, ready) {
        Ok(pid) => Event::Created { run, pid },
        Err((step, error)) => not_executed(run, step, number_of(&error)),
    }
}

fn number_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn not_executed(run: RunId, step: &'static str, errno: i32) -> Event {
    Event::NotExecuted { run, step: step.into(), errno }
}

fn try_spawn(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Rc<Component>,
    generation: u64,
    Ready { before, cgroup }: Ready,
) -> Result<i32, StepError> {
    let at = |step: &'static str| move |error| (step, error);
    let mut own = supervisor.processes.borrow_mut();
    let own = &mut *own;
    let prepared = readiness::prepare(component, before).map_err(at("prepare the readiness channel"))?;
    let socket = component.has_notify_socket().then(|| Socket::open(run, &supervisor.state_dir));
    let socket = socket.transpose().map_err(at("prepare the notification socket"))?;
    let mut environment = prepared.environment();
    environment.extend(socket.as_ref().map(Socket::variable));
    let image = Image::new(component, generation, &environment).map_err(at("prepare the command line"))?;
    let (log_read, log_write) = sys::pipe().map_err(at("create the log pipe"))?;
    let (report_read, report_write) = sys::pipe().map_err(at("create the report pipe"))?;
    let report = Rc::new(sys::watch(report_read).map_err(at("watch the report pipe"))?);
    let log = Log::new(&own.logs, run, (&supervisor.state_dir, &component.name), log_read)
        .map_err(at("watch the log pipe"))?;
    let directory = cgroup.as_ref().map(Cgroup::open).transpose();
    let directory = directory.map_err(at("open the cgroup"))?;
    let fds = Descriptors {
        log: &log_write,
        notify: prepared.child_end(),
        report: &report_write,
        cgroup: directory.as_ref(),
    };
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
        events: None,
        report: Some(report),
        failure: None,
        speaking: None,
        log: Some(log),
        ready_signal,
        beat,
        channel: prepared.into_channel().map(Rc::new),
        watching: None,
        socket: socket.map(Rc::new),
        ready: false,
        ended: None,
    };
    own.keep(run, process);
    Ok(pid)
}

fn end_of(run: RunId, failure: Option<(&'static str, i32)>, exit: Exit) -> Event {
    match failure {
        Some((step, errno)) => not_executed(run, step, errno),
        None => Event::Ended(run, exit),
    }
}

/// Wait for exec to close the report pipe, or for the step that failed.
async fn watch_exec(supervisor: Rc<Supervisor>, run: RunId) {
    let report = supervisor.processes.borrow().runs.get(&run).and_then(|process| process.report.clone());
    let Some(report) = report else { return };
    loop {
        let Ok(mut ready) = report.readable().await else {
            return;
        };
        if take_report(&supervisor, run) {
            return;
        }
        ready.clear_ready();
    }
}

/// Read the report pipe if something has come. Whether the report is complete.
fn take_report(supervisor: &Rc<Supervisor>, run: RunId) -> bool {
    let mut buffer = [0_u8; 8];
    let executed = {
        let mut own = supervisor.processes.borrow_mut();
        let Some(process) = own.runs.get_mut(&run) else {
            return true;
        };
        let Some(report) = &process.report else {
            return true;
        };
        match sys::read_now(report.get_ref(), &mut buffer) {
            Ok(None) => return false,
            Ok(Some(count)) if count > 0 => {
                process.failure = spawn::read_report(&buffer[..count]);
                process.report = None;
                false
            }
            // The end of the pipe. An error cannot happen to a pipe of ours; then exec is
            // taken for done, and the exit tells the rest.
            result => {
                process.report = None;
                if let (Ok(_), Some(pid)) = (result, process.pid) {
                    // SAFETY: the kernel has closed the pipe, which it does after taking the memory away.
                    unsafe { own.end_loan(pid) };
                }
                true
            }
        }
    };
    if executed {
        supervisor.dispatch(Event::Executed(run));
        listen(supervisor, run);
    }
    true
}

/// The program runs: what it says counts from now on, and so does what tells that it is ready. Before that
/// a check would have asked about something else.
fn listen(supervisor: &Rc<Supervisor>, run: RunId) {
    let component = supervisor.started_with(run);
    let mut own = supervisor.processes.borrow_mut();
    let (Some(process), Some(component)) = (own.runs.get_mut(&run), component) else { return };
    if let Some(socket) = &process.socket {
        let speaks = Rc::clone(socket).serve(Rc::clone(supervisor), run);
        process.speaking = Some(spawn_local(speaks).abort_handle());
    }
    if let Some(channel) = &process.channel {
        let watch = Rc::clone(channel).watch(supervisor, run, &component);
        process.watching = Some(spawn_local(watch).abort_handle());
    }
}

/// A process has sent a signal: that it is executed was told before that.
pub fn take_report_of(supervisor: &Rc<Supervisor>, pid: i32) {
    let role = supervisor.processes.borrow().pids.get(&pid).copied();
    if let Some(Role::Component(run)) = role {
        take_report(supervisor, run);
    }
}

/// A child has ended and is not reaped yet: what it said and nobody has read can still be told from what a
/// stranger says.
pub fn take_last_words(supervisor: &Rc<Supervisor>, pid: i32) {
    let (run, socket) = {
        let own = supervisor.processes.borrow();
        let Some(Role::Component(run)) = own.pids.get(&pid) else { return };
        let Some(socket) = own.socket(*run) else { return };
        (*run, socket)
    };
    take_report(supervisor, run);
    for event in socket.take_waiting(supervisor, run) {
        supervisor.dispatch(event);
    }
}

/// A child of ours was reaped. Those that nobody knows are orphans, and that was all they needed.
pub fn reaped(supervisor: &Rc<Supervisor>, pid: i32, exit: Exit) {
    let role = {
        let mut own = supervisor.processes.borrow_mut();
        // SAFETY: it has ended.
        unsafe { own.end_loan(pid) };
        own.pids.remove(&pid)
    };
    match role {
        Some(Role::Probe(run)) => answered(supervisor, run, pid, exit),
        Some(Role::Trial) => supervisor.reexec.trial_ended(pid, exit),
        None => {
            supervisor.processes.borrow_mut().found.retain(|_, found| found.pid != pid);
            supervisor.lookups.reaped(pid);
            notify::reaped(pid);
        }
        Some(Role::Limits(run)) => limits::reaped(supervisor, run, exit),
        Some(Role::Health(probe)) => health::reaped(supervisor, probe, exit),
        Some(Role::Component(run)) => component_reaped(supervisor, run, exit),
    }
}

/// A readiness command has ended.
fn answered(supervisor: &Rc<Supervisor>, run: RunId, pid: i32, exit: Exit) {
    let report = supervisor.processes.borrow_mut().reports.remove(&pid);
    let event = match spawn::outcome("readiness_check", report.as_ref(), exit) {
        Ok(()) => Event::Ready(run),
        Err(reason) => Event::NotYetReady(run, reason),
    };
    supervisor.dispatch(event);
}

fn component_reaped(supervisor: &Rc<Supervisor>, run: RunId, exit: Exit) {
    if let Some(process) = supervisor.processes.borrow_mut().runs.get_mut(&run) {
        process.pid = None;
        process.ended = Some(exit);
    }
    // The report may still be unread: the exit overtook it.
    take_report(supervisor, run);
    // What it would write would come after the limits of the next.
    supervisor.changes.abandon(run);
    supervisor.processes.borrow_mut().stop_asking(run);
    let (failure, occupied) = {
        let mut own = supervisor.processes.borrow_mut();
        let Some(failure) = own.runs.get(&run).map(|process| process.failure) else {
            return;
        };
        let occupied = if own.is_occupied(run) { own.own_cgroup(run).cloned() } else { None };
        if let Some(cgroup) = &occupied {
            own.cgroups.kill(cgroup);
        }
        (failure, occupied.is_some())
    };
    let event = end_of(run, failure, exit);
    let written = supervisor.processes.borrow().with_log(run, Log::written);
    if occupied || supervisor.processes.borrow().is_log_behind(run, written) {
        spawn_local(drain(Rc::clone(supervisor), run, event));
    } else {
        conclude(supervisor, run, event);
    }
}

/// Wait for a killed group to become empty, and for what was written until then to be in the log; then report the end.
async fn drain(supervisor: Rc<Supervisor>, run: RunId, event: Event) {
    if !wait_until(|| !supervisor.processes.borrow_mut().is_occupied(run)).await {
        warn!("processes of a component outlive their kill by {DRAIN_LIMIT:?}");
    }
    // Other writers may go on for ever.
    let written = supervisor.processes.borrow().with_log(run, Log::written);
    if !wait_until(|| !supervisor.processes.borrow().is_log_behind(run, written)).await {
        warn!("output of a component is lost: it was not copied within {DRAIN_LIMIT:?}");
    }
    conclude(&supervisor, run, event);
}

/// Look again and again, for [`DRAIN_LIMIT`] at most. Whether it came.
async fn wait_until(mut come: impl FnMut() -> bool) -> bool {
    let mut step = DRAIN_STEP;
    let mut waited = Duration::ZERO;
    while !come() {
        if waited >= DRAIN_LIMIT {
            return false;
        }
        tokio::time::sleep(step).await;
        waited += step;
        step = (step * 2).min(DRAIN_STEP_MAX);
    }
    true
}

fn conclude(supervisor: &Rc<Supervisor>, run: RunId, event: Event) {
    let released = supervisor.processes.borrow_mut().release(run);
    if let Some(process) = released {
        supervisor.log_grew(&process.name);
    }
    supervisor.dispatch(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declarations::Declarations;
    use std::os::unix::process::CommandExt as _;
    use yakiros_core::engine::{Config, Engine, FileChange, FileContent};

    fn process(pid: Option<i32>) -> Process {
        Process {
            pid,
            name: "a".into(),
            cgroup: None,
            events: None,
            report: None,
            failure: None,
            speaking: None,
            log: None,
            ready_signal: None,
            beat: None,
            channel: None,
            watching: None,
            socket: None,
            ready: false,
            ended: None,
        }
    }

    #[test]
    fn readiness_is_watched_and_words_are_heard_once_the_program_runs() {
        let text = "[component]\nname = \"a\"\nbinary = \"/bin/sleep\"\nargs = [\"1000\"]\n\
                    [lifecycle]\nreadiness_check = \"true\"\nwatchdog_interval = \"10m\"\n";
        let component = yakiros_core::component::parse(text).component.expect("a component");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("event loop");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let dir = tempfile::tempdir().expect("temporary directory");
            let listener = tokio::net::UnixListener::bind(dir.path().join("sock")).expect("a socket");
            let common = crate::machine::common().expect("/dev/null");
            let system = (Cgroups::new(Path::new("/nonexistent")), common, Logs::new().expect("epoll"));
            let engine = Engine::new(Config::default());
            let declarations = Declarations::new(dir.path());
            let state_dir = dir.path().to_owned();
            let supervisor = Supervisor::new(engine, state_dir, declarations, system, Rc::new(listener));
            let content = FileContent::Component(Box::new(component));
            supervisor.dispatch(Event::Files(vec![FileChange { file: "a.toml".to_owned(), content }]));
            let stands = || {
                let own = supervisor.processes.borrow();
                let process = own.runs.values().next().expect("a process");
                (process.report.is_none(), process.watching.is_some(), process.speaking.is_some())
            };
            assert_eq!(stands(), (false, false, false), "exec is under way");
            while !stands().0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(stands(), (true, true, true));
            let run = *supervisor.processes.borrow().runs.keys().next().expect("a run");
            supervisor.processes.borrow_mut().kill(run);
        });
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
            processes.terminate(run);
            processes.signal(run, libc::SIGTERM);
            processes.kill(run);
            if pid.is_none() {
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(other.try_wait().expect("status"), None, "it runs on");
            }
        }
        assert!(!other.wait().expect("status").success());
    }
}
