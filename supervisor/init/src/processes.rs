//! The processes of components, and what belongs to each: cgroup, log, readiness, probes.
//!
//! A run is reported as ended only when its process is reaped *and* its group is empty, so that a component never has two
//! processes. Descriptors: two for the log of each running component (its pipe and its file), and those of its start and
//! readiness until these are over.
//!
//! Here is the table of them. What happens to a process has a module each, from its start to its end.

mod exec;
mod family;
mod found;
mod freezer;
mod limits;
mod memory;
mod passed;
mod pending;
pub mod pressure;
mod probes;
mod reap;
mod restored;
mod signals;
mod start;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use yakiros_core::engine::{Alive, ProbeId, RunId, Stage};
use yakiros_core::journal::Exit;

use crate::cgroup::{self, Cgroup, Cgroups};
use crate::kernel_log;
use crate::notify::{self, Socket};
use crate::output::{Log, Logs};
use crate::readiness::Channel;
use crate::shutdown::Held;
use crate::spawn::{Common, Loan, Started};
use crate::sys;

pub use exec::{listen, settle_loans, take_report_of};
pub use family::end_family;
pub use found::FoundProcess;
pub use memory::{follow as follow_cgroups, follow_log as follow_kernel_log};
pub use passed::{PassedProcesses, take_over};
pub use reap::{reaped, take_last_words};
pub use restored::{Fresh, clear_place, prepare_place, take_restored};
pub use start::Start;

use pending::Pending;
use start::Pipes;

/// One process of a component.
struct Process {
    /// `None` once it is reaped: the number may be another's from then on.
    pid: Option<i32>,
    name: Rc<str>,
    cgroup: Option<Cgroup>,
    /// The group is its own to divide: what is limited in it is nobody else's business.
    delegated: bool,
    /// Of its group, once its end is near.
    events: Option<cgroup::Events>,
    /// Where exec reports; `None` once it has.
    report: Option<Rc<AsyncFd<OwnedFd>>>,
    /// Names of what it does to itself before exec, until the report is over.
    steps: Rc<[Box<str>]>,
    /// What the report said, until the process is reaped.
    failure: Option<(Rc<str>, i32)>,
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
    /// The tasks that follow its pressure.
    pressure: Vec<AbortHandle>,
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
    /// Writes the limits of a slice; the change has this number.
    SliceLimits(u64),
    /// Passes on what this run receives.
    Relay(RunId),
    /// Tries whether a program can take over.
    Trial,
    /// Makes a checkpoint or processes from one; the worker has this number.
    Worker(u64),
}

/// See the module documentation.
pub struct Processes {
    cgroups: Cgroups,
    common: Common,
    logs: Rc<Logs>,
    kernel_log: kernel_log::Reader,
    runs: HashMap<RunId, Box<Process>>,
    pids: HashMap<i32, Role>,
    /// What children use that have not executed yet.
    loans: HashMap<i32, Loan>,
    /// Where readiness commands tell why they could not be executed.
    reports: HashMap<i32, OwnedFd>,
    /// Starts that wait.
    pending: HashMap<RunId, Pending>,
    /// Made for the next start while there was time.
    pipes: Option<Pipes>,
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
            kernel_log: kernel_log::Reader::new(),
            runs: HashMap::new(),
            pids: HashMap::new(),
            loans: HashMap::new(),
            reports: HashMap::new(),
            pending: HashMap::new(),
            pipes: None,
            found: HashMap::new(),
        }
    }

    /// The process's number while it is its own, which is until it is reaped.
    fn pid(&self, run: RunId) -> Option<Pid> {
        self.runs.get(&run)?.pid.map(Pid::from_raw)
    }

    /// The same, for who writes it down.
    pub fn number(&self, run: RunId) -> Option<i32> {
        self.runs.get(&run)?.pid
    }

    /// A child passes on what this run receives.
    pub fn relay_begun(&mut self, pid: i32, taker: RunId) {
        self.pids.insert(pid, Role::Relay(taker));
    }

    /// The component is no longer declared.
    pub fn forget(&mut self, name: &str) {
        self.cgroups.remove(name);
    }

    /// All processes of what runs, held for the next kernel: nothing else is left.
    pub fn left(&self) -> Held {
        self.runs.keys().flat_map(|run| self.members(*run)).collect()
    }

    /// The processes of a run: those in its own group, or those below its first one if it has none, and that itself while
    /// it is not reaped.
    fn members(&self, run: RunId) -> Held {
        let first = self.number(run);
        match self.own_cgroup(run) {
            Some(cgroup) => cgroup.members().into_iter().chain(first).collect(),
            None => first.map(family::family).unwrap_or_default(),
        }
    }

    /// The end of all: what is left of components goes with the supervisor.
    pub fn forget_all(&mut self) {
        self.cgroups.remove_all();
    }

    /// The control group of a run while no other one is in it.
    fn own_cgroup(&self, run: RunId) -> Option<&Cgroup> {
        let cgroup = self.runs.get(&run)?.cgroup.as_ref()?;
        (!self.cgroups.is_shared(cgroup)).then_some(cgroup)
    }

    fn keep(&mut self, run: RunId, process: Process) {
        if let Some(cgroup) = &process.cgroup {
            self.cgroups.hold(cgroup);
        }
        self.runs.insert(run, Box::new(process));
    }

    /// Look at the log of a run, unless that is over.
    pub fn with_log<T>(&self, run: RunId, look: impl FnOnce(&Log) -> T) -> Option<T> {
        self.runs.get(&run)?.log.as_ref().map(look)
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

    /// A child was created.
    fn note(&mut self, started: Started, role: Role) -> i32 {
        let pid = started.pid;
        self.pids.insert(pid, role);
        self.loans.extend(started.loan.map(|loan| (pid, loan)));
        pid
    }

    /// Take back what children needed of the table of descriptors that have one of their own by now.
    fn settle_loans(&mut self) {
        self.loans.values_mut().for_each(Loan::settle);
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
            stage: match (process.ready, &process.report, &process.failure) {
                (true, ..) => Stage::Ready,
                (false, None, None) => Stage::Executed,
                _ => Stage::Created,
            },
        };
        let waiting = self.pending.keys().map(|run| (*run, Alive { pid: None, stage: Stage::Created }));
        self.runs.iter().map(|(run, process)| (*run, alive(process))).chain(waiting).collect()
    }
}
