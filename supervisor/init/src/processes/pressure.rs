//! Pressure: the kernel tells when the tasks of a run have waited for long, as its component declares.
//!
//! A trigger is a descriptor that has something urgent once for each time (`POLLPRI`); it lasts as long as it is open. Each
//! run has its own, on its own group, for the three resources at most. Nothing is asked while nothing happens.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::rc::Rc;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;
use tracing::warn;
use yakiros_core::component::{Pressure, Resources};
use yakiros_core::control::Strain;
use yakiros_core::engine::{Event, RunId};

use crate::supervisor::Supervisor;

/// Have the kernel tell of what is declared for a run, and of nothing else. What cannot be told is said in the log, and
/// why is returned.
pub fn watch(supervisor: &Rc<Supervisor>, run: RunId, resources: &Resources) -> Result<(), Rc<str>> {
    let mut own = supervisor.processes.borrow_mut();
    let Some(process) = own.runs.get_mut(&run) else { return Ok(()) };
    process.pressure.drain(..).for_each(|task| task.abort());
    let Some(group) = process.cgroup.as_ref().map(|own| Rc::clone(own.path())) else { return Ok(()) };
    let mut outcome = Ok(());
    for (file, pressure) in Pressure::FILES.into_iter().zip(&resources.pressure) {
        let Some(pressure) = pressure else { continue };
        match trigger(&group.join(file), pressure) {
            Ok(trigger) => {
                let what = format!("{} {pressure}", file.replace('.', "_")).into();
                let task = follow(Rc::clone(supervisor), run, trigger, what);
                process.pressure.push(spawn_local(task).abort_handle());
            }
            Err(error) => {
                let reason: Rc<str> = format!("{file} is not watched: {error}{}", hint(&error)).into();
                warn!("{}: {reason}", process.name);
                outcome = Err(reason);
            }
        }
    }
    outcome
}

/// Ask the kernel to tell.
fn trigger(file: &Path, pressure: &Pressure) -> io::Result<AsyncFd<File>> {
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    // With its end, as the kernel's documentation has it.
    file.write_all(format!("{}\0", pressure.trigger()).as_bytes())?;
    // SAFETY: a file is its descriptor's only owner, and closes it when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?)
}

/// What a refusal of the kernel means that it does not tell.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "; without CAP_SYS_RESOURCE the time has to be a multiple of 2s",
        Some(libc::EOPNOTSUPP) => "; the kernel counts no pressure (psi=1)",
        _ => "",
    }
}

async fn follow(supervisor: Rc<Supervisor>, run: RunId, trigger: AsyncFd<File>, what: Rc<str>) {
    while let Ok(mut ready) = trigger.ready(Interest::PRIORITY).await {
        // The group is gone, and the run soon will be.
        if ready.ready().is_error() {
            return;
        }
        ready.clear_ready();
        supervisor.dispatch(Event::Strained(run, Strain { what: Rc::clone(&what), times: 1 }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_watched_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let some = Pressure { full: false, stall_us: 150_000, window_us: 1_000_000 };
        assert_eq!(some.to_string(), "some 150ms 1s");
        let missing = trigger(&folder.path().join("memory.pressure"), &some).expect_err("no file");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
