//! Starts that wait: what stands in the place of a readiness file has to be known before the process exists, or a file
//! of an earlier run could count for it; and where it lies, a file system may take its time to tell.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use yakiros_core::component::{Component, Readiness};
use yakiros_core::engine::{Event, RunId};

use super::{Processes, not_executed, spawn_now};
use crate::lookup;
use crate::supervisor::Supervisor;

/// Time for a file system to tell what is there. A disk that has to spin up takes less; what takes longer fails the
/// start, which is tried again later.
const LIMIT: Duration = Duration::from_secs(10);

/// How a start fails that waited in vain.
const STEP: &str = "look at the readiness file";

/// A start that waits.
pub struct Pending {
    /// See [`yakiros_core::engine::Effect::Spawn`].
    pub generation: u64,
    task: AbortHandle,
}

impl Processes {
    /// Give a start up that waits. The event ends it.
    pub(super) fn give_up(&mut self, run: RunId) -> Option<Event> {
        self.pending.remove(&run)?.task.abort();
        Some(not_executed(run, STEP, libc::ECANCELED))
    }
}

/// Start the process once it is known what stands in the place of its readiness file, and report what became of it.
pub fn begin(supervisor: &Rc<Supervisor>, run: RunId, component: Rc<Component>, generation: u64) {
    let task = spawn_local(start(Rc::clone(supervisor), run, component, generation)).abort_handle();
    supervisor.processes.borrow_mut().pending.insert(run, Pending { generation, task });
}

async fn start(supervisor: Rc<Supervisor>, run: RunId, component: Rc<Component>, generation: u64) {
    let Readiness::File(path) = &component.lifecycle.readiness else {
        return;
    };
    let found = timeout(LIMIT, lookup::identity(&supervisor, Path::new(path))).await;
    supervisor.processes.borrow_mut().pending.remove(&run);
    let event = match found {
        Ok(found) => spawn_now(&supervisor, run, &component, generation, found.ok()),
        Err(_) => not_executed(run, STEP, libc::ETIMEDOUT),
    };
    supervisor.dispatch(event);
}
