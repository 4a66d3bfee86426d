//! Walks a parsed TOML document key by key and collects findings instead of stopping at one.
//!
//! Syntax errors do not end the pass: the parser recovers, and what it could read is checked too.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::keys::{SECTIONS, home_of, keys_of, nearest};
use super::values::Problem;
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

    /// The value of the first of `names` (a key and its aliases) that is in `section`, converted.
    /// A value that does not convert is a finding and reads as absent.
    pub(super) fn get<T>(
        &mut self,
        section: &str,
        names: &[&str],
        convert: impl Fn(&DeValue<'s>) -> Result<T, Problem>,
    ) -> Option<T> {
        let table = section_table(&self.root, section)?;
        let mut given = names.iter().filter_map(|name| Some((*name, table.get(*name)?)));
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

    /// Whether any of `names` is in `section`, converted or not.
    pub(super) fn has(&self, section: &str, names: &[&str]) -> bool {
        self.place(section, names).is_some()
    }

    /// A finding about a key that is there, or about the file when it is not.
    pub(super) fn report(
        &mut self,
        severity: Severity,
        section: &str,
        names: &[&str],
        message: &str,
        help: Option<String>,
    ) {
        let place = self
            .place(section, names)
            .or_else(|| Some(self.root.get_key_value(section)?.0.span()))
            .unwrap_or(0..0);
        self.push(severity, place, message, help);
    }

    fn place(&self, section: &str, names: &[&str]) -> Option<Range<usize>> {
        let table = section_table(&self.root, section)?;
        names.iter().find_map(|name| Some(table.get(*name)?.span()))
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
            let Some(keys) = keys_of(name) else {
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
                if !keys.contains(&word) {
                    strangers.push(stranger_key(name, word, keys, key.span()));
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
        let help = nearest(name, SECTIONS.iter().map(|(name, _)| *name))
            .map(|near| format!("did you mean `[{near}]`?"));
        (format!("unknown section `[{name}]` is ignored"), help)
    } else {
        let help = home_of(name).map(|home| format!("`{name}` belongs in `[{home}]`"));
        (format!("unknown key `{name}` is ignored"), help)
    };
    (Severity::Warning, span, message, help)
}

fn stranger_key(section: &str, word: &str, keys: &[&'static str], span: Range<usize>) -> Finding {
    let help = nearest(word, keys.iter().copied())
        .map(|near| format!("did you mean `{near}`?"))
        .or_else(|| home_of(word).map(|home| format!("`{word}` belongs in `[{home}]`")));
    (Severity::Warning, span, format!("unknown key `{section}.{word}` is ignored"), help)
}

fn section_table<'a, 's>(root: &'a DeTable<'s>, section: &str) -> Option<&'a DeTable<'s>> {
    root.get(section)?.get_ref().as_table()
}
