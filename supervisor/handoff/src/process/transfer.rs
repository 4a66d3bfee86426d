//! Descriptors and state from one process to the other, and the proof that they arrived.
//!
//! Messages, each with its descriptors: `FDS n` and a line `IDENTITY NAME` for each of them, as
//! often as needed; `STATE version=N bytes=N` with the state; `END` and a
//! [`Summary`](crate::message::Summary). What the receiver finds by looking at the descriptors
//! must be what the sender says.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::identity::{Digest, Identity};
use super::socket::{self, DESCRIPTORS_PER_MESSAGE, Received};
use super::state::State;
use crate::message::{Part, Summary};

/// The longest name of a descriptor, in bytes: sd_notify's (`FDNAME_MAX`).
pub const NAME_LIMIT: usize = 255;

/// The most descriptors that are taken over: far more than a process may have by default, and the
/// lists of them stay within a few MB.
pub const DESCRIPTORS_LIMIT: usize = 1 << 20;

/// The longest message that is taken, in bytes, and so the size of the receiver's buffer.
const LIST_LIMIT: usize = DESCRIPTORS_PER_MESSAGE * (NAME_LIMIT + IDENTITY_LIMIT) + 16;

/// A list that is as long as this, in bytes, is sent. No message is longer than a socket's queue, whose
/// size the administrator chooses (`net.core.wmem_default`, 208 KiB unless told otherwise).
const LIST_ENOUGH: usize = 32 << 10;

/// The longest identity with its separators: two numbers of 20 digits and a word.
const IDENTITY_LIMIT: usize = 64;

/// A descriptor and what the application calls it.
#[derive(Debug)]
pub struct Item {
    /// One line of at most [`NAME_LIMIT`] bytes. Names need not differ.
    pub name: String,
    /// What it names.
    pub descriptor: OwnedFd,
    /// What it is, which was looked at when it came.
    pub identity: Identity,
}

/// What a successor has got.
#[derive(Debug)]
pub struct Inheritance {
    /// Which part of everything: all of it for who has not said that it takes two.
    pub part: Part,
    /// Descriptors, in the order in which they were given.
    pub items: Vec<Item>,
    /// The state.
    pub state: State,
}

impl Inheritance {
    /// What the first process of a service has.
    pub(super) fn nothing() -> io::Result<Self> {
        Ok(Self { part: Part::All, items: Vec::new(), state: State::empty()? })
    }

    /// Take out the first descriptor of this name.
    pub fn remove(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.items.iter().position(|item| item.name == name)?;
        Some(self.items.remove(at).descriptor)
    }

    /// Take out all descriptors whose names begin with `prefix`, with the rest of their names.
    pub fn remove_all(&mut self, prefix: &str) -> Vec<(String, OwnedFd)> {
        let found = self.take_all(prefix).into_iter();
        found.map(|item| (item.name[prefix.len()..].to_owned(), item.descriptor)).collect()
    }

    /// The same with all that is known of them, under their whole names.
    pub fn take_all(&mut self, prefix: &str) -> Vec<Item> {
        let (found, kept) = std::mem::take(&mut self.items)
            .into_iter()
            .partition::<Vec<_>, _>(|item| item.name.starts_with(prefix));
        self.items = kept;
        found
    }
}

/// Send everything.
pub(crate) fn send<'a>(
    socket: BorrowedFd<'_>,
    items: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>,
    state: &State,
    deadline: Option<Instant>,
) -> io::Result<Summary> {
    let mut digest = Digest::new();
    let mut count = 0;
    let mut batch = Batch::default();
    for (name, descriptor) in items {
        let line = line_of(name, descriptor)?;
        digest.add(line.as_bytes());
        batch.lines.push_str(&line);
        batch.lines.push('\n');
        batch.descriptors.push(descriptor);
        count += 1;
        if batch.is_full() {
            batch.send(socket, deadline)?;
        }
    }
    batch.send(socket, deadline)?;
    let head = format!("STATE version={} bytes={}", state.version(), state.len());
    digest.add(head.as_bytes());
    socket::send(socket, head.as_bytes(), &[state.as_fd()], deadline)?;
    let summary = Summary { descriptors: count, state: state.len(), digest: digest.value() };
    socket::send(socket, format!("END {summary}").as_bytes(), &[], deadline)?;
    Ok(summary)
}

fn line_of(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<String> {
    if name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        let message = format!("{name:?} is not one line of at most {NAME_LIMIT} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(format!("{} {name}", Identity::of(descriptor)?))
}

/// Descriptors of one message.
#[derive(Default)]
struct Batch<'a> {
    lines: String,
    descriptors: Vec<BorrowedFd<'a>>,
}

impl Batch<'_> {
    fn is_full(&self) -> bool {
        self.descriptors.len() == DESCRIPTORS_PER_MESSAGE || self.lines.len() >= LIST_ENOUGH
    }

    fn send(&mut self, socket: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<()> {
        if self.descriptors.is_empty() {
            return Ok(());
        }
        let text = format!("FDS {}\n{}", self.descriptors.len(), self.lines);
        socket::send(socket, text.as_bytes(), &self.descriptors, deadline)?;
        self.descriptors.clear();
        self.lines.clear();
        Ok(())
    }
}

/// Receive everything and check it.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    part: Part,
    deadline: Option<Instant>,
) -> io::Result<(Inheritance, Summary)> {
    let mut receiver = Receiver::new(part);
    let mut buffer = vec![0; LIST_LIMIT];
    loop {
        let Received { length, descriptors, .. } = socket::receive(socket, &mut buffer, deadline)?.whole()?;
        let text = str::from_utf8(&buffer[..length]).map_err(|_| wrong("a message that is no text"))?;
        if let Some(done) = receiver.take(text, descriptors)? {
            return Ok(done);
        }
    }
}

/// What has come so far.
struct Receiver {
    part: Part,
    items: Vec<Item>,
    state: Option<State>,
    digest: Digest,
}

impl Receiver {
    fn new(part: Part) -> Self {
        Self { part, items: Vec::new(), state: None, digest: Digest::new() }
    }

    /// Take one message; the last one gives the result.
    fn take(&mut self, text: &str, descriptors: Vec<OwnedFd>) -> io::Result<Option<(Inheritance, Summary)>> {
        let (word, rest) = text.split_once([' ', '\n']).unwrap_or((text, ""));
        match word {
            "FDS" if self.state.is_none() => self.take_items(rest, descriptors)?,
            "STATE" if self.state.is_none() => self.take_state(text, rest, descriptors)?,
            "END" if descriptors.is_empty() => return self.end(rest).map(Some),
            _ => return Err(wrong(format!("an unexpected message {:?}", shown(text)))),
        }
        Ok(None)
    }

    fn take_items(&mut self, rest: &str, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut lines = rest.lines();
        let announced: Option<usize> = lines.next().and_then(|count| count.parse().ok());
        let lines: Vec<_> = lines.collect();
        if announced != Some(descriptors.len()) || lines.len() != descriptors.len() {
            let (lines, came) = (lines.len(), descriptors.len());
            return Err(wrong(format!("{came} descriptors came with a list of {lines}")));
        }
        if self.items.len() + descriptors.len() > DESCRIPTORS_LIMIT {
            return Err(wrong(format!("more than {DESCRIPTORS_LIMIT} descriptors")));
        }
        for (line, descriptor) in lines.into_iter().zip(descriptors) {
            let (said, name) = line.split_once(' ').unwrap_or((line, ""));
            let identity = Identity::of(&descriptor)?;
            let found = identity.to_string();
            if found != said {
                return Err(wrong(format!("{name:?} should be {:?} and is {found}", shown(said))));
            }
            self.digest.add(line.as_bytes());
            self.items.push(Item { name: name.to_owned(), descriptor, identity });
        }
        Ok(())
    }

    fn take_state(&mut self, text: &str, rest: &str, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let number = |word: Option<&str>, key| word?.strip_prefix(key)?.parse::<u64>().ok();
        let mut words = rest.split(' ');
        let version = number(words.next(), "version=").and_then(|version| u32::try_from(version).ok());
        let bytes = number(words.next(), "bytes=");
        let memory = <[OwnedFd; 1]>::try_from(descriptors).ok();
        let (Some(version), Some(bytes), Some([memory]), None) = (version, bytes, memory, words.next())
        else {
            return Err(wrong(format!("no state as announced: {:?}", shown(text))));
        };
        let state = State::received(version, memory)?;
        if state.len() != bytes {
            return Err(wrong(format!("a state of {} bytes where {bytes} were announced", state.len())));
        }
        self.digest.add(text.as_bytes());
        self.state = Some(state);
        Ok(())
    }

    fn end(&mut self, rest: &str) -> io::Result<(Inheritance, Summary)> {
        let Some(state) = self.state.take() else {
            return Err(wrong("an end before the state"));
        };
        let descriptors = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        let summary = Summary { descriptors, state: state.len(), digest: self.digest.value() };
        if rest != summary.to_string() {
            return Err(wrong(format!("received {summary}, announced {}", shown(rest))));
        }
        Ok((Inheritance { part: self.part, items: std::mem::take(&mut self.items), state }, summary))
    }
}

fn wrong(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// The beginning of what came, for a message.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
