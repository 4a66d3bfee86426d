//! Walks a parsed TOML document key by key and collects findings instead of stopping at one.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, SECTIONS, Section, Shape, home_of, nearest};
use super::syntax::SyntaxError;
use super::values::{self, Problem};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::rules::{self, Rule};

/// The most findings of one file: a person mends the first few and tries again.
pub(super) const FINDING_LIMIT: usize = 100;

/// One document and what was found in it so far.
pub(super) struct Reader<'s> {
    source: &'s str,
    root: &'s DeTable<'s>,
    /// Keys may be missing because they could not be read.
    broken: bool,
    /// Which of several sections of a name is read.
    at: usize,
    found: Vec<Diagnostic>,
}

impl<'s> Reader<'s> {
    /// Look in a document for sections and keys that do not exist. Places are those of `source`.
    pub(super) fn new(source: &'s str, root: &'s DeTable<'s>, errors: Vec<SyntaxError>) -> Self {
        let mut reader = Self { source, root, broken: !errors.is_empty(), at: 0, found: Vec::new() };
        for (span, message) in errors {
            reader.push(&rules::SYNTAX, span, &message, None);
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
        let table = self.table(section)?;
        let mut given = row.names().filter_map(|name| Some((name, table.get(name)?)));
        let (name, value) = given.next()?;
        if let Some((second, value)) = given.next() {
            let message = format!("`{second}` is another name for `{name}`, which is given too");
            self.push(&rules::TWO_NAMES, value.span(), &message, Some("keep one of the two".to_owned()));
        }
        match convert(value.get_ref()) {
            Ok(value) => Some(value),
            Err(problem) => {
                let message = format!("`{section}.{name}` {}", problem.message);
                let place = problem.place.unwrap_or(value.span());
                self.push(problem.rule, place, &message, problem.help);
                None
            }
        }
    }

    /// How many sections of this name there are.
    pub(super) fn sections(&self, section: &str) -> usize {
        self.root.get(section).and_then(|content| content.get_ref().as_array()).map_or(0, |all| all.len())
    }

    /// Read the section of this number, of those of which there may be several.
    pub(super) fn enter(&mut self, at: usize) {
        self.at = at;
    }

    fn table(&self, section: &str) -> Option<&'s DeTable<'s>> {
        match self.root.get(section)?.get_ref() {
            DeValue::Array(all) => all.get(self.at)?.get_ref().as_table(),
            content => content.as_table(),
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

    /// The same, and the number may be negative.
    pub(super) fn integer(&mut self, section: &str, key: &str) -> Option<i64> {
        let Shape::Integer(low, high) = row(section, key)?.shape else {
            debug_assert!(false, "{section}.{key} is no integer in the table of keys");
            return None;
        };
        self.get(section, key, values::integer(low, high))
    }

    /// Whether `key` or an alias is in `section`, converted or not.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.value(section, key).is_some()
    }

    /// A key that must be there is not.
    pub(super) fn missing(&mut self, section: &str, key: &str, help: &str) {
        if !self.broken {
            let message = format!("`{section}.{key}` is missing");
            self.report(&rules::MISSING_KEY, section, key, &message, Some(help.to_owned()));
        }
    }

    /// A finding about a key that is there, or about its section or the file when it is not.
    pub(super) fn report(
        &mut self,
        rule: &'static Rule,
        section: &str,
        key: &str,
        message: &str,
        help: Option<String>,
    ) {
        let place = self.value(section, key).map(Spanned::span);
        let place = place.or_else(|| self.head(section));
        self.push(rule, place.unwrap_or(0..0), message, help);
    }

    /// Whether a section is there.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.root.contains_key(section)
    }

    /// A finding about a section, if it is there.
    pub(super) fn report_section(&mut self, rule: &'static Rule, section: &str, message: &str, help: &str) {
        if let Some(place) = self.head(section) {
            self.push(rule, place, message, Some(help.to_owned()));
        }
    }

    /// A key that is of no use, and why.
    pub(super) fn without(&mut self, section: &str, key: &str, why: &str) {
        if self.has(section, key) {
            let message = format!("`{section}.{key}` has no effect: {why}");
            self.report(&rules::NO_EFFECT, section, key, &message, None);
        }
    }

    /// Where the section that is read begins.
    fn head(&self, section: &str) -> Option<Range<usize>> {
        let (name, content) = self.root.get_key_value(section)?;
        let one = content.get_ref().as_array().and_then(|all| all.get(self.at));
        Some(one.map_or_else(|| name.span(), Spanned::span))
    }

    /// A finding about the last item of an array that is `text`.
    pub(super) fn report_item(
        &mut self,
        rule: &'static Rule,
        (section, key): (&str, &str),
        text: &str,
        message: &str,
        help: &str,
    ) {
        let items = self.value(section, key).and_then(|value| value.get_ref().as_array());
        let is_it = |item: &&Spanned<DeValue<'_>>| item.get_ref().as_str() == Some(text);
        if let Some(item) = items.and_then(|items| items.iter().rfind(is_it)) {
            self.push(rule, item.span(), message, Some(help.to_owned()));
        }
    }

    /// The names in an array that stand there more than once, each once.
    pub(super) fn repeated(&self, section: &str, key: &str) -> Vec<&'s str> {
        let items = self.value(section, key).and_then(|value| value.get_ref().as_array());
        let mut names: Vec<&str> = items
            .into_iter()
            .flat_map(|items| items.iter())
            .filter_map(|item| item.get_ref().as_str())
            .collect();
        names.sort_unstable();
        let mut twice: Vec<_> =
            names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        twice.dedup();
        twice
    }

    fn value(&self, section: &str, key: &str) -> Option<&'s Spanned<DeValue<'s>>> {
        let table = self.table(section)?;
        row(section, key)?.names().find_map(|name| table.get(name))
    }

    fn push(&mut self, rule: &'static Rule, span: Range<usize>, message: &str, help: Option<String>) {
        let mut finding = Diagnostic::at(rule, self.source, span, message);
        finding.help = help;
        if self.found.len() >= FINDING_LIMIT {
            // Errors go first: a file that has one must not pass because of its warnings.
            let warning = self.found.iter_mut().rfind(|found| !found.is_error());
            if let Some(warning) = warning.filter(|_| finding.is_error()) {
                *warning = finding;
            }
            return;
        }
        self.found.push(finding);
    }

    fn look_for_strangers(&mut self) {
        for (section, content) in self.root {
            let name = section.get_ref().as_ref();
            match (keys::section(name), content.get_ref()) {
                (Some(known), DeValue::Table(table)) if !known.several => self.look_into(known, table),
                (Some(known), DeValue::Array(all)) if known.several => {
                    for one in all {
                        match one.get_ref().as_table() {
                            Some(table) => self.look_into(known, table),
                            None => self.not_a_section(known, one.span()),
                        }
                    }
                }
                (Some(known), _) => self.not_a_section(known, section.span()),
                (None, content) => self.warn(|| stranger_section(name, section.span(), content)),
            }
        }
    }

    fn look_into(&mut self, known: &Section, table: &DeTable<'_>) {
        let is_strange = |key: &&Spanned<_>| keys::find(known.name, key_text(key)).is_none();
        for key in table.keys().filter(is_strange) {
            self.warn(|| stranger_key(known, key_text(key), key.span()));
        }
    }

    fn not_a_section(&mut self, known: &Section, place: Range<usize>) {
        let message = if known.several {
            format!("`{}` is a section of which there may be several", known.name)
        } else {
            format!("`{}` is a section, not a value", known.name)
        };
        let help = format!("write `{}` and its keys below", known.head());
        self.push(&rules::NOT_A_SECTION, place, &message, Some(help));
    }

    /// A warning, which is only made if there is room for it.
    fn warn(&mut self, finding: impl FnOnce() -> Finding) {
        if self.found.len() < FINDING_LIMIT {
            let (rule, span, message, help) = finding();
            self.push(rule, span, &message, help);
        }
    }
}

fn key_text<'a>(key: &'a Spanned<Cow<'_, str>>) -> &'a str {
    key.get_ref().as_ref()
}

type Finding = (&'static Rule, Range<usize>, String, Option<String>);

/// An unknown section is a warning; a known key at the top level has lost its section.
fn stranger_section(name: &str, span: Range<usize>, content: &DeValue<'_>) -> Finding {
    let (rule, message, help) = if content.is_table() {
        let help = nearest(name, SECTIONS.iter().map(|section| section.name))
            .map(|near| format!("did you mean `[{near}]`?"));
        (&rules::UNKNOWN_SECTION, format!("unknown section `[{name}]` is ignored"), help)
    } else {
        let help = home_of(name).map(|home| format!("`{name}` belongs in `[{home}]`"));
        (&rules::UNKNOWN_KEY, format!("unknown key `{name}` is ignored"), help)
    };
    (rule, span, message, help)
}

fn stranger_key(section: &Section, word: &str, span: Range<usize>) -> Finding {
    let help = nearest(word, section.keys.iter().flat_map(Key::names))
        .map(|near| format!("did you mean `{near}`?"))
        .or_else(|| home_of(word).map(|home| format!("`{word}` belongs in `[{home}]`")));
    (&rules::UNKNOWN_KEY, span, format!("unknown key `{}.{word}` is ignored", section.name), help)
}

/// The row of a key in the table. Without one it would not be read: a test of every row sees it.
fn row(section: &str, key: &str) -> Option<&'static Key> {
    let row = keys::find(section, key);
    debug_assert!(row.is_some(), "{section}.{key} is not in the table of keys");
    row
}
