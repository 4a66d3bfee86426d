//! Trying a program before it takes over: it is started as a child, reads a copy of the state, makes
//! an engine of it, tells what it found ([`Proof`]) and ends. An exit status of 0 alone proves nothing:
//! many a program ignores its arguments.
//!
//! The child also finds out whether the program can be executed at all, however long its file system
//! takes to say so. What it has just executed is in memory, so process 1 does not wait when it then
//! executes the same.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use yakiros_core::journal::Exit;

use super::State;
use super::image::Proof;
use super::program::{self, Program};
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

/// Bytes read of what it answers: more than a [`Proof`] has.
const ANSWER: u64 = 4096;

/// Let the program at `path` try `state`. An error says why it cannot take over.
pub(super) async fn run(supervisor: &Rc<Supervisor>, path: &Path, mut state: State) -> io::Result<Program> {
    let cannot = |why: String| io::Error::other(format!("{} cannot take over: {why}", path.display()));
    let file = state.write()?;
    let proof = state.proof(supervisor);
    let answer = sys::memory_file(c"graph-resolver-trial")?;
    let said = sys::memory_file(c"graph-resolver-trial")?;
    let (sender, ended) = oneshot::channel();
    let (pid, report) = start(path, [&file, &answer, &said]).map_err(|error| cannot(error.to_string()))?;
    supervisor.reexec.trial.replace(Some((pid, sender)));
    supervisor.processes.borrow_mut().note_trial(pid);
    // Its end is seen by whoever reaps everything.
    let Ok(Ok(exit)) = tokio::time::timeout(LIMIT, ended).await else {
        // Not reaped yet, so the number is its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        return Err(cannot(format!("it did not try the state within {LIMIT:?}")));
    };
    let program = executed(&report).map_err(|error| cannot(error.to_string()))?;
    let proven = serde_json::from_str(&text_of(answer, ANSWER)?).is_ok_and(|answer: Proof| answer == proof);
    match (exit, proven) {
        (Exit::Code(0), true) => Ok(Program::new(program, path)),
        (Exit::Code(0), false) => Err(cannot("it does not answer as one that has restored the state".into())),
        (exit, _) => {
            let text = text_of(said, SHOWN)?.trim().replace('\n', " ");
            Err(cannot(if text.is_empty() { format!("it {exit}") } else { text }))
        }
    }
}

/// What was written to a file in memory, up to a limit.
fn text_of(mut file: File, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Start the child with its standard descriptors, and wait for nothing. Through the descriptor that
/// is returned it passes the program that it opened, and then tells if that cannot be executed.
fn start(path: &Path, standard: [&File; 3]) -> io::Result<(i32, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (read, report) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let words = [WORDS[0].as_ptr(), WORDS[1].as_ptr(), ptr::null()];
    let environment = program::environment();
    let environment = environment.iter().map(|text| text.as_ptr()).chain([ptr::null()]);
    let environment: Vec<_> = environment.collect();
    let standard = standard.map(AsRawFd::as_raw_fd);
    // SAFETY: the child makes plain system calls on what is prepared here, uses no other descriptor, and
    // never returns.
    unsafe {
        match sys::clone_child(None, 0)? {
            0 => {
                let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
                libc::sigemptyset(mask.as_mut_ptr());
                libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut());
                if (0..).zip(standard).all(|(to, from)| libc::dup2(from, to) >= 0) {
                    // What others wait to see closed is not to be held while a file system does not answer.
                    sys::close_all_but(&[0, 1, 2, report.as_raw_fd()]);
                    let program = libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
                    if program >= 0 && tell(report.as_raw_fd(), 0, Some(program)) {
                        let (words, environment) = (words.as_ptr(), environment.as_ptr());
                        let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
                        libc::syscall(libc::SYS_execveat, program, empty, words, environment, flags);
                    }
                }
                tell(report.as_raw_fd(), *libc::__errno_location(), None);
                libc::_exit(127)
            }
            pid => Ok((pid, read)),
        }
    }
}

/// Room for one descriptor and its header.
type Control = [u64; 3];

/// Send a number, and a descriptor if there is one. Whether that was possible.
///
/// # Safety
/// Async-signal-safe; the descriptors must be open.
unsafe fn tell(report: RawFd, errno: i32, passed: Option<RawFd>) -> bool {
    let mut bytes = errno.to_ne_bytes();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control::default();
    // SAFETY: all zero is a valid header; its pointers are to locals that outlive the call, with their
    // sizes, and there is room for one descriptor.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        if let Some(fd) = passed {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as libc::c_uint) as _;
            libc::CMSG_DATA(first).cast::<RawFd>().write_unaligned(fd);
        }
        libc::sendmsg(report, &raw const header, libc::MSG_NOSIGNAL) >= 0
    }
}

/// The program that was executed, or why it was not.
fn executed(report: &OwnedFd) -> io::Result<OwnedFd> {
    let mut program = None;
    loop {
        let mut errno = [0; size_of::<i32>()];
        let mut control = nix::cmsg_space!(RawFd);
        let mut parts = [io::IoSliceMut::new(&mut errno)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(report.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let descriptors = message.cmsgs()?.filter_map(|passed| match passed {
            // SAFETY: they have just been received, and nobody else owns them.
            ControlMessageOwned::ScmRights(fds) => Some(unsafe { OwnedFd::from_raw_fd(*fds.first()?) }),
            _ => None,
        });
        program = descriptors.last().or(program);
        // The end, for the child has ended.
        if message.bytes == 0 {
            return program.ok_or_else(|| io::Error::other("it could not be opened"));
        }
        match i32::from_ne_bytes(errno) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// The child: a [`Proof`] and exit status 0 if the state on standard input can be used.
pub fn try_state() -> ExitCode {
    let outcome = io::stdin().as_fd().try_clone_to_owned().and_then(|fd| {
        let proof = State::read(&File::from(fd))?.try_out()?;
        Ok(serde_json::to_writer(io::stdout(), &proof)?)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
