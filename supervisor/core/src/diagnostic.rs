//! What is wrong with a component file, and where.
//!
//! A [`Diagnostic`] carries everything a person or an editor needs: a code (see [`rules`]),
//! severity, place (line and column, both from 1; the column counts characters), the offending
//! text, and what to do. The compact form fits one log line; [`Diagnostic::render`] draws the
//! source in the style of rustc.

pub mod rules;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};

use rules::Rule;

/// The longest offending text kept in a diagnostic, in characters: one terminal line. The whole
/// line can be read in the file.
const OFFENDING_TEXT_LIMIT: usize = 80;

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is used; something in it has no effect or is probably a mistake.
    Warning,
    /// The file is not used, or (of several files) what they declare can never start.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding in one component file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Code of the [`Rule`]; text, so that a client can pass on one that it does not know.
    pub code: Cow<'static, str>,
    /// Error or warning.
    pub severity: Severity,
    /// Line, from 1; 0 when the finding concerns the whole file.
    pub line: usize,
    /// Column in characters, from 1; 0 when the finding concerns the whole file.
    pub column: usize,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// The offending text, cut to one line.
    pub text: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Byte range in the source, for [`Diagnostic::render`].
    #[serde(skip)]
    span: Range<usize>,
}

impl Diagnostic {
    /// A finding about the bytes `span` of `source`.
    pub fn at(rule: &Rule, source: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let start = floor_boundary(source, span.start);
        let end = floor_boundary(source, span.end).max(start);
        let (line, column) = position(source, start);
        let text = source[start..end].lines().next().unwrap_or_default();
        Self {
            code: rule.code.into(),
            severity: rule.severity,
            line,
            column,
            message: message.into(),
            text: text.chars().take(OFFENDING_TEXT_LIMIT).collect(),
            help: None,
            span: start..end,
        }
    }

    /// A finding about the file as a whole.
    pub fn whole_file(rule: &Rule, message: impl Into<String>) -> Self {
        Self {
            code: rule.code.into(),
            severity: rule.severity,
            line: 0,
            column: 0,
            message: message.into(),
            text: String::new(),
            help: None,
            span: 0..0,
        }
    }

    /// The same finding with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the file cannot be used because of this finding.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `FILE:LINE:COL: message (help) [CODE]`, the form of logs and of `graphctl status`. Without
    /// line and column when it concerns the whole file.
    pub fn compact(&self, file: &str) -> String {
        let mut text = match self.line {
            0 => format!("{file}: {}", self.message),
            line => format!("{file}:{line}:{}: {}", self.column, self.message),
        };
        if let Some(help) = &self.help {
            text.push_str(" (");
            text.push_str(help);
            text.push(')');
        }
        text.push_str(" [");
        text.push_str(&self.code);
        text.push(']');
        text
    }

    /// The finding with the source line it is about, as rustc draws it.
    pub fn render(&self, file: &str, source: &str, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str()).id(&*self.code);
        let body = if self.line == 0 || self.span.end > source.len() {
            Group::with_title(title).element(annotate_snippets::Origin::path(file))
        } else {
            title.element(
                Snippet::source(source)
                    .path(file)
                    .annotation(AnnotationKind::Primary.span(self.span.clone())),
            )
        };
        let mut report = vec![body];
        if let Some(help) = &self.help {
            report.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&report)
    }
}

/// Line and column (both from 1, the column in characters) of byte `at`.
fn position(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The nearest character boundary at or before `at`.
fn floor_boundary(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_counts_lines_and_characters_from_one() {
        let source = "a = 1\nb = \"\u{e4}\u{f6}\" x\n";
        let at = source.find('x').unwrap();
        let finding = Diagnostic::at(&rules::SYNTAX, source, at..at + 1, "unexpected");
        assert_eq!((finding.line, finding.column), (2, 10));
        assert_eq!(finding.text, "x");
    }

    #[test]
    fn span_outside_the_source_is_brought_inside() {
        let finding = Diagnostic::at(&rules::SYNTAX, "ab", 7..9, "gone");
        assert_eq!((finding.line, finding.column), (1, 3));
    }

    #[test]
    fn rendering_shows_the_line_and_the_help() {
        let source = "[component]\nnmae = \"x\"\n";
        let drawn = Diagnostic::at(&rules::UNKNOWN_KEY, source, 12..16, "unknown key `nmae`")
            .with_help("did you mean `name`?")
            .render("x.toml", source, false);
        assert!(drawn.starts_with("warning[Y0102]: unknown key `nmae`\n"), "{drawn}");
        assert!(drawn.contains("x.toml:2:1"), "{drawn}");
        assert!(drawn.contains("nmae = \"x\""), "{drawn}");
        assert!(drawn.contains("did you mean `name`?"), "{drawn}");
    }

    #[test]
    fn compact_form_has_place_help_and_code() {
        let finding = Diagnostic::at(&rules::UNKNOWN_KEY, "ab", 0..1, "what").with_help("do");
        assert_eq!(finding.compact("x.toml"), "x.toml:1:1: what (do) [Y0102]");
        let finding = Diagnostic::whole_file(&rules::TOO_LARGE, "large");
        assert_eq!(finding.compact("x.toml"), "x.toml: large [Y0002]");
    }
}
