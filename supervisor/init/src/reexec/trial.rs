//! Trying a program before it takes over: it is started as a child, reads a copy of the state, makes
//! an engine of it and ends.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use yakiros_core::journal::Exit;

use super::State;
use crate::supervisor::Supervisor;
use crate::sys;

/// The argument with which a program reads a state from its standard input, and does nothing else.
pub const TRY_STATE: &str = "--try-state";

/// Far above what the largest state takes.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes shown of what a program says that refuses a state.
const SHOWN: u64 = 400;

/// Let `program` try `state`. An error says why it cannot take over.
pub(super) async fn run(supervisor: &Rc<Supervisor>, program: &Path, state: &File) -> io::Result<()> {
    let cannot = |why: String| io::Error::other(format!("{} cannot take over: {why}", program.display()));
    let mut said = sys::memory_file(c"graph-resolver-trial")?;
    let (sender, ended) = oneshot::channel();
    supervisor.reexec.trial.replace(Some(sender));
    // Its end is seen by whoever reaps everything.
    let child = Command::new(program)
        .arg(TRY_STATE)
        .stdin(Stdio::from(state.as_fd().try_clone_to_owned()?))
        .stdout(Stdio::null())
        .stderr(Stdio::from(said.as_fd().try_clone_to_owned()?))
        .spawn()
        .map_err(|error| cannot(error.to_string()))?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    supervisor.processes.borrow_mut().note_trial(pid);
    match tokio::time::timeout(LIMIT, ended).await {
        Ok(Ok(Exit::Code(0))) => Ok(()),
        Ok(Ok(exit)) => {
            said.rewind()?;
            let mut text = Vec::new();
            said.take(SHOWN).read_to_end(&mut text)?;
            let text = String::from_utf8_lossy(&text).trim().replace('\n', " ");
            Err(cannot(if text.is_empty() { format!("it {exit}") } else { text }))
        }
        Ok(Err(_)) | Err(_) => {
            // Not reaped yet, so the number is its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            Err(cannot(format!("it did not try the state within {LIMIT:?}")))
        }
    }
}

/// The child: exit status 0 if the state on standard input can be used.
pub fn try_state() -> ExitCode {
    let outcome =
        io::stdin().as_fd().try_clone_to_owned().and_then(|fd| State::read(&File::from(fd))?.try_out());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
