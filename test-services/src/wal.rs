//! A map of text that is on the disk before it says so: a write-ahead file.
//!
//! Each change is one line, `CHECKSUM SET KEY VALUE` or `CHECKSUM DEL KEY`, flushed to the disk before
//! it counts. A last line that is cut or damaged, as a crash leaves it, is cut off at the next start;
//! damage before it is an error, for no crash makes that.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

/// See the module documentation.
#[derive(Debug)]
pub struct Store {
    file: File,
    /// Bytes of whole lines.
    length: u64,
    map: BTreeMap<String, String>,
}

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// This key has this value.
    Set(&'a str, &'a str),
    /// There is no such key.
    Delete(&'a str),
}

impl Store {
    /// Open or create the file, and make the map of what is in it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut store = Self { file, length: 0, map: BTreeMap::new() };
        let mut reader = BufReader::new(store.file.try_clone()?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let text = str::from_utf8(&line).ok().and_then(|text| text.strip_suffix('\n'));
            let Some(change) = text.and_then(parse) else {
                // More behind it means that it is not what a crash has cut.
                if reader.fill_buf()?.is_empty() {
                    break;
                }
                let what = format!("{}: damaged after {} bytes", path.display(), store.length);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            };
            apply(&mut store.map, change);
            store.length += line.len() as u64;
            line.clear();
        }
        store.file.set_len(store.length)?;
        store.file.seek(SeekFrom::End(0))?;
        Ok(store)
    }

    /// What is known of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.map.get(key).map(String::as_str)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Make a change; when this returns without an error it is on the disk.
    pub fn change(&mut self, change: Change<'_>) -> io::Result<()> {
        let text = match change {
            Change::Set(key, value) => format!("SET {key} {value}"),
            Change::Delete(key) => format!("DEL {key}"),
        };
        let line = format!("{:016x} {text}\n", checksum(&text));
        if let Err(error) = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()) {
            // Half a line must not stand before the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        apply(&mut self.map, change);
        Ok(())
    }
}

fn parse(line: &str) -> Option<Change<'_>> {
    let (sum, text) = line.split_once(' ')?;
    if u64::from_str_radix(sum, 16).ok()? != checksum(text) {
        return None;
    }
    let (what, rest) = text.split_once(' ')?;
    match what {
        "SET" => rest.split_once(' ').map(|(key, value)| Change::Set(key, value)),
        "DEL" => Some(Change::Delete(rest)),
        _ => None,
    }
}

fn apply(map: &mut BTreeMap<String, String>, change: Change<'_>) {
    match change {
        Change::Set(key, value) => map.insert(key.to_owned(), value.to_owned()),
        Change::Delete(key) => map.remove(key),
    };
}

/// FNV-1a, 64 bits.
fn checksum(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn filled(path: &Path) -> Vec<u8> {
        let mut store = Store::open(path).unwrap();
        store.change(Change::Set("a", "1 2")).unwrap();
        store.change(Change::Set("b", "")).unwrap();
        store.change(Change::Delete("b")).unwrap();
        store.change(Change::Set("c", "3")).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn what_was_changed_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wal");
        filled(&path);
        let store = Store::open(&path).unwrap();
        assert_eq!((store.get("a"), store.get("b"), store.get("c")), (Some("1 2"), None, Some("3")));
    }

    /// Wherever a crash cuts the file, all lines before are there, and it goes on from them.
    #[test]
    fn a_cut_costs_the_last_change_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wal");
        let whole = filled(&path);
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].split(|byte| *byte == b'\n').count() - 1;
            let mut store = Store::open(&path).unwrap();
            let expected =
                [(None, 0), (Some("1 2"), 1), (Some("1 2"), 2), (Some("1 2"), 1), (Some("1 2"), 2)];
            assert_eq!((store.get("a"), store.len()), expected[lines], "cut at {cut}");
            store.change(Change::Set("d", "4")).unwrap();
            assert_eq!(Store::open(&path).unwrap().get("d"), Some("4"), "cut at {cut}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wal");
        let mut bytes = filled(&path);
        bytes[20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("damaged after 0 bytes"), "{error}");
    }
}
