//! A dump that ends processes leaves what keeps the peers of their connections waiting: a table of nf_tables, which the
//! restore takes away. Where there is no restore it is taken away here, so that they find out.
//!
//! Its name is `CRIU-` and the number of the dump, which is in the images, cut off where CRIU's own buffer ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::figures::{Value, fields};

/// The image with the number, and most of its bytes that are read: a message of some twenty fields.
const INVENTORY: &str = "inventory.img";
const INVENTORY_LIMIT: u64 = 1 << 16;
/// A magic number and the length of the message.
const HEAD: usize = 8;
/// The field with the number of the dump (`dump_criu_run_id` of `images/inventory.proto`).
const RUN_ID: u64 = 13;
/// Begins the table's name.
const PREFIX: &str = "CRIU-";
/// Most bytes of the name: CRIU's buffer has 32, with `inet ` before it and a NUL after it.
const NAME_LIMIT: usize = 26;
/// Bytes before what a message is about.
const HEADER: usize = 16;
/// Bytes of a part of the list that are read at once: more than the kernel puts into one.
const LIST_ROOM: usize = 1 << 16;
/// Most parts that are read, each with some hundred tables.
const LIST_PARTS: usize = 64;
/// For the kernel to answer, which it does within the call.
const LIMIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

// From the kernel's `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const LIST: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NF_TABLES: u16 = 10;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const TABLE_NAME: u16 = 1;
const FAMILY_INET: u8 = 1;

/// Let the peers of what these images hold go. Whether there was anything in their way.
pub fn unlock(images: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(images.join(INVENTORY))?.take(INVENTORY_LIMIT).read_to_end(&mut bytes)?;
    match table(&bytes) {
        Some(name) => delete(&name),
        None => Ok(false),
    }
}

/// The name of the table, by the image. A dump without a number has none that could be found again.
fn table(image: &[u8]) -> Option<String> {
    let (head, rest) = image.split_at_checked(HEAD)?;
    let length = u32::from_le_bytes(*head.last_chunk::<4>()?);
    let message = rest.get(..length as usize)?;
    let number = fields(message)?.into_iter().find_map(|(field, value)| match value {
        Value::Message(text) if field == RUN_ID => std::str::from_utf8(text).ok(),
        _ => None,
    })?;
    let name: String = [PREFIX, number].concat().chars().take(NAME_LIMIT).collect();
    Some(name).filter(|name| name.len() > PREFIX.len() && name.is_ascii())
}

/// The same by the table's name, which [`tables`] has told.
pub fn unlock_table(name: &str) -> io::Result<bool> {
    delete(name)
}

/// Whether connections can be kept from their peers here.
pub fn has_nf_tables() -> bool {
    // Without nf_tables the kernel knows nothing of such a question.
    delete("CRIU-none").is_ok()
}

/// The tables of all dumps, those of others, too.
pub fn tables() -> io::Result<BTreeSet<String>> {
    let socket = ask(&message(NF_TABLES << 8 | GET_TABLE, REQUEST | LIST, (FAMILY_INET, 0), &[]))?;
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
                        None => Err(io::Error::other("nf_tables answers something else")),
                    };
                }
                _ => found.extend(name_in(one).filter(|name| name.starts_with(PREFIX))),
            }
            rest = more;
        }
    }
    Ok(found)
}

/// The name of the table in a message about one.
fn name_in(message: &[u8]) -> Option<String> {
    let mut rest = message.get(HEADER + 4..)?;
    while let Some(head) = rest.first_chunk::<2>() {
        let length = usize::from(u16::from_ne_bytes(*head));
        let attribute = rest.get(..length.max(4))?;
        if u16::from_ne_bytes([attribute[2], attribute[3]]) == TABLE_NAME {
            let text = attribute[4..].split(|byte| *byte == 0).next()?;
            return std::str::from_utf8(text).ok().map(str::to_owned);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

fn ask(request: &[u8]) -> io::Result<OwnedFd> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER))?;
    send(&socket, request, SendFlags::empty())?;
    Ok(socket)
}

fn hear(socket: &OwnedFd, answer: &mut [u8]) -> io::Result<usize> {
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&LIMIT))? == 0 {
        return Err(Errno::TIMEDOUT.into());
    }
    let room = answer.len();
    let (count, _) = recv(socket, answer, RecvFlags::empty())?;
    Ok(count.min(room))
}

fn delete(name: &str) -> io::Result<bool> {
    let socket = ask(&request(name))?;
    let mut answer = [0_u8; 256];
    let count = hear(&socket, &mut answer)?;
    match errno(&answer[..count]) {
        Some(0) => Ok(true),
        Some(number) if number == Errno::NOENT.raw_os_error() => Ok(false),
        Some(number) => Err(io::Error::from_raw_os_error(number)),
        None => Err(io::Error::other("nf_tables answers something else")),
    }
}

/// The number of the error that a message tells; 0 for none.
fn errno(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let number = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    (kind == ERROR).then(|| number.saturating_neg())
}

/// A batch that deletes one table.
fn request(name: &str) -> Vec<u8> {
    let mut attribute = Vec::new();
    let length = 4 + name.len() + 1;
    attribute.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    attribute.extend(TABLE_NAME.to_ne_bytes());
    attribute.extend(name.bytes());
    attribute.resize(4 + (name.len() + 1).next_multiple_of(4), 0);
    let deletion = (NF_TABLES << 8) | DELETE_TABLE;
    [
        message(BATCH_BEGIN, REQUEST, (0, NF_TABLES), &[]),
        message(deletion, REQUEST | ACKNOWLEDGE, (FAMILY_INET, 0), &attribute),
        message(BATCH_END, REQUEST, (0, NF_TABLES), &[]),
    ]
    .concat()
}

/// With the family and the resource that all messages of netfilter have.
fn message(kind: u16, flags: u16, (family, resource): (u8, u16), payload: &[u8]) -> Vec<u8> {
    const BEFORE: usize = 20;
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
mod tests {
    use super::*;

    /// `inventory.img` of CRIU 4.2.1.
    const IMAGE: &[u8] =
        b"\x16\x31\x31\x58\x4e\0\0\0\x08\x02\x10\x01\x1a\x18\x08\x01\x10\x01\x18\x01\x20\x01\x28\x01\
        \x30\x02\x38\x03\x40\x04\x48\x06\x50\x07\x58\x08\x60\x05\x20\x01\x28\x01\x30\0\x58\x01\x62\0\
        \x6a\x248a0cb764-2914-43be-8e75-843cadd9c8eb";

    #[test]
    fn the_table_is_that_of_the_dump() {
        assert_eq!(table(IMAGE).as_deref(), Some("CRIU-8a0cb764-2914-43be-8e"));
        for cut in 0..IMAGE.len() {
            assert_eq!(table(&IMAGE[..cut]), None);
        }
    }

    #[test]
    fn the_name_of_a_table_is_found_in_what_is_told_of_it() {
        let mut about = vec![8, 0, 2, 0, 0, 0, 0, 1, 11, 0, 1, 0];
        about.extend(b"CRIU-1\0\0");
        let told = message(NF_TABLES << 8, 0, (FAMILY_INET, 0), &about);
        assert_eq!(name_in(&told).as_deref(), Some("CRIU-1"));
        for cut in 0..told.len() - 2 {
            assert_eq!(name_in(&told[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_batch_is_whole() {
        let batch = request("CRIU-1");
        let mut kinds = Vec::new();
        let mut rest = batch.as_slice();
        while let Some(length) = rest.first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            kinds.push(u16::from_ne_bytes([rest[4], rest[5]]));
            assert_eq!(length % 4, 0);
            rest = &rest[length..];
        }
        assert_eq!(kinds, [BATCH_BEGIN, 0x0a02, BATCH_END]);
        assert_eq!(&batch[40..52], b"\x0b\0\x01\0CRIU-1\0\0");
    }

    #[test]
    fn what_is_not_there_is_in_nobodys_way() {
        // Where there is no nf_tables, or no right to change it, that is an error and nothing else.
        if let Ok(found) = delete("CRIU-no-such-table") {
            assert!(!found);
        }
        if let Ok(all) = tables() {
            assert!(all.iter().all(|name| name.starts_with(PREFIX)), "{all:?}");
        }
        let missing = unlock(Path::new("/nonexistent")).expect_err("no images");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
