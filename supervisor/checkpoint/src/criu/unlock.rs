//! A dump that ends processes leaves what keeps the peers of their connections waiting: a table of nf_tables, which the
//! restore takes away. Where there is no restore it is taken away here, so that they find out.
//!
//! Its name is `CRIU-` and the number of the dump, which is in the images, cut off where CRIU's own buffer ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::figures::{Value, fields};
use crate::netfilter::{self, remove_table};

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
    let mut tables = netfilter::tables()?;
    tables.retain(|name| name.starts_with(PREFIX));
    Ok(tables)
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
    fn what_is_not_there_is_named() {
        let missing = unlock(Path::new("/nonexistent")).expect_err("no images");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_table_is_listed_and_goes_and_nobody_elses() {
        use crate::netfilter::tests::make_table;
        crate::alone::alone("criu::unlock::tests::a_table_is_listed_and_goes_and_nobody_elses", || {
            for name in ["CRIU-1", "CRIU-2", "others"] {
                make_table(name).expect("a table");
            }
            assert_eq!(tables().expect("a list"), ["CRIU-1", "CRIU-2"].map(str::to_owned).into());
            assert!(unlock_table("CRIU-1").expect("it goes") && !unlock_table("CRIU-1").expect("it is gone"));
            assert_eq!(tables().expect("a list"), ["CRIU-2".to_owned()].into());
        });
    }
}
