//! Text for a terminal: colours, wrapping, cutting, and numbers with units.
//!
//! Text from a guest may hold anything; [`plain`] takes what a terminal would act on out of it.

use std::fmt::Write as _;

use crate::event::Outcome;

/// Wraps text into colours, or leaves it as it is.
#[derive(Clone, Copy)]
pub struct Paint {
    colour: bool,
}

impl Paint {
    pub fn new(colour: bool) -> Self {
        Self { colour }
    }

    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub fn outcome(self, outcome: Outcome, text: &str) -> String {
        let code = match outcome {
            Outcome::Passed => "32",
            Outcome::Failed => "1;31",
            Outcome::Flaky => "33",
            Outcome::Skipped => "36",
            Outcome::InfraFailed => "35",
        };
        self.wrap(code, text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The text on one line, without what could move the cursor or change colours: escape sequences are left out, other
/// control characters become spaces.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            // Parameters, then one final character from `@` to `~`.
            while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
        } else {
            out.push(if c.is_control() { ' ' } else { c });
        }
    }
    out
}

/// The text on one line, cut to `width` characters.
pub fn clip(text: &str, width: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The words of `text` in lines of at most `width` characters; a longer word has a line of its own. Never empty.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = plain(text);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
        }
        used += length;
    }
    lines
}

/// Appends lines with a name before the first of them, both indented.
pub fn label(out: &mut String, name: &str, lines: &[String]) {
    for (place, line) in lines.iter().enumerate() {
        let name = if place == 0 { name } else { "" };
        let _ = writeln!(out, "  {name:<11}{line}");
    }
}

/// A duration in the unit that a person would choose.
pub fn seconds(ms: f64) -> String {
    if ms < 999.5 {
        format!("{ms:.0} ms")
    } else if ms < 59_950.0 {
        format!("{:.1} s", ms / 1000.0)
    } else {
        let seconds = (ms / 1000.0).round() as u64;
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, minutes, seconds) => format!("{minutes} m {seconds:02} s"),
            (hours, minutes, _) => format!("{hours} h {minutes:02} m"),
        }
    }
}

/// A size in the unit that a person would choose.
pub fn size(bytes: u64) -> String {
    match bytes as f64 / 1024.0 {
        kib if kib < 1.0 => format!("{bytes} B"),
        kib if kib < 1024.0 => format!("{kib:.1} KiB"),
        kib => format!("{:.1} MiB", kib / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units() {
        let times = [
            (0.0, "0 ms"),
            (81.4, "81 ms"),
            (999.6, "1.0 s"),
            (1234.0, "1.2 s"),
            (59_949.0, "59.9 s"),
            (60_000.0, "1 m 00 s"),
            (3_725_000.0, "1 h 02 m"),
        ];
        for (ms, expected) in times {
            assert_eq!(seconds(ms), expected);
        }
        for (bytes, expected) in [(0, "0 B"), (1536, "1.5 KiB"), (12 << 20, "12.0 MiB")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn words_are_wrapped_and_nothing_is_lost() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a/very/long/path x", 7), ["a/very/long/path", "x"]);
        assert_eq!(wrap("  \n ", 7), [""]);
        assert_eq!(clip("123456", 5), "1234…");
        assert_eq!(clip("12345", 5), "12345");
    }

    #[test]
    fn a_guest_cannot_steer_the_terminal() {
        assert_eq!(plain("\u{1b}[1;31mred\u{1b}[0m\r\n"), "red  ");
        assert_eq!(plain("\u{1b}]0;title\u{7}"), " ]0;title ");
        assert_eq!(plain("cut off \u{1b}[1"), "cut off ");
    }
}
