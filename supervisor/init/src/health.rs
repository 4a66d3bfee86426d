//! Health probes: asks, and reports each outcome to the engine exactly once.
//!
//! Nothing here waits in the event loop. Sockets that do not answer at once (see [`connect`]) are
//! asked by a small task on the same thread, a command is a child in the component's cgroup, a signal
//! is looked at on the spot, and so is a file or the way to a socket where no file system has to be
//! asked (see [`crate::lookup`]). How long a probe may take is the engine's business, which cancels
//! it: a task is dropped with its socket or its child, a command is killed with its process group.

mod connect;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tracing::error;
use yakiros_core::component::{Check, Component, HttpTarget};
use yakiros_core::engine::{Event, ProbeId, RunId};
use yakiros_core::journal::Exit;

use crate::health::connect::Attempt;
use crate::lookup;
use crate::reexec::Luggage;
use crate::spawn;
use crate::supervisor::Supervisor;
use crate::sys;

/// Bytes of an HTTP answer that are read: `HTTP/1.1 200`, which is all that counts.
const STATUS_BYTES: usize = 12;

/// A probe that is not over.
enum Running {
    /// Asks a socket.
    Task(AbortHandle),
    /// A command, and where it says why it could not be executed.
    Command { pid: i32, report: OwnedFd },
}

/// Probes that are not over.
#[derive(Default)]
pub struct Probes {
    running: HashMap<ProbeId, Running>,
}

impl Probes {
    /// Commands that run, for the next process image: their processes go on.
    pub fn pass(&self) -> Vec<(ProbeId, i32, RawFd)> {
        let running = self.running.iter();
        let commands = running.filter_map(|(probe, running)| match running {
            Running::Command { pid, report } => Some((*probe, *pid, report.as_raw_fd())),
            Running::Task(_) => None,
        });
        commands.collect()
    }
}

/// Take over the commands of the process image before. One whose report was lost is ended, and the
/// engine asks for its probe again.
pub fn take_over(supervisor: &Supervisor, passed: Vec<(ProbeId, i32, RawFd)>, luggage: &mut Luggage) {
    for (probe, pid, fd) in passed {
        match luggage.pipe(fd) {
            Ok(report) => keep(supervisor, probe, Running::Command { pid, report }),
            Err(error) => {
                error!("the command of a health probe was lost on the way and is ended: {error}");
                supervisor.processes.borrow_mut().disown(pid);
            }
        }
    }
}

type Outcome = Result<(), Rc<str>>;

/// Ask.
pub fn begin(supervisor: &Rc<Supervisor>, probe: ProbeId, run: RunId, component: &Rc<Component>) {
    let Some(health) = &component.lifecycle.health else {
        return over(supervisor, probe, Ok(()));
    };
    let check = &health.check;
    let task = |question| {
        let task = spawn_local(ask(Rc::clone(supervisor), probe, Rc::clone(component), question));
        keep(supervisor, probe, Running::Task(task.abort_handle()));
    };
    match check {
        Check::File(path) => match supervisor.lookups.open(Path::new(path)) {
            Some(found) => over(supervisor, probe, found.map(drop).map_err(|error| reason(check, &error))),
            None => task(Question::Path(lookup::Question::Look, path.clone())),
        },
        Check::Signal(signal) => {
            let came = supervisor.processes.borrow_mut().has_beaten(run, signal.0);
            let interval = health.interval;
            let missing = || format!("{check}: did not come within {interval:?}").into();
            over(supervisor, probe, came.then_some(()).ok_or_else(missing));
        }
        Check::Command(command) => {
            let words = spawn::words(command);
            let started = supervisor.processes.borrow_mut().check(probe, run, &words);
            match started {
                Ok((pid, report)) => keep(supervisor, probe, Running::Command { pid, report }),
                Err(error) => over(supervisor, probe, Err(reason(check, &error))),
            }
        }
        Check::Http(target) => task(Question::Http(target.clone())),
        Check::Tcp(address) => match connect::tcp(*address) {
            Attempt::Over(answer) => over(supervisor, probe, answer.map_err(|error| reason(check, &error))),
            Attempt::Pending(socket) => task(Question::Connection(socket)),
        },
        Check::Unix(path) => {
            let found = supervisor.lookups.open(Path::new(path));
            match found
                .map(|found| found.map_or_else(|error| Attempt::Over(Err(error)), |fd| connect::unix(&fd)))
            {
                Some(Attempt::Over(answer)) => {
                    over(supervisor, probe, answer.map_err(|error| reason(check, &error)));
                }
                Some(Attempt::Pending(socket)) => task(Question::Connection(socket)),
                None => task(Question::Path(lookup::Question::Connect, path.clone())),
            }
        }
    }
}

/// End a probe. The end of a command is reported when it is reaped.
pub fn cancel(supervisor: &Rc<Supervisor>, probe: ProbeId) {
    let mut probes = supervisor.probes.borrow_mut();
    match probes.running.get(&probe) {
        Some(Running::Command { pid, .. }) => {
            sys::end_child(Pid::from_raw(*pid));
        }
        Some(Running::Task(task)) => {
            task.abort();
            probes.running.remove(&probe);
            drop(probes);
            over(supervisor, probe, Err("cancelled".into()));
        }
        // It is over; its outcome is on its way.
        None => {}
    }
}

/// The command of a probe has ended.
pub fn reaped(supervisor: &Rc<Supervisor>, probe: ProbeId, exit: Exit) {
    let running = supervisor.probes.borrow_mut().running.remove(&probe);
    let Some(Running::Command { report, .. }) = running else {
        return;
    };
    let outcome = spawn::outcome("health_check", Some(&report), exit);
    over(supervisor, probe, outcome);
}

fn keep(supervisor: &Supervisor, probe: ProbeId, running: Running) {
    supervisor.probes.borrow_mut().running.insert(probe, running);
}

fn over(supervisor: &Rc<Supervisor>, probe: ProbeId, outcome: Outcome) {
    supervisor.dispatch(Event::Probed { probe, outcome });
}

fn reason(check: &Check, error: &io::Error) -> Rc<str> {
    format!("{check}: {error}").into()
}

/// What is asked of a socket or a file system.
enum Question {
    /// Whether the connection that is under way comes to stand.
    Connection(OwnedFd),
    Http(HttpTarget),
    /// What is at a path, when that takes a child.
    Path(lookup::Question, String),
}

async fn ask(supervisor: Rc<Supervisor>, probe: ProbeId, component: Rc<Component>, question: Question) {
    let answer = match question {
        Question::Connection(socket) => finish(socket).await,
        Question::Http(target) => get(&target).await,
        Question::Path(question, path) => {
            lookup::ask(&supervisor, question, Path::new(&path)).await.map(drop)
        }
    };
    let check = component.lifecycle.health.as_ref().map(|health| &health.check);
    let outcome = match (answer, check) {
        (Err(error), Some(check)) => Err(reason(check, &error)),
        (Err(error), None) => Err(error.to_string().into()),
        (Ok(()), _) => Ok(()),
    };
    supervisor.probes.borrow_mut().running.remove(&probe);
    over(&supervisor, probe, outcome);
}

/// Wait for what becomes of a connection.
async fn finish(socket: OwnedFd) -> io::Result<()> {
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    stream.take_error()?.map_or(Ok(()), Err)
}

/// GET the target; only a status of 2xx is well.
async fn get(target: &HttpTarget) -> io::Result<()> {
    let stream = TcpStream::connect(target.address).await?;
    let HttpTarget { host, path, .. } = target;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: graph-resolver\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let mut left = request.as_bytes();
    while !left.is_empty() {
        stream.writable().await?;
        match stream.try_write(left) {
            Ok(count) => left = &left[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let mut status = [0_u8; STATUS_BYTES];
    let mut count = 0;
    while count < STATUS_BYTES {
        stream.readable().await?;
        match stream.try_read(&mut status[count..]) {
            Ok(0) => return Err(io::Error::other("the connection was closed before an answer")),
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    judge(&status)
}

/// Whether the first bytes of an answer say 2xx.
fn judge(status: &[u8; STATUS_BYTES]) -> io::Result<()> {
    let text = String::from_utf8_lossy(status);
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' ')).map(|(_, code)| code);
    // Whatever else a server sends is shown, and may be meant for a terminal.
    let code = code.filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    match code {
        Some(code) if code.starts_with('2') => Ok(()),
        Some(code) => Err(io::Error::other(format!("the server answered {code}"))),
        None => Err(io::Error::other(format!("this is no HTTP answer: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn only_2xx_is_well() {
        for (status, expected) in [
            (b"HTTP/1.1 200", ""),
            (b"HTTP/1.0 204", ""),
            (b"HTTP/1.1 503", "the server answered 503"),
            (b"HTTP/1.1 301", "the server answered 301"),
            (b"SSH-2.0-Open", "this is no HTTP answer: \"SSH-2.0-Open\""),
            (b"HTTP/1.1 \x1b[2", "this is no HTTP answer: \"HTTP/1.1 \\u{1b}[2\""),
        ] {
            let said = judge(status).map_or_else(|error| error.to_string(), |()| String::new());
            assert_eq!(said, expected);
        }
    }
}
