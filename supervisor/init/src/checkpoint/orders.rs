//! What workers are told.

use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::sys::stat::fstat;
use yakiros_checkpoint::criu::Options;
use yakiros_checkpoint::order::{self, Dump, Given, Remake, Restore};
use yakiros_checkpoint::store::{Id, Policy, Role};
use yakiros_core::checkpoint::{After, Origin};
use yakiros_core::component::Component;
use yakiros_core::engine::RunId;

use super::restore::Gifts;
use crate::output::Log;
use crate::supervisor::Supervisor;
use crate::sys;

/// What is written to standard output and error.
pub const LOG: &str = "log";
/// The process's end of the channel for hot swaps.
pub const CHANNEL: &str = "channel";
/// The path of the notification socket.
pub const NOTIFY: &str = "notify";
/// Begins the role of what is held for the component; its place and its name follow.
pub const HELD: &str = "held";

/// The time for CRIU to make processes. What takes longer is started anew.
pub const RESTORE: Duration = Duration::from_secs(45);

/// The time for the word to make them, from the moment that all is ready: process 1 has it within milliseconds.
pub const WAIT: Duration = Duration::from_secs(30);

/// To write the process of a run.
pub fn dump(
    supervisor: &Rc<Supervisor>,
    run: RunId,
    component: &Component,
    after: After,
    limit: Duration,
) -> Result<Dump, Rc<str>> {
    if component.security.has_landlock() {
        // Nothing shows whether a process has them.
        return Err(
            "its rules of Landlock would not be made again: do without `security.landlock_*`, or without \
                    checkpoints"
                .into(),
        );
    }
    let pid = supervisor.processes.borrow().number(run).ok_or("its process is gone")?;
    Ok(Dump {
        component: component.name.clone(),
        pid,
        // An upgrade is to bring what has been installed meanwhile.
        program: (after == After::End).then(|| component.binary.clone().into()),
        criu: supervisor.checkpoints.places.criu.clone(),
        // A client that waits to be taken is no reason to have no checkpoint.
        options: Options { skip_in_flight: true, ..Options::default() },
        rounds: component.checkpoint.rounds,
        after: match after {
            After::Run => order::After::Run,
            After::Hold => order::After::Hold,
            After::End => order::After::End,
        },
        capabilities: component.provides.clone(),
        preserve_fds: component.checkpoint.preserve_fds.clone(),
        given: given(supervisor, run, component),
        limit,
        quota: supervisor.checkpoints.places.quota,
        keep: Some(Policy { max_age: component.checkpoint.max_age, ..Policy::default() }),
    })
}

/// To make a process from a checkpoint.
pub fn restore(
    supervisor: &Rc<Supervisor>,
    component: &Component,
    origin: &Origin,
    gifts: &Gifts,
) -> Result<Restore, Rc<str>> {
    let id = origin.id.as_ref().map(|id| id.parse::<Id>()).transpose();
    Ok(Restore {
        component: component.name.clone(),
        id: id.map_err(|error| error.to_string())?,
        criu: supervisor.checkpoints.places.criu.clone(),
        how: remake(supervisor, gifts),
    })
}

/// How processes are made.
pub fn remake(supervisor: &Supervisor, gifts: &Gifts) -> Remake {
    let work: PathBuf = supervisor.state_dir.clone();
    Remake { work, given: gifts.roles(), wait: Some(WAIT), limit: RESTORE }
}

/// What a process has been given, and what the kernel calls that.
fn given(supervisor: &Supervisor, run: RunId, component: &Component) -> Vec<Given> {
    let one = |name: &str, link: String, is_end| Given { role: Role::new(name, link), is_end };
    let processes = supervisor.processes.borrow();
    let pipe = processes.with_log(run, Log::pass).and_then(inode);
    let socket = processes.socket(run).map(|socket| socket.path().display().to_string());
    let channel = supervisor.handovers.child_inode(run);
    let held = held(supervisor, component).into_iter();
    let held = held.filter_map(|(name, fd)| Some(one(&name, format!("socket:[{}]", inode(fd)?), false)));
    [
        pipe.map(|inode| one(LOG, format!("pipe:[{inode}]"), false)),
        socket.map(|path| one(NOTIFY, path, false)),
        channel.map(|inode| one(CHANNEL, format!("socket:[{inode}]"), true)),
    ]
    .into_iter()
    .flatten()
    .chain(held)
    .collect()
}

/// Sockets that are held for a component, with their roles.
pub fn held(supervisor: &Supervisor, component: &Component) -> Vec<(String, RawFd)> {
    let given = supervisor.stores.given(component);
    let numbered = given.fds.into_iter().zip(given.names).enumerate();
    let sockets = numbered.filter(|(_, (fd, _))| kind(*fd) == Some(libc::S_IFSOCK));
    sockets.map(|(place, (fd, name))| (format!("{HELD}:{place}:{name}"), fd)).collect()
}

/// The place of what is held among all that is, by its role.
pub fn place_of(role: &str) -> Option<usize> {
    role.strip_prefix(HELD)?.strip_prefix(':')?.split(':').next()?.parse().ok()
}

fn kind(fd: RawFd) -> Option<libc::mode_t> {
    sys::kind_of(borrowed(&fd)).ok()
}

fn inode(fd: RawFd) -> Option<u64> {
    fstat(borrowed(&fd)).ok().map(|stat| stat.st_ino)
}

/// A descriptor that somebody else keeps open.
fn borrowed(fd: &RawFd) -> BorrowedFd<'_> {
    // SAFETY: what is named here is held by the supervisor, which does nothing else meanwhile.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}
