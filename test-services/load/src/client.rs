//! Connections that ask and log what they hear.
//!
//! In a **closed** loop a connection keeps a number of requests under way and sends the next one
//! when a reply comes; in an **open** loop requests are due at a steady rate whatever comes back,
//! and their time counts from when they were due, so a server that stalls is not spared the
//! requests that would have come meanwhile. At the end a client sends nothing more, says so to the
//! other side (half-close), and waits for all replies and for the other side's end.

mod connection;
mod target;

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::check::{Checker, Verdict};
use crate::history::{self, Kind, Record};
pub use target::Target;

/// Connections that are being established at once, unless told otherwise: more would overrun a listener's queue, and a
/// lost SYN is repeated only after a second.
pub const CONNECTING: u16 = 64;
/// How often the history is written out, so that little is lost when the client is killed.
const FLUSH: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub target: Target,
    /// Connections that ask all the time.
    pub connections: u32,
    /// Connections that ask at their begin and at their end.
    pub idle: u32,
    /// Connections that are being established at once, at least 1. Where the first reply comes early, a connection
    /// counts until then: a queue on the way may have taken it that nobody has looked into, and forgets it when more come
    /// than it can hold.
    pub connecting: u16,
    /// What these are in between.
    pub idle_state: IdleState,
    /// When requests are sent.
    pub pace: Pace,
    /// Bytes of a request, from [`SHORTEST`](crate::frame::SHORTEST) to [`LONGEST`](crate::frame::LONGEST).
    pub bytes: usize,
    /// Send each request in two halves with this pause between them.
    pub split: Option<Duration>,
    /// End a connection after so many requests, and establish another one.
    pub requests_per_connection: Option<u64>,
    /// How long to wait at the end for replies and for the other side's end.
    pub drain: Duration,
    /// Make this file when all connections have their first reply, and idle ones are in their state.
    pub ready_file: Option<PathBuf>,
}

/// What a connection is that does not ask all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleState {
    /// Open, with nothing under way.
    Open,
    /// In the middle of its second request: the rest follows at the end.
    HalfSent,
    /// Ended in one direction ([`BURST_BYTES`] of requests were sent before), and unread in the other until the end.
    HalfClosed,
}

/// What a half-closed connection has asked for, in bytes: more than the sockets' buffers hold where these are limited
/// to 64 KiB, so that the server has some of it left.
pub const BURST_BYTES: usize = 256 << 10;

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// A connection has so many requests under way.
    Closed {
        /// How many, at least 1.
        pipeline: usize,
    },
    /// Every connection sends a request after each such time.
    Open {
        /// The time.
        interval: Duration,
    },
}

/// What has happened so far, and where it is logged.
#[derive(Default)]
struct Log {
    checker: Checker,
    file: Option<Box<dyn Write>>,
    failed: Option<io::Error>,
    next_connection: u32,
    /// Connections that are not where the load wants them, at the begin.
    unsettled: u32,
}

/// What the connections share.
struct Shared {
    load: Load,
    log: RefCell<Log>,
    connecting: Semaphore,
    stop: watch::Receiver<bool>,
}

/// Put the target under load until `stop` is done, and judge what happened. With `to`, the history
/// is written there, too.
///
/// Needs a current-thread runtime of tokio with time and I/O enabled, within a `LocalSet`.
///
/// # Errors
///
/// When the history cannot be written. What happens to connections is no error but a part of the
/// verdict.
pub async fn run(
    load: Load,
    to: Option<Box<dyn Write>>,
    stop: impl Future<Output = ()>,
) -> io::Result<Verdict> {
    let (told, stopped) = watch::channel(false);
    let count = load.connections + load.idle;
    let mut log = Log { file: to, unsettled: count, ..Log::default() };
    if let Some(file) = &mut log.file {
        history::begin(file)?;
    }
    let shared = Rc::new(Shared {
        connecting: Semaphore::new(load.connecting.into()),
        load,
        log: RefCell::new(log),
        stop: stopped,
    });
    let mut tasks = JoinSet::new();
    for place in 0..count {
        tasks.spawn_local(connection::keep(Rc::clone(&shared), place));
    }
    let mut flush = tokio::time::interval_at(Instant::now() + FLUSH, FLUSH);
    tokio::pin!(stop);
    let mut stopping = false;
    loop {
        tokio::select! {
            () = &mut stop, if !stopping => {
                stopping = true;
                // Nobody has to be listening any more.
                let _ = told.send(true);
            }
            _ = flush.tick() => shared.log.borrow_mut().flush(),
            ended = tasks.join_next() => match ended {
                Some(Ok(())) => {}
                // A panic of a task is one of the program.
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => break,
            },
        }
    }
    let mut log = shared.log.take();
    log.flush();
    match log.failed {
        Some(error) => Err(error),
        None => Ok(log.checker.finish()),
    }
}

impl Log {
    fn add(&mut self, kind: Kind, connection: u32, at: u64) {
        let record = Record { kind, connection, at };
        self.checker.add(record);
        self.write(|file| history::write(file, record));
    }

    fn flush(&mut self) {
        self.write(Write::flush);
    }

    /// The first error is kept and ends the writing, not the load.
    fn write(&mut self, write: impl FnOnce(&mut Box<dyn Write>) -> io::Result<()>) {
        if let Some(Err(error)) = self.file.as_mut().map(write) {
            self.failed = Some(error);
            self.file = None;
        }
    }
}

impl Shared {
    fn log(&self, kind: Kind, connection: u32) {
        self.log_at(kind, connection, history::now());
    }

    fn log_at(&self, kind: Kind, connection: u32, at: u64) {
        self.log.borrow_mut().add(kind, connection, at);
    }

    /// One more connection is where the load wants it.
    fn settled(&self) {
        let mut log = self.log.borrow_mut();
        log.unsettled = log.unsettled.saturating_sub(1);
        if log.unsettled == 0
            && let Some(path) = &self.load.ready_file
            && let Err(error) = fs::write(path, "")
        {
            log.failed.get_or_insert(error);
        }
    }

    fn next_connection(&self) -> u32 {
        let mut log = self.log.borrow_mut();
        log.next_connection += 1;
        log.next_connection - 1
    }
}
