//! The host's end of the agent channel.
//!
//! One task reads the channel and hands each frame to the stream it belongs to; one task writes. A stream that is
//! dropped before its end is cancelled in the guest. When the channel closes, everything that waits fails at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use yakiros_guest::frame::{Decoder, Frame, Kind, MAX_PAYLOAD_BYTES};
use yakiros_guest::ledger::Ledger;
use yakiros_guest::protocol::{
    self, Exec, ExitStatus, Fresh, GuestError, Reply, Request, Started, WindowSize,
};

use crate::error::VmErrorKind;

/// Frames that may wait for a stream's reader before the whole channel is held up.
const STREAM_FRAMES: usize = 64;
/// Frames that may wait for the channel.
const OUTGOING_FRAMES: usize = 64;
/// Output kept of one program; the rest is dropped and marked.
const MAX_OUTPUT_BYTES: usize = 16 * 1024 * 1024;
/// Added to a request's own limit before the host gives up on the answer.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// For requests that the agent answers at once.
const QUICK_LIMIT: Duration = Duration::from_secs(20);
/// For the bytes of a file.
const FILE_LIMIT: Duration = Duration::from_secs(60);

/// What a request came to.
pub type AgentResult<T> = Result<T, VmErrorKind>;

/// A connection to the agent of one guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Frame>,
}

#[derive(Debug)]
struct Shared {
    next: AtomicU32,
    /// `None` once the channel is closed.
    streams: Mutex<Option<HashMap<u32, mpsc::Sender<Frame>>>>,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Option<HashMap<u32, mpsc::Sender<Frame>>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a program printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, at most 16 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 16 MiB.
    pub stderr: Vec<u8>,
}

impl Output {
    /// It ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.status == ExitStatus::Code(0)
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// The guest's clocks in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Since 1970.
    pub realtime_ns: u64,
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME.
    pub boottime_ns: u64,
}

impl Agent {
    /// Takes over a connected socket. Nothing is sent until [`Agent::greet`].
    pub fn attach(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared { next: AtomicU32::new(1), streams: Mutex::new(Some(HashMap::new())) });
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
        tokio::spawn(write_frames(write, frames));
        tokio::spawn(read_frames(read, Arc::clone(&shared)));
        Self { shared, outgoing }
    }

    /// Greets with a fresh nonce and waits for its echo; gives the guest's kernel release.
    ///
    /// Whatever the channel still held from an earlier life of the guest is gone afterwards.
    pub async fn greet(&self, nonce: u64, fresh: Option<Fresh>, limit: Duration) -> AgentResult<String> {
        let version = protocol::VERSION;
        match self.ask(&Request::Hello { version, nonce, fresh }, limit).await? {
            Reply::Hello { nonce: echoed, kernel_release } if echoed == nonce => Ok(kernel_release),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a program to its end. Its own time-out, if it has one, is enforced in the guest.
    pub async fn exec(&self, exec: Exec) -> AgentResult<Output> {
        let limit = exec.timeout_ms.map(|limit| Duration::from_millis(limit) + ANSWER_GRACE);
        let stream = self.open(&Request::Exec(exec)).await?;
        let mut program = Program { stream };
        match limit {
            Some(limit) => in_time(limit, program.output()).await,
            None => program.output().await,
        }
    }

    /// Starts a program whose output is to be read while it runs.
    pub async fn start(&self, exec: Exec) -> AgentResult<Program> {
        Ok(Program { stream: self.open(&Request::Exec(exec)).await? })
    }

    /// Writes a file with these permission bits; atomically means by rename.
    pub async fn write_file(&self, path: &str, mode: u32, atomic: bool, content: &[u8]) -> AgentResult<()> {
        let request = Request::WriteFile { path: path.into(), mode, atomic };
        let exchange = async {
            let mut stream = self.open(&request).await?;
            for piece in content.chunks(MAX_PAYLOAD_BYTES) {
                stream.send(Kind::Data, piece.to_vec()).await?;
            }
            stream.send(Kind::End, Vec::new()).await?;
            stream.reply(|_| Ok(())).await
        };
        match in_time(FILE_LIMIT, exchange).await? {
            Reply::Written { bytes } if bytes == content.len() as u64 => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads a file, at most 16 MiB of it.
    pub async fn read_file(&self, path: &str) -> AgentResult<Vec<u8>> {
        let request = Request::ReadFile { path: path.into(), limit_bytes: MAX_OUTPUT_BYTES as u64 };
        let mut content = Vec::new();
        let exchange = async {
            let mut stream = self.open(&request).await?;
            stream
                .reply(|frame| {
                    content.extend_from_slice(&frame.payload);
                    Ok(())
                })
                .await
        };
        in_time(FILE_LIMIT, exchange).await?;
        Ok(content)
    }

    /// Waits until a path exists, or with `absent` until it is gone.
    pub async fn wait_path(&self, path: &str, absent: bool, limit: Duration) -> AgentResult<Duration> {
        let request = Request::WaitPath { path: path.into(), absent, timeout_ms: limit.as_millis() as u64 };
        match self.ask(&request, limit + ANSWER_GRACE).await? {
            Reply::Waited { elapsed_ms } => Ok(Duration::from_millis(elapsed_ms)),
            other => Err(unexpected(&other)),
        }
    }

    /// kill(2) in the guest; signal 0 only asks.
    pub async fn signal(&self, pid: i32, signal: i32) -> AgentResult<()> {
        match self.ask(&Request::Signal { pid, signal }, QUICK_LIMIT).await? {
            Reply::Signalled => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Connects to an address from inside the guest.
    pub async fn tcp_connect(&self, address: &str, limit: Duration) -> AgentResult<Connection> {
        let request = Request::TcpConnect { address: address.into(), timeout_ms: limit.as_millis() as u64 };
        let mut stream = self.open(&request).await?;
        in_time(limit + ANSWER_GRACE, async {
            let frame = stream.next().await?;
            match frame.kind {
                Kind::Started => Ok(()),
                Kind::Done => Err(done(&frame).err().unwrap_or_else(|| lost("the connection ended at once"))),
                other => Err(lost(&format!("unexpected frame {other:?}"))),
            }
        })
        .await?;
        Ok(Connection { stream })
    }

    /// Reads the guest's clocks, after setting the wall clock if asked.
    pub async fn clock(&self, set_realtime_ns: Option<u64>) -> AgentResult<Clock> {
        match self.ask(&Request::Clock { set_realtime_ns }, QUICK_LIMIT).await? {
            Reply::Clock { realtime_ns, monotonic_ns, boottime_ns } => {
                Ok(Clock { realtime_ns, monotonic_ns, boottime_ns })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Counts what there is in the guest.
    pub async fn ledger(&self) -> AgentResult<Ledger> {
        let mut text = Vec::new();
        let exchange = async {
            let mut stream = self.open(&Request::Ledger).await?;
            stream
                .reply(|frame| {
                    text.extend_from_slice(&frame.payload);
                    Ok(())
                })
                .await
        };
        match in_time(QUICK_LIMIT, exchange).await? {
            Reply::Counted { bytes } if bytes == text.len() as u64 => {
                serde_json::from_slice(&text).map_err(|error| lost(&format!("unreadable ledger: {error}")))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Begins the end of the guest; the end itself shows in QEMU's.
    pub async fn shutdown(&self, how: protocol::Shutdown) -> AgentResult<()> {
        match self.ask(&Request::Shutdown(how), QUICK_LIMIT).await? {
            Reply::ShuttingDown => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        self.shared.streams().as_ref().is_some_and(HashMap::is_empty)
    }

    async fn ask(&self, request: &Request, limit: Duration) -> AgentResult<Reply> {
        in_time(limit, async {
            let mut stream = self.open(request).await?;
            stream.reply(|_| Ok(())).await
        })
        .await
    }

    async fn open(&self, request: &Request) -> AgentResult<Stream> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, incoming) = mpsc::channel(STREAM_FRAMES);
        match self.shared.streams().as_mut() {
            Some(streams) => drop(streams.insert(id, sender)),
            None => return Err(lost("the channel is closed")),
        }
        let stream = Stream {
            id,
            incoming,
            outgoing: self.outgoing.clone(),
            shared: Arc::clone(&self.shared),
            ended: false,
        };
        let payload = serde_json::to_vec(request).map_err(|error| lost(&error.to_string()))?;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(lost("the request is longer than a frame"));
        }
        stream.send(Kind::Open, payload).await?;
        Ok(stream)
    }
}

/// One request under way.
#[derive(Debug)]
struct Stream {
    id: u32,
    incoming: mpsc::Receiver<Frame>,
    outgoing: mpsc::Sender<Frame>,
    shared: Arc<Shared>,
    ended: bool,
}

impl Stream {
    async fn send(&self, kind: Kind, payload: Vec<u8>) -> AgentResult<()> {
        let frame = Frame { kind, stream: self.id, payload };
        self.outgoing.send(frame).await.map_err(|_| lost("the channel is closed"))
    }

    async fn next(&mut self) -> AgentResult<Frame> {
        let frame = self.incoming.recv().await.ok_or_else(|| lost("the channel closed before the answer"))?;
        self.ended |= frame.kind == Kind::Done;
        Ok(frame)
    }

    /// Reads to the end; data frames go to `data`.
    async fn reply(&mut self, mut data: impl FnMut(Frame) -> AgentResult<()>) -> AgentResult<Reply> {
        loop {
            let frame = self.next().await?;
            match frame.kind {
                Kind::Done => return done(&frame),
                Kind::Data | Kind::ErrorData => data(frame)?,
                _ => {}
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(streams) = self.shared.streams().as_mut() {
            streams.remove(&self.id);
        }
        if !self.ended {
            // If there is no room the guest ends the stream when the machine ends; nobody waits for it any more.
            drop(self.outgoing.try_send(Frame { kind: Kind::Cancel, stream: self.id, payload: Vec::new() }));
        }
    }
}

/// A program that runs in the guest. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    stream: Stream,
}

/// What a running program does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramEvent {
    /// It runs, with this pid.
    Started(i32),
    /// Bytes of standard output, or of the terminal.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// It has ended. Nothing follows.
    Exited(ExitStatus),
}

impl Program {
    /// What it does next.
    pub async fn next(&mut self) -> AgentResult<ProgramEvent> {
        loop {
            let frame = self.stream.next().await?;
            return Ok(match frame.kind {
                Kind::Started => match serde_json::from_slice(&frame.payload) {
                    Ok(Started::Exec { pid }) => ProgramEvent::Started(pid),
                    other => return Err(lost(&format!("unexpected start: {other:?}"))),
                },
                Kind::Data => ProgramEvent::Stdout(frame.payload),
                Kind::ErrorData => ProgramEvent::Stderr(frame.payload),
                Kind::Done => match done(&frame)? {
                    Reply::Exited(status) => ProgramEvent::Exited(status),
                    other => return Err(unexpected(&other)),
                },
                _ => continue,
            });
        }
    }

    /// A handle that types into it, usable while [`Program::next`] is awaited elsewhere.
    pub fn keyboard(&self) -> Keyboard {
        Keyboard { id: self.stream.id, outgoing: self.stream.outgoing.clone() }
    }

    async fn output(&mut self) -> AgentResult<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next().await? {
                ProgramEvent::Started(_) => {}
                ProgramEvent::Stdout(bytes) => keep(&mut stdout, &bytes),
                ProgramEvent::Stderr(bytes) => keep(&mut stderr, &bytes),
                ProgramEvent::Exited(status) => return Ok(Output { status, stdout, stderr }),
            }
        }
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    const MARK: &[u8] = b"\n[more output was dropped]\n";
    if kept.len() + bytes.len() <= MAX_OUTPUT_BYTES {
        kept.extend_from_slice(bytes);
    } else if !kept.ends_with(MARK) {
        kept.extend_from_slice(MARK);
    }
}

/// Types into a running program.
#[derive(Debug, Clone)]
pub struct Keyboard {
    id: u32,
    outgoing: mpsc::Sender<Frame>,
}

impl Keyboard {
    /// Sends bytes to its standard input.
    pub async fn type_bytes(&self, bytes: &[u8]) -> AgentResult<()> {
        for piece in bytes.chunks(MAX_PAYLOAD_BYTES) {
            self.send(Kind::Data, piece.to_vec()).await?;
        }
        Ok(())
    }

    /// Closes its standard input.
    pub async fn end(&self) -> AgentResult<()> {
        self.send(Kind::End, Vec::new()).await
    }

    /// Tells it the terminal's new size.
    pub async fn resize(&self, size: WindowSize) -> AgentResult<()> {
        self.send(Kind::Resize, serde_json::to_vec(&size).unwrap_or_default()).await
    }

    async fn send(&self, kind: Kind, payload: Vec<u8>) -> AgentResult<()> {
        let frame = Frame { kind, stream: self.id, payload };
        self.outgoing.send(frame).await.map_err(|_| lost("the channel is closed"))
    }
}

/// A TCP connection made inside the guest. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
}

impl Connection {
    /// Sends bytes.
    pub async fn send(&self, bytes: &[u8]) -> AgentResult<()> {
        for piece in bytes.chunks(MAX_PAYLOAD_BYTES) {
            self.stream.send(Kind::Data, piece.to_vec()).await?;
        }
        Ok(())
    }

    /// The next bytes, or `None` when the other side has closed.
    pub async fn receive(&mut self, limit: Duration) -> AgentResult<Option<Vec<u8>>> {
        let frame = in_time(limit, self.stream.next()).await?;
        match frame.kind {
            Kind::Data => Ok(Some(frame.payload)),
            Kind::Done => done(&frame).map(|_| None),
            other => Err(lost(&format!("unexpected frame {other:?}"))),
        }
    }
}

async fn write_frames(mut write: OwnedWriteHalf, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if write.write_all(&frame.encode()).await.is_err() {
            return; // the reader sees the end as well and tells everybody
        }
    }
}

async fn read_frames(mut read: OwnedReadHalf, shared: Arc<Shared>) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; MAX_PAYLOAD_BYTES];
    while let Ok(count @ 1..) = read.read(&mut buffer).await {
        decoder.push(&buffer[..count]);
        while let Some(frame) = decoder.next_frame() {
            let to = shared.streams().as_ref().and_then(|streams| streams.get(&frame.stream).cloned());
            if let Some(to) = to {
                // An error means that its reader has just gone.
                drop(to.send(frame).await);
            }
        }
    }
    shared.streams().take();
}

fn done(frame: &Frame) -> AgentResult<Reply> {
    let result: Result<Reply, GuestError> = serde_json::from_slice(&frame.payload)
        .map_err(|error| lost(&format!("unreadable answer: {error}")))?;
    result.map_err(VmErrorKind::Guest)
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = AgentResult<T>>) -> AgentResult<T> {
    let timed_out = |_| VmErrorKind::TimedOut { limit, console: String::new() };
    tokio::time::timeout(limit, work).await.map_err(timed_out)?
}

fn lost(message: &str) -> VmErrorKind {
    VmErrorKind::AgentLost(message.into())
}

fn unexpected(reply: &Reply) -> VmErrorKind {
    lost(&format!("unexpected answer {reply:?}"))
}
