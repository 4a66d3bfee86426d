//! The side of a process that starts: alone, or to take over.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::channel::{READ, Stage, read_order, report};
use super::transfer::Inheritance;
use super::{Channel, Error, VARIABLE, socket, transfer};
use crate::message::{MESSAGE_LIMIT, Order, Part, Report, VERSION};

/// How a process begins.
#[derive(Debug)]
pub enum Start {
    /// With nothing to take over. It can be asked for a hand-over through the channel.
    Fresh(Channel),
    /// A process serves, and this one is to take over from it.
    Successor(Successor),
}

/// A process that is to take over, before it asks for anything.
#[derive(Debug)]
pub struct Successor {
    socket: OwnedFd,
    generation: u64,
}

/// A process that has got everything, and does not serve yet.
#[derive(Debug)]
pub struct Ready(Begin);

/// What stands between a process and serving.
#[derive(Debug)]
enum Begin {
    /// Nothing: it is the first.
    AtOnce(Channel),
    /// The supervisor's word.
    Commit { socket: OwnedFd, generation: u64, part: Part },
}

/// The descriptor of the environment can be owned once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Find out how this process begins. Call it once, early.
///
/// Without `HANDOFF_FD` there is no supervisor, and the start is a fresh one. The descriptor is this
/// process's alone, and closed when it executes another program; the variable is not: remove it from
/// the environment of children that use this library too.
pub fn start() -> Result<Start, Error> {
    find(false)
}

/// The same for a service that gives, and takes, its listeners first and the rest later where that is asked for: it can
/// be a canary. It has to listen to [`Channel::requested`] (or `wait_for_request`, `request`), and to look at
/// [`Inheritance::part`].
pub fn start_in_parts() -> Result<Start, Error> {
    find(true)
}

fn find(parts: bool) -> Result<Start, Error> {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return Ok(Start::Fresh(Channel::new(None, 0, Stage::Whole)));
    };
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number: &RawFd| *number > 2);
    let Some(number) = number else {
        return Err(Error::Environment(format!("{} is no number above 2", value.display())));
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Error::Environment("was read before in this process".to_owned()));
    }
    // SAFETY: it is borrowed for calls that fail on a descriptor that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if !is_channel(borrowed) {
        return Err(Error::Environment(format!("{number} is no channel to a supervisor: {INHERITED}")));
    }
    // Children of the service have no business on the channel.
    let flags = fcntl_getfd(borrowed).and_then(|flags| fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC));
    flags.map_err(|error| Error::Environment(format!("{number}: {error}")))?;
    // SAFETY: it is open, the environment gives it to this library, and this is reached once.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    start_on(socket, parts)
}

/// How that usually comes about.
const INHERITED: &str = "a service has to start its children without this variable";

/// Whether a descriptor can be a channel. One of anything else belongs to somebody: it must not be
/// written to, nor closed.
fn is_channel(descriptor: BorrowedFd<'_>) -> bool {
    let domain = sockopt::socket_domain(descriptor);
    let kind = sockopt::socket_type(descriptor);
    domain == Ok(AddressFamily::UNIX) && kind == Ok(SocketType::SEQPACKET)
}

/// The same on a channel that was got in another way.
pub(crate) fn start_on(socket: OwnedFd, parts: bool) -> Result<Start, Error> {
    report(socket.as_fd(), &Report::Hello { version: VERSION, parts })?;
    match next(socket.as_fd())? {
        (Order::Complete, None) => Ok(Start::Fresh(Channel::new(Some(socket), 0, Stage::Whole))),
        (Order::Prepare { generation }, None) => Ok(Start::Successor(Successor { socket, generation })),
        (order, _) => Err(unexpected(order)),
    }
}

impl Start {
    /// Take over what the process before gives, which is nothing if there is none: for services that need not tell the
    /// two beginnings apart. See [`Successor::take`].
    pub fn inherit(self) -> Result<(Inheritance, Ready), Error> {
        match self {
            Self::Fresh(channel) => {
                let nothing = Inheritance::nothing().map_err(Error::failed("make an empty state"))?;
                Ok((nothing, Ready(Begin::AtOnce(channel))))
            }
            Self::Successor(successor) => successor.take(),
        }
    }
}

impl Successor {
    /// The number of this start of the component, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Say that all preparations are made, and wait for what the other process gives. While this
    /// waits, the other one still serves; when it returns, nobody does.
    pub fn take(self) -> Result<(Inheritance, Ready), Error> {
        let Self { socket, generation } = self;
        report(socket.as_fd(), &Report::Prepared)?;
        let (part, from) = match next(socket.as_fd())? {
            (Order::Take(part), Some(from)) => (part, from),
            (order, _) => return Err(unexpected(order)),
        };
        let inheritance = receive(socket.as_fd(), generation, &from, part)?;
        Ok((inheritance, Ready(Begin::Commit { socket, generation, part })))
    }

    /// This process cannot take over; the other one serves on.
    pub fn fail(self, why: &str) -> Result<(), Error> {
        let failed = Report::Failed { generation: self.generation, why: why.to_owned() };
        report(self.socket.as_fd(), &failed)
    }
}

impl Ready {
    /// Say that this process could serve, and wait for the word that it shall. Only then may it
    /// accept or read; [`Error::Aborted`] means that it shall not, ever.
    pub fn serve(self) -> Result<Channel, Error> {
        match self.0 {
            Begin::AtOnce(channel) => Ok(channel),
            Begin::Commit { socket, generation, part } => {
                commit(socket.as_fd())?;
                let stage = if part == Part::Listeners { Stage::Canary } else { Stage::Whole };
                Ok(Channel::new(Some(socket), generation, stage))
            }
        }
    }

    /// This process cannot serve with what it got; the other one, if there is one, serves on.
    pub fn fail(self, why: &str) -> Result<(), Error> {
        match self.0 {
            Begin::AtOnce(channel) => channel.fail(why),
            Begin::Commit { socket, generation, .. } => {
                report(socket.as_fd(), &Report::Failed { generation, why: why.to_owned() })
            }
        }
    }
}

/// Take what the other process gives, and say so.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    generation: u64,
    from: &OwnedFd,
    part: Part,
) -> Result<Inheritance, Error> {
    // The supervisor ends this process when it takes too long.
    match transfer::receive(from.as_fd(), part, None) {
        Ok((inheritance, summary)) => {
            report(socket, &Report::Taken(summary))?;
            Ok(inheritance)
        }
        Err(error) => {
            let why = format!("failed to receive: {error}");
            report(socket, &Report::Failed { generation, why })?;
            Err(Error::Failed("receive from the other process", error))
        }
    }
}

/// Say that this process is ready for what it has got, and wait for the word to serve it.
pub(super) fn commit(socket: BorrowedFd<'_>) -> Result<(), Error> {
    report(socket, &Report::Ready)?;
    match next(socket)? {
        (Order::Commit, None) => report(socket, &Report::Serving),
        (order, _) => Err(unexpected(order)),
    }
}

/// The next message of the supervisor, who is at liberty to take its time.
fn next(socket: BorrowedFd<'_>) -> Result<(Order, Option<OwnedFd>), Error> {
    let mut buffer = [0; MESSAGE_LIMIT];
    let received = socket::receive(socket, &mut buffer, None).map_err(Error::failed(READ))?;
    read_order(&buffer, received)
}

fn unexpected(order: Order) -> Error {
    match order {
        Order::Abort(why) => Error::Aborted(why),
        order => Error::Protocol(order.to_string()),
    }
}

#[cfg(test)]
mod tests;
