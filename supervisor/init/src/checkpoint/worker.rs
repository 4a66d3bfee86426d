//! One child that carries out one order, and what it says of it.
//!
//! The order goes through a pipe that holds all of it, and what is said comes through another, of which so much is read at
//! once and no line kept that is longer than any that matters. A value that is dropped kills its child. One that waits for
//! the word to go on hears first that there will be none, for it has to let go who waits for what it would have made.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::sleep;
use yakiros_checkpoint::criu::Known;
use yakiros_checkpoint::order::{Event, Go, Job, Line, Order, VERSION};
use yakiros_core::journal::Exit;

use super::SLACK;
use crate::processes;
use crate::spawn;
use crate::supervisor::Supervisor;
use crate::sys;

/// The number that the order has in the child; what else it is given follows.
const ORDER_FD: RawFd = spawn::FIRST_FD;

/// Most bytes of an order: it has to fit into a pipe together with the word to go on.
const ORDER_ROOM: usize = 32 << 10;

/// Longest line that is kept, in bytes: that with the figures. Of those that may be longer, what it found in the way, none
/// is needed here.
const LINE_ROOM: usize = 16 << 10;

/// Most lines of one child: some thirty of each step, with as many rounds as there may be.
const LINES: usize = 1024;

/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// Most characters that are told of what is no line of the protocol.
const NOISE: usize = 200;

/// Children that are not reaped.
#[derive(Default)]
pub struct Workers {
    all: RefCell<HashMap<u64, (i32, oneshot::Sender<Exit>)>>,
    last: Cell<u64>,
    /// Components for which one was at work that did not come to its end.
    lost: RefCell<BTreeSet<Rc<str>>>,
}

impl Workers {
    /// One was reaped.
    pub fn ended(&self, number: u64, exit: Exit) {
        if let Some((_, waits)) = self.all.borrow_mut().remove(&number) {
            // Nobody may wait for it any more.
            let _ = waits.send(exit);
        }
    }

    /// All of them.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<_> = self.all.borrow().values().map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids
    }

    /// Whether one did not come to its end that was at work for a component, since this was asked the last time.
    pub fn was_lost(&self, component: &str) -> bool {
        self.lost.borrow_mut().remove(component)
    }

    fn kill(&self, number: u64) {
        if let Some((pid, _)) = self.all.borrow().get(&number) {
            // It is not reaped, or it would not be among them: the number is its own. What it was about to make goes with it.
            processes::end_family(*pid);
            sys::end_child(Pid::from_raw(*pid));
        }
    }
}

/// See the module documentation.
pub struct Worker {
    number: u64,
    component: Rc<str>,
    /// It has told what came of its work.
    told: bool,
    workers: Rc<Workers>,
    known: Rc<RefCell<Option<Known>>>,
    ear: OwnedFd,
    voice: Voice,
    /// Where it is told why it could not be executed.
    report: OwnedFd,
    exit: oneshot::Receiver<Exit>,
    /// It has to do something before its end: it waits for the word, or will do so.
    waits: bool,
    /// To who kills it later.
    later: Option<oneshot::Sender<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.told {
            self.workers.lost.borrow_mut().insert(Rc::clone(&self.component));
        }
        let later = self.later.take().filter(|_| self.waits);
        if later.is_none_or(|later| later.send(()).is_err()) {
            self.workers.kill(self.number);
        }
    }
}

impl Worker {
    /// Start one for a component, with an order in a store and descriptors, which are at [`given_at`] and behind.
    pub fn start(
        supervisor: &Rc<Supervisor>,
        component: &str,
        (base, job): (PathBuf, Job),
        given: &[RawFd],
    ) -> Result<Self, Rc<str>> {
        let own = &supervisor.checkpoints;
        let known = own.known.borrow().clone();
        let order = Order { version: VERSION, base, known, job };
        let failed = |error: io::Error| Rc::from(format!("failed to start the worker: {error}"));
        let begin = || {
            let (order_read, ear) = sys::pipe()?;
            // The child waits for it.
            fcntl(&order_read, FcntlArg::F_SETFL(OFlag::O_RDONLY))?;
            fcntl(&ear, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK))?;
            say(&ear, &order)?;
            let (voice, voice_write) = sys::pipe()?;
            let given: Vec<_> = [order_read.as_raw_fd()].into_iter().chain(given.iter().copied()).collect();
            let program = own.places.program.to_string_lossy();
            let number = own.workers.last.get() + 1;
            own.workers.last.set(number);
            let words = [&*program, "--order", &ORDER_FD.to_string()].map(str::to_owned);
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let mut processes = supervisor.processes.borrow_mut();
            let (pid, report) = processes.start_worker(component, &words, &voice_write, &given, number)?;
            let (sender, exit) = oneshot::channel();
            own.workers.all.borrow_mut().insert(number, (pid, sender));
            let voice = Voice::new(sys::watch(voice)?);
            let (workers, later) = (Rc::clone(&own.workers), Some(kill_later(&own.workers, number, SLACK)));
            let component = Rc::from(component);
            Ok(Self {
                number,
                component,
                told: false,
                workers,
                known: Rc::clone(&own.known),
                ear,
                voice,
                report,
                exit,
                waits: false,
                later,
            })
        };
        begin().map_err(failed)
    }

    /// The next thing that it says; or why it does not.
    pub async fn next(&mut self) -> Result<Event, Rc<str>> {
        match self.voice.next().await {
            Some(Ok(event)) => {
                match &event {
                    Event::Known { known } => *self.known.borrow_mut() = Some(known.clone()),
                    Event::Written { .. } | Event::Waiting { .. } | Event::Closed { .. } => self.waits = true,
                    Event::Done { .. } | Event::Failed { .. } => (self.waits, self.told) = (false, true),
                    _ => {}
                }
                Ok(event)
            }
            Some(Err(why)) => Err(why),
            None => {
                let exit = (&mut self.exit).await.unwrap_or(Exit::Signal(nix::libc::SIGKILL));
                let told = spawn::outcome("the worker", Some(&self.report), exit);
                let mut why = match told {
                    Ok(()) => "the worker ended without a word".to_owned(),
                    Err(why) => why.to_string(),
                };
                if !self.voice.noise.is_empty() {
                    why = format!("{why}: {}", self.voice.noise);
                }
                Err(why.into())
            }
        }
    }

    /// Tell it to go on.
    pub fn go(&mut self, go: &Go) -> Result<(), Rc<str>> {
        say(&self.ear, go).map_err(|error| format!("failed to tell the worker to go on: {error}"))?;
        self.waits = false;
        Ok(())
    }

    /// Hear the rest of what it has to say.
    pub async fn finish(mut self) -> Result<(), Rc<str>> {
        loop {
            match self.next().await? {
                Event::Done { .. } => return Ok(()),
                Event::Failed { reason, .. } => return Err(reason.into()),
                _ => {}
            }
        }
    }
}

/// Kill a child so long after this is told.
fn kill_later(workers: &Rc<Workers>, number: u64, time: Duration) -> oneshot::Sender<()> {
    let (later, told) = oneshot::channel();
    let workers = Rc::clone(workers);
    spawn_local(async move {
        if told.await.is_ok() {
            sleep(time).await;
            workers.kill(number);
        }
    });
    later
}

/// The number in the child of the first descriptor that is given to it, and of the next.
pub fn given_at(place: usize) -> i32 {
    ORDER_FD + 1 + i32::try_from(place).unwrap_or(i32::MAX - ORDER_FD - 1)
}

/// A line into a pipe that has room for it.
fn say<T: Serialize>(ear: &OwnedFd, what: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    if line.len() > ORDER_ROOM {
        return Err(io::Error::other(format!("an order of more than {ORDER_ROOM} bytes")));
    }
    match nix::unistd::write(ear, &line)? {
        count if count == line.len() => Ok(()),
        _ => Err(io::Error::other("it does not listen")),
    }
}

/// Lines from a child.
struct Voice {
    pipe: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
    /// The line that is being read is too long, and left out.
    skipping: bool,
    lines: usize,
    /// The last line that was none of the protocol, cut off.
    noise: String,
}

impl Voice {
    fn new(pipe: AsyncFd<OwnedFd>) -> Self {
        Self { pipe, buffer: Vec::new(), skipping: false, lines: 0, noise: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Result<Event, Rc<str>>> {
        loop {
            while let Some(line) = self.take_line() {
                self.lines += 1;
                if self.lines > LINES {
                    return Some(Err("the worker says more than it may".into()));
                }
                match serde_json::from_slice::<Line>(&line) {
                    Ok(Line { version: VERSION, event }) => return Some(Ok(event)),
                    Ok(Line { version, .. }) => {
                        return Some(Err(format!("the worker speaks version {version}").into()));
                    }
                    // What it, or a library of its, says to people.
                    Err(_) => {
                        self.noise = String::from_utf8_lossy(&line).trim().chars().take(NOISE).collect();
                    }
                }
            }
            let mut chunk = [0; CHUNK];
            let read = loop {
                let Ok(mut ready) = self.pipe.readable().await else { return None };
                match sys::read_now(self.pipe.get_ref(), &mut chunk) {
                    Ok(None) => ready.clear_ready(),
                    Ok(Some(count)) => break count,
                    Err(_) => return None,
                }
            };
            if read == 0 {
                return None;
            }
            self.take(&chunk[..read]);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > LINE_ROOM && !self.buffer.contains(&b'\n') {
            self.buffer.clear();
            self.skipping = true;
        }
    }

    /// A whole line, without its end.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = memchr::memchr(b'\n', &self.buffer)?;
            let mut line: Vec<_> = self.buffer.drain(..=end).collect();
            line.pop();
            if !std::mem::take(&mut self.skipping) {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::in_event_loop;

    /// What is heard of these bytes, said at once.
    fn heard(parts: &[&[u8]]) -> Vec<String> {
        let (read, write) = sys::pipe().expect("a pipe");
        let (sender, receiver) = std::sync::mpsc::channel();
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let speaker = std::thread::spawn(move || {
            for part in parts {
                nix::unistd::write(&write, &part).expect("it is read");
            }
        });
        in_event_loop(async move || {
            let mut voice = Voice::new(sys::watch(read).expect("a pipe"));
            while let Some(said) = voice.next().await {
                let text = said.map_or_else(|why| why.to_string(), |event| format!("{event:?}"));
                sender.send(text).expect("somebody waits");
            }
            sender.send(format!("end: {}", voice.noise)).expect("somebody waits");
        });
        speaker.join().expect("all was said");
        receiver.into_iter().collect()
    }

    #[test]
    fn lines_are_read_as_they_come_and_those_that_are_too_long_are_left_out() {
        let line = br#"{"version":1,"event":{"restored":{"pid":7}}}"#;
        let expected = "Restored { pid: 7 }";
        let split = [&line[..9], &line[9..], b"\n"];
        assert_eq!(heard(&split), [expected, "end: "]);
        let long = vec![b'x'; LINE_ROOM + 1];
        assert_eq!(heard(&[&long, &long, b"yy\n", line, b"\nwhat?\n", line]), [expected, "end: what?"]);
        let other = br#"{"version":9,"event":{"restored":{"pid":7}}}"#;
        assert_eq!(heard(&[other, b"\n"]), ["the worker speaks version 9", "end: "]);
    }

    #[test]
    fn who_waits_for_the_word_hears_that_there_is_none_before_it_is_killed() {
        use std::os::unix::process::ExitStatusExt as _;
        for waits in [true, false] {
            in_event_loop(async move || {
                let (listens, ear) = sys::pipe().expect("a pipe");
                fcntl(&listens, FcntlArg::F_SETFL(OFlag::O_RDONLY)).expect("it waits");
                let (voice, speaks) = sys::pipe().expect("a pipe");
                let (report, _) = sys::pipe().expect("a pipe");
                // It does something before its end.
                let mut command = std::process::Command::new("/bin/sh");
                command.args(["-c", "read word; sleep 0.2; exit 7"]).stdin(listens).stdout(speaks);
                let mut child = command.spawn().expect("a shell");
                drop(command);
                let (workers, number) = (Rc::new(Workers::default()), 1);
                let (sender, exit) = oneshot::channel();
                let pid = i32::try_from(child.id()).expect("a number");
                workers.all.borrow_mut().insert(number, (pid, sender));
                let later = Some(kill_later(&workers, number, SLACK));
                let voice = Voice::new(sys::watch(voice).expect("a pipe"));
                let component = Rc::from("web");
                drop(Worker {
                    number,
                    component,
                    told: false,
                    workers: Rc::clone(&workers),
                    known: Rc::default(),
                    ear,
                    voice,
                    report,
                    exit,
                    waits,
                    later,
                });
                let end = tokio::time::Instant::now() + SLACK / 2;
                let status = loop {
                    if let Some(status) = child.try_wait().expect("a child") {
                        break status;
                    }
                    assert!(tokio::time::Instant::now() < end, "it goes on");
                    sleep(Duration::from_millis(1)).await;
                };
                let expected = if waits { (Some(7), None) } else { (None, Some(nix::libc::SIGKILL)) };
                assert_eq!((status.code(), status.signal()), expected);
            });
        }
    }

    #[test]
    fn who_does_not_go_is_killed_all_the_same() {
        in_event_loop(async || {
            let mut child = std::process::Command::new("/bin/sleep").arg("10").spawn().expect("sleep");
            let (workers, number) = (Rc::new(Workers::default()), 1);
            let pid = i32::try_from(child.id()).expect("a number");
            workers.all.borrow_mut().insert(number, (pid, oneshot::channel().0));
            let time = Duration::from_millis(10);
            kill_later(&workers, number, time).send(()).expect("it is heard");
            sleep(time * 2).await;
            assert!(!child.wait().expect("its end").success());
        });
    }

    #[test]
    fn nobody_is_listened_to_for_ever() {
        let line = b"{\"version\":1,\"event\":{\"restored\":{\"pid\":7}}}\n".repeat(LINES + 1);
        let heard = heard(&[&line]);
        assert_eq!(heard[LINES], "the worker says more than it may");
    }
}
