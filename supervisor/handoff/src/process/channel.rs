//! The side of a process that serves: it can be asked to hand over.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::socket::{self, Received};
use super::state::State;
use super::transfer::{self, Inheritance};
use super::{Error, successor};
use crate::message::{MESSAGE_LIMIT, Order, Part, Report, Summary};

/// The connection of a serving process to its supervisor. Without a supervisor, or when it is gone,
/// the process is never asked for anything.
#[derive(Debug)]
pub struct Channel {
    socket: Option<OwnedFd>,
    /// The upgrade by which this process has come; 0 for none.
    generation: u64,
    stage: Stage,
}

/// How much of the service this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// All of it.
    Whole,
    /// It has lent its listeners: another one serves new connections.
    Lent,
    /// It serves new connections: another one has all the rest.
    Canary,
}

/// What a process that serves is asked for, if it has started with [`start_in_parts`](crate::start_in_parts).
#[derive(Debug)]
pub enum Request<'a> {
    /// Give everything; or the rest, if the listeners are lent ([`Offer::is_rest`]).
    Give(Offer<'a>),
    /// Accept nothing more and lend the listeners, to a successor that serves new connections for a time. Go on with
    /// the connections that are there.
    Lend(Loan<'a>),
    /// The successor to which the listeners are lent is gone, for this reason: accept again.
    Accept(String),
    /// This process has served new connections for its time: take everything else.
    Take(Rest<'a>),
    /// This process, which serves new connections only, is not to go on: end. For the supervisor is gone, and with it
    /// whoever could say that all is to be given to it.
    End,
}

/// The supervisor's question for the listeners. The process may go on accepting while it has it.
#[derive(Debug)]
pub struct Loan<'a> {
    offer: Offer<'a>,
}

/// Everything that the other process has kept, to be taken.
#[derive(Debug)]
pub struct Rest<'a> {
    socket: BorrowedFd<'a>,
    stage: &'a mut Stage,
    from: OwnedFd,
    generation: u64,
}

/// A process that has got the rest, too, and does not serve it yet.
#[derive(Debug)]
pub struct Merge<'a> {
    socket: BorrowedFd<'a>,
    stage: &'a mut Stage,
    generation: u64,
}

/// What became of an offer.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The successor serves. Whatever was given is its own now: close it, do not shut it down, and
    /// end.
    Released,
    /// The upgrade has failed for this reason: serve on. Nobody else serves any more. Without a probation the
    /// successor has touched nothing; with one it may have served for a while, and what clients sent it is lost.
    Resume(String),
}

/// The supervisor's question. The process may go on serving while it has it.
#[derive(Debug)]
pub struct Offer<'a> {
    socket: BorrowedFd<'a>,
    stage: &'a mut Stage,
    to: OwnedFd,
    generation: u64,
    deadline: Instant,
    part: Part,
}

impl Channel {
    pub(crate) fn new(socket: Option<OwnedFd>, generation: u64, stage: Stage) -> Self {
        Self { socket, generation, stage }
    }

    /// The descriptor to poll for reading, if there is a supervisor.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Whether this process is to accept: not while its listeners are lent.
    pub fn accepts(&self) -> bool {
        self.stage != Stage::Lent
    }

    /// Say that this process finds that it cannot do its work. On probation (`hotswap.probation`) it is ended, and
    /// the version before takes over again; at any other time nothing follows.
    pub fn fail(&self, why: &str) -> Result<(), Error> {
        match &self.socket {
            Some(socket) => {
                let failed = Report::Failed { generation: self.generation, why: why.to_owned() };
                report(socket.as_fd(), &failed)
            }
            None => Ok(()),
        }
    }

    /// Whether the supervisor asks for a hand-over; does not wait.
    pub fn asked(&mut self) -> Result<Option<Offer<'_>>, Error> {
        whole(self.requested()?)
    }

    /// The same, waiting for it; `None` when the time is over. Without a supervisor and without a
    /// limit it waits for ever.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<Option<Offer<'_>>, Error> {
        whole(self.wait_for_request(limit)?)
    }

    /// The same for a service of one thread: waits until it is asked, or until one of these can be read, accepted from
    /// or is cut off; `None` then, and when a signal was handled.
    pub fn wait_or_readable<'d>(
        &mut self,
        others: impl IntoIterator<Item = BorrowedFd<'d>>,
    ) -> Result<Option<Offer<'_>>, Error> {
        let mut waited: Vec<_> = others.into_iter().map(readable).collect();
        waited.extend(self.descriptor().map(readable));
        let outcome = poll(&mut waited, None);
        drop(waited);
        match outcome {
            Ok(_) | Err(Errno::INTR) => self.asked(),
            Err(errno) => Err(Error::Failed("wait", errno.into())),
        }
    }

    /// The same in tokio's reactor. Cancel safe. An offer that is there is found at once: who asks
    /// for it among other things that are always ready never gets to wait.
    #[cfg(feature = "tokio")]
    pub async fn offered(&mut self) -> Result<Offer<'_>, Error> {
        match self.request().await? {
            Request::Give(offer) => Ok(offer),
            other => Err(in_parts(&other)),
        }
    }

    /// [`asked`](Self::asked) for a service that has started with [`start_in_parts`](crate::start_in_parts).
    pub fn requested(&mut self) -> Result<Option<Request<'_>>, Error> {
        let heard = match &self.socket {
            Some(socket) => hear(socket.as_fd(), &mut self.stage)?,
            None => Heard::Nothing,
        };
        Ok(self.request_of(heard))
    }

    /// [`wait`](Self::wait) for such a service.
    pub fn wait_for_request(&mut self, limit: Option<Duration>) -> Result<Option<Request<'_>>, Error> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        while let Some(socket) = &self.socket {
            match socket::wait_for(socket, PollFlags::IN, deadline) {
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(None),
                result => result.map_err(Error::failed(READ))?,
            }
            match hear(socket.as_fd(), &mut self.stage)? {
                Heard::Nothing => {}
                Heard::Gone if self.stage == Stage::Whole => self.socket = None,
                heard => return Ok(self.request_of(heard)),
            }
        }
        match deadline {
            Some(deadline) => std::thread::sleep(deadline.saturating_duration_since(Instant::now())),
            // Who waits for a question only does not serve, and nobody will ask. Parking may end
            // for no reason.
            None => loop {
                std::thread::park();
            },
        }
        Ok(None)
    }

    /// [`offered`](Self::offered) for such a service. Cancel safe.
    #[cfg(feature = "tokio")]
    pub async fn request(&mut self) -> Result<Request<'_>, Error> {
        use tokio::io::Interest;
        use tokio::io::unix::AsyncFd;
        if let Some(socket) = &self.socket {
            let mut heard = hear(socket.as_fd(), &mut self.stage)?;
            if matches!(heard, Heard::Nothing) {
                // SAFETY: the descriptor is borrowed for longer than it is watched, so it stays open.
                let watched = unsafe { AsyncFd::register_with_interest(socket.as_fd(), Interest::READABLE) };
                let watched = watched.map_err(|error| Error::Failed(READ, error.into()))?;
                while matches!(heard, Heard::Nothing) {
                    let mut readable = watched.readable().await.map_err(Error::failed(READ))?;
                    heard = hear(socket.as_fd(), &mut self.stage)?;
                    if matches!(heard, Heard::Nothing) {
                        readable.clear_ready();
                    }
                }
            }
            if let Some(request) = self.request_of(heard) {
                return Ok(request);
            }
        }
        std::future::pending().await
    }

    /// What is to be done about what was heard.
    fn request_of(&mut self, heard: Heard) -> Option<Request<'_>> {
        let Self { socket, generation, stage } = self;
        let before = *stage;
        match heard {
            Heard::Nothing => None,
            Heard::Gone => {
                *socket = None;
                *stage = Stage::Whole;
                match before {
                    Stage::Whole => None,
                    Stage::Lent => Some(Request::Accept("the supervisor is gone".to_owned())),
                    Stage::Canary => Some(Request::End),
                }
            }
            Heard::Aborted(why) => {
                *stage = Stage::Whole;
                Some(Request::Accept(why))
            }
            Heard::Rest(from) => {
                let socket = socket.as_ref()?.as_fd();
                Some(Request::Take(Rest { socket, stage, from, generation: *generation }))
            }
            Heard::Question { to, generation, deadline, part } => {
                let socket = socket.as_ref()?.as_fd();
                if part == Part::All {
                    // What was lent is back: that was said before, and this after it.
                    *stage = Stage::Whole;
                }
                let offer = Offer { socket, stage, to, generation, deadline, part };
                Some(match part {
                    Part::Listeners => Request::Lend(Loan { offer }),
                    Part::All | Part::Rest => Request::Give(offer),
                })
            }
        }
    }
}

fn readable(descriptor: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(descriptor, PollFlags::IN)
}

/// The offer to a service that knows nothing of parts.
fn whole(request: Option<Request<'_>>) -> Result<Option<Offer<'_>>, Error> {
    match request {
        Some(Request::Give(offer)) => Ok(Some(offer)),
        Some(other) => Err(in_parts(&other)),
        None => Ok(None),
    }
}

fn in_parts(request: &Request<'_>) -> Error {
    Error::Protocol(format!("a part is asked for, which has to be waited for in another way: {request:?}"))
}

impl Loan<'_> {
    /// The generation that is to serve new connections.
    pub fn generation(&self) -> u64 {
        self.offer.generation
    }

    /// Lend the listeners. To be called when nothing is accepted any more; afterwards the process goes on with the
    /// connections that it has, and accepts only when it is told so ([`Request::Accept`]). An error is why the
    /// listeners could not be lent: the upgrade has failed then, and nobody else serves.
    pub fn lend<'d, D: AsFd + 'd>(
        self,
        listeners: impl IntoIterator<Item = (&'d str, &'d D)>,
    ) -> Result<(), String> {
        let Offer { socket, stage, to, generation, deadline, .. } = self.offer;
        let items = listeners.into_iter().map(|(name, descriptor)| (name, descriptor.as_fd()));
        hand_over(socket, generation, to, items, State::empty, deadline)?;
        *stage = Stage::Lent;
        Ok(())
    }

    /// This process does not lend its listeners: the upgrade has failed, and it serves on.
    pub fn refuse(self, why: &str) {
        self.offer.refuse(why);
    }
}

impl<'a> Rest<'a> {
    /// Wait for what the other process gives. Nobody serves that meanwhile, and if this process has one thread only, it
    /// does not serve its own connections either. After an error there is nothing to do but to end.
    pub fn take(self) -> Result<(Inheritance, Merge<'a>), Error> {
        let Self { socket, stage, from, generation } = self;
        let inheritance = successor::receive(socket, generation, &from, Part::Rest)?;
        Ok((inheritance, Merge { socket, stage, generation }))
    }
}

impl Merge<'_> {
    /// Say that this process could serve everything, and wait for the word that it shall.
    pub fn serve(self) -> Result<(), Error> {
        successor::commit(self.socket)?;
        *self.stage = Stage::Whole;
        Ok(())
    }

    /// This process cannot serve with what it got. It is ended, and the other one serves on.
    pub fn fail(self, why: &str) {
        fail(self.socket, self.generation, why);
    }
}

impl Offer<'_> {
    /// The generation that is to take over.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the listeners are lent already, and everything else is to be given.
    pub fn is_rest(&self) -> bool {
        self.part == Part::Rest
    }

    /// Until when everything has to be given.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// This process does not hand over, whichever version is to take over: serve on, and be restarted
    /// where the component is declared so. For what may pass there is [`Offer::fail`].
    pub fn refuse(self, why: &str) {
        let Self { socket, generation, .. } = self;
        // A supervisor that is gone wants no answer.
        let _ = report(socket, &Report::Refused { generation, why: why.to_owned() });
    }

    /// This process cannot hand over now: the upgrade has failed, and it serves on.
    pub fn fail(self, why: &str) {
        fail(self.socket, self.generation, why);
    }

    /// Give everything away and wait for the verdict. To be called when nothing is served any
    /// more: bytes read from a connection and not yet answered belong into `state`.
    ///
    /// It waits as long as the supervisor needs to judge, for to go on too early would be to serve
    /// beside the successor. An error means that the supervisor is gone after everything was given,
    /// and with it whoever could say which generation is to serve. Whatever fails before that fails
    /// the upgrade and nothing else: a state that cannot be written, a successor that does not take.
    pub fn give<'d, D: AsFd + 'd>(
        self,
        items: impl IntoIterator<Item = (&'d str, &'d D)>,
        state: impl FnOnce() -> io::Result<State>,
    ) -> Result<Verdict, Error> {
        let Self { socket, stage, to, generation, deadline, .. } = self;
        let items = items.into_iter().map(|(name, descriptor)| (name, descriptor.as_fd()));
        if let Err(why) = hand_over(socket, generation, to, items, state, deadline) {
            // What gave its listeners before gets them back when it is told that the other one is gone.
            return Ok(Verdict::Resume(why));
        }
        let mut buffer = [0; MESSAGE_LIMIT];
        let received = socket::receive(socket, &mut buffer, None).map_err(Error::failed(READ))?;
        match read_order(&buffer, received)? {
            (Order::Release, None) => Ok(Verdict::Released),
            (Order::Abort(why), None) => {
                *stage = Stage::Whole;
                Ok(Verdict::Resume(why))
            }
            (order, _) => Err(Error::Protocol(order.to_string())),
        }
    }
}

/// Send everything and say so. Who is not known to have given everything is not taken over from.
fn hand_over<'a>(
    socket: BorrowedFd<'_>,
    generation: u64,
    to: OwnedFd,
    items: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>,
    state: impl FnOnce() -> io::Result<State>,
    deadline: Instant,
) -> Result<(), String> {
    let sent = send(&to, items, state, deadline).and_then(|summary| {
        let offered = Report::Offered { generation, summary };
        report(socket, &offered).map_err(|error| error.to_string())
    });
    drop(to);
    if let Err(why) = &sent {
        fail(socket, generation, why);
    }
    sent
}

/// Make the state and send everything; or why not.
fn send<'a>(
    to: &OwnedFd,
    items: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>,
    state: impl FnOnce() -> io::Result<State>,
    deadline: Instant,
) -> Result<Summary, String> {
    let state = state().map_err(|error| format!("failed to write the state: {error}"))?;
    transfer::send(to.as_fd(), items, &state, Some(deadline)).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::TimedOut => {
            format!("the other process does not take: {error}")
        }
        _ => format!("failed to send: {error}"),
    })
}

fn fail(socket: BorrowedFd<'_>, generation: u64, why: &str) {
    // A supervisor that is gone wants no answer.
    let _ = report(socket, &Report::Failed { generation, why: why.to_owned() });
}

/// What a look at the channel of a serving process finds.
enum Heard {
    Nothing,
    /// The supervisor is gone. Who serves everything, serves on.
    Gone,
    Question {
        to: OwnedFd,
        generation: u64,
        deadline: Instant,
        part: Part,
    },
    /// Who has lent its listeners is to accept again.
    Aborted(String),
    /// A canary is to take the rest.
    Rest(OwnedFd),
}

/// See [`Channel::requested`].
///
/// All that waits is read: an upgrade that was called off meanwhile is no question any more. One that
/// cannot be answered is a failed upgrade, and no reason to stop serving.
fn hear(socket: BorrowedFd<'_>, stage: &mut Stage) -> Result<Heard, Error> {
    let mut heard = Heard::Nothing;
    loop {
        let mut buffer = [0; MESSAGE_LIMIT];
        let received = match socket::try_receive(socket, &mut buffer) {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(heard),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Heard::Gone),
            Err(error) => return Err(Error::Failed(READ, error)),
        };
        match parse_order(&buffer, received)? {
            (Order::Offer { generation, limit, part }, Some(to)) => {
                heard = Heard::Question { to, generation, deadline: Instant::now() + limit, part };
            }
            (Order::Offer { generation, .. }, None) => fail(socket, generation, socket::NO_DESCRIPTOR),
            (Order::Take(Part::Rest), Some(from)) if *stage == Stage::Canary => heard = Heard::Rest(from),
            // There is no rest any more, for the other process is gone.
            (Order::Commit, None) if *stage == Stage::Canary => *stage = Stage::Whole,
            (Order::Abort(why), None) if *stage == Stage::Lent => heard = Heard::Aborted(why),
            (Order::Abort(_), None) => heard = Heard::Nothing,
            (order, _) => return Err(Error::Protocol(order.to_string())),
        }
    }
}

pub(crate) const READ: &str = "read from the supervisor";

/// Tell the supervisor. Its queue holds more messages than an upgrade has.
pub(crate) fn report(socket: BorrowedFd<'_>, report: &Report) -> Result<(), Error> {
    let sent = socket::send(socket, report.to_string().as_bytes(), &[], None);
    sent.map_err(Error::failed("tell the supervisor"))
}

/// What the supervisor said, with its descriptor.
pub(crate) fn read_order(buffer: &[u8], received: Received) -> Result<(Order, Option<OwnedFd>), Error> {
    let received = received.whole().map_err(Error::failed(READ))?;
    let (order, descriptor) = parse_order(buffer, received)?;
    let wanted = matches!(order, Order::Take(_) | Order::Offer { .. });
    if descriptor.is_some() != wanted {
        return Err(Error::Protocol(format!("{order}: not the descriptors that belong to it")));
    }
    Ok((order, descriptor))
}

/// The same, whether its descriptor has come or not.
fn parse_order(buffer: &[u8], received: Received) -> Result<(Order, Option<OwnedFd>), Error> {
    let Received { length, mut descriptors, .. } = received;
    let text = str::from_utf8(&buffer[..length]).map_err(|error| Error::Protocol(error.to_string()))?;
    let order = text.parse().map_err(|error| Error::Protocol(format!("{error}")))?;
    let descriptor = descriptors.pop();
    if !descriptors.is_empty() {
        return Err(Error::Protocol(format!("{order}: more than one descriptor")));
    }
    Ok((order, descriptor))
}
