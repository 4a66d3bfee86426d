//! A TCP server that survives its own upgrades, with all its connections.
//!
//! The services that hand over share this skeleton: it accepts, reads, writes, and when the
//! supervisor asks it stops at a point where every byte is accounted for, gives listener,
//! connections and state to the next version, or serves on if the upgrade fails. A service says
//! only how requests are answered and what its state is ([`App`]).
//!
//! Everything runs on one thread: between two events nothing changes, so there is always such a
//! point.

use std::cell::RefCell;
use std::io::{self, BufWriter};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use yakiros_handoff::{Channel, Inheritance, Offer, Start, State, Verdict};

use crate::args::{Opt, Values};
use crate::{Error, ready};

/// Bytes of answers that wait to be taken before no more requests of that connection are read.
const OUTPUT_LIMIT: usize = 256 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Pause after a failed accept: without descriptors it would fail again at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// The name of the listener among what is given.
const LISTENER: &str = "listener";
/// What the names of connections begin with; their number follows.
const CONNECTION: &str = "connection-";

/// Where clients connect.
pub const LISTEN: Opt = Opt {
    name: "--listen",
    value: Some("ADDR"),
    default: Some("0.0.0.0:8080"),
    help: "address and port, 0 = any port",
};
/// How readiness is told besides `NOTIFY_FD`.
pub const READY_FILE: Opt =
    Opt { name: "--ready-file", value: Some("FILE"), default: None, help: "file to create when ready" };
/// How many clients are served at once.
pub const MAX_CLIENTS: Opt = Opt {
    name: "--max-clients",
    value: Some("N"),
    default: Some("20000"),
    help: "further connections have to wait",
};

/// What a service does with what clients send.
pub trait App {
    /// What the next version has to know besides the connections.
    type State: Serialize + DeserializeOwned;
    /// The version of that format: a next version that has another one cannot take over.
    const VERSION: u32;

    /// Take whole requests from the front of `input` and append the answers to `output`. What is
    /// left of `input` comes again, with more. [`Flow::Close`] ends the connection when all answers
    /// are taken.
    fn answer(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Flow;

    /// The state of now.
    fn state(&self) -> Self::State;

    /// Go on from there.
    fn go_on(&mut self, state: Self::State);
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Further requests may come.
    Go,
    /// No further request is read.
    Close,
}

/// A client, at a point where every byte is accounted for.
struct Client {
    stream: TcpStream,
    talk: Talk,
}

/// What was read and not answered, and what was answered and not taken.
#[derive(Default, Serialize, Deserialize)]
struct Talk {
    input: Vec<u8>,
    output: Vec<u8>,
    closing: bool,
}

/// What moves besides descriptors.
#[derive(Serialize, Deserialize)]
struct Moved<S, T> {
    app: S,
    talks: Vec<T>,
}

/// Serve until a signal to stop or the next version comes.
pub fn run<A: App + 'static>(app: A, values: &Values<'_>) -> Result<ExitCode, Error> {
    let address: SocketAddr = values.parse("--listen")?;
    let limit: usize = values.parse("--max-clients")?;
    let ready_file = values.optional_path("--ready-file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::failed("start"))?;
    let server = LocalSet::new();
    server.block_on(&runtime, async {
        let (server, clients, channel) = Server::begin(app, address, limit, ready_file).await?;
        server.serve(clients, channel).await.map_err(Error::failed("serve"))
    })
}

struct Server<A> {
    app: Rc<RefCell<A>>,
    listener: TcpListener,
    limit: usize,
}

impl<A: App + 'static> Server<A> {
    /// Alone, or as the next version of one that serves.
    async fn begin(
        mut app: A,
        address: SocketAddr,
        limit: usize,
        ready_file: Option<PathBuf>,
    ) -> Result<(Self, Vec<Client>, Channel), Error> {
        let failed = |error: yakiros_handoff::Error| Error::failed("take over")(io::Error::other(error));
        match yakiros_handoff::start().map_err(failed)? {
            Start::Fresh(channel) => {
                let listener = TcpListener::bind(address).await;
                let listener = listener.map_err(Error::failed(format!("listen on {address}")))?;
                let address = listener.local_addr().map_err(Error::failed("read the address"))?;
                println!("listening on {address}");
                ready::announce(ready_file.as_deref()).map_err(Error::failed("announce readiness"))?;
                let app = Rc::new(RefCell::new(app));
                Ok((Self { app, listener, limit }, Vec::new(), channel))
            }
            Start::Successor(successor) => {
                let generation = successor.generation();
                let (inheritance, taken) = successor.take().map_err(failed)?;
                let (listener, clients) = match take_over(&mut app, inheritance) {
                    Ok(all) => all,
                    Err(error) => {
                        taken.fail(&error.to_string()).map_err(failed)?;
                        return Err(Error::failed("take over")(error));
                    }
                };
                let app = Rc::new(RefCell::new(app));
                let channel = taken.serve().map_err(failed)?;
                println!("generation {generation} goes on with {} connections", clients.len());
                Ok((Self { app, listener, limit }, clients, channel))
            }
        }
    }

    async fn serve(self, clients: Vec<Client>, mut channel: Channel) -> io::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (halt, halted) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn_local(converse(client, Rc::clone(&self.app), halted.clone()));
        }
        loop {
            tokio::select! {
                offer = channel.offered() => {
                    let offer = offer.map_err(io::Error::other)?;
                    // The tasks listen.
                    let _ = halt.send(true);
                    let clients = gather(&mut tasks).await;
                    match self.give(offer, &clients)? {
                        Verdict::Released => return Ok(ExitCode::SUCCESS),
                        Verdict::Resume(why) => eprintln!("serving on: {why}"),
                    }
                    let _ = halt.send(false);
                    for client in clients {
                        tasks.spawn_local(converse(client, Rc::clone(&self.app), halted.clone()));
                    }
                }
                accepted = self.listener.accept(), if tasks.len() < self.limit => match accepted {
                    Ok((stream, _)) => {
                        // Small answers must not wait for more to come.
                        let _ = stream.set_nodelay(true);
                        let client = Client { stream, talk: Talk::default() };
                        tasks.spawn_local(converse(client, Rc::clone(&self.app), halted.clone()));
                    }
                    Err(error) => {
                        eprintln!("failed to accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = tasks.join_next() => drop(ended?),
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    fn give(&self, offer: Offer<'_>, clients: &[Client]) -> io::Result<Verdict> {
        let talks: Vec<&Talk> = clients.iter().map(|client| &client.talk).collect();
        let moved = Moved { app: self.app.borrow().state(), talks };
        let state = State::write(A::VERSION, |memory| {
            serde_json::to_writer(BufWriter::new(memory), &moved).map_err(io::Error::from)
        })?;
        let names: Vec<String> = (0..clients.len()).map(|number| format!("{CONNECTION}{number}")).collect();
        let streams: Vec<BorrowedFd<'_>> = clients.iter().map(|client| client.stream.as_fd()).collect();
        let listener = self.listener.as_fd();
        let items =
            std::iter::once((LISTENER, &listener)).chain(names.iter().map(String::as_str).zip(&streams));
        offer.give(items, &state).map_err(io::Error::other)
    }
}

/// What the version before has given.
fn take_over<A: App>(app: &mut A, mut inheritance: Inheritance) -> io::Result<(TcpListener, Vec<Client>)> {
    let state = &inheritance.state;
    if state.version() != A::VERSION {
        let what = format!("the state has version {}, this program knows {}", state.version(), A::VERSION);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let moved: Moved<A::State, Talk> = serde_json::from_slice(&state.bytes()?)?;
    let missing = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} is missing"));
    let listener = inheritance.remove(LISTENER).ok_or_else(|| missing(LISTENER))?;
    let streams = inheritance.remove_all(CONNECTION);
    if streams.len() != moved.talks.len() {
        return Err(missing("a connection"));
    }
    // They come in the order in which they were given.
    let clients: io::Result<Vec<Client>> = streams
        .into_iter()
        .zip(moved.talks)
        .map(|((_, stream), talk)| Ok(Client { stream: TcpStream::from_std(stream.into())?, talk }))
        .collect();
    app.go_on(moved.app);
    Ok((TcpListener::from_std(listener.into())?, clients?))
}

/// Every client that has not ended.
async fn gather(tasks: &mut JoinSet<Option<Client>>) -> Vec<Client> {
    let mut clients = Vec::new();
    while let Some(client) = tasks.join_next().await {
        match client {
            Ok(client) => clients.extend(client),
            // A panic of a task is one of the program.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    clients
}

/// Serve a client until it ends, which gives nothing, or until all are to stop.
async fn converse<A: App>(
    mut client: Client,
    app: Rc<RefCell<A>>,
    halted: watch::Receiver<bool>,
) -> Option<Client> {
    if exchange(&mut client, &app, halted).await.is_some() {
        return Some(client);
    }
    // The version before may hold a duplicate, with which closing alone would end nothing. The client may be
    // gone already.
    let _ = shutdown(client.stream.as_raw_fd(), Shutdown::Both);
    None
}

/// Answer a client. Nothing when it has ended.
async fn exchange<A: App>(
    client: &mut Client,
    app: &RefCell<A>,
    mut halted: watch::Receiver<bool>,
) -> Option<()> {
    let Client { stream, talk } = client;
    loop {
        let reads = !talk.closing && talk.output.len() < OUTPUT_LIMIT;
        let interest = match (reads, talk.output.is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, false) => Interest::WRITABLE,
            (false, true) => return None,
        };
        let ready = tokio::select! {
            biased;
            _ = halted.wait_for(|halted| *halted) => return Some(()),
            ready = stream.ready(interest) => ready.ok()?,
        };
        if reads && ready.is_readable() {
            talk.input.reserve(READ_BYTES);
            match stream.try_read_buf(&mut talk.input) {
                Ok(0) => talk.closing = true,
                Ok(_) => {
                    let flow = app.borrow_mut().answer(&mut talk.input, &mut talk.output);
                    talk.closing |= flow == Flow::Close;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        if !talk.output.is_empty() {
            match stream.try_write(&talk.output) {
                Ok(count) => drop(talk.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        talk.release();
    }
}

impl Talk {
    /// Thousands of silent clients must not keep the memory of their busiest moment.
    fn release(&mut self) {
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
    }
}
