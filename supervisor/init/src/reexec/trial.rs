//! Trying a program before it takes over: it is started as a child, reads a copy of the state, makes
//! an engine of it and ends.
//!
//! The child also finds out whether the program can be executed at all, however long its file system
//! takes to say so. What it has just executed is in memory, so process 1 does not wait when it then
//! executes the same.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use yakiros_core::journal::Exit;

use super::State;
use crate::supervisor::Supervisor;
use crate::sys;

/// The argument with which a program reads a state from its standard input, and does nothing else.
pub const TRY_STATE: &str = "--try-state";

/// The same for execve(2), with the name before it.
const WORDS: [&CStr; 2] = [c"graph-resolver", c"--try-state"];

/// Far above what the largest state takes, on a disk that has to spin up first.
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
    let (pid, report) = start(program, state, &said).map_err(|error| cannot(error.to_string()))?;
    supervisor.processes.borrow_mut().note_trial(pid);
    match tokio::time::timeout(LIMIT, ended).await {
        Ok(Ok(Exit::Code(0))) => Ok(()),
        Ok(Ok(exit)) => {
            if let Some(error) = failure(&report) {
                return Err(cannot(error.to_string()));
            }
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

/// Start the child, and wait for nothing. A failure before the program runs is told through the
/// descriptor that is returned.
fn start(program: &Path, state: &File, said: &File) -> io::Result<(i32, OwnedFd)> {
    let (read, report) = sys::pipe()?;
    let program = CString::new(program.as_os_str().as_bytes())?;
    let words = [WORDS[0].as_ptr(), WORDS[1].as_ptr(), ptr::null()];
    let fds = [(state.as_raw_fd(), 0), (said.as_raw_fd(), 1), (said.as_raw_fd(), 2)];
    // SAFETY: the child makes plain system calls on what is prepared here, and never returns. All
    // other descriptors are closed by exec.
    unsafe {
        match sys::clone_child(None, 0)? {
            0 => {
                let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
                libc::sigemptyset(mask.as_mut_ptr());
                libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut());
                if fds.iter().all(|(from, to)| libc::dup2(*from, *to) >= 0) {
                    libc::execv(program.as_ptr(), words.as_ptr());
                }
                let errno = (*libc::__errno_location()).to_ne_bytes();
                libc::write(report.as_raw_fd(), errno.as_ptr().cast(), errno.len());
                libc::_exit(127)
            }
            pid => Ok((pid, read)),
        }
    }
}

/// Why the program was not executed, if it was not.
fn failure(report: &OwnedFd) -> Option<io::Error> {
    let mut errno = [0; size_of::<i32>()];
    let told = matches!(sys::read_now(report, &mut errno), Ok(Some(count)) if count == errno.len());
    told.then(|| io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
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
