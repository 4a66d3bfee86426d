//! Writes the event stream.
//!
//! Every event is one line and one `write(2)`; when [`EventWriter::emit`] returns, the line is in the kernel's hands
//! and outlives the harness. Writing never panics and never stops a run: the first error is reported on standard error,
//! later ones are only counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use chrono::{SecondsFormat, Utc};
use serde_json::Value;

use super::{Event, Level, MAX_LINE_BYTES, Record, SCHEMA_VERSION};

/// Longest string of an event in bytes, unless the line is still too long with it. More than any excerpt line that
/// a person reads.
const MAX_STRING_BYTES: usize = 16 << 10;

/// String limit, array limit: tried in this order until a line fits into [`MAX_LINE_BYTES`].
const SHRINK_STEPS: [(usize, usize); 4] =
    [(MAX_STRING_BYTES, usize::MAX), (1024, usize::MAX), (256, 1024), (64, 64)];

/// The longest line after a cut: room for the newline.
const MAX_TEXT_BYTES: usize = MAX_LINE_BYTES - 1;

/// Appends events to a file. Shared by reference between threads; the order of the lines is the order of the sequence
/// numbers and of the times.
#[derive(Debug)]
pub struct EventWriter {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    next_seq: u64,
    errors: u64,
    /// The last write failed and may have left half a line.
    torn: bool,
}

impl State {
    fn append(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        if self.torn {
            // Ends the half line, so that only that one is lost; readers skip blank lines.
            line.insert(0, b'\n');
        }
        self.torn = true;
        self.file.write_all(&line)?;
        self.torn = false;
        Ok(())
    }
}

impl EventWriter {
    /// Creates the file, which must not exist yet. The run's clock starts now.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Self::from_file(file))
    }

    /// Writes to an open file; it should be open for appending. The run's clock starts now.
    pub fn from_file(file: File) -> Self {
        Self { start: Instant::now(), state: Mutex::new(State { file, next_seq: 0, errors: 0, torn: false }) }
    }

    /// Writes one event and returns it with its number and times, whether or not it could be written.
    ///
    /// Strings and lists that are too long are cut and marked. A metric that is not a finite number cannot be
    /// stored and becomes a warning.
    pub fn emit(&self, event: Event) -> Record {
        let event = storable(event);
        // A thread that panicked while it held the lock has at worst lost its own line.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let record = Record {
            schema: SCHEMA_VERSION,
            seq: state.next_seq,
            t_us: self.start.elapsed().as_micros() as u64,
            wall: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
            event,
        };
        state.next_seq += 1;
        if let Err(error) = encode(&record).and_then(|line| state.append(line)) {
            state.errors += 1;
            if state.errors == 1 {
                eprintln!("failed to write an event, the report will have gaps: {error}");
            }
        }
        record
    }

    /// How many events could not be written.
    pub fn errors(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).errors
    }

    /// The moment that [`Record::t_us`] counts from.
    pub fn start(&self) -> Instant {
        self.start
    }
}

/// JSON has no infinity: such a metric is turned into a warning that says so.
fn storable(event: Event) -> Event {
    match event {
        Event::Metric(metric)
            if !metric.value.is_finite()
                || metric.samples.iter().flatten().any(|sample| !sample.is_finite()) =>
        {
            let message = format!("metric {} is not a finite number: {}", metric.name, metric.value);
            Event::log(Level::Warn, message)
        }
        Event::Series(series) if series.t_s.iter().chain(&series.values).any(|value| !value.is_finite()) => {
            Event::log(Level::Warn, format!("series {} has what is not a finite number", series.name))
        }
        event => event,
    }
}

/// The record as a line of at most [`MAX_LINE_BYTES`].
fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    // A line this short holds no string that is too long.
    if line.len() > MAX_STRING_BYTES {
        let value: Value = serde_json::from_slice(&line)?;
        for (strings, items) in SHRINK_STEPS {
            let mut shorter = value.clone();
            shrink(&mut shorter, strings, items);
            line = serde_json::to_vec(&shorter)?;
            if line.len() <= MAX_TEXT_BYTES {
                break;
            }
        }
    }
    if line.len() > MAX_TEXT_BYTES {
        let message = format!("an event {} of {} bytes was dropped", record.event.name(), line.len());
        line = serde_json::to_vec(&Record { event: Event::log(Level::Error, message), ..record.clone() })?;
    }
    line.push(b'\n');
    Ok(line)
}

/// Cuts every string to `strings` bytes and every list to `items` items.
fn shrink(value: &mut Value, strings: usize, items: usize) {
    match value {
        Value::String(text) => cut(text, strings),
        Value::Array(list) => {
            list.truncate(items);
            for item in list {
                shrink(item, strings, items);
            }
        }
        Value::Object(map) => {
            for item in map.values_mut() {
                shrink(item, strings, items);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Cuts `text` to at most `limit` bytes on a character boundary and says how much is missing.
fn cut(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let marker = format!(" … [{} bytes in all]", text.len());
    let mut end = limit.saturating_sub(marker.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(&marker);
}

#[cfg(test)]
mod tests;
