//! Walks a parsed TOML document key by key and collects findings instead of stopping at one.
//!
//! Syntax errors do not end the pass: the parser recovers, and what it could read is checked too.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, SECTIONS, Section, Shape, home_of, nearest};
use super::values::{self, Problem};
use crate::diagnostic::{Diagnostic, Severity};

/// The most findings of one file: a person mends the first few and tries again.
const FINDING_LIMIT: usize = 100;

/// One document and what was found in it so far.
pub(super) struct Reader<'s> {
    source: &'s str,
    root: DeTable<'s>,
    found: Vec<Diagnostic>,
}

impl<'s> Reader<'s> {
    /// Parse `source` and look for sections and keys that do not exist.
    pub(super) fn new(source: &'s str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(source);
        let mut reader = Self { source, root: root.into_inner(), found: Vec::new() };
        for error in errors {
            let end = source.len();
            let span = error.span().unwrap_or(end..end);
            reader.push(Severity::Error, span, error.message(), None);
        }
        reader.look_for_strangers();
        reader
    }

    /// The findings, first by order of discovery.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        self.found
    }

    /// The value of `key` (or of one of its aliases) in `section`, converted. A value that does not
    /// convert is a finding and reads as absent.
    pub(super) fn get<T>(
        &mut self,
        section: &str,
        key: &str,
        convert: impl Fn(&DeValue<'s>) -> Result<T, Problem>,
    ) -> Option<T> {
        let row = row(section, key)?;
        let table = section_table(&self.root, section)?;
        let mut given = row.names().filter_map(|name| Some((name, table.get(name)?)));
        let (name, value) = given.next()?;
        let second = given.next().map(|(second, value)| (second, value.span()));
        let span = value.span();
        let converted = convert(value.get_ref());
        if let Some((second, span)) = second {
            self.push(
                Severity::Error,
                span,
                &format!("`{second}` is another name for `{name}`, which is given too"),
                Some("keep one of the two".to_owned()),
            );
        }
        match converted {
            Ok(value) => Some(value),
            Err(problem) => {
                self.push(
                    Severity::Error,
                    span,
                    &format!("`{section}.{name}` {}", problem.message),
                    problem.help,
                );
                None
            }
        }
    }

    /// A whole number within the range that the table of keys gives.
    pub(super) fn number(&mut self, section: &str, key: &str) -> Option<u64> {
        let Shape::Number(low, high) = row(section, key)?.shape else {
            debug_assert!(false, "{section}.{key} is no number in the table of keys");
            return None;
        };
        self.get(section, key, values::number(low, high))
    }

    /// Whether `key` or an alias is in `section`, converted or not.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.place(section, key).is_some()
    }

    /// A finding about a key that is there, or about the file when it is not.
    pub(super) fn report(
        &mut self,
        severity: Severity,
        section: &str,
        key: &str,
        message: &str,
        help: Option<String>,
    ) {
        let place = self
            .place(section, key)
            .or_else(|| Some(self.root.get_key_value(section)?.0.span()))
            .unwrap_or(0..0);
        self.push(severity, place, message, help);
    }

    fn place(&self, section: &str, key: &str) -> Option<Range<usize>> {
        let table = section_table(&self.root, section)?;
        row(section, key)?.names().find_map(|name| Some(table.get(name)?.span()))
    }

    fn push(&mut self, severity: Severity, span: Range<usize>, message: &str, help: Option<String>) {
        if self.found.len() >= FINDING_LIMIT {
            return;
        }
        let mut finding = Diagnostic::at(severity, self.source, span, message);
        finding.help = help;
        self.found.push(finding);
    }

    fn look_for_strangers(&mut self) {
        let mut strangers = Vec::new();
        for (section, content) in &self.root {
            let name = section.get_ref().as_ref();
            let Some(known) = keys::section(name) else {
                strangers.push(stranger_section(name, section.span(), content.get_ref()));
                continue;
            };
            let DeValue::Table(table) = content.get_ref() else {
                strangers.push((
                    Severity::Error,
                    section.span(),
                    format!("`{name}` is a section, not a value"),
                    Some(format!("write `[{name}]` and its keys below")),
                ));
                continue;
            };
            for key in table.keys() {
                let word = key.get_ref().as_ref();
                if keys::find(name, word).is_none() {
                    strangers.push(stranger_key(known, word, key.span()));
                }
            }
        }
        for (severity, span, message, help) in strangers {
            self.push(severity, span, &message, help);
        }
    }
}

type Finding = (Severity, Range<usize>, String, Option<String>);

/// An unknown section is a warning; a known key at the top level has lost its section.
fn stranger_section(name: &str, span: Range<usize>, content: &DeValue<'_>) -> Finding {
    let (message, help) = if content.is_table() {
        let help = nearest(name, SECTIONS.iter().map(|section| section.name))
            .map(|near| format!("did you mean `[{near}]`?"));
        (format!("unknown section `[{name}]` is ignored"), help)
    } else {
        let help = home_of(name).map(|home| format!("`{name}` belongs in `[{home}]`"));
        (format!("unknown key `{name}` is ignored"), help)
    };
    (Severity::Warning, span, message, help)
}

fn stranger_key(section: &Section, word: &str, span: Range<usize>) -> Finding {
    let help = nearest(word, section.keys.iter().flat_map(Key::names))
        .map(|near| format!("did you mean `{near}`?"))
        .or_else(|| home_of(word).map(|home| format!("`{word}` belongs in `[{home}]`")));
    (Severity::Warning, span, format!("unknown key `{}.{word}` is ignored", section.name), help)
}

/// The row of a key in the table. Without one it would not be read: a test of every row sees it.
fn row(section: &str, key: &str) -> Option<&'static Key> {
    let row = keys::find(section, key);
    debug_assert!(row.is_some(), "{section}.{key} is not in the table of keys");
    row
}

fn section_table<'a, 's>(root: &'a DeTable<'s>, section: &str) -> Option<&'a DeTable<'s>> {
    root.get(section)?.get_ref().as_table()
}
