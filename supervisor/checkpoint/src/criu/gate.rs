//! CRIU asks before it ends processes: when all is written and they are still frozen, it runs a program, and ends them
//! only if that succeeds. Otherwise it undoes what it did and lets them run on, with their connections. The same way it asks
//! before processes run that it has made: otherwise it ends them.
//!
//! That program is this one, told by [`DOOR`]: it asks the worker that started CRIU, through a socket beside CRIU's log.
//! A worker that is gone does not answer, which means no.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names the directory with the socket, in CRIU's environment.
pub const DOOR: &str = "GRAPH_CHECKPOINT_GATE";
/// What CRIU says of why it runs the program: <https://criu.org/Action_scripts>.
const ACTION: &str = "CRTOOLS_SCRIPT_ACTION";
/// When it is written, and about to be ended; when it is made, and about to run.
const ASKED: [&str; 2] = ["post-dump", "post-restore"];
/// The number of the first process.
const FIRST: &str = "CRTOOLS_INIT_PID";
/// Most bytes of it, with a newline.
const NUMBER_LIMIT: u64 = 16;
/// For a question to be read, which is sent at once.
const QUESTION: Duration = Duration::from_secs(5);
/// The socket's name.
const SOCKET: &str = "gate";
/// The answer that lets CRIU end them.
const YES: u8 = b'y';

/// What answers, by the number of the first process: whether CRIU may go on.
pub type Decide<'a> = dyn FnMut(Option<i32>) -> bool + 'a;

/// The worker's side.
#[derive(Debug)]
pub struct Gate {
    listener: UnixListener,
    work: PathBuf,
}

impl Gate {
    /// In CRIU's working directory, where nobody else can come.
    pub fn make(work: &Path) -> io::Result<Self> {
        let directory = File::open(work)?;
        let listener = UnixListener::bind(socket(&directory))?;
        // Who asks may be gone when it is answered.
        listener.set_nonblocking(true)?;
        Ok(Self { listener, work: work.to_owned() })
    }

    /// Where it is.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The program that CRIU has to run: this one, also when another has its name meanwhile.
    pub fn program() -> PathBuf {
        format!("/proc/{}/exe", std::process::id()).into()
    }

    /// Somebody asks: answer with what the work comes to. Nothing that goes wrong is answered, too.
    pub fn answer(&self, work: impl FnOnce(Option<i32>) -> bool) {
        let Ok((mut asker, _)) = self.listener.accept() else { return };
        if work(read_number(&asker)) {
            // If it is gone, CRIU is told that it failed.
            let _ = asker.write_all(&[YES]);
        }
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The line with the number.
fn read_number(asker: &UnixStream) -> Option<i32> {
    asker.set_read_timeout(Some(QUESTION)).ok()?;
    let mut line = String::new();
    BufReader::new(asker.take(NUMBER_LIMIT)).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// CRIU's side: whether it may go on.
pub fn ask(work: &OsStr) -> bool {
    if std::env::var_os(ACTION).is_none_or(|action| ASKED.iter().all(|asked| action != *asked)) {
        return true;
    }
    let ask = || {
        let directory = File::open(work)?;
        let mut answer = [0];
        let mut worker = UnixStream::connect(socket(&directory))?;
        let first = std::env::var(FIRST).unwrap_or_default();
        worker.write_all(format!("{first}\n").as_bytes())?;
        worker.read_exact(&mut answer)?;
        io::Result::Ok(answer[0])
    };
    ask().is_ok_and(|answer| answer == YES)
}

/// Short, as a socket's path must be, however long the directory's is.
fn socket(directory: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()).into()
}
