//! Misbehaviour in a hot swap, on request: for tests of what a supervisor makes of it.
//!
//! A thread between the service and its supervisor passes on what they say, message by message, until the one at which
//! a fault is due; the service knows nothing of it. What can go wrong, and when, are two tables: [`POINTS`] and
//! [`KINDS`].

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use nix::unistd::{Pid, dup2_raw};
use yakiros_handoff::identity::{Digest, Identity};
use yakiros_handoff::message::{MESSAGE_LIMIT, Order, Report, Summary};
use yakiros_handoff::{State, VARIABLE};

use crate::Error;
use crate::args::{Opt, Values};

/// The option that asks for it.
pub const FAULT: Opt = Opt {
    name: "--fault",
    value: Some("FAULT,..."),
    default: None,
    help: "misbehave in a hot swap: POINT:KIND; a wrong one tells which there are",
};

/// Where a fault can be, by who the process is and the step that it holds up, and before which message is passed on.
const POINTS: [(&str, &str); 7] = [
    ("new.prepare", "PREPARED"),
    ("new.move", "TAKEN"),
    ("new.ready", "READY"),
    ("new.commit", "SERVING"),
    ("old.move", "OFFER"),
    ("old.ready", "OFFERED"),
    ("old.leave", "RELEASE"),
];

/// The only point at which the old process has a connection to the new one.
const GIVING: &str = "OFFER";

/// What can go wrong there.
const KINDS: [(&str, Kind); 7] = [
    ("die", Kind::Die),
    ("hang", Kind::Hang),
    ("garbage", Kind::Garbage),
    ("grow", Kind::Grow),
    ("half", Kind::Half),
    ("lie", Kind::Lie),
    ("wrong", Kind::Wrong),
];
/// And one with a file's name behind it.
const HOLD: &str = "hold=";

/// Bytes that are taken at a time by a process that takes all.
const GROWTH: usize = 1 << 20;
/// Between two looks whether a file is gone.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// What an echo server would say of itself without connections.
const STATE: &[u8] = br#"{"app":null,"talks":[]}"#;

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Killed.
    Die,
    /// Nothing is passed on any more, in either direction.
    Hang,
    /// Nonsense is said to the supervisor, in place of the message.
    Garbage,
    /// All the memory is taken that there is.
    Grow,
    /// Killed with half of the descriptors given.
    Half,
    /// A pipe is given that is said to be a listening socket.
    Lie,
    /// A pipe is given in the place of the listening socket, and said to be one.
    Wrong,
    /// This file is made with the process's number, and the message passed on when the file is gone.
    Hold(PathBuf),
}

/// A fault, with its place.
#[derive(Debug, Clone, PartialEq)]
struct Fault {
    message: &'static str,
    kind: Kind,
}

/// Several of them, as they are asked for.
#[derive(Debug, Default)]
struct Faults(Vec<Fault>);

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(Fault::read).collect::<Result<_, _>>().map(Self)
    }
}

impl Fault {
    fn read(text: &str) -> Result<Self, String> {
        let (point, kind) = text.split_once(':').ok_or_else(|| format!("{text} is not POINT:KIND"))?;
        let points = POINTS.map(|(name, _)| name).join(", ");
        let message = POINTS.iter().find(|(name, _)| *name == point);
        let (_, message) = message.ok_or_else(|| format!("{point} is none of {points}"))?;
        let kind = match kind.strip_prefix(HOLD) {
            Some(file) if !file.is_empty() => Kind::Hold(file.into()),
            _ => {
                let known = KINDS.iter().find(|(name, _)| *name == kind).map(|(_, kind)| kind.clone());
                let kinds = KINDS.each_ref().map(|(name, _)| *name).join(", ");
                known.ok_or_else(|| format!("{kind} is none of {kinds}, {HOLD}FILE"))?
            }
        };
        if matches!(kind, Kind::Half | Kind::Lie | Kind::Wrong) && *message != GIVING {
            return Err(format!("{point} is not where anything is given"));
        }
        Ok(Self { message, kind })
    }
}

/// Put the faults that are asked for between this process and its supervisor. To be called before anything is said.
pub fn interpose(values: &Values<'_>) -> Result<(), Error> {
    let Some(Faults(faults)) = values.optional("--fault")? else { return Ok(()) };
    let number = std::env::var(VARIABLE).ok().and_then(|text| text.parse::<RawFd>().ok());
    let Some(number) = number else { return Ok(()) };
    let (supervisor, service) =
        between(number).map_err(Error::failed("get between service and supervisor"))?;
    thread::spawn(move || {
        // An end of either side ends the conversation of both.
        if let Err(error) = pass_on(&faults, &supervisor, &service) {
            eprintln!("the channel has ended: {error}");
        }
    });
    Ok(())
}

/// The channel, and the other end of what is in its place now.
fn between(number: RawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: it is borrowed for two calls that fail on a descriptor that is not open.
    let channel = unsafe { BorrowedFd::borrow_raw(number) };
    let copy = fcntl(channel, FcntlArg::F_DUPFD_CLOEXEC(number + 1))?;
    // SAFETY: it was made by the line above.
    let supervisor = unsafe { OwnedFd::from_raw_fd(copy) };
    let (service, inside) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the number is the channel's, of which nobody else knows yet.
    let replaced = unsafe { dup2_raw(&inside, number) }?;
    // It stays open for who reads the environment.
    std::mem::forget(replaced);
    Ok((supervisor, service))
}

fn pass_on(faults: &[Fault], supervisor: &OwnedFd, service: &OwnedFd) -> io::Result<()> {
    // What was not passed on stays open: an end of it would tell the other process more than the fault does.
    let mut kept = Vec::new();
    loop {
        let mut both = [supervisor, service].map(|side| PollFd::new(side.as_fd(), PollFlags::POLLIN));
        poll(&mut both, PollTimeout::NONE)?;
        let ready = both.map(|side| side.any().unwrap_or(false));
        for (from, to, ready) in [(supervisor, service, ready[0]), (service, supervisor, ready[1])] {
            if !ready {
                continue;
            }
            let Message { text, descriptors } = Message::receive(from)?;
            let name = text.split(' ').next().unwrap_or_default();
            let due = faults.iter().find(|fault| fault.message == name);
            if due.is_none_or(|fault| fault.kind.happens(supervisor, &text, &descriptors)) {
                send(to, &text, &descriptors.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
            } else {
                kept.extend(descriptors);
            }
        }
    }
}

impl Kind {
    /// Let it happen to this message; whether it is passed on then.
    fn happens(&self, supervisor: &OwnedFd, text: &str, descriptors: &[OwnedFd]) -> bool {
        let done = match self {
            Self::Die => die(),
            Self::Hang => loop {
                thread::park();
            },
            Self::Grow => grow(),
            Self::Garbage => send(supervisor, "nonsense", &[]),
            Self::Hold(file) => return hold(file),
            Self::Half | Self::Lie | Self::Wrong => match (text.parse(), descriptors) {
                (Ok(Order::Offer { generation, .. }), [to]) => self.give(supervisor, to, generation),
                _ => Err(io::Error::other("an offer without a connection")),
            },
        };
        if let Err(error) = done {
            eprintln!("failed to misbehave: {error}");
        }
        false
    }

    /// In the place of the service, which is not told of the offer.
    fn give(&self, supervisor: &OwnedFd, to: &OwnedFd, generation: u64) -> io::Result<()> {
        let (pipe, _) = nix::unistd::pipe()?;
        let identity = match self {
            Self::Lie => "listening-stream:1".to_owned(),
            _ => Identity::of(&pipe)?.to_string(),
        };
        let line = format!("{identity} {}", crate::server::LISTENER);
        send(to, &format!("FDS 1\n{line}\n"), &[pipe.as_fd()])?;
        if *self == Self::Half {
            return die();
        }
        let length = STATE.len() as u64;
        let state = State::new(1, &[&length.to_le_bytes(), STATE].concat())?;
        let head = format!("STATE version={} bytes={}", state.version(), state.len());
        send(to, &head, &[state.as_fd()])?;
        let mut digest = Digest::new();
        digest.add(line.as_bytes());
        digest.add(head.as_bytes());
        let summary = Summary { descriptors: 1, state: state.len(), digest: digest.value() };
        send(to, &format!("END {summary}"), &[])?;
        send(supervisor, &Report::Offered { generation, summary }.to_string(), &[])
    }
}

fn die() -> io::Result<()> {
    Ok(kill(Pid::this(), Signal::SIGKILL)?)
}

/// It ends with the process.
fn grow() -> io::Result<()> {
    let mut all = Vec::new();
    loop {
        // Written to, or there would be no memory behind it.
        all.push(vec![1_u8; GROWTH]);
    }
}

fn hold(file: &Path) -> bool {
    // Under its name once it is whole.
    let new = PathBuf::from(format!("{}.new", file.display()));
    let made = fs::write(&new, std::process::id().to_string()).and_then(|()| fs::rename(&new, file));
    if let Err(error) = made {
        eprintln!("failed to make {}: {error}", file.display());
    }
    while file.exists() {
        thread::sleep(LOOK_PAUSE);
    }
    true
}

/// What came, with its descriptors.
struct Message {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    fn receive(from: &OwnedFd) -> io::Result<Self> {
        let mut buffer = [0; MESSAGE_LIMIT];
        // No message of this channel has more.
        let mut space = cmsg_space!([RawFd; 1]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message =
            recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let descriptors = message
            .cmsgs()?
            .filter_map(|part| match part {
                ControlMessageOwned::ScmRights(numbers) => Some(numbers),
                _ => None,
            })
            .flatten()
            // SAFETY: the kernel has just made it for this process.
            .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
            .collect();
        let length = message.bytes;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { text: String::from_utf8_lossy(&buffer[..length]).into_owned(), descriptors })
    }
}

fn send(to: &OwnedFd, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights };
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(text.as_bytes())], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_wrong_ones_tell_the_right_ones() {
        let faults: Faults = "new.move:die,old.leave:hold=/run/x".parse().expect("two faults");
        let [first, second] = &faults.0[..] else { panic!("{faults:?}") };
        assert_eq!(*first, Fault { message: "TAKEN", kind: Kind::Die });
        assert_eq!(*second, Fault { message: "RELEASE", kind: Kind::Hold("/run/x".into()) });
        let error = |text: &str| text.parse::<Faults>().expect_err(text);
        assert_eq!(error("die"), "die is not POINT:KIND");
        assert!(error("new.give:die").contains("new.prepare, new.move"));
        assert!(error("new.move:explode").ends_with("wrong, hold=FILE"));
        assert!(error("new.move:hold=").contains("none of"));
        assert_eq!(error("old.ready:half"), "old.ready is not where anything is given");
    }
}
