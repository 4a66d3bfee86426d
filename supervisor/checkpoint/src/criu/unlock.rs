//! A dump that ends processes leaves what keeps the peers of their connections waiting: a table of nf_tables, which the
//! restore takes away. Where there is no restore it is taken away here, so that they find out.
//!
//! Its name is `CRIU-` and the number of the dump, which is in the images, cut off where CRIU's own buffer ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::figures::{Value, fields};
use crate::netfilter::{self, Kind, TABLE_NAME, remove_table};

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
/// Bytes of a part of the list that are read at once: more than the kernel puts into one.
const LIST_ROOM: usize = 1 << 16;
/// Most parts that are read, each with some hundred tables.
const LIST_PARTS: usize = 64;
/// Bytes of a message's own head.
const HEADER: usize = 16;

/// Let the peers of what these images hold go. Whether there was anything in their way.
pub fn unlock(images: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(images.join(INVENTORY))?.take(INVENTORY_LIMIT).read_to_end(&mut bytes)?;
    match table(&bytes) {
        Some(name) => remove_table(&name),
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
    remove_table(name)
}

/// Whether connections can be kept from their peers here.
pub fn has_nf_tables() -> bool {
    // Without nf_tables the kernel knows nothing of such a question.
    remove_table("CRIU-none").is_ok()
}

/// The tables of all dumps, those of others, too.
pub fn tables() -> io::Result<BTreeSet<String>> {
    let socket = netfilter::list(Kind::GetTable)?;
    let (mut found, mut answer) = (BTreeSet::new(), vec![0_u8; LIST_ROOM]);
    for _ in 0..LIST_PARTS {
        let count = netfilter::hear(&socket, &mut answer)?;
        let mut rest = &answer[..count];
        while let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
            let Some((one, more)) = rest.split_at_checked(length.max(HEADER)) else { return Ok(found) };
            match u16::from_ne_bytes([one[4], one[5]]) {
                netfilter::DONE => return Ok(found),
                netfilter::ERROR => {
                    return match netfilter::errno(one) {
                        Some(0) => Ok(found),
                        Some(number) => Err(io::Error::from_raw_os_error(number)),
                        None => Err(netfilter::unknown()),
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
    let mut rest = message.get(netfilter::BEFORE..)?;
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
        let told = netfilter::tests::told("CRIU-1");
        assert_eq!(name_in(&told).as_deref(), Some("CRIU-1"));
        for cut in 0..told.len() - 2 {
            assert_eq!(name_in(&told[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = unlock(Path::new("/nonexistent")).expect_err("no images");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_table_is_listed_and_goes_and_nobody_elses() {
        use crate::netfilter::{Attributes, Batch, CREATE, TABLE_NAME};
        let alone = std::thread::spawn(|| {
            // Where there is no network of one's own, or no nf_tables, there is nothing to be seen.
            let own = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok() && has_nf_tables();
            for name in ["CRIU-1", "CRIU-2", "others"].into_iter().filter(|_| own) {
                let about = Attributes::new().text(TABLE_NAME, name);
                Batch::new().add(Kind::NewTable, CREATE, &about).send().expect("a table");
            }
            if own {
                assert_eq!(tables().expect("a list"), ["CRIU-1", "CRIU-2"].map(str::to_owned).into());
                assert!(
                    unlock_table("CRIU-1").expect("it goes") && !unlock_table("CRIU-1").expect("it is gone")
                );
                assert_eq!(tables().expect("a list"), ["CRIU-2".to_owned()].into());
            }
        });
        alone.join().expect("its end");
    }
}
