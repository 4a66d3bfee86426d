//! The end of processes.
//!
//! The end of a run is reported once: when its process is reaped, its group is empty and its output is in the log. What
//! takes longer than [`DRAIN_LIMIT`] is not waited for.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_local};
use tracing::warn;
use yakiros_core::engine::{Event, RunId};
use yakiros_core::journal::Exit;

use super::exec::take_report;
use super::memory;
use super::probes::answered;
use super::start::not_executed;
use super::{Process, Processes, Role};
use crate::cgroup;
use crate::checkpoint;
use crate::freezer;
use crate::handover::{relay, released};
use crate::limits::{self, Writer};
use crate::output::Log;
use crate::supervisor::Supervisor;
use crate::{health, notify};

/// Longest time to wait for a killed group to become empty, and for a log to catch up. What is left then hangs in the
/// kernel; the component is not held back for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// First pause between two looks at a group that was killed; doubles up to [`DRAIN_STEP_MAX`].
pub(super) const DRAIN_STEP: Duration = Duration::from_millis(1);

/// See [`DRAIN_STEP`].
pub(super) const DRAIN_STEP_MAX: Duration = Duration::from_millis(100);

impl Processes {
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

    /// Whether much is left to be copied of what a run has written.
    fn is_log_behind(&self, run: RunId, written: Option<u64>) -> bool {
        let behind = written.and_then(|written| self.with_log(run, |log| log.is_behind(written)));
        behind.unwrap_or(false)
    }

    /// Stop reading for a run and drop what belongs to it.
    fn release(&mut self, run: RunId) -> Option<Box<Process>> {
        self.stop_asking(run);
        let process = self.runs.remove(&run)?;
        if let Some(speaking) = &process.speaking {
            speaking.abort();
        }
        process.pressure.iter().for_each(AbortHandle::abort);
        if let Some(log) = &process.log {
            log.finish();
        }
        if let Some(cgroup) = &process.cgroup {
            self.cgroups.let_go(cgroup);
        }
        Some(process)
    }
}

/// A child has ended and is not reaped yet: what it said and nobody has read can still be told from what a
/// stranger says.
pub fn take_last_words(supervisor: &Rc<Supervisor>, pid: i32) {
    let (run, socket) = {
        let own = supervisor.processes.borrow();
        let Some(Role::Component(run)) = own.pids.get(&pid) else { return };
        (*run, own.socket(*run))
    };
    let hands_over = supervisor.handovers.has(run);
    if socket.is_none() && !hands_over {
        return;
    }
    take_report(supervisor, run);
    let said = socket.map(|socket| socket.take_waiting(supervisor, run)).unwrap_or_default();
    for event in said.into_iter().chain(supervisor.handovers.take_waiting(run)) {
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
        Some(Role::Worker(number)) => supervisor.checkpoints.worker_ended(number, exit),
        Some(Role::Trial) => supervisor.reexec.trial_ended(pid, exit),
        None => {
            supervisor.processes.borrow_mut().found.retain(|_, found| found.pid != pid);
            supervisor.lookups.reaped(pid);
            notify::reaped(pid);
        }
        Some(Role::Limits(run)) => limits::reaped(supervisor, Writer::Run(run), exit),
        Some(Role::SliceLimits(number)) => limits::reaped(supervisor, Writer::Slice(number), exit),
        Some(Role::Relay(run)) => relay::reaped(supervisor, run, exit),
        Some(Role::Health(probe)) => health::reaped(supervisor, probe, exit),
        Some(Role::Component(run)) => {
            if supervisor.handovers.has(run) {
                released::forget(&supervisor.state_dir, pid);
            }
            component_reaped(supervisor, run, pid, exit);
        }
    }
}

fn component_reaped(supervisor: &Rc<Supervisor>, run: RunId, pid: i32, exit: Exit) {
    if let Some(process) = supervisor.processes.borrow_mut().runs.get_mut(&run) {
        process.pid = None;
        process.ended = Some(exit);
    }
    // The report may still be unread: the exit overtook it.
    take_report(supervisor, run);
    memory::look_at_end(supervisor, run, pid, exit);
    // What it would write would come after the limits of the next.
    supervisor.changes.abandon(run);
    supervisor.processes.borrow_mut().stop_asking(run);
    let (failure, occupied) = {
        let mut own = supervisor.processes.borrow_mut();
        let Some(failure) = own.runs.get(&run).map(|process| process.failure.clone()) else {
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
pub(super) async fn drain(supervisor: Rc<Supervisor>, run: RunId, event: Event) {
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
pub(super) async fn wait_until(mut come: impl FnMut() -> bool) -> bool {
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
    freezer::forget(supervisor, run);
    supervisor.handovers.forget(run);
    supervisor.relays.abandon(run);
    let released = supervisor.processes.borrow_mut().release(run);
    if let Some(process) = released {
        if let Some(loss) = process.log.as_ref().and_then(|log| log.loss(run)) {
            supervisor.dispatch(loss);
        }
        supervisor.log_grew(&process.name);
    }
    if let Some(event) = checkpoint::before_end(supervisor, run, event) {
        supervisor.dispatch(event);
    }
}

pub(super) fn end_of(run: RunId, failure: Option<(Rc<str>, i32)>, exit: Exit) -> Event {
    match failure {
        Some((step, errno)) => not_executed(run, step, errno),
        None => Event::Ended(run, exit),
    }
}
