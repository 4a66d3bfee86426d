//! How a component tells that it is ready, on the supervisor's side.
//!
//! Prepared before the process exists, watched until the first report, then closed. None of it
//! blocks, and all of it ends with the run.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use yakiros_core::component::{Component, Readiness};
use yakiros_core::engine::{Event, RunId};

use crate::lookup::{self, Identity};
use crate::reexec::Luggage;
use crate::spawn::{self, notify_fd};
use crate::supervisor::Supervisor;
use crate::sys;

/// First pause between two looks for a readiness file; doubles up to [`FILE_STEP_MAX`]. Only
/// while a component is not ready, and its readiness limit ends it.
const FILE_STEP: Duration = Duration::from_millis(2);

/// See [`FILE_STEP`].
const FILE_STEP_MAX: Duration = Duration::from_millis(100);

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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileChannel {
    path: PathBuf,
    before: Option<Identity>,
}

/// Both ends of the pipe.
pub struct NotifyPipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// A channel that is watched until the first report.
pub enum Channel {
    /// See [`FileChannel`].
    File(FileChannel),
    /// When the command is to be run next; at once at first.
    Command(Cell<Duration>),
    /// The reading end of `NOTIFY_FD`.
    Notify(AsyncFd<OwnedFd>),
}

/// A [`Channel`] for the next process image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Passed {
    /// See [`FileChannel`].
    File(FileChannel),
    /// When the command is to be run next.
    Command(Duration),
    /// The reading end of `NOTIFY_FD`.
    Notify(RawFd),
}

type Watching = Pin<Box<dyn Future<Output = ()>>>;

/// Set the channel up that `component` declares; `before` is what stands in the place of its file.
pub fn prepare(component: &Component, before: Option<Identity>) -> io::Result<Prepared> {
    Ok(match &component.lifecycle.readiness {
        Readiness::None => Prepared::None,
        Readiness::File(path) => Prepared::File(FileChannel { path: path.into(), before }),
        Readiness::Command(_) => Prepared::Command,
        Readiness::Signal(signal) => Prepared::Signal(signal.0),
        Readiness::Notify => {
            let (read, write) = sys::pipe()?;
            Prepared::Notify(NotifyPipe { read, write })
        }
    })
}

impl Prepared {
    /// Variables that tell a process about the channel that is given so many descriptors.
    pub fn environment(&self, given: usize) -> Vec<String> {
        match self {
            Self::Notify(_) => vec![format!("NOTIFY_FD={}", notify_fd(given))],
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

    /// What is to be watched, once the process has its end of it.
    pub fn into_channel(self) -> Option<Channel> {
        match self {
            Self::None | Self::Signal(_) => None,
            Self::File(channel) => Some(Channel::File(channel)),
            Self::Command => Some(Channel::Command(Cell::default())),
            Self::Notify(pipe) => sys::watch(pipe.read).ok().map(Channel::Notify),
        }
    }
}

impl Channel {
    /// The task that waits for the report.
    pub fn watch(
        self: Rc<Self>,
        supervisor: &Rc<Supervisor>,
        run: RunId,
        component: &Rc<Component>,
    ) -> Watching {
        let supervisor = Rc::clone(supervisor);
        if let Self::Command(_) = *self {
            return Box::pin(ask_again_and_again(self, supervisor, run, Rc::clone(component)));
        }
        Box::pin(async move {
            let came = match &*self {
                Self::File(channel) => channel.appears(&supervisor).await,
                Self::Notify(pipe) => newline_comes(pipe).await,
                Self::Command(_) => false,
            };
            if came {
                supervisor.dispatch(Event::Ready(run));
            }
        })
    }

    /// For the next process image.
    pub fn pass(&self) -> Passed {
        match self {
            Self::File(channel) => Passed::File(channel.clone()),
            Self::Command(next) => Passed::Command(next.get()),
            Self::Notify(pipe) => Passed::Notify(pipe.as_raw_fd()),
        }
    }

    /// From the process image before.
    pub fn take(passed: Passed, luggage: &mut Luggage) -> io::Result<Self> {
        Ok(match passed {
            Passed::File(channel) => Self::File(channel),
            Passed::Command(next) => Self::Command(Cell::new(next)),
            Passed::Notify(fd) => Self::Notify(sys::watch(luggage.pipe(fd)?)?),
        })
    }
}

impl FileChannel {
    /// Until the file is there and is not the one from before the start.
    async fn appears(&self, supervisor: &Rc<Supervisor>) -> bool {
        let mut step = FILE_STEP;
        loop {
            let now = lookup::identity(supervisor, &self.path).await.ok();
            if now.is_some() && now != self.before {
                return true;
            }
            tokio::time::sleep(step).await;
            step = (step * 2).min(FILE_STEP_MAX);
        }
    }
}

/// Whether a newline comes through the pipe before its end.
async fn newline_comes(pipe: &AsyncFd<OwnedFd>) -> bool {
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

/// Run the readiness command, wait the interval, run it again, until the first report of readiness or
/// the end of the process. What it answers is told when it is reaped.
async fn ask_again_and_again(
    channel: Rc<Channel>,
    supervisor: Rc<Supervisor>,
    run: RunId,
    component: Rc<Component>,
) {
    let lifecycle = &component.lifecycle;
    let (Readiness::Command(command), Channel::Command(next)) = (&lifecycle.readiness, &*channel) else {
        return;
    };
    let words = spawn::words(command);
    loop {
        tokio::time::sleep(next.get().saturating_sub(sys::now())).await;
        supervisor.processes.borrow().kill_probes(run);
        let asked = supervisor.processes.borrow_mut().ask(run, &words);
        if let Err(error) = asked {
            let reason = format!("readiness_check: failed to create a process: {error}").into();
            supervisor.dispatch(Event::NotYetReady(run, reason));
        }
        next.set(sys::now().saturating_add(lifecycle.readiness_interval));
    }
}
