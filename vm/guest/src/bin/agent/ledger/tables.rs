//! What the kernel is told to do with packets: the tables of nf_tables, by the kernel's `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nf_tables.h`.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// For the kernel to answer, in seconds: it does so within the call.
const LIMIT: i64 = 1;
/// Bytes of a part of the answer that are read at once: more than the kernel puts into one.
const ROOM: usize = 1 << 16;
/// Most parts that are read.
const PARTS: usize = 64;
/// Bytes of a message's own head, and of netfilter's behind it.
const HEAD: usize = 16;
const NETFILTER_HEAD: usize = 4;
/// The kinds of messages: the question for all tables, an error, and the end of a list.
const GET_TABLE: u16 = 10 << 8 | 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// It asks for all there are.
const FLAGS: u16 = 1 | 0x300;
/// The attribute with a table's name.
const NAME: u16 = 1;
/// Attributes begin at multiples of this, in bytes.
const ALIGNMENT: usize = 4;

/// Their names, in this network namespace, sorted; none where the kernel has no nf_tables.
pub fn all() -> Vec<String> {
    let mut found = ask().unwrap_or_default();
    found.sort_unstable();
    found
}

fn ask() -> nix::Result<Vec<String>> {
    let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
    let socket: OwnedFd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(LIMIT))?;
    let mut question = u32::try_from(HEAD + NETFILTER_HEAD).unwrap_or_default().to_ne_bytes().to_vec();
    question.extend(GET_TABLE.to_ne_bytes());
    question.extend(FLAGS.to_ne_bytes());
    question.resize(HEAD + NETFILTER_HEAD, 0);
    send(socket.as_raw_fd(), &question, MsgFlags::empty())?;
    let (mut found, mut answer) = (Vec::new(), vec![0; ROOM]);
    for _ in 0..PARTS {
        let count = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if !take(&answer[..count], &mut found) {
            break;
        }
    }
    Ok(found)
}

/// Take names from a part of the answer. Whether there is more.
fn take(mut rest: &[u8], found: &mut Vec<String>) -> bool {
    while let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
        let Some((one, more)) = rest.split_at_checked(length.max(HEAD)) else { return false };
        match u16::from_ne_bytes([one[4], one[5]]) {
            DONE | ERROR => return false,
            _ => found.extend(name(one)),
        }
        rest = more;
    }
    true
}

fn name(message: &[u8]) -> Option<String> {
    let mut rest = message.get(HEAD + NETFILTER_HEAD..)?;
    while let Some(head) = rest.first_chunk::<2>() {
        let length = usize::from(u16::from_ne_bytes(*head)).max(ALIGNMENT);
        let attribute = rest.get(..length)?;
        if u16::from_ne_bytes([attribute[2], attribute[3]]) == NAME {
            let text = attribute[ALIGNMENT..].split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel tells of one: its name after another attribute.
    fn told(name: &str) -> Vec<u8> {
        let mut text = [name.as_bytes(), b"\0"].concat();
        let length = (ALIGNMENT + text.len()) as u16;
        text.resize(text.len().next_multiple_of(ALIGNMENT), 0);
        let whole = HEAD + NETFILTER_HEAD + 8 + ALIGNMENT + text.len();
        let mut message = (whole as u32).to_ne_bytes().to_vec();
        message.resize(HEAD + NETFILTER_HEAD, 0);
        message.extend([8, 0, 2, 0, 0, 0, 0, 1]);
        message.extend(length.to_ne_bytes());
        message.extend(NAME.to_ne_bytes());
        message.extend(text);
        message
    }

    #[test]
    fn names_are_found_and_what_is_cut_off_has_none() {
        let mut found = Vec::new();
        assert!(take(&[told("yakiros-jump"), told("filter")].concat(), &mut found));
        assert_eq!(found, ["yakiros-jump", "filter"]);
        let whole = told("filter");
        for cut in 0..whole.len() {
            let mut found = Vec::new();
            take(&whole[..cut], &mut found);
            assert_eq!(found, Vec::<String>::new(), "{cut}");
        }
        let mut end = told("x");
        end[4..6].copy_from_slice(&DONE.to_ne_bytes());
        assert!(!take(&end, &mut Vec::new()));
    }
}
