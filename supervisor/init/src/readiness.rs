//! How a component tells that it is ready, on the supervisor's side.
//!
//! Prepared before the process exists, watched until the first report, then closed. None of it
//! blocks, and all of it ends with the run.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use yakiros_core::component::{Component, Readiness};
use yakiros_core::engine::{Event, RunId};

use crate::processes::Processes;
use crate::spawn::{self, NOTIFY_FD};
use crate::supervisor::Supervisor;
use crate::sys;

/// First pause between two looks for a readiness file; doubles up to [`FILE_STEP_MAX`]. Only
/// while a component is not ready, and its readiness limit ends it.
const FILE_STEP: Duration = Duration::from_millis(2);

/// See [`FILE_STEP`].
const FILE_STEP_MAX: Duration = Duration::from_millis(100);

/// What tells one file from another of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// A readiness channel between its creation and its watch.
pub enum Prepared {
    /// Nothing to watch.
    None,
    /// A file.
    File(FileChannel),
    /// A command to run now and then.
    Command,
    /// A signal; it comes through the signal descriptor.
    Signal(i32),
    /// A pipe for `NOTIFY_FD`. The socket is there for more than readiness (see
    /// [`crate::notify`]).
    Notify(NotifyPipe),
}

/// A readiness file, and what stood in its place before the start.
pub struct FileChannel {
    path: PathBuf,
    before: Option<Identity>,
}

/// Both ends of the pipe.
pub struct NotifyPipe {
    read: OwnedFd,
    write: OwnedFd,
}

type Watching = Pin<Box<dyn Future<Output = ()>>>;

/// Set the channel up that `component` declares.
pub fn prepare(component: &Component) -> io::Result<Prepared> {
    Ok(match &component.lifecycle.readiness {
        Readiness::None => Prepared::None,
        Readiness::File(path) => {
            Prepared::File(FileChannel { path: path.into(), before: identity(Path::new(path)) })
        }
        Readiness::Command(_) => Prepared::Command,
        Readiness::Signal(signal) => Prepared::Signal(signal.0),
        Readiness::Notify => {
            let (read, write) = sys::pipe()?;
            Prepared::Notify(NotifyPipe { read, write })
        }
    })
}

fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    Some(Identity { device: meta.dev(), inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()) })
}

impl Prepared {
    /// Variables that tell the process about the channel.
    pub fn environment(&self) -> Vec<String> {
        match self {
            Self::Notify(_) => vec![format!("NOTIFY_FD={NOTIFY_FD}")],
            _ => Vec::new(),
        }
    }

    /// The descriptor to pass to the process.
    pub fn child_end(&self) -> Option<&OwnedFd> {
        match self {
            Self::Notify(channel) => Some(&channel.write),
            _ => None,
        }
    }

    /// The signal that means ready.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Signal(number) => Some(*number),
            _ => None,
        }
    }

    /// The tasks that wait for the report. Each may report; the engine takes the first.
    pub fn watch(self, supervisor: &Rc<Supervisor>, run: RunId, component: &Rc<Component>) -> Vec<Watching> {
        let ready = {
            let supervisor = Rc::clone(supervisor);
            move || supervisor.dispatch(Event::Ready(run))
        };
        match self {
            Self::None | Self::Signal(_) => Vec::new(),
            Self::File(channel) => vec![Box::pin(async move {
                channel.appears().await;
                ready();
            })],
            Self::Command => {
                let (supervisor, component) = (Rc::clone(supervisor), Rc::clone(component));
                vec![Box::pin(ask_again_and_again(supervisor, run, component))]
            }
            Self::Notify(channel) => vec![Box::pin(async move {
                if newline_comes(channel.read).await {
                    ready();
                }
            })],
        }
    }
}

impl FileChannel {
    /// Until the file is there and is not the one from before the start.
    async fn appears(&self) {
        let mut step = FILE_STEP;
        loop {
            let now = identity(&self.path);
            if now.is_some() && now != self.before {
                return;
            }
            tokio::time::sleep(step).await;
            step = (step * 2).min(FILE_STEP_MAX);
        }
    }
}

/// Whether a newline comes through the pipe before its end.
async fn newline_comes(read: OwnedFd) -> bool {
    let Ok(pipe) = sys::watch(read) else {
        return false;
    };
    let mut buffer = [0_u8; 64];
    loop {
        let Ok(mut ready) = pipe.readable().await else {
            return false;
        };
        match sys::read_now(pipe.get_ref(), &mut buffer) {
            Ok(None) => ready.clear_ready(),
            Ok(Some(0)) | Err(_) => return false,
            Ok(Some(count)) if buffer[..count].contains(&b'\n') => return true,
            Ok(Some(_)) => {}
        }
    }
}

/// Run the readiness command, wait the interval, run it again. The engine's limit ends it, and
/// an exit status of 0 is reported when the command is reaped.
async fn ask_again_and_again(supervisor: Rc<Supervisor>, run: RunId, component: Rc<Component>) {
    let lifecycle = &component.lifecycle;
    let Readiness::Command(command) = &lifecycle.readiness else {
        return;
    };
    let words = spawn::words(command);
    loop {
        Processes::probe(&supervisor, run, &words);
        tokio::time::sleep(lifecycle.readiness_interval).await;
        supervisor.processes.borrow().kill_probes(run);
    }
}
