//! What is left of a document with syntax errors.
//!
//! The TOML parser recovers at the end of a line, so most errors cost one key. A bracket or a quote
//! that is not closed would swallow all that follows instead, with an error for each word of it:
//! here it costs the lines up to the next section. One error a line is kept.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::reader::FINDING_LIMIT;

/// The most values that are taken out of one document because they are not closed. Each costs
/// another pass; a person mends the first few and tries again.
const MENDS: usize = 8;

/// A syntax error and its place in the source.
pub(super) type SyntaxError = (Range<usize>, String);

/// A document in which the worst is replaced by spaces, so that places stay the same.
pub(super) struct Mended {
    pub(super) text: String,
    pub(super) errors: Vec<SyntaxError>,
}

/// Make the most of a document that has errors.
pub(super) fn mend(source: &str) -> Mended {
    let mut text = source.to_owned();
    let mut errors = Vec::new();
    let rest = loop {
        let (root, rest) = DeTable::parse_recoverable(&text);
        let found = unclosed(&text, root.get_ref(), &rest).filter(|_| errors.len() < MENDS);
        let Some((lines, value)) = found else {
            break rest;
        };
        let opening = value.start..end_of_line(&text, value.start);
        errors.push((
            opening,
            "this is not closed; what follows it up to the next section cannot be read".into(),
        ));
        let blank = |byte: u8| if byte == b'\n' { '\n' } else { ' ' };
        let blanks: String = text[lines.clone()].bytes().map(blank).collect();
        text.replace_range(lines, &blanks);
    };
    let end = text.len();
    errors.extend(rest.iter().map(|error| (error.span().unwrap_or(end..end), error.message().to_owned())));
    errors.sort_by_key(|(span, _)| span.start);
    errors.truncate(FINDING_LIMIT);
    let mut lines = BTreeSet::new();
    errors.retain(|(span, _)| lines.insert(start_of_line(&text, span.start)));
    Mended { text, errors }
}

/// A value that lacks its end: its lines up to the next section, and its own place.
fn unclosed(
    text: &str,
    root: &DeTable<'_>,
    errors: &[toml::de::Error],
) -> Option<(Range<usize>, Range<usize>)> {
    let is_unclosed = errors.iter().any(|error| error.message().contains("unclosed"));
    // Each costs a look at its line, which may be the whole file.
    let errors = &errors[..errors.len().min(FINDING_LIMIT)];
    let places = || errors.iter().filter_map(toml::de::Error::span).map(|span| span.start);
    // The header of a section makes no sense inside of a value; nor does the end of the file.
    let header = places().map(|at| start_of_line(text, at)).find(|line| is_header(line_at(text, *line)));
    let at_end = is_unclosed.then_some(text.len());
    let limit = header.or(at_end).unwrap_or(0);
    let last = text.trim_end().len();
    let lacks_end = |value: &&Spanned<DeValue<'_>>| {
        let span = value.span();
        match value.get_ref() {
            DeValue::Array(_) => span.start < limit && !text[span].ends_with(']'),
            DeValue::Table(_) => span.start < limit && !text[span].ends_with('}'),
            // A text of several lines takes everything, without an error but at its end.
            DeValue::String(_) => {
                span.end >= last && places().any(|at| at > span.start) && next_section(text, &span).is_some()
            }
            _ => false,
        }
    };
    let value = values(root).filter(lacks_end).max_by_key(|value| value.span().start)?;
    let span = value.span();
    let end = next_section(text, &span).unwrap_or(text.len());
    Some((start_of_line(text, span.start)..end, span))
}

/// All values of keys, in sections and outside; not the sections themselves.
fn values<'a, 's>(root: &'a DeTable<'s>) -> impl Iterator<Item = &'a Spanned<DeValue<'s>>> {
    root.values().flat_map(|value| {
        let keys = value.get_ref().as_table().into_iter().flat_map(|table| table.values());
        let own = (!value.get_ref().is_table()).then_some(value);
        own.into_iter().chain(keys)
    })
}

/// The first line after the beginning of `span` that is the header of a section.
fn next_section(text: &str, span: &Range<usize>) -> Option<usize> {
    let mut start = end_of_line(text, span.start);
    for line in text[start..].split_inclusive('\n') {
        if is_header(line) {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// Whether a line is `[name]` with the name of a section.
fn is_header(line: &str) -> bool {
    let words = line.split('#').next().unwrap_or_default().trim();
    let name = words.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| keys::section(name.trim()).is_some())
}

fn line_at(text: &str, start: usize) -> &str {
    &text[start..end_of_line(text, start)]
}

fn start_of_line(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

fn end_of_line(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    let rest = &text.as_bytes()[at..];
    rest.iter().position(|byte| *byte == b'\n').map_or(text.len(), |newline| at + newline)
}
