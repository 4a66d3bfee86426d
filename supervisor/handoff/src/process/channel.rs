//! The side of a process that serves: it can be asked to hand over.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Error;
use super::socket::{self, Received};
use super::state::State;
use super::transfer;
use crate::message::{MESSAGE_LIMIT, Order, Report, Summary};

/// The connection of a serving process to its supervisor. Without a supervisor, or when it is gone,
/// the process is never asked for anything.
#[derive(Debug)]
pub struct Channel {
    socket: Option<OwnedFd>,
    /// The upgrade by which this process has come; 0 for none.
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
    to: OwnedFd,
    generation: u64,
    deadline: Instant,
}

impl Channel {
    pub(crate) fn new(socket: Option<OwnedFd>, generation: u64) -> Self {
        Self { socket, generation }
    }

    /// The descriptor to poll for reading, if there is a supervisor.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
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
        let heard = match &self.socket {
            Some(socket) => hear(socket.as_fd())?,
            None => Heard::Nothing,
        };
        Ok(self.offer(heard))
    }

    /// What is to be done about what was heard.
    fn offer(&mut self, heard: Heard) -> Option<Offer<'_>> {
        match heard {
            Heard::Nothing => None,
            Heard::Gone => {
                self.socket = None;
                None
            }
            Heard::Question { to, generation, deadline } => {
                let socket = self.socket.as_ref()?.as_fd();
                Some(Offer { socket, to, generation, deadline })
            }
        }
    }

    /// The same, waiting for it; `None` when the time is over. Without a supervisor and without a
    /// limit it waits for ever.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<Option<Offer<'_>>, Error> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        while let Some(socket) = &self.socket {
            match socket::wait_for(socket, PollFlags::IN, deadline) {
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(None),
                result => result.map_err(Error::failed(READ))?,
            }
            match hear(socket.as_fd())? {
                Heard::Nothing => {}
                Heard::Gone => self.socket = None,
                question @ Heard::Question { .. } => return Ok(self.offer(question)),
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

    /// The same in tokio's reactor. Cancel safe. An offer that is there is found at once: who asks
    /// for it among other things that are always ready never gets to wait.
    #[cfg(feature = "tokio")]
    pub async fn offered(&mut self) -> Result<Offer<'_>, Error> {
        use tokio::io::Interest;
        use tokio::io::unix::AsyncFd;
        if let Some(socket) = &self.socket {
            let mut heard = hear(socket.as_fd())?;
            if matches!(heard, Heard::Nothing) {
                // SAFETY: the descriptor is borrowed for longer than it is watched, so it stays open.
                let watched = unsafe { AsyncFd::register_with_interest(socket.as_fd(), Interest::READABLE) };
                let watched = watched.map_err(|error| Error::Failed(READ, error.into()))?;
                while matches!(heard, Heard::Nothing) {
                    let mut readable = watched.readable().await.map_err(Error::failed(READ))?;
                    heard = hear(socket.as_fd())?;
                    if matches!(heard, Heard::Nothing) {
                        readable.clear_ready();
                    }
                }
            }
            if matches!(heard, Heard::Question { .. })
                && let Some(offer) = self.offer(heard)
            {
                return Ok(offer);
            }
        }
        std::future::pending().await
    }
}

impl Offer<'_> {
    /// The generation that is to take over.
    pub fn generation(&self) -> u64 {
        self.generation
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
        let Self { socket, to, generation, deadline } = self;
        let items = items.into_iter().map(|(name, descriptor)| (name, descriptor.as_fd()));
        let sent = send(&to, items, state, deadline).and_then(|summary| {
            let offered = Report::Offered { generation, summary };
            report(socket, &offered).map_err(|error| error.to_string())
        });
        drop(to);
        // Who is not known to have given everything is not taken over from.
        if let Err(why) = sent {
            fail(socket, generation, &why);
            return Ok(Verdict::Resume(why));
        }
        let mut buffer = [0; MESSAGE_LIMIT];
        let received = socket::receive(socket, &mut buffer, None).map_err(Error::failed(READ))?;
        match read_order(&buffer, received)? {
            (Order::Release, None) => Ok(Verdict::Released),
            (Order::Abort(why), None) => Ok(Verdict::Resume(why)),
            (order, _) => Err(Error::Protocol(order.to_string())),
        }
    }
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
    /// The supervisor is gone. Who serves, serves on.
    Gone,
    Question {
        to: OwnedFd,
        generation: u64,
        deadline: Instant,
    },
}

/// See [`Channel::asked`].
///
/// All that waits is read: an upgrade that was called off meanwhile is no question any more. One that
/// cannot be answered is a failed upgrade, and no reason to stop serving.
fn hear(socket: BorrowedFd<'_>) -> Result<Heard, Error> {
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
            (Order::Offer { generation, limit }, Some(to)) => {
                heard = Heard::Question { to, generation, deadline: Instant::now() + limit };
            }
            (Order::Offer { generation, .. }, None) => fail(socket, generation, socket::NO_DESCRIPTOR),
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
    let wanted = matches!(order, Order::Take | Order::Offer { .. });
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
