//! `log`: what a component wrote.
//!
//! The last lines come in one answer. Everything since a time, and what comes, is read piece by
//! piece from a position that outlives rotations. Between two pieces the supervisor is asked to
//! answer when there is more, so a quiet log costs nothing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use yakiros_core::control::{Answer, LogPosition, LogText, Request, Until, VERSION};

use crate::client::{Client, NO_LIMIT};
use crate::output::Output;
use crate::{Failure, unexpected};

/// Lines shown when neither a number nor a time is given.
const DEFAULT_LINES: u32 = 20;

/// Pause after each piece of a log that is followed, so that a component that floods makes a few
/// large pieces and not thousands of small ones.
const FOLLOW_PAUSE: Duration = Duration::from_millis(20);

/// Bytes of a stamp without the blank after it.
const STAMP_BYTES: usize = 24;

/// Which lines to show.
pub struct Selection<'a> {
    /// Whose.
    pub name: &'a str,
    /// The last so many.
    pub lines: Option<u32>,
    /// Only those that began at this time or later, in milliseconds of Unix time.
    pub since: Option<i64>,
    /// Go on with what comes.
    pub follow: bool,
}

/// Print lines; when following, until nobody reads them any longer.
pub fn run(client: &mut Client, output: &Output, wanted: &Selection<'_>) -> Result<(), Failure> {
    let Found { text, mut at, lost } = match wanted.since {
        Some(since) => since_time(client, wanted, since)?,
        None => last_lines(client, wanted.name, wanted.lines.unwrap_or(DEFAULT_LINES))?,
    };
    if lost {
        Output::note("older lines that were asked for are no longer kept");
    }
    if !wanted.follow {
        print_all(output, &text, lost);
        return Ok(());
    }
    let mut printer = Printer::new(output);
    if !(printer.mark(lost) && printer.print(&text)) {
        return Ok(());
    }
    loop {
        wait_for_more(client, wanted.name, at)?;
        loop {
            let piece = read(client, wanted.name, 0, Some(at))?;
            if piece.lost {
                Output::note("some output is lost: it was replaced by newer output before it was read");
            }
            at = piece.next;
            if !(printer.mark(piece.lost) && printer.print(&piece.text)) {
                return Ok(());
            }
            if !piece.more {
                break;
            }
        }
        std::thread::sleep(FOLLOW_PAUSE);
    }
}

fn read(client: &mut Client, name: &str, lines: u32, from: Option<LogPosition>) -> Result<LogText, Failure> {
    let name = name.to_owned();
    match client.ask(Request::Log { name, lines, from }, Duration::ZERO)? {
        Answer::Log(text) => Ok(text),
        other => Err(unexpected(other)),
    }
}

fn wait_for_more(client: &mut Client, name: &str, beyond: LogPosition) -> Result<(), Failure> {
    let until = Until::Log { name: name.to_owned(), beyond };
    match client.ask(Request::Wait { until, timeout_ms: None }, NO_LIMIT)? {
        // The supervisor ends the waits of others than root after an hour.
        Answer::Done { .. } | Answer::TimedOut { .. } => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// What was found of what was asked for.
struct Found {
    text: String,
    /// Where the log ends.
    at: LogPosition,
    /// Some of it is no longer kept.
    lost: bool,
}

/// The last lines.
fn last_lines(client: &mut Client, name: &str, lines: u32) -> Result<Found, Failure> {
    let end = read(client, name, lines, None)?;
    let few = |count: usize, gone_ms: Option<i64>| gone_ms.is_some() && count < lines as usize;
    if !end.lost {
        let lost = few(end.text.lines().count(), end.gone_ms);
        return Ok(Found { text: end.text, at: end.next, lost });
    }
    // More than fits into one answer.
    let mut last = VecDeque::new();
    let (at, gone_ms) = read_all(client, name, |line| {
        if last.len() == lines as usize {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    })?;
    let lost = few(last.len(), gone_ms);
    Ok(Found { text: last.into_iter().collect(), at, lost })
}

/// The lines since a time, at most the last so many of them.
fn since_time(client: &mut Client, wanted: &Selection<'_>, since: i64) -> Result<Found, Failure> {
    let most = wanted.lines.map_or(usize::MAX, |lines| lines as usize);
    let mut found = VecDeque::new();
    let mut reached = false;
    let (at, gone_ms) = read_all(client, wanted.name, |line| {
        // A line without a stamp is the end of one whose beginning is no longer kept.
        reached |= time_of(line).is_some_and(|time| time >= since);
        if reached && most > 0 {
            if found.len() == most {
                found.pop_front();
            }
            found.push_back(line.to_owned());
        }
    })?;
    // Who asks for the last so many, and gets them, misses nothing.
    let lost = gone_ms.is_some_and(|gone| since <= gone) && found.len() < most;
    Ok(Found { text: found.into_iter().collect(), at, lost })
}

/// Give every line that is kept to `take`, newlines included; returns where the log ends, and the
/// time of the newest line that is not kept.
fn read_all(
    client: &mut Client,
    name: &str,
    mut take: impl FnMut(&str),
) -> Result<(LogPosition, Option<i64>), Failure> {
    let mut at = LogPosition::default();
    let mut rest = String::new();
    loop {
        let piece = read(client, name, 0, Some(at))?;
        rest.push_str(&piece.text);
        let whole = rest.rfind('\n').map_or(0, |end| end + 1);
        rest[..whole].split_inclusive('\n').for_each(&mut take);
        rest.drain(..whole);
        at = piece.next;
        if !piece.more {
            if !rest.is_empty() {
                take(&rest);
            }
            return Ok((at, piece.gone_ms));
        }
    }
}

/// Time and text of a line.
fn parts(line: &str) -> (Option<&str>, &str) {
    match line.split_at_checked(STAMP_BYTES) {
        Some((stamp, rest)) if rest.starts_with(' ') && crate::clock::parse_rfc3339(stamp).is_some() => {
            (Some(stamp), &rest[1..])
        }
        _ => (None, line),
    }
}

fn time_of(line: &str) -> Option<i64> {
    parts(line).0.and_then(crate::clock::parse_rfc3339)
}

fn line_value(line: &str) -> Value {
    let (time, text) = parts(line);
    json!({"time": time, "text": text})
}

fn print_all(output: &Output, text: &str, lost: bool) {
    if output.is_json() {
        let lines: Vec<_> = text.lines().map(line_value).collect();
        return Output::value(&json!({"version": VERSION, "lines": lines, "lost": lost}));
    }
    // A reader that stops reading is content.
    let _ = Output::foreign(text);
}

/// Prints pieces as they come: text at once, JSON line by line.
struct Printer {
    json: bool,
    /// The beginning of a line that has not ended yet, for JSON.
    rest: String,
}

impl Printer {
    fn new(output: &Output) -> Self {
        Self { json: output.is_json(), rest: String::new() }
    }

    /// Whether anybody still reads.
    fn print(&mut self, text: &str) -> bool {
        Output::foreign(&self.shown(text))
    }

    /// Tell programs, in a line of its own, where lines are missing.
    fn mark(&self, lost: bool) -> bool {
        !(lost && self.json) || Output::foreign(&format!("{}\n", json!({"lost": true})))
    }

    fn shown(&mut self, text: &str) -> String {
        if !self.json {
            return text.to_owned();
        }
        self.rest.push_str(text);
        let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = String::new();
        for line in self.rest[..whole].lines() {
            let _ = writeln!(lines, "{}", line_value(line));
        }
        self.rest.drain(..whole);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_time_and_a_text() {
        let time = "2026-11-21T12:00:00.250Z";
        for (line, expected) in [
            (format!("{time} all is well"), (Some(time), "all is well")),
            (format!("{time} "), (Some(time), "")),
            (time.to_owned(), (None, time)),
            (
                "the end of a line that is no longer kept".to_owned(),
                (None, "the end of a line that is no longer kept"),
            ),
            ("ein Wörtchen an der Schwelle ä".to_owned(), (None, "ein Wörtchen an der Schwelle ä")),
            (String::new(), (None, "")),
        ] {
            assert_eq!(parts(&line), expected);
        }
        assert_eq!(time_of(&format!("{time} x")), Some(1_795_262_400_250));
    }

    #[test]
    fn programs_get_whole_lines() {
        let mut printer = Printer::new(&Output::new(true));
        assert_eq!(printer.shown("2026-11-21T12:00:00.250Z he"), "");
        assert_eq!(
            printer.shown("llo\nrest"),
            "{\"text\":\"hello\",\"time\":\"2026-11-21T12:00:00.250Z\"}\n"
        );
        assert_eq!(Printer::new(&Output::new(false)).shown("he"), "he");
    }
}
