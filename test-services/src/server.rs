//! A server that survives its own upgrades, with all its connections.
//!
//! The services that hand over share this skeleton: it accepts, reads, writes, and when the
//! supervisor asks it stops at a point where every byte is accounted for, gives listener,
//! connections and state to the next version, or serves on if the upgrade fails. A service says
//! only how requests are answered and what its state is ([`App`]).
//!
//! Everything runs on one thread: between two events nothing changes, so there is always such a
//! point.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet, yield_now};
use yakiros_handoff::message::Part;
use yakiros_handoff::{Channel, Inheritance, Loan, Offer, Request, Rest, Start, State, Verdict};

use crate::args::{Opt, Values};
use crate::socket::{DATAGRAM_BYTES, Datagrams, Listener, Sender, Stream};
use crate::{Error, faults, ready};

/// Bytes of answers that wait to be taken before no more requests of that connection are read.
const OUTPUT_LIMIT: usize = 256 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Pause after a failed accept: without descriptors it would fail again at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// The name of each listener among what is given.
pub(crate) const LISTENER: &str = "listener";
/// The name of each socket of datagrams.
const DATAGRAMS: &str = "datagrams";
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
/// Where else clients connect.
pub const UNIX: Opt =
    Opt { name: "--unix", value: Some("PATH"), default: None, help: "listen at this path, too" };
/// Where datagrams are answered.
pub const UDP: Opt =
    Opt { name: "--udp", value: Some("ADDR"), default: None, help: "answer datagrams of UDP, too" };
/// And these.
pub const UNIX_DATAGRAM: Opt = Opt {
    name: "--unix-datagram",
    value: Some("PATH"),
    default: None,
    help: "answer datagrams at this path, too",
};
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
    /// Whether new connections need nothing of the state: then the next version can be a canary, which serves those
    /// while the version before serves the connections that it has.
    const IN_PARTS: bool = false;

    /// Take whole requests from the front of `input` and append the answers to `output`. What is
    /// left of `input` comes again, with more. [`Flow::Close`] ends the connection when all answers
    /// are taken.
    fn answer(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Flow;

    /// The state of now.
    fn state(&self) -> Self::State;

    /// Go on from there.
    fn go_on(&mut self, state: Self::State);

    /// Bytes that move as they are, beside the state: what is too large to be formatted and copied.
    fn bulk(&mut self) -> Option<&mut Vec<u8>> {
        None
    }
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Further requests may come.
    Go,
    /// No further request is read.
    Close,
}

/// Whether the server goes on after a request of the supervisor.
#[derive(PartialEq, Eq)]
enum Goes {
    On,
    Ends,
}

/// A client, at a point where every byte is accounted for.
struct Client {
    stream: Stream,
    talk: Talk,
    /// Its last turn. Clients move in this order, and the next version begins with those that have waited for the
    /// longest: who was last in one upgrade must not be last in the next, or many in a row would never let it have
    /// its turn.
    turn: u64,
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

/// Everything that is open besides connections.
#[derive(Default)]
struct Sockets {
    listeners: Vec<Listener>,
    datagrams: Vec<Datagrams>,
}

/// Serve until a signal to stop or the next version comes.
pub fn run<A: App + 'static>(app: A, values: &Values<'_>) -> Result<ExitCode, Error> {
    let limit: usize = values.parse("--max-clients")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::failed("start"))?;
    faults::interpose(values)?;
    let server = LocalSet::new();
    server.block_on(&runtime, async {
        let (server, clients, channel) = Server::begin(app, values, limit).await?;
        server.serve(clients, channel).await.map_err(Error::failed("serve"))
    })
}

struct Server<A> {
    shared: Rc<Shared<A>>,
    sockets: Sockets,
    limit: usize,
}

/// What all clients have in common.
struct Shared<A> {
    app: RefCell<A>,
    /// How often a client had its turn.
    turns: Cell<u64>,
}

impl<A> Shared<A> {
    fn new(app: A, turns: u64) -> Rc<Self> {
        Rc::new(Self { app: RefCell::new(app), turns: Cell::new(turns) })
    }

    fn next_turn(&self) -> u64 {
        self.turns.update(|turns| turns + 1);
        self.turns.get()
    }
}

impl<A: App + 'static> Server<A> {
    /// Alone, or as the next version of one that serves.
    async fn begin(
        mut app: A,
        values: &Values<'_>,
        limit: usize,
    ) -> Result<(Self, Vec<Client>, Channel), Error> {
        let failed = |error: yakiros_handoff::Error| Error::failed("take over")(io::Error::other(error));
        let start = if A::IN_PARTS { yakiros_handoff::start_in_parts } else { yakiros_handoff::start };
        match start().map_err(failed)? {
            Start::Fresh(channel) => {
                let sockets = Sockets::open(values).await?;
                let ready_file = values.optional_path("--ready-file");
                ready::announce(ready_file.as_deref()).map_err(Error::failed("announce readiness"))?;
                Ok((Self { shared: Shared::new(app, 0), sockets, limit }, Vec::new(), channel))
            }
            Start::Successor(successor) => {
                let generation = successor.generation();
                let (inheritance, taken) = successor.take().map_err(failed)?;
                let what = if inheritance.part == Part::Listeners { "begins" } else { "goes on" };
                let (sockets, clients) = match take_over(&mut app, inheritance) {
                    Ok(all) => all,
                    Err(error) => {
                        taken.fail(&error.to_string()).map_err(failed)?;
                        return Err(Error::failed("take over")(error));
                    }
                };
                let channel = taken.serve().map_err(failed)?;
                println!("generation {generation} {what} with {} connections", clients.len());
                let shared = Shared::new(app, clients.len() as u64);
                Ok((Self { shared, sockets, limit }, clients, channel))
            }
        }
    }

    async fn serve(mut self, clients: Vec<Client>, mut channel: Channel) -> io::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (halt, halted) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut datagram = vec![0; DATAGRAM_BYTES];
        // The reactor has to know beforehand who has asked: whose task runs before that comes after all others, and the
        // first ones here have waited for the longest.
        yield_now().await;
        for client in clients {
            tasks.spawn_local(converse(client, Rc::clone(&self.shared), halted.clone()));
        }
        loop {
            let accepts = channel.accepts() && tasks.len() < self.limit;
            tokio::select! {
                request = channel.request() => {
                    let request = match request.map_err(io::Error::other)? {
                        Request::Lend(loan) => {
                            self.lend(loan);
                            continue;
                        }
                        Request::Accept(why) => {
                            println!("accepting again: {why}");
                            continue;
                        }
                        request => request,
                    };
                    // The tasks listen.
                    let _ = halt.send(true);
                    let mut clients = gather(&mut tasks).await;
                    if self.exchange(request, &mut clients)? == Goes::Ends {
                        // The end of the process closes them all in one go, and takes the next version less time.
                        std::mem::forget(clients);
                        return Ok(ExitCode::SUCCESS);
                    }
                    let _ = halt.send(false);
                    for client in clients {
                        tasks.spawn_local(converse(client, Rc::clone(&self.shared), halted.clone()));
                    }
                }
                accepted = poll_fn(|context| self.sockets.poll_accept(context)), if accepts => match accepted {
                    Ok(stream) => {
                        let client = Client { stream, talk: Talk::default(), turn: self.shared.next_turn() };
                        tasks.spawn_local(converse(client, Rc::clone(&self.shared), halted.clone()));
                    }
                    Err(error) => {
                        eprintln!("failed to accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                (number, length, sender) = poll_fn(|context| self.sockets.poll_receive(context, &mut datagram)) => {
                    self.answer(number, &datagram[..length], &sender);
                }
                Some(ended) = tasks.join_next() => drop(ended?),
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    /// Nothing is served: give it away, or take more.
    fn exchange(&mut self, request: Request<'_>, clients: &mut Vec<Client>) -> io::Result<Goes> {
        match request {
            Request::Give(offer) => match self.give(offer, clients)? {
                Verdict::Released => return Ok(Goes::Ends),
                Verdict::Resume(why) => eprintln!("serving on: {why}"),
            },
            Request::Take(rest) => self.take_rest(rest, clients)?,
            Request::End => return Ok(Goes::Ends),
            Request::Lend(_) | Request::Accept(_) => {}
        }
        Ok(Goes::On)
    }

    /// The next version serves new connections from now on, and this one those that it has.
    fn lend(&self, loan: Loan<'_>) {
        let generation = loan.generation();
        let listeners: Vec<_> =
            self.sockets.listeners.iter().map(|socket| (LISTENER, socket.as_fd())).collect();
        match loan.lend(listeners.iter().map(|(name, socket)| (*name, socket))) {
            Ok(()) => println!("generation {generation} has the listeners"),
            Err(why) => eprintln!("accepting on: {why}"),
        }
    }

    /// Everything that the version before has kept until now.
    fn take_rest(&mut self, rest: Rest<'_>, clients: &mut Vec<Client>) -> io::Result<()> {
        let (inheritance, merge) = rest.take().map_err(io::Error::other)?;
        let taken = take_over(&mut *self.shared.app.borrow_mut(), inheritance);
        let (sockets, mut theirs) = match taken {
            Ok(all) => all,
            Err(error) => {
                merge.fail(&error.to_string());
                return Err(error);
            }
        };
        merge.serve().map_err(io::Error::other)?;
        println!("goes on with {} connections more", theirs.len());
        self.sockets.datagrams.extend(sockets.datagrams);
        // Those have waited for longer.
        theirs.append(clients);
        *clients = theirs;
        Ok(())
    }

    /// A datagram is answered at once: nothing of it is left to be given.
    fn answer(&self, number: usize, datagram: &[u8], sender: &Sender) {
        let (mut input, mut output) = (datagram.to_vec(), Vec::new());
        self.shared.app.borrow_mut().answer(&mut input, &mut output);
        if let Err(error) = self.sockets.datagrams[number].answer(sender, &output) {
            eprintln!("failed to answer a datagram: {error}");
        }
    }

    fn give(&self, offer: Offer<'_>, clients: &[Client]) -> io::Result<Verdict> {
        let talks: Vec<&Talk> = clients.iter().map(|client| &client.talk).collect();
        let moved = Moved { app: self.shared.app.borrow().state(), talks };
        // The length of what is formatted, that, and the bytes as they are.
        let state = || {
            let formatted = serde_json::to_vec(&moved)?;
            State::write(A::VERSION, |memory| {
                memory.write_all(&(formatted.len() as u64).to_le_bytes())?;
                memory.write_all(&formatted)?;
                match self.shared.app.borrow_mut().bulk() {
                    Some(bulk) => memory.write_all(bulk),
                    None => Ok(()),
                }
            })
        };
        let names: Vec<String> = (0..clients.len()).map(|number| format!("{CONNECTION}{number}")).collect();
        let streams: Vec<BorrowedFd<'_>> = clients.iter().map(|client| client.stream.as_fd()).collect();
        let sockets = self.sockets.named(offer.is_rest());
        let sockets = sockets.iter().map(|(name, socket)| (*name, socket));
        let items = sockets.chain(names.iter().map(String::as_str).zip(&streams));
        offer.give(items, state).map_err(io::Error::other)
    }
}

impl Sockets {
    async fn open(values: &Values<'_>) -> Result<Self, Error> {
        let address: SocketAddr = values.parse("--listen")?;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(Error::failed(format!("listen on {address}")))?;
        let address = listener.local_addr().map_err(Error::failed("read the address"))?;
        println!("listening on {address}");
        let mut sockets = Self { listeners: vec![Listener::Tcp(listener)], datagrams: Vec::new() };
        if let Some(path) = values.optional_path(UNIX.name) {
            let failed = Error::failed(format!("listen at {}", path.display()));
            sockets.listeners.push(Listener::at(&path).map_err(failed)?);
        }
        if let Some(address) = values.optional::<SocketAddr>(UDP.name)? {
            let socket = UdpSocket::bind(address).await;
            let socket = socket.map_err(Error::failed(format!("answer datagrams at {address}")))?;
            sockets.datagrams.push(Datagrams::Udp(socket));
        }
        if let Some(path) = values.optional_path(UNIX_DATAGRAM.name) {
            let failed = Error::failed(format!("answer datagrams at {}", path.display()));
            sockets.datagrams.push(Datagrams::at(&path).map_err(failed)?);
        }
        Ok(sockets)
    }

    /// All, or without the listeners, which the next version has.
    fn named(&self, without_listeners: bool) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let listeners = if without_listeners { &[][..] } else { &self.listeners };
        let listeners = listeners.iter().map(|socket| (LISTENER, socket.as_fd()));
        listeners.chain(self.datagrams.iter().map(|socket| (DATAGRAMS, socket.as_fd()))).collect()
    }

    fn taken(inheritance: &mut Inheritance) -> io::Result<Self> {
        let mut all = |name| inheritance.take_all(name).into_iter();
        Ok(Self {
            listeners: all(LISTENER).map(Listener::taken).collect::<io::Result<_>>()?,
            datagrams: all(DATAGRAMS).map(Datagrams::taken).collect::<io::Result<_>>()?,
        })
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let mut all = self.listeners.iter().map(|listener| listener.poll_accept(context));
        all.find(Poll::is_ready).unwrap_or(Poll::Pending)
    }

    /// The next datagram: the number of its socket, its length, and who has sent it.
    fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<(usize, usize, Sender)> {
        for (number, socket) in self.datagrams.iter().enumerate() {
            let mut buffer = ReadBuf::new(buffer);
            while let Poll::Ready(received) = socket.poll_receive(context, &mut buffer) {
                match received {
                    Ok(sender) => return Poll::Ready((number, buffer.filled().len(), sender)),
                    // That of an answer before, which nobody was there for.
                    Err(error) => eprintln!("failed to receive a datagram: {error}"),
                }
            }
        }
        Poll::Pending
    }
}

/// What the version before has given.
fn take_over<A: App>(app: &mut A, mut inheritance: Inheritance) -> io::Result<(Sockets, Vec<Client>)> {
    let part = inheritance.part;
    if part == Part::Listeners {
        return Ok((Sockets::taken(&mut inheritance)?, Vec::new()));
    }
    let state = &inheritance.state;
    if state.version() != A::VERSION {
        let what = format!("the state has version {}, this program knows {}", state.version(), A::VERSION);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut memory = state.reader()?;
    let mut length = [0; 8];
    memory.read_exact(&mut length)?;
    let mut formatted = Vec::new();
    memory.by_ref().take(u64::from_le_bytes(length)).read_to_end(&mut formatted)?;
    let moved: Moved<A::State, Talk> = serde_json::from_slice(&formatted)?;
    if let Some(bulk) = app.bulk() {
        bulk.clear();
        memory.read_to_end(bulk)?;
    }
    drop(memory);
    let sockets = Sockets::taken(&mut inheritance)?;
    // They come in the order in which they were given.
    let streams = inheritance.take_all(CONNECTION).into_iter();
    let streams = streams.map(Stream::taken).collect::<io::Result<Vec<_>>>()?;
    if (part == Part::All && sockets.listeners.is_empty()) || streams.len() != moved.talks.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a listener or a connection is missing"));
    }
    let clients = streams.into_iter().zip(moved.talks).zip(0..).map(|((stream, talk), turn)| Client {
        stream,
        talk,
        turn,
    });
    let clients = clients.collect();
    app.go_on(moved.app);
    Ok((sockets, clients))
}

/// Every client that has not ended, those first that have waited for the longest.
async fn gather(tasks: &mut JoinSet<Option<Client>>) -> Vec<Client> {
    let mut clients = Vec::new();
    while let Some(client) = tasks.join_next().await {
        match client {
            Ok(client) => clients.extend(client),
            // A panic of a task is one of the program.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    clients.sort_unstable_by_key(|client| client.turn);
    clients
}

/// Serve a client until it ends, which gives nothing, or until all are to stop.
async fn converse<A: App>(
    mut client: Client,
    shared: Rc<Shared<A>>,
    halted: watch::Receiver<bool>,
) -> Option<Client> {
    if exchange(&mut client, &shared, halted).await.is_some() {
        return Some(client);
    }
    // The version before may hold a duplicate, with which closing alone would end nothing. The client may be
    // gone already.
    let _ = shutdown(client.stream.as_fd().as_raw_fd(), Shutdown::Both);
    None
}

/// Answer a client. Nothing when it has ended.
async fn exchange<A: App>(
    client: &mut Client,
    shared: &Shared<A>,
    mut halted: watch::Receiver<bool>,
) -> Option<()> {
    let Client { stream, talk, turn } = client;
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
            *turn = shared.next_turn();
            talk.input.reserve(READ_BYTES);
            match stream.try_read_buf(&mut talk.input) {
                Ok(0) => talk.closing = true,
                Ok(_) => {
                    let flow = shared.app.borrow_mut().answer(&mut talk.input, &mut talk.output);
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

#[cfg(test)]
mod tests;
