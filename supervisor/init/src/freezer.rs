//! What is frozen and thawed of what runs: the group of a component with all that is in it, and the word of the kernel
//! that it is done.
//!
//! Nobody waits for that but the request: the file of the group tells when it has changed, and a timer when it should
//! have. What does not stand still by then is thawed again, and the report says what hangs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use tokio::task::{AbortHandle, spawn_local};
use yakiros_core::engine::{Event, FREEZE_LIMIT, RunId};

use crate::cgroup::{Cgroup, Cgroups};
use crate::supervisor::Supervisor;

/// Something that the kernel has not said yet.
struct Asked {
    group: Cgroup,
    frozen: bool,
    timer: AbortHandle,
}

/// All of that, one for each run at most.
#[derive(Default)]
pub struct Freezers(RefCell<HashMap<RunId, Asked>>);

/// Freeze everything of the component of a run, or thaw it, and report what became of it.
pub fn begin(supervisor: &Rc<Supervisor>, run: RunId, frozen: bool, limit: Duration) {
    forget(supervisor, run);
    let group = supervisor.processes.borrow().group_to_freeze(run);
    let begun = group.and_then(|group| {
        let set = supervisor.processes.borrow_mut().set_frozen(run, group.path(), frozen);
        set.map(|()| group.clone()).map_err(|error| refusal(&group, &error))
    });
    let group = match begun {
        Ok(group) => group,
        Err(reason) => return report(supervisor, run, frozen, Err(reason)),
    };
    let is_done = Cgroups::stands_still(group.path()) == Some(frozen);
    let late = Rc::clone(supervisor);
    let timer = spawn_local(async move {
        tokio::time::sleep(limit).await;
        give_up(&late, run, limit);
    });
    let path = Rc::clone(group.path());
    let asked = Asked { group, frozen, timer: timer.abort_handle() };
    supervisor.freezers.0.borrow_mut().insert(run, asked);
    if is_done {
        look(supervisor, &path);
    }
}

/// Thaw it, within the longest time that there is for that.
pub fn thaw(supervisor: &Rc<Supervisor>, run: RunId) {
    begin(supervisor, run, false, FREEZE_LIMIT);
}

/// Something has changed in a group: it may be what is waited for.
pub fn look(supervisor: &Rc<Supervisor>, path: &Path) {
    let done = {
        let asked = supervisor.freezers.0.borrow();
        let mut of_group = asked.iter().filter(|(_, asked)| **asked.group.path() == *path);
        let still = |asked: &Asked| Cgroups::stands_still(path) == Some(asked.frozen);
        of_group.find(|(_, asked)| still(asked)).map(|(run, asked)| (*run, asked.frozen))
    };
    if let Some((run, frozen)) = done {
        forget(supervisor, run);
        report(supervisor, run, frozen, Ok(()));
    }
}

/// Nobody asks any more: the run is over, or something else was asked for.
pub fn forget(supervisor: &Supervisor, run: RunId) -> Option<Cgroup> {
    let Asked { group, timer, .. } = supervisor.freezers.0.borrow_mut().remove(&run)?;
    timer.abort();
    supervisor.processes.borrow_mut().expect_no_word(group.path());
    Some(group)
}

/// It has taken too long.
fn give_up(supervisor: &Rc<Supervisor>, run: RunId, limit: Duration) {
    let Some(frozen) = supervisor.freezers.0.borrow().get(&run).map(|asked| asked.frozen) else { return };
    let Some(group) = forget(supervisor, run) else { return };
    // The word may be on its way.
    if Cgroups::stands_still(group.path()) == Some(frozen) {
        return report(supervisor, run, frozen, Ok(()));
    }
    let path = group.path().display();
    let reason = if frozen {
        let hanging = group.hanging();
        let thawed = supervisor.processes.borrow_mut().set_frozen(run, group.path(), false);
        supervisor.processes.borrow_mut().expect_no_word(group.path());
        let then = thawed.map_or_else(|error| format!("; thawing it failed: {error}"), |()| String::new());
        format!("not all of {path} was frozen within {limit:?}, so it was thawed again; {hanging}{then}")
    } else {
        format!("{path} is still frozen after {limit:?}; look for `cgroup.freeze` in a group around it")
    };
    report(supervisor, run, frozen, Err(reason.into()));
}

/// Why a group cannot be frozen or thawed.
fn refusal(group: &Cgroup, error: &io::Error) -> Rc<str> {
    let path = group.path().display();
    if error.raw_os_error() == Some(libc::ENOENT) && group.path().exists() {
        return format!("this kernel freezes no control groups: {path} has no cgroup.freeze (Linux 5.2)")
            .into();
    }
    format!("failed to write {path}/cgroup.freeze: {error}").into()
}

fn report(supervisor: &Rc<Supervisor>, run: RunId, frozen: bool, outcome: Result<(), Rc<str>>) {
    supervisor.dispatch(if frozen { Event::Frozen(run, outcome) } else { Event::Thawed(run, outcome) });
}
