//! Checkpoints: processes of components are written down, held, and made again.
//!
//! All of that is the work of `graph-checkpoint` and of CRIU, which it runs: a child with one order, which tells of each
//! step (see [`worker`]). Process 1 reads no image, looks at no process tree, and waits for nothing but the next line; each
//! work has a deadline, after which its child is killed, and CRIU with it. At most [`AT_ONCE`] are under way, the others
//! wait for their turn within their time.
//!
//! The end of a process that is being written is not told before what became of that: see [`before_end`].

pub mod carried;
mod mending;
mod migration;
mod orders;
mod restore;
mod verify;
mod worker;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tracing::warn;
use yakiros_checkpoint::criu::Known;
use yakiros_checkpoint::order;
use yakiros_core::checkpoint::{After, Written};
use yakiros_core::component::Component;
use yakiros_core::engine::{Event, RunId};

use crate::cgroup::Cgroup;
use crate::processes;
use crate::supervisor::Supervisor;

use migration::Migrations;
use restore::{Moved, Restoring};
use worker::{Worker, Workers};

pub use restore::{begin as begin_restore, call_off as give_up_restore, forget_move};
pub use verify::begin as verify_first;

/// Works that are under way at once: each may take as much memory and disk as a service has memory. Who asks for all of them,
/// for another kernel, asks for as many at once.
const AT_ONCE: usize = yakiros_kexec::phases::TOGETHER;

/// What a worker has beyond the limit of what it does, to say that this was over and to undo it.
const SLACK: Duration = Duration::from_secs(5);

/// Why a process is not written any more.
const ENDED: &str = "its process has ended meanwhile";

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The worker's program.
    pub program: PathBuf,
    /// CRIU, as a path or a name.
    pub criu: PathBuf,
    /// Where checkpoints are kept.
    pub store: PathBuf,
    /// Bytes that all of them may take together.
    pub quota: Option<u64>,
}

/// Everything about checkpoints.
pub struct Checkpoints {
    places: Places,
    workers: Rc<Workers>,
    /// What CRIU is, from the worker that had to ask it.
    known: Rc<RefCell<Option<Known>>>,
    turns: Semaphore,
    /// Processes that are being written.
    dumps: RefCell<HashMap<RunId, Dumping>>,
    /// Workers that have ended a component's processes and wait for the word to make others, by component.
    moves: RefCell<HashMap<Rc<str>, Moved>>,
    /// Processes that are being made.
    restores: RefCell<HashMap<RunId, Restoring>>,
    migrations: Migrations,
    /// Checkpoints that are looked at for a request.
    verifying: Rc<Cell<usize>>,
    /// What goes on from before this kernel.
    awaited: carried::Awaited,
    /// It is looked soon for what was left closed.
    opening: Cell<bool>,
    /// Stores of checkpoints that lie elsewhere, by their names.
    elsewhere: RefCell<HashMap<Rc<str>, PathBuf>>,
}

/// A process that is being written.
struct Dumping {
    after: After,
    task: AbortHandle,
    /// Why it is no longer.
    cancelled: Option<Rc<str>>,
    /// The end of the process, which is told afterwards.
    end: Option<Event>,
}

/// What is under way, for the next process image, which cannot go on with it: the engine takes it for failed. Who writes
/// finds that nobody listens, and undoes it; who makes processes is ended, with what it has made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Passed {
    /// Groups in which processes are being made, and which are theirs alone.
    groups: Vec<Cgroup>,
    /// Children, if any of them makes processes.
    workers: Vec<i32>,
    /// A setting of the kernel is to be put back.
    #[serde(default)]
    migrating: bool,
}

impl Passed {
    /// From the process image before, which has left it in the middle.
    pub fn take_over(&self, supervisor: &Rc<Supervisor>) {
        let mut processes = supervisor.processes.borrow_mut();
        for pid in &self.workers {
            // What it makes is still below it.
            processes::end_family(*pid);
            processes.disown(*pid);
        }
        processes.end_groups(&self.groups);
        if self.migrating {
            supervisor.checkpoints.migrations.put_back();
        }
    }
}

impl Checkpoints {
    /// None yet.
    pub fn new(places: Places) -> Self {
        Self {
            places,
            workers: Rc::default(),
            known: Rc::default(),
            turns: Semaphore::new(AT_ONCE),
            dumps: RefCell::default(),
            moves: RefCell::default(),
            restores: RefCell::default(),
            migrations: Migrations::new(),
            verifying: Rc::default(),
            awaited: carried::Awaited::default(),
            opening: Cell::default(),
            elsewhere: RefCell::default(),
        }
    }

    /// What is under way and could not go on in another process image, in words.
    pub fn busy(&self) -> Option<String> {
        let made = self.dumps.borrow().len() + self.restores.borrow().len();
        let count = made + self.moves.borrow().len() + self.verifying.get();
        match count {
            0 if self.awaited.is_closed() => {
                Some("what goes on from another kernel is not all there yet".to_owned())
            }
            0 => None,
            1 => Some("a checkpoint is being made or restored".to_owned()),
            count => Some(format!("{count} checkpoints are being made or restored")),
        }
    }

    /// For the next process image. What else is in a group that is shared is not to be ended with what is made there.
    pub fn pass(&self, is_shared: impl Fn(&Cgroup) -> bool) -> Passed {
        let restores = self.restores.borrow();
        let mut groups: Vec<_> = restores.values().filter_map(Restoring::group).collect();
        groups.retain(|group| !is_shared(group));
        // The same works give the same state.
        groups.sort_by(|one, other| one.path().cmp(other.path()));
        let workers = if restores.is_empty() { Vec::new() } else { self.workers.pids() };
        Passed { groups, workers, migrating: self.migrations.pass() }
    }

    /// The child with this number among workers has ended.
    pub fn worker_ended(&self, number: u64, exit: yakiros_core::journal::Exit) {
        self.workers.ended(number, exit);
    }
}

/// See [`Effect::Checkpoint`](yakiros_core::engine::Effect::Checkpoint).
pub fn begin(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: Rc<Component>,
    after: After,
    limit: Duration,
) {
    let name = component.name.clone();
    let mut work = spawn_local(attempt(Rc::clone(supervisor), run, component, after, limit));
    let task = work.abort_handle();
    let dumping = Dumping { after, task, cancelled: None, end: None };
    supervisor.checkpoints.dumps.borrow_mut().insert(run, dumping);
    let supervisor = Rc::clone(supervisor);
    spawn_local(async move {
        let in_time = timeout(limit + SLACK, &mut work).await;
        let outcome: Result<Written, Rc<str>> = if let Ok(ended) = in_time {
            ended.unwrap_or_else(|_| Err("it was called off".into()))
        } else {
            // With it its worker ends, which is looked at next. It may just have come to its end by itself.
            work.abort();
            work.await.unwrap_or_else(|_| Err(format!("it was not done within {limit:?}").into()))
        };
        if outcome.is_err() {
            // It serves when it is told that nothing came of it, and its sockets have to.
            mending::after(&supervisor, &name).await;
        }
        conclude(&supervisor, run, outcome);
    });
}

/// Tell what became of it, and then of the process, if that is over.
fn conclude(supervisor: &Rc<Supervisor>, run: RunId, outcome: Result<Written, Rc<str>>) {
    let Some(dumping) = supervisor.checkpoints.dumps.borrow_mut().remove(&run) else { return };
    // That its time is over ends nothing by itself.
    dumping.task.abort();
    let outcome = match dumping.cancelled {
        Some(why) => outcome.map_err(|_| why),
        None => outcome,
    };
    supervisor.dispatch(Event::Checkpointed(run, outcome));
    if let Some(end) = dumping.end {
        supervisor.dispatch(end);
    }
}

/// The process is to be ended at once: it is not written any more.
pub fn call_off(supervisor: &Supervisor, run: RunId, why: &str) {
    if let Some(dumping) = supervisor.checkpoints.dumps.borrow_mut().get_mut(&run) {
        dumping.cancelled.get_or_insert_with(|| why.into());
        dumping.task.abort();
    }
}

/// The end of a process is about to be told: while it is being written, not now. It is told when that is over, which is
/// at once unless the process was to be ended for it, and then soon.
pub fn before_end(supervisor: &Rc<Supervisor>, run: RunId, event: Event) -> Option<Event> {
    let own = &supervisor.checkpoints;
    let mut dumps = own.dumps.borrow_mut();
    let Some(dumping) = dumps.get_mut(&run) else { return Some(event) };
    dumping.end = Some(event);
    let is_expected = dumping.after == After::End;
    drop(dumps);
    if is_expected {
        // It may have been ended by somebody else, and CRIU not have noticed.
        let supervisor = Rc::clone(supervisor);
        spawn_local(async move {
            sleep(SLACK).await;
            call_off(&supervisor, run, ENDED);
        });
    } else {
        call_off(supervisor, run, ENDED);
    }
    None
}

/// See [`Effect::Continue`](yakiros_core::engine::Effect::Continue).
pub fn go_on(supervisor: &Rc<Supervisor>, run: RunId) {
    supervisor.processes.borrow().signal_all(run, nix::libc::SIGCONT);
    carried::go_on(supervisor);
}

/// Write a process down.
async fn attempt(
    supervisor: Rc<Supervisor>,
    run: RunId,
    component: Rc<Component>,
    after: After,
    limit: Duration,
) -> Result<Written, Rc<str>> {
    let own = &supervisor.checkpoints;
    let turn = own.turns.acquire().await.map_err(|error| error.to_string())?;
    let dump = orders::dump(&supervisor, run, &component, after, limit)?;
    let (job, gifts) = match after {
        After::Run | After::Hold => (order::Job::Dump(dump), None),
        After::End => {
            let gifts = restore::Gifts::make(&supervisor, &component)?;
            let restore = orders::remake(&supervisor, &gifts);
            (order::Job::Move(order::Move { dump, restore }), Some(gifts))
        }
    };
    let given = gifts.as_ref().map(restore::Gifts::fds).unwrap_or_default();
    let mut worker = Worker::start(&supervisor, &component.name, (own.places.store.clone(), job), &given)?;
    let written = loop {
        match worker.next().await? {
            order::Event::Written { id, bytes, figures, micros } => {
                break Written {
                    id: id.as_str().into(),
                    bytes,
                    pages: figures.map(|figures| figures.pages_written),
                    frozen_us: figures.map(|figures| figures.frozen),
                    took_us: micros,
                };
            }
            order::Event::Failed { reason, .. } => return Err(reason.into()),
            _ => {}
        }
    };
    drop(turn);
    if let Some(gifts) = gifts {
        restore::keep(&supervisor, &component, &written.id, worker, gifts);
    } else {
        // What it has left to do changes nothing about the checkpoint.
        let name = component.name.clone();
        spawn_local(async move {
            if let Ok(Err(why)) = timeout(SLACK, worker.finish()).await {
                warn!("{name}: old checkpoints are not cleaned up: {why}");
            }
        });
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::in_event_loop;

    #[test]
    fn a_group_that_others_share_is_not_ended_with_what_is_made_there() {
        in_event_loop(async || {
            let places = Places { program: "/w".into(), criu: "/c".into(), store: "/s".into(), quota: None };
            let all = Checkpoints::new(places);
            for (run, path) in [(1, "/g/own"), (2, "/g/shared")] {
                let task = spawn_local(async {}).abort_handle();
                all.restores.borrow_mut().insert(RunId(run), Restoring::in_group(task, Cgroup::at(path)));
            }
            let passed = all.pass(|group| group.path().ends_with("shared"));
            let paths: Vec<_> =
                passed.groups.iter().map(|group| group.path().display().to_string()).collect();
            assert_eq!(paths, ["/g/own"]);
        });
    }
}
