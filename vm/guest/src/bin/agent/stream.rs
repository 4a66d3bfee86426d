//! A stream as its handler sees it: what comes in, what goes out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};

use yakiros_guest::frame::Kind;
use yakiros_guest::protocol::{ExitStatus, GuestError, Reply, Started, WindowSize};

use crate::port::Sender;

/// Frames that may wait for a stream before the port is held up. With the largest payload this is 4 MiB.
const INPUT_FRAMES: usize = 64;

/// What a stream's thread waits for.
#[derive(Debug)]
pub enum Input {
    Data(Vec<u8>),
    End,
    Resize(WindowSize),
    /// By the host, or because a new host has greeted.
    Cancel,
    /// From the stream's own helpers: the program has ended.
    Exited(ExitStatus),
    /// From the stream's own helpers: an output is at its end.
    OutputClosed,
}

/// One request's end of the channel.
#[derive(Debug)]
pub struct Stream {
    pub output: Output,
    pub input: Receiver<Input>,
    /// For helper threads that report to the stream.
    pub to_self: SyncSender<Input>,
}

/// Sends a stream's frames until it is closed; afterwards they are dropped, so that a late helper disturbs nobody.
#[derive(Debug, Clone)]
pub struct Output {
    id: u32,
    sender: Sender,
    open: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Stream {
    /// A stream and the way to feed it.
    pub fn new(output: Output) -> (Self, SyncSender<Input>) {
        let (to_self, input) = mpsc::sync_channel(INPUT_FRAMES);
        let feed = to_self.clone();
        (Self { output, input, to_self }, feed)
    }
}

impl Output {
    /// An open one.
    pub fn new(id: u32, sender: Sender) -> Self {
        Self { id, sender, open: Arc::new(AtomicBool::new(true)), sent: Arc::default() }
    }

    pub fn started(&self, started: Started) -> io::Result<()> {
        self.send(Kind::Started, json(&started))
    }

    /// Frames sent so far: whether its outputs still move.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub fn send(&self, kind: Kind, payload: Vec<u8>) -> io::Result<()> {
        self.sent.fetch_add(1, Ordering::AcqRel);
        if self.open.load(Ordering::Acquire) { self.sender.send(kind, self.id, payload) } else { Ok(()) }
    }

    /// The last frame; later ones are dropped.
    pub fn done(&self, result: &Result<Reply, GuestError>) -> io::Result<()> {
        let last = self.send(Kind::Done, json(result));
        self.open.store(false, Ordering::Release);
        last
    }

    /// It is this very stream, not another one of its number.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.open, &other.open)
    }

    /// Nobody listens any more.
    pub fn silence(&self) {
        self.open.store(false, Ordering::Release);
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec())
}
