//! Reads the event stream, tolerantly: a line that cannot be read becomes a [`Problem`] and the rest is read on.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::{MAX_LINE_BYTES, Record, SCHEMA_VERSION};

/// Most problems that are kept; a file with more is not an event stream.
const MAX_PROBLEMS: usize = 100;

/// What a file of events holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// The records in the order of the file.
    pub records: Vec<Record>,
    /// What could not be read, at most the first 100.
    pub problems: Vec<Problem>,
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line number, from 1.
    pub line: u64,
    /// True for a last line without its newline: the writer was killed while it wrote.
    pub torn: bool,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let torn = if self.torn { "torn last line: " } else { "" };
        write!(f, "line {}: {torn}{}", self.line, self.message)
    }
}

/// Reads a file of events. Fails only when the file itself cannot be read.
pub fn read_log(path: &Path) -> io::Result<Log> {
    read_log_from(BufReader::new(File::open(path)?))
}

/// Reads events from any source.
pub fn read_log_from(mut source: impl BufRead) -> io::Result<Log> {
    let mut log = Log::default();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        source.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            break;
        }
        let ended = text.last() == Some(&b'\n');
        let too_long = !ended && text.len() == MAX_LINE_BYTES;
        let result = if too_long {
            skip_line(&mut source)?;
            Err(format!("longer than {MAX_LINE_BYTES} bytes"))
        } else {
            parse(&text)
        };
        match result {
            Ok(Some(record)) => log.records.push(record),
            Err(message) if log.problems.len() < MAX_PROBLEMS => {
                log.problems.push(Problem { line, torn: !ended && !too_long, message });
            }
            Ok(None) | Err(_) => {}
        }
    }
    Ok(log)
}

/// One line; a blank line is nothing.
fn parse(text: &[u8]) -> Result<Option<Record>, String> {
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let record: Record = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if record.schema != SCHEMA_VERSION {
        return Err(format!("schema version {}, this program reads {SCHEMA_VERSION}", record.schema));
    }
    Ok(Some(record))
}

/// Reads to the end of a line without keeping it.
fn skip_line(source: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = source.fill_buf()?;
        let (used, done) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        source.consume(used);
        if done {
            return Ok(());
        }
    }
}
