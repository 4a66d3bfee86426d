//! What a supervisor on the kernel before this one has written down, to go on here.
//!
//! It is read once, before any component is declared, and put aside: the next boot begins anew. It is believed only where this
//! kernel was loaded for it: what a jump that never was has left behind would set everything back to how it was then.
//!
//! Connections of what goes on are closed to whatever comes for them until all of it is there: see
//! [`yakiros_checkpoint::barrier`]. That is done before the first component is started, which may be the network.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};
use yakiros_checkpoint::barrier;
use yakiros_checkpoint::order::{Event as Said, Go, Job};
use yakiros_core::checkpoint::Origin;
use yakiros_core::engine::Event;
use yakiros_core::journal::State;
use yakiros_kexec::manifest::{self, Manifest};

use super::SLACK;
use super::worker::Worker;
use crate::supervisor::Supervisor;
use crate::{machine, sys};

/// What it is called when it was read.
const USED: &str = "manifest.json.used";

/// For connections to be closed, while nothing is started yet, and to be opened: milliseconds on any machine that works.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

/// How long connections are closed at most: who is not there by then, as who is not to be started, keeps no other waiting.
/// One component's restore may take nearly as long; many take some seconds each.
const CLOSED_LIMIT: Duration = Duration::from_secs(60);

/// For who has processes go on to open what it has closed for them.
const OPENED_BY_ITSELF: Duration = Duration::from_secs(1);

/// What workers for this are called, which are no component's.
const WORKER: &str = "connections";

/// What goes on and is not there yet.
#[derive(Default)]
pub struct Awaited {
    /// Components.
    left: RefCell<BTreeSet<Rc<str>>>,
    /// Keeps connections closed. However it ends, they are open then: in the next process image as well, for it hears that
    /// this one is gone.
    closing: RefCell<Option<Worker>>,
}

impl Awaited {
    /// Connections are closed.
    pub fn is_closed(&self) -> bool {
        self.closing.borrow().is_some()
    }

    /// One is there, or will never be. Whether it was the last that connections are closed for.
    fn has_come(&self, component: &str) -> bool {
        let mut left = self.left.borrow_mut();
        left.remove(component) && left.is_empty() && self.is_closed()
    }

    /// Those that will never be there for want of a declaration.
    fn without(&self, is_declared: impl Fn(&str) -> bool) -> Vec<Rc<str>> {
        self.left.borrow().iter().filter(|component| !is_declared(component)).cloned().collect()
    }
}

/// Have the engine know what was carried over to this kernel, if anything was.
pub async fn take(supervisor: &Rc<Supervisor>) {
    if !machine::is_whole_machine() {
        return;
    }
    let line = sys::read_small(Path::new("/proc/cmdline")).unwrap_or_default();
    let base = manifest::base(&line).unwrap_or(Path::new(manifest::BASE));
    let Some(Manifest { last_pid, entries, .. }) = believed(base, &line) else { return };
    if let Err(error) = machine::begin_after(Path::new(machine::LAST_NUMBER), last_pid) {
        warn!("numbers that processes had may be taken: {error}");
    }
    info!("{} components go on as they were under the kernel before this one", entries.len());
    let (mut all, mut bases) = (Vec::new(), Vec::new());
    for entry in entries {
        let component: Rc<str> = entry.component_name.into();
        supervisor.checkpoints.awaited.left.borrow_mut().insert(Rc::clone(&component));
        let id: Rc<str> = entry.checkpoint_id.into();
        // Above it are its component's directory, and the store.
        if let Some(base) = entry.checkpoint_path.parent().and_then(Path::parent) {
            bases.push((Rc::clone(&id), base.to_owned()));
        }
        all.push((component, Origin { id: Some(id) }));
    }
    supervisor.checkpoints.elsewhere.borrow_mut().extend(bases);
    supervisor.dispatch(Event::Carried(all));
    close(supervisor, base.join(barrier::FILE)).await;
}

/// Close the connections that are named there, if any are.
async fn close(supervisor: &Rc<Supervisor>, list: PathBuf) {
    if !list.exists() {
        return;
    }
    let closing = timeout(CHANGE_LIMIT, begin_closing(supervisor, list)).await;
    match closing.unwrap_or_else(|_| Err(format!("not done within {CHANGE_LIMIT:?}").into())) {
        Ok(worker) => drop(supervisor.checkpoints.awaited.closing.replace(Some(worker))),
        Err(why) => return warn!("connections of what goes on may be reset: {why}"),
    }
    let supervisor = Rc::clone(supervisor);
    spawn_local(async move {
        sleep(CLOSED_LIMIT).await;
        let awaited = &supervisor.checkpoints.awaited;
        if awaited.is_closed() {
            let left: Vec<_> = awaited.left.borrow().iter().cloned().collect();
            warn!("connections are opened before these are there, which may be reset: {}", left.join(", "));
        }
        open(&supervisor).await;
    });
}

/// Have a worker close them. It keeps them so for a little longer than is waited for here.
async fn begin_closing(supervisor: &Rc<Supervisor>, list: PathBuf) -> Result<Worker, Rc<str>> {
    let store = supervisor.checkpoints.places.store.clone();
    let job = Job::Raise { list, limit: CLOSED_LIMIT + SLACK };
    let mut worker = Worker::start(supervisor, WORKER, (store, job), &[])?;
    loop {
        match worker.next().await? {
            Said::Closed { .. } => return Ok(worker),
            Said::Failed { reason, .. } => return Err(reason.into()),
            _ => {}
        }
    }
}

/// Component files are read. Of what is not declared here nothing is made, so nobody waits for it.
pub fn are_declared(supervisor: &Rc<Supervisor>) {
    let is_declared = |component: &str| supervisor.state(component) != State::Removed;
    for component in supervisor.checkpoints.awaited.without(is_declared) {
        warn!("{component} does not go on from before this kernel: it is not declared here");
        has_come(supervisor, &component);
    }
}

/// A component that was carried over is there, or is started anew. The last one has connections opened.
pub fn has_come(supervisor: &Rc<Supervisor>, component: &str) {
    if supervisor.checkpoints.awaited.has_come(component) {
        let supervisor = Rc::clone(supervisor);
        spawn_local(async move { open(&supervisor).await });
    }
}

/// Open the connections, if they are closed.
async fn open(supervisor: &Rc<Supervisor>) {
    let Some(mut worker) = supervisor.checkpoints.awaited.closing.take() else { return };
    let told = worker.go(&Go::default());
    // One that is dropped is killed, which opens them, too.
    let opened = async { told.and(worker.finish().await) };
    match timeout(CHANGE_LIMIT, opened).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => warn!("connections of what goes on were open before all of it was there: {why}"),
        Err(_) => warn!("connections of what goes on are opened by force after {CHANGE_LIMIT:?}"),
    }
}

/// Processes that stood still go on. If that was for another kernel, who was on the way there has come to nothing, and may
/// have left something closed.
pub fn go_on(supervisor: &Rc<Supervisor>) {
    if !machine::is_whole_machine() || supervisor.checkpoints.opening.replace(true) {
        return;
    }
    let supervisor = Rc::clone(supervisor);
    spawn_local(async move {
        // All of them go on at once, and who has them do so opens it.
        sleep(OPENED_BY_ITSELF).await;
        supervisor.checkpoints.opening.set(false);
        if supervisor.is_halting() {
            return;
        }
        let store = supervisor.checkpoints.places.store.clone();
        let work = async {
            let job = Job::Lower { on_the_way: barrier::ON_THE_WAY.into() };
            Worker::start(&supervisor, WORKER, (store, job), &[])?.finish().await
        };
        let done = timeout(CHANGE_LIMIT, work).await;
        let done = done.unwrap_or_else(|_| Err(format!("not done within {CHANGE_LIMIT:?}").into()));
        if let Err(why) = done {
            warn!("what was closed for another kernel may be so for some minutes: {why}");
        }
    });
}

/// The manifest that this kernel was loaded for. Whatever is there is put aside first.
fn believed(base: &Path, line: &str) -> Option<Manifest> {
    let path = base.join(manifest::FILE);
    let read = match Manifest::read(base) {
        Ok(None) => return None,
        Ok(Some(manifest)) => manifest.is_for(line).map(|()| manifest),
        Err(why) => Err(why.to_string()),
    };
    let aside = put_aside(base);
    match &read {
        Ok(_) => {
            // It is believed all the same: what it names is nowhere else, and is lost if it is started anew. Another boot
            // is not told the name of this jump, and so does not believe it.
            if let Err(error) = aside {
                error!("{} cannot be put aside; remove it: {error}", path.display());
            }
        }
        Err(why) => {
            let kept = match aside {
                Ok(()) => format!("it is {USED} now"),
                Err(error) => format!("it cannot be put aside: {error}"),
            };
            warn!("nothing goes on from before this kernel: {}: {why}; {kept}", path.display());
        }
    }
    read.ok()
}

/// Nothing finds it under its name any more, whatever happens to the machine afterwards.
fn put_aside(base: &Path) -> io::Result<()> {
    fs::rename(base.join(manifest::FILE), base.join(USED))?;
    File::open(base)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_declared_is_not_waited_for() {
        let awaited = Awaited::default();
        awaited.left.borrow_mut().extend(["web", "gone"].map(Rc::from));
        assert_eq!(awaited.without(|component| component == "web"), ["gone".into()]);
        assert_eq!(awaited.without(|_| true), Vec::<Rc<str>>::new());
    }

    const ENTRY: &str = r#"{"component_name":"web","checkpoint_id":"7","checkpoint_path":"/s/web/7","original_pid":9,"timestamp":1,"restore_priority":0}"#;

    fn write(folder: &Path, version: u32) {
        let text = format!(
            r#"{{"version":{version},"jump":"5a","creation_time":1,"old_kernel_version":"6.1","new_kernel_path":null,"initrd_path":null,"cmdline":"","last_pid":5020,"entries":[{ENTRY}]}}"#
        );
        manifest::write(&folder.join(manifest::FILE), text.as_bytes()).expect("file");
    }

    #[test]
    fn only_what_this_kernel_was_loaded_for_is_believed_and_all_is_put_aside() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let folder = folder.path();
        assert!(believed(folder, "yakiros.jump=5a").is_none(), "there is none");
        for (line, version, expected) in [
            ("quiet yakiros.jump=5a", 1, true),
            ("yakiros.jump=5b yakiros.jump=5a\n", 1, true),
            // A later boot of another kind, or after another jump, is not set back.
            ("quiet", 1, false),
            ("quiet -- yakiros.jump=5a", 1, false),
            ("yakiros.jump=5a yakiros.jump=5b", 1, false),
            ("yakiros.jump=5a", 2, false),
        ] {
            write(folder, version);
            let manifest = believed(folder, line);
            assert_eq!(manifest.is_some(), expected, "{line}, version {version}");
            if let Some(Manifest { last_pid, entries, .. }) = manifest {
                assert_eq!((last_pid, entries[0].component_name.as_str()), (5020, "web"));
            }
            assert!(!folder.join(manifest::FILE).exists() && folder.join(USED).exists(), "{line}");
            assert!(believed(folder, line).is_none(), "it is believed once");
        }
        fs::write(folder.join(manifest::FILE), "{").expect("file");
        assert!(believed(folder, "yakiros.jump=5a").is_none());
        assert!(!folder.join(manifest::FILE).exists());
    }

    #[test]
    fn what_cannot_be_put_aside_is_lost_by_nobody() {
        let folder = tempfile::tempdir().expect("temporary directory");
        write(folder.path(), 1);
        fs::create_dir_all(folder.path().join(USED).join("in the way")).expect("directory");
        assert!(believed(folder.path(), "yakiros.jump=5a").is_some());
        assert!(believed(folder.path(), "quiet").is_none());
        assert!(folder.path().join(manifest::FILE).exists());
    }
}
