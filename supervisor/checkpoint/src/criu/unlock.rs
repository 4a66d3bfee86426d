//! A dump that ends processes leaves what keeps the peers of their connections waiting: a table of nf_tables, which the
//! restore takes away. Where there is no restore it is taken away here, so that they find out.
//!
//! Its name is `CRIU-` and the number of the dump, which is in the images, cut off where CRIU's own buffer ends.

use std::fs::File;
use std::io::{self, Read as _};
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
/// For the kernel to answer, which it does within the call.
const LIMIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

// From the kernel's `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NF_TABLES: u16 = 10;
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

fn delete(name: &str) -> io::Result<bool> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER))?;
    send(&socket, &request(name), SendFlags::empty())?;
    if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&LIMIT))? == 0 {
        return Err(Errno::TIMEDOUT.into());
    }
    let mut answer = [0_u8; 256];
    let (count, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
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
        let missing = unlock(Path::new("/nonexistent")).expect_err("no images");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
