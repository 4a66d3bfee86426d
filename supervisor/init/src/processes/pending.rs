//! Starts that wait.
//!
//! What stands in the place of a readiness file has to be known before the process exists, or a file of an earlier run
//! could count for it; and where it lies, a file system may take its time to tell. A control group in which something was
//! killed has to be empty first: what is started in it before is killed too. And where limits of memory are to change in
//! a group that is in use, a child writes them (see [`crate::limits`]). Sockets on paths are bound by a child, too.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};
use yakiros_core::component::{Component, Readiness};
use yakiros_core::engine::{Event, RunId};

use super::reap::{DRAIN_STEP, DRAIN_STEP_MAX};
use super::start::{Ready, not_executed, number_of, spawn_now};
use super::{Processes, Start};
use crate::cgroup::{PREPARE, Prepared};
use crate::limits;
use crate::lookup::{self, Identity};
use crate::store::{self, NotOpen};
use crate::supervisor::Supervisor;

/// Time for a file system to tell what is there. A disk that has to spin up takes less; what takes longer fails the
/// start, which is tried again later.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Time for a control group to become usable. Killed processes are waited for half as long by those whose they are
/// (`DRAIN_LIMIT`).
const CGROUP_LIMIT: Duration = Duration::from_secs(10);

/// The step that looks at the readiness file.
const LOOK: &str = "look at the readiness file";

/// The step that binds sockets to paths.
const BIND: &str = "listen on the declared paths";

/// A start that waits.
pub struct Pending {
    /// Which one.
    pub start: Start,
    /// What it waits for.
    step: Rc<Cell<&'static str>>,
    task: AbortHandle,
}

impl Processes {
    /// Give a start up that waits. The event ends it.
    pub(super) fn give_up(&mut self, run: RunId) -> Option<Event> {
        let start = self.pending.remove(&run)?;
        start.task.abort();
        Some(not_executed(run, start.step.get(), libc::ECANCELED))
    }
}

/// Start the process once nothing is in its way any more, and report what became of it.
pub fn begin(supervisor: &Rc<Supervisor>, run: RunId, component: Rc<Component>, which: Start) {
    let step = Rc::new(Cell::new(LOOK));
    let task = start(Rc::clone(supervisor), run, component, which, Rc::clone(&step));
    let task = spawn_local(task).abort_handle();
    supervisor.processes.borrow_mut().pending.insert(run, Pending { start: which, step, task });
}

async fn start(
    supervisor: Rc<Supervisor>,
    run: RunId,
    component: Rc<Component>,
    which: Start,
    step: Rc<Cell<&'static str>>,
) {
    let ready = wait(&supervisor, run, &component, which, &step).await;
    supervisor.processes.borrow_mut().pending.remove(&run);
    let event = match ready {
        Ok(ready) => spawn_now(&supervisor, run, &component, which, ready),
        Err((step, errno)) => not_executed(run, step, errno),
    };
    supervisor.dispatch(event);
}

/// Until nothing is in the way. The readiness file is looked at after whatever else takes time.
pub(super) async fn wait(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Component,
    which: Start,
    step: &Cell<&'static str>,
) -> Result<Ready, NotOpen> {
    step.set(BIND);
    store::open_paths(supervisor, component).await?;
    let end = Instant::now() + CGROUP_LIMIT;
    let mut pause = DRAIN_STEP;
    loop {
        step.set(LOOK);
        let before = if which.is_successor() { None } else { look(supervisor, component).await? };
        step.set(PREPARE);
        // As they are now: they may have changed while this start waited.
        let slices = supervisor.slices_around(component);
        let prepared = supervisor.processes.borrow_mut().prepare(component, &slices, which)?;
        match prepared {
            Prepared::Ready(cgroup) => return Ok(Ready { before, cgroup }),
            _ if Instant::now() >= end => return Err((PREPARE.into(), libc::EBUSY)),
            Prepared::Busy => sleep(pause).await,
            Prepared::Unwritten(work) => {
                let written = limits::write(supervisor, run, work).await;
                written.map_err(|error| (PREPARE.into(), number_of(&error)))?;
            }
        }
        pause = (pause * 2).min(DRAIN_STEP_MAX);
    }
}

async fn look(supervisor: &Rc<Supervisor>, component: &Component) -> Result<Option<Identity>, NotOpen> {
    let Readiness::File(path) = &component.lifecycle.readiness else {
        return Ok(None);
    };
    let found = timeout(LOOK_LIMIT, lookup::identity(supervisor, Path::new(path))).await;
    found.map(Result::ok).map_err(|_| (LOOK.into(), libc::ETIMEDOUT))
}
