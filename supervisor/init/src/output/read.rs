//! Reading a log: its end, or piece by piece from a position. An answer is a page like any other.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

use yakiros_core::control::{LogPosition, LogText, PAGE_BYTES};

use super::{gone, log_path, rotated};

/// The most bytes of a log in one answer, as they are on the wire: a page like that of any other
/// answer, for clients that do not read theirs make the supervisor hold it.
const TEXT_LIMIT: usize = PAGE_BYTES;

/// Longest encoding of a character in UTF-8.
const CHARACTER_LIMIT: usize = 4;

/// One of the two files, open.
struct Part {
    file: File,
    /// Its beginning.
    start: LogPosition,
    size: u64,
}

impl Part {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        // Where the file system does not tell, the inode's number has to do.
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(0));
        let start = LogPosition { inode: metadata.ino(), born_ns, offset: 0 };
        Ok(Some(Self { file, start, size: metadata.len() }))
    }

    fn at(&self, offset: u64) -> LogPosition {
        LogPosition { offset, ..self.start }
    }

    /// Where what can be shown ends: before a character of which only the beginning is there.
    fn readable(&self) -> io::Result<u64> {
        let from = self.size.saturating_sub(CHARACTER_LIMIT as u64 - 1);
        Ok(self.size - cut_character(&self.read(from, CHARACTER_LIMIT)?) as u64)
    }

    fn holds(&self, position: LogPosition) -> bool {
        self.at(position.offset) == position && position.offset <= self.size
    }

    fn read(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.size - offset).unwrap_or(limit).min(limit);
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// The files of a log, the older one first.
fn parts(state_dir: &Path, name: &str) -> io::Result<Vec<Part>> {
    let path = log_path(state_dir, name);
    let both = [Part::open(&rotated(&path))?, Part::open(&path)?];
    Ok(both.into_iter().flatten().collect())
}

fn end_of(parts: &[Part]) -> io::Result<LogPosition> {
    let end = |part: &Part| Ok(part.at(part.readable()?));
    parts.last().map_or_else(|| Ok(LogPosition::default()), end)
}

/// Where what can be read of the log of `name` ends now.
pub fn end(state_dir: &Path, name: &str) -> io::Result<LogPosition> {
    end_of(&parts(state_dir, name)?)
}

/// When the newest line was written that is no longer kept.
fn gone_ms(state_dir: &Path, name: &str) -> Option<i64> {
    let time = fs::metadata(gone(&log_path(state_dir, name))).ok()?.modified().ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// A piece of the log of `name`: from a position on, or the last lines of it.
pub fn read(state_dir: &Path, name: &str, lines: u32, from: Option<LogPosition>) -> io::Result<LogText> {
    let parts = parts(state_dir, name)?;
    let text = match from {
        Some(from) => read_from(&parts, from),
        None => read_end(&parts, lines),
    }?;
    // Looked at last: what is rotated away meanwhile is known to be gone.
    Ok(LogText { gone_ms: gone_ms(state_dir, name), ..text })
}

fn read_from(parts: &[Part], from: LogPosition) -> io::Result<LogText> {
    let found = parts.iter().position(|part| part.holds(from));
    let lost = found.is_none() && from != LogPosition::default();
    let (mut index, mut offset) = found.map_or((0, 0), |index| (index, from.offset));
    while parts.get(index).is_some_and(|part| offset == part.size) && index + 1 < parts.len() {
        (index, offset) = (index + 1, 0);
    }
    let Some(part) = parts.get(index) else {
        let (text, next) = (String::new(), LogPosition::default());
        return Ok(LogText { text, next, more: false, lost, gone_ms: None });
    };
    let mut bytes = part.read(offset, TEXT_LIMIT)?;
    let left = part.size - offset;
    // A character may begin in one file and end in the next.
    let newer = parts.get(index + 1).filter(|_| bytes.len() as u64 == left);
    if let Some(newer) = newer {
        bytes.extend(newer.read(0, CHARACTER_LIMIT - 1)?);
    }
    let (text, taken) = first_page(&bytes);
    let next = match (newer, (taken as u64).checked_sub(left)) {
        (Some(newer), Some(beyond)) => newer.at(beyond),
        _ => part.at(offset + taken as u64),
    };
    Ok(LogText { text, next, more: next != end_of(parts)?, lost, gone_ms: None })
}

fn read_end(parts: &[Part], lines: u32) -> io::Result<LogText> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(part.read(part.size.saturating_sub(TEXT_LIMIT as u64), TEXT_LIMIT)?);
    }
    let size = bytes.len() as u64;
    bytes.truncate(bytes.len() - cut_character(&bytes));
    let text = String::from_utf8_lossy(&bytes);
    let page = last_page(&text);
    let last = last_lines(page, lines);
    let whole = size == parts.iter().map(|part| part.size).sum::<u64>();
    let short = last.lines().count() < lines as usize && !(whole && page.len() == text.len());
    Ok(LogText { text: last.to_owned(), next: end_of(parts)?, more: false, lost: short, gone_ms: None })
}

/// Bytes of a character in JSON.
fn cost(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

/// How many bytes at the end are the beginning of a character whose rest is missing.
fn cut_character(bytes: &[u8]) -> usize {
    let lengths = 1..CHARACTER_LIMIT.min(bytes.len() + 1);
    let cut = |length: &usize| {
        let end = &bytes[bytes.len() - length..];
        std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    lengths.rev().find(cut).unwrap_or(0)
}

/// The beginning that fits into an answer, and how many bytes it was made of. A character whose
/// end has not come yet is left for the next answer.
fn first_page(bytes: &[u8]) -> (String, usize) {
    let (mut text, mut taken, mut left) = (String::new(), 0, TEXT_LIMIT);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let Some(rest) = left.checked_sub(cost(character)) else {
                return (text, taken);
            };
            left = rest;
            text.push(character);
            taken += character.len_utf8();
        }
        let broken = chunk.invalid();
        if broken.is_empty() || (taken + broken.len() == bytes.len() && cut_character(broken) > 0) {
            continue;
        }
        let Some(rest) = left.checked_sub(char::REPLACEMENT_CHARACTER.len_utf8()) else {
            return (text, taken);
        };
        left = rest;
        text.push(char::REPLACEMENT_CHARACTER);
        taken += broken.len();
    }
    (text, taken)
}

/// The end of the text that fits into an answer, from the start of a line unless the last line
/// alone is too long.
fn last_page(text: &str) -> &str {
    let mut left = TEXT_LIMIT;
    let mut start = text.len();
    for (at, character) in text.char_indices().rev() {
        let Some(rest) = left.checked_sub(cost(character)) else {
            let page = &text[start..];
            let line = page.find('\n').map(|end| &page[end + 1..]);
            return line.filter(|rest| !rest.is_empty()).unwrap_or(page);
        };
        left = rest;
        start = at;
    }
    text
}

fn last_lines(text: &str, lines: u32) -> &str {
    if lines == 0 {
        return "";
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    let mut ends = body.rmatch_indices('\n');
    let start = ends.nth(lines as usize - 1).map_or(0, |(at, _)| at + 1);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_answer_is_bounded_whatever_is_in_the_log() {
        for piece in ["\u{1}", "\"", "é", "\u{fffd}", "a line\n", "\n", "x"] {
            let text = piece.repeat(TEXT_LIMIT);
            let (first, taken) = first_page(text.as_bytes());
            assert_eq!(first, text[..taken]);
            for page in [last_page(&text), &first] {
                let line = serde_json::to_string(page).expect("a string");
                assert!(line.len() <= TEXT_LIMIT + 2, "{piece:?}: {}", line.len());
                assert!(line.len() > TEXT_LIMIT - 16, "{piece:?}: {}", line.len());
            }
            assert!(piece != "a line\n" || last_page(&text).starts_with("a line"), "whole lines");
        }
        assert_eq!(last_page("a\nb\n"), "a\nb\n");
    }

    #[test]
    fn the_last_lines_are_whole() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last_lines("a\nb\nc", 1), "c");
        assert_eq!(last_lines("a\n", 5), "a\n");
        assert_eq!(last_lines("", 5), "");
        assert_eq!(last_lines("a\n", 0), "");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_passed() {
        for (bytes, text, taken) in [
            (&b"a\xffb"[..], "a\u{fffd}b", 3),
            (b"a\xc3", "a", 1),
            (b"\xc3", "", 0),
            (b"\xe2\x82", "", 0),
            (b"\xe2\x82\n", "\u{fffd}\n", 3),
            (b"\xc3\xc3", "\u{fffd}", 1),
            (b"\xff\xff", "\u{fffd}\u{fffd}", 2),
            (b"", "", 0),
        ] {
            assert_eq!(first_page(bytes), (text.to_owned(), taken), "{bytes:?}");
        }
    }

    /// Pieces of any log here, and some.
    const LONGEST: usize = 100;

    /// Read from `from` to the end.
    fn rest(dir: &Path, mut from: LogPosition) -> (String, LogPosition, bool) {
        let (mut all, mut any_lost) = (String::new(), false);
        for _ in 0..LONGEST {
            let piece = read(dir, "a", 0, Some(from)).expect("a log");
            all.push_str(&piece.text);
            any_lost |= piece.lost;
            from = piece.next;
            if !piece.more {
                return (all, from, any_lost);
            }
        }
        panic!("the log does not end after {LONGEST} pieces: {from:?}");
    }

    #[test]
    fn a_position_outlives_a_rotation() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = dir.path();
        let path = log_path(dir, "a");
        assert_eq!(rest(dir, LogPosition::default()), (String::new(), LogPosition::default(), false));
        let big = "0123456789abcde\n".repeat(TEXT_LIMIT / 8);
        fs::write(&path, &big).expect("a log");
        let (text, at, lost) = rest(dir, LogPosition::default());
        assert_eq!((text.len(), lost), (big.len(), false));
        assert_eq!(end(dir, "a").expect("a log"), at);

        fs::write(&path, big.clone() + "more\n").expect("a log");
        fs::rename(&path, rotated(&path)).expect("rotated");
        assert_eq!(rest(dir, at).0, "more\n", "before there is a new file");
        fs::write(&path, "newer\n").expect("a log");
        let (text, at, lost) = rest(dir, at);
        assert_eq!((text.as_str(), lost), ("more\nnewer\n", false));

        // Twice: what the position points into is gone.
        fs::rename(&path, rotated(&path)).expect("rotated");
        fs::write(&path, "a longer one\n").expect("a log");
        assert_eq!(rest(dir, at).0, "a longer one\n");
        fs::rename(&path, rotated(&path)).expect("rotated");
        fs::write(&path, "the last one\n").expect("a log");
        let (text, _, lost) = rest(dir, at);
        assert_eq!((text.as_str(), lost), ("a longer one\nthe last one\n", true));
    }

    #[test]
    fn a_character_is_whole_or_not_there_yet() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = dir.path();
        let path = log_path(dir, "a");
        let euro = "€".as_bytes();
        for cut in 1..euro.len() {
            let _ = fs::remove_file(rotated(&path));
            fs::write(&path, [b"1 ", &euro[..cut]].concat()).expect("a log");
            let last = read(dir, "a", 9, None).expect("a log");
            assert_eq!(last.text, "1 ", "{cut}");
            let (text, at, _) = rest(dir, LogPosition::default());
            assert_eq!((text.as_str(), at), ("1 ", last.next), "{cut}");
            assert_eq!(end(dir, "a").expect("a log"), at, "there is nothing to be waited for but more");
            // The rest comes into the same file, or into the next one, or never.
            fs::write(&path, "1 €\n").expect("a log");
            assert_eq!(rest(dir, at).0, "€\n", "{cut}");
            fs::write(&path, [b"1 ", &euro[..cut]].concat()).expect("a log");
            fs::rename(&path, rotated(&path)).expect("rotated");
            fs::write(&path, &euro[cut..]).expect("a log");
            let (text, _, lost) = rest(dir, at);
            assert_eq!((text.as_str(), lost), ("€", false), "{cut}");
            assert_eq!(read(dir, "a", 9, None).expect("a log").text, "1 €");
            fs::write(&path, "\n").expect("a log");
            assert_eq!(rest(dir, at).0, "\u{fffd}\n", "{cut}");
        }
    }

    #[test]
    fn the_end_of_a_log_says_when_it_is_not_all() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = dir.path();
        fs::write(rotated(&log_path(dir, "a")), "1\n2\n").expect("a log");
        fs::write(log_path(dir, "a"), "3\n").expect("a log");
        let last = |lines| read(dir, "a", lines, None).map(|piece| (piece.text, piece.lost)).expect("a log");
        assert_eq!(last(2), ("2\n3\n".to_owned(), false));
        assert_eq!(last(9), ("1\n2\n3\n".to_owned(), false));
        let many = "line\n".repeat(TEXT_LIMIT);
        fs::write(log_path(dir, "a"), &many).expect("a log");
        assert_eq!(last(9), ("line\n".repeat(9), false));
        let (text, lost) = last(u32::MAX);
        assert!(lost && text.len() < many.len());
    }
}
