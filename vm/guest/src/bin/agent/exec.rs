//! Running programs, with pipes or on a terminal.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use yakiros_guest::frame::Kind;
use yakiros_guest::protocol::{Exec, ExitStatus, GuestError, Reply, Started, WindowSize};

use crate::error::{invalid, system};
use crate::port;
use crate::stream::{Input, Output, Stream};

/// After the program has ended, something that it left behind may hold its output open for ever. It is waited for as
/// long as anything comes within this time.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// Stands for "no time-out": longer than any run.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Sessions that were begun here. What a program leaves behind stays in its session.
static SESSIONS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program to its end.
pub fn run(exec: &Exec, stream: &Stream) -> Result<Reply, GuestError> {
    let Some((program, arguments)) = exec.argv.split_first() else {
        return Err(invalid("run a program: no name was given".into()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", DEFAULT_PATH).envs(exec.env.iter().cloned());
    command.current_dir(exec.cwd.as_deref().unwrap_or("/"));
    let running = match exec.terminal {
        Some(size) => on_terminal(&mut command, size, stream),
        None => on_pipes(&mut command, exec.stdin, stream),
    }
    .map_err(|error| system(&format!("run {program}"), &error))?;
    let status = watch(running, exec.timeout_ms.map(Duration::from_millis), stream);
    Ok(Reply::Exited(status))
}

/// A program and the threads that carry its output.
struct Running {
    group: Pid,
    input: Option<Box<dyn Write + Send>>,
    terminal: Option<OwnedFd>,
    outputs: usize,
}

fn on_pipes(command: &mut Command, stdin: bool, stream: &Stream) -> io::Result<Running> {
    command.stdin(if stdin { Stdio::piped() } else { empty_input()? });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: `become_leader` only makes system calls that are safe after fork.
    unsafe { command.pre_exec(become_leader) };
    let mut child = command.spawn()?;
    let input = child.stdin.take().map(|pipe| Box::new(pipe) as Box<dyn Write + Send>);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let group = announce(&child, stream)?;
    let mut outputs = 0;
    if let Some(pipe) = stdout {
        outputs += 1;
        carry(pipe, Kind::Data, stream);
    }
    if let Some(pipe) = stderr {
        outputs += 1;
        carry(pipe, Kind::ErrorData, stream);
    }
    report_exit(child, stream.to_self.clone());
    Ok(Running { group, input, terminal: None, outputs })
}

/// Reads as closed at once. Not /dev/null: an init that has not mounted /dev yet has none.
fn empty_input() -> io::Result<Stdio> {
    let (reader, _writer) = io::pipe()?;
    Ok(reader.into())
}

fn on_terminal(command: &mut Command, size: WindowSize, stream: &Stream) -> io::Result<Running> {
    let OpenptyResult { master, slave } = openpty(Some(&winsize(size)), None)?;
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    // SAFETY: both functions only make system calls that are safe after fork.
    unsafe { command.pre_exec(|| become_leader().and_then(|()| take_terminal())) };
    let child = command.spawn()?;
    // The command holds the terminal's other end; while it does, the master never reads as closed.
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let group = announce(&child, stream)?;
    carry(File::from(master.try_clone()?), Kind::Data, stream);
    report_exit(child, stream.to_self.clone());
    let input = Box::new(File::from(master.try_clone()?));
    Ok(Running { group, input: Some(input), terminal: Some(master), outputs: 1 })
}

fn announce(child: &Child, stream: &Stream) -> io::Result<Pid> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    sessions().insert(pid);
    stream.output.started(Started::Exec { pid })?;
    Ok(Pid::from_raw(pid))
}

/// Whether a session is one of a program that was run here.
pub fn began_session(session: i32) -> bool {
    sessions().contains(&session)
}

fn sessions() -> MutexGuard<'static, BTreeSet<i32>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the child: a session of its own, and the usual place in the OOM killer's list.
fn become_leader() -> io::Result<()> {
    nix::unistd::setsid()?;
    // The path is missing while /proc is not mounted; the program then keeps the agent's protection.
    // SAFETY: open, write and close are safe after fork, and the pointers are to static bytes.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
    Ok(())
}

/// In the child: makes standard input the controlling terminal.
fn take_terminal() -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer and touches no memory.
    let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn carry(mut from: impl Read + Send + 'static, kind: Kind, stream: &Stream) {
    let (output, closed) = (stream.output.clone(), stream.to_self.clone());
    std::thread::spawn(move || {
        copy(&mut from, kind, &output);
        drop(closed.send(Input::OutputClosed));
    });
}

fn copy(from: &mut impl Read, kind: Kind, output: &Output) {
    let mut buffer = port::payload_buffer();
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal whose last user has gone reads as EIO.
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if output.send(kind, buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        }
    }
}

fn report_exit(mut child: Child, to: SyncSender<Input>) {
    std::thread::spawn(move || {
        let status = match child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => ExitStatus::Code(code),
                (None, signal) => ExitStatus::Signal(signal.unwrap_or_default()),
            },
            Err(_) => ExitStatus::Signal(0), // PID 1 has reaped it: impossible while we are its parent
        };
        drop(to.send(Input::Exited(status)));
    });
}

/// Feeds the program and waits for its end, then for the end of its output.
fn watch(mut running: Running, timeout: Option<Duration>, stream: &Stream) -> ExitStatus {
    let mut deadline = Instant::now() + timeout.unwrap_or(FOREVER);
    let mut killed_for = None;
    let mut ended = None;
    let mut sent = 0;
    loop {
        if let (Some(status), 0) = (ended, running.outputs) {
            return killed_for.unwrap_or(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match stream.input.recv_timeout(left) {
            Ok(Input::Exited(status)) => {
                ended = Some(status);
                running.input = None;
                deadline = Instant::now() + DRAIN_LIMIT;
            }
            Ok(Input::OutputClosed) => running.outputs -= 1,
            Ok(Input::Data(bytes)) => {
                if running.input.as_mut().is_some_and(|input| input.write_all(&bytes).is_err()) {
                    running.input = None; // it has closed its end
                }
            }
            Ok(Input::End) => running.input = None,
            Ok(Input::Resize(size)) => resize(&running, size),
            Ok(Input::Cancel) => {
                killed_for = Some(ExitStatus::Cancelled);
                kill(&running, ended);
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = ended {
                    let now = stream.output.sent();
                    if now == sent {
                        return killed_for.unwrap_or(status);
                    }
                    sent = now;
                    deadline = Instant::now() + DRAIN_LIMIT;
                    continue;
                }
                killed_for.get_or_insert(ExitStatus::TimedOut);
                kill(&running, ended);
                deadline = Instant::now() + DRAIN_LIMIT;
            }
            // Cannot happen: the stream itself holds a sender.
            Err(RecvTimeoutError::Disconnected) => return ExitStatus::Cancelled,
        }
    }
}

fn kill(running: &Running, ended: Option<ExitStatus>) {
    // Once it has been waited for, its number may belong to somebody else.
    if ended.is_none() {
        let _gone_already = killpg(running.group, Signal::SIGKILL);
    }
}

fn resize(running: &Running, size: WindowSize) {
    use std::os::fd::AsRawFd;
    if let Some(terminal) = &running.terminal {
        let size = winsize(size);
        // SAFETY: the descriptor is open and TIOCSWINSZ reads one `winsize`.
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}
