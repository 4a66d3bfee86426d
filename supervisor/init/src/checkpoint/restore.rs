//! Processes are made from checkpoints, in the place of an ordinary start.
//!
//! What the start of any process needs is there before the worker is told to go on: the control group, the log, the socket
//! for notifications at its old path, the channel. The worker goes into the group itself, so that what CRIU makes is born
//! there; it ends, and the first process is a child of this one from then on, as one that was found running.
//!
//! Whatever fails leaves nothing in the group. In a group that others share only what was made is ended.

use std::cell::Cell;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tracing::warn;
use yakiros_checkpoint::order::{Event as Said, Go, Job};
use yakiros_checkpoint::store::Role;
use yakiros_core::checkpoint::{Made, Origin};
use yakiros_core::component::Component;
use yakiros_core::engine::{Event, RunId};

use super::migration::Migration;
use super::worker::{Worker, given_at};
use super::{SLACK, carried, mending, orders};
use crate::cgroup::Cgroup;
use crate::handover::Channel;
use crate::notify::Socket;
use crate::processes::{self, Fresh, Start};
use crate::supervisor::Supervisor;
use crate::sys;

/// The longest time for all of it: until it is this one's turn, the control group is usable, each byte of the images is
/// compared, and CRIU has made the processes. The engine waits a little longer (`RESTORE_LIMIT`), and the reason is told.
const LIMIT: Duration = Duration::from_secs(55);

/// For a worker to have the disk write what it made processes from, which nobody waits for: some gigabytes on a slow one.
const AFTERWARDS: Duration = Duration::from_secs(120);

/// What a process that is made is given in place of what it had.
pub struct Gifts {
    /// The reading end of its log.
    log: OwnedFd,
    log_write: OwnedFd,
    channel: Option<Channel>,
    /// Sockets that the supervisor holds, with their roles. It has them open as long as the component is declared.
    held: Vec<(String, RawFd)>,
}

impl Gifts {
    /// For the next process of a component.
    pub fn make(supervisor: &Supervisor, component: &Component) -> Result<Self, Rc<str>> {
        let failed = |error: std::io::Error| Rc::from(format!("failed to make what it is given: {error}"));
        let (log, log_write) = sys::pipe().map_err(failed)?;
        let channel = component.hands_over().then(Channel::bare).transpose().map_err(failed)?;
        Ok(Self { log, log_write, channel, held: orders::held(supervisor, component) })
    }

    /// In the order of [`Self::roles`].
    pub fn fds(&self) -> Vec<RawFd> {
        let channel = self.channel.as_ref().map(|channel| channel.child_end().as_raw_fd());
        let held = self.held.iter().map(|(_, fd)| *fd);
        [self.log_write.as_raw_fd()].into_iter().chain(channel).chain(held).collect()
    }

    /// What each is for, and its number in the worker.
    pub fn roles(&self) -> Vec<(String, i32)> {
        let channel = self.channel.as_ref().map(|_| orders::CHANNEL.to_owned());
        let held = self.held.iter().map(|(name, _)| name.clone());
        let names = [orders::LOG.to_owned()].into_iter().chain(channel).chain(held);
        names.enumerate().map(|(place, name)| (name, given_at(place))).collect()
    }
}

/// A worker that has ended a process and waits.
pub struct Moved {
    id: Rc<str>,
    worker: Worker,
    gifts: Gifts,
    /// Gives it up.
    timer: AbortHandle,
}

/// A process that is being made.
pub struct Restoring {
    task: AbortHandle,
    /// Where, once that is known.
    group: Rc<Cell<Option<Cgroup>>>,
    cancelled: bool,
}

impl Restoring {
    #[cfg(test)]
    pub fn in_group(task: AbortHandle, group: Cgroup) -> Self {
        Self { task, group: Rc::new(Cell::new(Some(group))), cancelled: false }
    }

    /// See the field.
    pub fn group(&self) -> Option<Cgroup> {
        let group = self.group.take();
        self.group.set(group.clone());
        group
    }
}

/// A process was ended by a worker that can make it again: it is to be asked for soon.
pub fn keep(supervisor: &Rc<Supervisor>, component: &Component, id: &Rc<str>, worker: Worker, gifts: Gifts) {
    let name: Rc<str> = component.name.as_str().into();
    let (own, of) = (Rc::clone(supervisor), Rc::clone(&name));
    let timer = spawn_local(async move {
        sleep(orders::WAIT + SLACK).await;
        if own.checkpoints.moves.borrow_mut().remove(&of).is_some() {
            warn!("{of}: nothing was made from its checkpoint within {:?}", orders::WAIT);
        }
    });
    let moved = Moved { id: Rc::clone(id), worker, gifts, timer: timer.abort_handle() };
    let before = supervisor.checkpoints.moves.borrow_mut().insert(name, moved);
    if let Some(before) = before {
        before.timer.abort();
    }
}

/// A component is started anew: what could have been made in its place keeps nothing open any more.
pub fn forget_move(supervisor: &Supervisor, component: &str) {
    if let Some(moved) = supervisor.checkpoints.moves.borrow_mut().remove(component) {
        moved.timer.abort();
    }
}

/// Make a process from a checkpoint, and report what became of it.
pub fn begin(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: Rc<Component>,
    start: Start,
    origin: Origin,
) {
    let began = sys::now();
    let group = Rc::new(Cell::new(None));
    let making = make(Rc::clone(supervisor), run, Rc::clone(&component), start, origin, Rc::clone(&group));
    let work = spawn_local(making);
    let restoring = Restoring { task: work.abort_handle(), group: Rc::clone(&group), cancelled: false };
    supervisor.checkpoints.restores.borrow_mut().insert(run, restoring);
    let supervisor = Rc::clone(supervisor);
    spawn_local(async move {
        let outcome = match timeout(LIMIT, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("it was called off".into()),
            Err(_) => Err(format!("it was not made within {LIMIT:?}").into()),
        };
        // Its time may be over, which ends nothing by itself.
        let is_cancelled = match supervisor.checkpoints.restores.borrow().get(&run) {
            Some(restoring) => {
                restoring.task.abort();
                restoring.cancelled
            }
            None => false,
        };
        let pid = outcome.as_ref().ok().map(|made| made.pid);
        let taken = match outcome {
            Ok(_) if is_cancelled => Err("it was called off".into()),
            Ok(made) => take(&supervisor, run, &component, made, began),
            Err(why) => Err(why),
        };
        let group = group.take();
        if taken.is_err() {
            processes::clear_place(&supervisor, group.as_ref(), pid).await;
        }
        if taken.is_err() {
            mending::after(&supervisor, &component.name).await;
        }
        supervisor.checkpoints.restores.borrow_mut().remove(&run);
        match taken {
            Ok(event) => {
                supervisor.dispatch(event);
                processes::listen(&supervisor, run);
            }
            Err(why) => supervisor.dispatch(Event::NotRestored(run, why)),
        }
        carried::has_come(&supervisor, &component.name);
    });
}

/// The process is to be ended: it is not made any more. Whether it was being made; the event comes when nothing is left.
pub fn call_off(supervisor: &Supervisor, run: RunId) -> bool {
    let mut restores = supervisor.checkpoints.restores.borrow_mut();
    let Some(restoring) = restores.get_mut(&run) else { return false };
    restoring.cancelled = true;
    restoring.task.abort();
    true
}

/// What was made, and what belongs to it.
struct Remade {
    pid: i32,
    id: Rc<str>,
    worker: Worker,
    log: OwnedFd,
    channel: Option<Channel>,
    socket: Option<Socket>,
    group: Option<Cgroup>,
    /// Sockets that the supervisor holds, too, and that are others now: the role, a process and its number for each.
    anew: Vec<(String, i32, i32)>,
    migration: Migration,
}

async fn make(
    supervisor: Rc<Supervisor>,
    run: RunId,
    component: Rc<Component>,
    start: Start,
    origin: Origin,
    place: Rc<Cell<Option<Cgroup>>>,
) -> Result<Remade, Rc<str>> {
    let own = &supervisor.checkpoints;
    let group = processes::prepare_place(&supervisor, run, &component, start).await?;
    place.set(group.clone());
    let moved = own.moves.borrow_mut().remove(component.name.as_str()).inspect(|moved| moved.timer.abort());
    let moved = moved.filter(|moved| origin.id.as_ref().is_none_or(|id| *id == moved.id));
    let is_move = moved.is_some();
    // One that has ended processes does not wait for its turn.
    let turn = if is_move { None } else { Some(own.turns.acquire().await.map_err(|e| e.to_string())?) };
    let (mut worker, gifts) = if let Some(Moved { worker, gifts, .. }) = moved {
        (worker, gifts)
    } else {
        let gifts = Gifts::make(&supervisor, &component)?;
        let job = Job::Restore(orders::restore(&supervisor, &component, &origin, &gifts)?);
        let elsewhere = origin.id.as_ref().and_then(|id| own.elsewhere.borrow_mut().remove(id));
        let base = elsewhere.unwrap_or_else(|| own.places.store.clone());
        (Worker::start(&supervisor, &component.name, (base, job), &gifts.fds())?, gifts)
    };
    let Gifts { log, log_write, channel, held: _ } = gifts;
    drop(log_write);
    let (id, roles) = until(&mut worker, |said| match said {
        Said::Waiting { id, roles } => Some((id, roles)),
        _ => None,
    })
    .await?;
    let socket = component.has_notify_socket().then(|| socket(&supervisor, run, &roles)).transpose()?;
    let migration = own.migrations.begin();
    worker.go(&Go { group: group.as_ref().map(|group| PathBuf::from(&**group.path())) })?;
    let mut anew = Vec::new();
    let pid = until(&mut worker, |said| match said {
        Said::Restored { pid } => Some(pid),
        Said::Anew { role, pid, number } => {
            anew.push((role, pid, number));
            None
        }
        _ => None,
    })
    .await?;
    drop(turn);
    Ok(Remade { pid, id: id.as_str().into(), worker, log, channel, socket, group, anew, migration })
}

/// Hear what it says until that is found.
async fn until<T>(worker: &mut Worker, mut look: impl FnMut(Said) -> Option<T>) -> Result<T, Rc<str>> {
    loop {
        match worker.next().await? {
            Said::Failed { reason, .. } => return Err(reason.into()),
            said => {
                if let Some(found) = look(said) {
                    return Ok(found);
                }
            }
        }
    }
}

/// The socket for notifications, where the process knows it to be.
fn socket(supervisor: &Supervisor, run: RunId, roles: &[Role]) -> Result<Socket, Rc<str>> {
    let role = roles.iter().find(|role| role.name == orders::NOTIFY);
    let bound = match role {
        Some(role) => Socket::open_at(run, &supervisor.state_dir, role.link.as_ref()),
        None => Socket::open(run, &supervisor.state_dir),
    };
    bound.map_err(|error| format!("failed to prepare the notification socket: {error}").into())
}

/// It is there: it is a child of this process, and its component's.
fn take(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Rc<Component>,
    made: Remade,
    began: Duration,
) -> Result<Event, Rc<str>> {
    let Remade { pid, id, worker, log, channel, socket, group, anew, migration } = made;
    let fresh = Fresh { pid, log, socket, group };
    processes::take_restored(supervisor, run, component, fresh)?;
    if let Some(channel) = channel {
        supervisor.handovers.keep(run, channel);
    }
    let name = component.name.clone();
    for (role, holder, number) in anew {
        // What waits in the one that was held goes over to this one when the worker, too, has closed that.
        let taken = sys::descriptor_of(holder, number);
        let replaced = taken.and_then(|fd| supervisor.stores.renew(component, orders::place_of(&role), fd));
        if let Err(error) = replaced {
            warn!("{name}: {role} is not held any more as it was: {error}");
        }
    }
    spawn_local(async move {
        let _migration = migration;
        match timeout(AFTERWARDS, worker.finish()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => warn!("{name}: {why}"),
            Err(_) => warn!("{name}: its checkpoint may not be on the disk after {AFTERWARDS:?}"),
        }
    });
    let took = sys::now().saturating_sub(began).as_micros();
    let made = Made { id, took_us: u64::try_from(took).unwrap_or(u64::MAX) };
    Ok(Event::Restored { run, pid, made })
}
