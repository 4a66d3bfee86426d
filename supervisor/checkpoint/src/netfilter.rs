//! nf_tables, asked directly: no other program is needed for it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// For the kernel to answer, which it does within the call.
const LIMIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Bytes of an answer that says how a batch went, with the message that it is about.
const ANSWER_ROOM: usize = 1 << 12;
/// Bytes before what a message is about: its own head, and netfilter's.
const BEFORE: usize = 20;
/// Bytes of a message's own head.
const HEADER: usize = 16;
/// Bytes of a part of a list that are read at once: more than the kernel puts into one.
const LIST_ROOM: usize = 1 << 16;
/// Most parts that are read, each with some hundred tables.
const LIST_PARTS: usize = 64;
/// Attributes begin at multiples of this, in bytes.
const ALIGNMENT: usize = 4;

// From the kernel's `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`.
/// A message asks for something.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
/// All there are.
const LIST: u16 = 0x300;
/// Make it, if it is not there.
pub const CREATE: u16 = 0x400;
/// Behind those that there are.
pub const APPEND: u16 = 0x800;
/// The kind of a message that says how something went, and of the last one of a list.
const ERROR: u16 = 2;
/// See [`ERROR`].
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NF_TABLES: u16 = 10;
const NESTED: u16 = 0x8000;
/// The name of a table, in messages about it (`NFTA_TABLE_NAME`).
pub const TABLE_NAME: u16 = 1;
/// Its flags (`NFTA_TABLE_FLAGS`).
pub const TABLE_FLAGS: u16 = 2;
/// It is its maker's socket's alone, and is gone with that (`NFT_TABLE_F_OWNER`, since Linux 5.12).
pub const OWNED: u32 = 2;
/// IPv4 and IPv6.
const FAMILY_INET: u8 = 1;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A table is made.
    NewTable = 0,
    /// Tables are listed.
    GetTable = 1,
    /// A table is removed, with all that is in it.
    DeleteTable = 2,
    /// A chain of rules is made.
    NewChain = 3,
    /// A rule is made.
    NewRule = 6,
    /// A set is made.
    NewSet = 9,
    /// Elements of a set are made.
    NewElements = 12,
}

impl Kind {
    fn number(self) -> u16 {
        NF_TABLES << 8 | self as u16
    }
}

/// What a message says: numbered fields.
#[derive(Clone, Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more. What is longer than a message may say is refused by the kernel.
    pub fn bytes(mut self, number: u16, content: &[u8]) -> Self {
        let length = u16::try_from(ALIGNMENT + content.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(number.to_ne_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// A name.
    pub fn text(self, number: u16, text: &str) -> Self {
        self.bytes(number, &[text.as_bytes(), b"\0"].concat())
    }

    /// A number of four bytes.
    pub fn number(self, number: u16, value: u32) -> Self {
        self.bytes(number, &value.to_be_bytes())
    }

    /// A number of eight.
    pub fn long(self, number: u16, value: u64) -> Self {
        self.bytes(number, &value.to_be_bytes())
    }

    /// Others below this one.
    pub fn nest(self, number: u16, inner: &Self) -> Self {
        self.bytes(number | NESTED, &inner.0)
    }
}

/// Changes that are made all together, or not at all.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the newest change begins.
    newest: Option<usize>,
}

impl Batch {
    /// None yet.
    pub fn new() -> Self {
        Self { bytes: message(BATCH_BEGIN, REQUEST, (0, NF_TABLES), &[]), newest: None }
    }

    /// One more, of IPv4 and IPv6.
    pub fn add(mut self, kind: Kind, flags: u16, about: &Attributes) -> Self {
        self.newest = Some(self.bytes.len());
        self.bytes.extend(message(kind.number(), REQUEST | flags, (FAMILY_INET, 0), &about.0));
        self
    }

    /// As it is sent. The newest is acknowledged: whatever fails before it is told before that.
    fn finish(mut self) -> Vec<u8> {
        if let Some(flags) = self.newest.and_then(|at| self.bytes.get_mut(at + 6..at + 8)) {
            let all = u16::from_ne_bytes([flags[0], flags[1]]) | ACKNOWLEDGE;
            flags.copy_from_slice(&all.to_ne_bytes());
        }
        self.bytes.extend(message(BATCH_END, REQUEST, (0, NF_TABLES), &[]));
        self.bytes
    }

    /// Have the kernel make them.
    ///
    /// # Errors
    /// The first that it does not make, by the kernel's reason; then it has made none.
    pub fn send(self) -> io::Result<()> {
        self.send_by(&open()?)
    }

    /// The same by this socket, which may be the owner of what they are about: see [`OWNED`].
    ///
    /// # Errors
    /// See [`Self::send`].
    pub fn send_by(self, socket: &OwnedFd) -> io::Result<()> {
        let mut answer = [0_u8; ANSWER_ROOM];
        // Of several mistakes of a batch before this one the first was heard.
        while recv(socket, &mut answer, RecvFlags::DONTWAIT).is_ok() {}
        send(socket, &self.finish(), SendFlags::empty())?;
        let count = hear(socket, &mut answer)?;
        match errno(&answer[..count]) {
            Some(0) => Ok(()),
            Some(number) => Err(io::Error::from_raw_os_error(number)),
            None => Err(unknown()),
        }
    }
}

/// Remove a table of IPv4 and IPv6. Whether it was there.
///
/// # Errors
/// Those of the kernel, as where it has no nf_tables.
pub fn remove_table(name: &str) -> io::Result<bool> {
    let about = Attributes::new().text(TABLE_NAME, name);
    match Batch::new().add(Kind::DeleteTable, 0, &about).send() {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The names of all tables of IPv4 and IPv6.
///
/// # Errors
/// Those of the kernel, as where it has no nf_tables.
pub fn tables() -> io::Result<BTreeSet<String>> {
    let socket = open()?;
    let question = message(Kind::GetTable.number(), REQUEST | LIST, (FAMILY_INET, 0), &[]);
    send(&socket, &question, SendFlags::empty())?;
    let (mut found, mut answer) = (BTreeSet::new(), vec![0_u8; LIST_ROOM]);
    for _ in 0..LIST_PARTS {
        let count = hear(&socket, &mut answer)?;
        let mut rest = &answer[..count];
        while let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
            let Some((one, more)) = rest.split_at_checked(length.max(HEADER)) else { return Ok(found) };
            match u16::from_ne_bytes([one[4], one[5]]) {
                DONE => return Ok(found),
                ERROR => {
                    return match errno(one) {
                        Some(0) => Ok(found),
                        Some(number) => Err(io::Error::from_raw_os_error(number)),
                        None => Err(unknown()),
                    };
                }
                _ => found.extend(name_in(one)),
            }
            rest = more;
        }
    }
    Ok(found)
}

/// The name of the table in a message about one.
fn name_in(message: &[u8]) -> Option<String> {
    let mut rest = message.get(BEFORE..)?;
    while let Some(head) = rest.first_chunk::<2>() {
        let length = usize::from(u16::from_ne_bytes(*head));
        let attribute = rest.get(..length.max(ALIGNMENT))?;
        if u16::from_ne_bytes([attribute[2], attribute[3]]) == TABLE_NAME {
            let text = attribute[ALIGNMENT..].split(|byte| *byte == 0).next()?;
            return std::str::from_utf8(text).ok().map(str::to_owned);
        }
        rest = rest.get(length.max(ALIGNMENT).next_multiple_of(ALIGNMENT)..)?;
    }
    None
}

/// The next answer; how many bytes of it there was room for.
fn hear(socket: &OwnedFd, answer: &mut [u8]) -> io::Result<usize> {
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&LIMIT))? == 0 {
        return Err(Errno::TIMEDOUT.into());
    }
    let room = answer.len();
    let (count, _) = recv(socket, answer, RecvFlags::empty())?;
    Ok(count.min(room))
}

/// The number of the error that a message tells; 0 for none.
fn errno(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let number = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    (kind == ERROR).then(|| number.saturating_neg())
}

/// It speaks another language.
fn unknown() -> io::Error {
    io::Error::other("nf_tables answers something else")
}

/// A socket to it.
///
/// # Errors
/// Those of the kernel, as where it has no netfilter.
pub fn open() -> io::Result<OwnedFd> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    Ok(socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER))?)
}

/// With the family and the resource that all messages of netfilter have.
fn message(kind: u16, flags: u16, (family, resource): (u8, u16), payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(BEFORE + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Its number, and that of its sender.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What the kernel tells of a table.
    fn told(name: &str) -> Vec<u8> {
        let about = Attributes::new().number(2, 1).text(1, name);
        message(Kind::NewTable.number(), 0, (FAMILY_INET, 0), &about.0)
    }

    /// A table with nothing in it.
    pub fn make_table(name: &str) -> io::Result<()> {
        let about = Attributes::new().text(TABLE_NAME, name);
        Batch::new().add(Kind::NewTable, CREATE, &about).send()
    }

    #[test]
    fn the_name_of_a_table_is_found_in_what_is_told_of_it() {
        let told = told("CRIU-1");
        assert_eq!(name_in(&told).as_deref(), Some("CRIU-1"));
        for cut in 0..told.len() - 2 {
            assert_eq!(name_in(&told[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_batch_is_whole() {
        let name = Attributes::new().text(1, "CRIU-1");
        let batch = Batch::new().add(Kind::NewTable, CREATE, &name).add(Kind::DeleteTable, 0, &name).finish();
        let mut kinds = Vec::new();
        let mut rest = batch.as_slice();
        while let Some(length) = rest.first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            let [kind, flags] = [4, 6].map(|at| u16::from_ne_bytes([rest[at], rest[at + 1]]));
            kinds.push((kind, flags));
            assert_eq!(length % 4, 0);
            rest = &rest[length..];
        }
        assert_eq!(kinds, [(BATCH_BEGIN, 1), (0x0a00, 0x401), (0x0a02, 5), (BATCH_END, 1)]);
        assert_eq!(&batch[40..52], b"\x0b\0\x01\0CRIU-1\0\0");
        let nested = Attributes::new().nest(4, &Attributes::new().bytes(1, b"x").long(2, 3));
        assert_eq!(nested.0, b"\x18\0\x04\x80\x05\0\x01\0x\0\0\0\x0c\0\x02\0\0\0\0\0\0\0\0\x03");
    }
}
