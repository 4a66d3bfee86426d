//! What is printed: text for people, JSON for programs. Colour only on a terminal (`anstream`
//! strips it elsewhere). A reader that stops reading is not an error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::json;
use yakiros_core::control::{CapabilityStatus, ComponentStatus, GraphNode, Health, VERSION};
use yakiros_core::journal::State;

use crate::client::Status;
use crate::tables::{Cell, draw};
use crate::tree;

/// Where results go.
pub struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read this.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Print text to standard output.
    pub fn text(text: &str) {
        // A closed pipe (`graphctl status | head`) is the reader's wish.
        let _ = anstream::stdout().write_all(text.as_bytes());
    }

    /// Print one JSON value and a newline.
    pub fn value(value: &impl Serialize) {
        let mut out = std::io::stdout().lock();
        let written = serde_json::to_writer(&mut out, value);
        if written.is_ok() {
            let _ = out.write_all(b"\n");
        }
    }

    /// An error, with near names if a name was wrong.
    pub fn error(&self, message: &str, near: &[String]) {
        if self.json {
            return Self::value(&json!({"version": VERSION, "error": message, "near": near}));
        }
        let red = AnsiColor::Red.on_default().bold();
        let _ = writeln!(anstream::stderr(), "{red}graphctl:{red:#} {message}");
        for name in near {
            let _ = writeln!(anstream::stderr(), "  did you mean {name:?}?");
        }
    }

    /// Something the reader should know about the answer, beside it.
    pub fn note(message: &str) {
        let _ = writeln!(anstream::stderr(), "graphctl: note: {message}");
    }

    /// Print text to standard output at once, and tell whether anybody still reads.
    pub fn stream(text: &str) -> bool {
        let mut out = anstream::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }

    /// A request was carried out.
    pub fn done(&self, message: &str, revision: u64) {
        if self.json {
            let value = json!({"version": VERSION, "message": message, "revision": revision});
            return Self::value(&value);
        }
        Self::text(&format!("{message}\n"));
    }

    /// `status`.
    pub fn status(&self, status: &Status) {
        Self::text(&self.status_text(status));
    }

    /// The same as text.
    pub fn status_text(&self, status: &Status) -> String {
        if self.json {
            return format!("{}\n", json!(status));
        }
        let mut header = vec!["COMPONENT", "STATE", "PID", "UPTIME", "RESTARTS", "HEALTH", ""];
        let mut rows: Vec<_> = status.components.iter().map(status_row).collect();
        // A column only for who has slices.
        if status.components.iter().any(|one| one.slice.is_some()) {
            header.insert(1, "SLICE");
            for (row, one) in rows.iter_mut().zip(&status.components) {
                row.insert(1, Cell::plain(one.slice.as_deref().unwrap_or("-")));
            }
        }
        let mut text = draw(&header, &rows);
        for rejected in &status.rejected {
            for finding in rejected.diagnostics.iter().filter(|d| d.is_error()) {
                let _ = writeln!(text, "rejected: {}", finding.compact(&rejected.file));
            }
        }
        let s = &status.summary;
        let _ = writeln!(
            text,
            "Summary: {} active, {} degraded, {} starting, {} failed, {} total",
            s.active, s.degraded, s.starting, s.failed, s.total
        );
        text
    }

    /// `caps`.
    pub fn capabilities(&self, nodes: &[GraphNode]) {
        let mut all: BTreeMap<&str, Vec<&GraphNode>> = BTreeMap::new();
        for node in nodes {
            for cap in &node.provides {
                all.entry(cap).or_default().push(node);
            }
            for cap in node.requires.iter().chain(&node.optional) {
                all.entry(cap).or_default();
            }
        }
        let up = all.values().filter(|p| tree::level(p) > CapabilityStatus::Down);
        let (total, up) = (all.len(), up.count());
        let down = total - up;
        if self.json {
            let list: Vec<_> = all
                .iter()
                .map(|(name, providers)| {
                    let names: Vec<_> = providers.iter().map(|node| &node.name).collect();
                    json!({"name": name, "status": tree::level(providers), "providers": names})
                })
                .collect();
            let value =
                json!({"version": VERSION, "capabilities": list, "up": up, "down": down, "total": total});
            return Self::value(&value);
        }
        let rows: Vec<_> = all
            .iter()
            .map(|(name, providers)| {
                let level = tree::level(providers);
                let names: Vec<_> = providers.iter().map(|node| &*node.name).collect();
                vec![
                    Cell::plain(*name),
                    Cell::styled(level_name(level), level_style(level)),
                    Cell::plain(names.join(", ")),
                ]
            })
            .collect();
        let table = draw(&["CAPABILITY", "STATUS", "PROVIDER"], &rows);
        Self::text(&format!("{table}Total: {total} capabilities ({up} up, {down} down)\n"));
    }

    /// `pending`.
    pub fn pending<'a>(&self, nodes: &'a [GraphNode]) {
        let of = |node: &'a GraphNode| node.provides.iter().map(String::as_str);
        let declared: std::collections::HashSet<&str> = nodes.iter().flat_map(of).collect();
        let up = nodes.iter().filter(|node| node.level > CapabilityStatus::Down);
        let up: std::collections::HashSet<&str> = up.flat_map(of).collect();
        let waiting: Vec<_> = nodes
            .iter()
            .filter(|node| matches!(node.state, State::Inactive | State::Cycle) && !node.held)
            .map(|node| {
                // What is optional is waited for while somebody declares it.
                let optional = node.optional.iter().filter(|cap| declared.contains(cap.as_str()));
                let wanted = node.requires.iter().chain(optional).map(String::as_str);
                let missing: Vec<_> = wanted.filter(|cap| !up.contains(cap)).collect();
                (node, missing)
            })
            .collect();
        if self.json {
            let list: Vec<_> = waiting
                .iter()
                .map(|(node, missing)| json!({"name": node.name, "state": node.state, "missing": missing}))
                .collect();
            return Self::value(&json!({"version": VERSION, "pending": list}));
        }
        let rows: Vec<_> = waiting
            .iter()
            .map(|(node, missing)| {
                vec![Cell::plain(&*node.name), state_cell(node.state), Cell::plain(missing.join(", "))]
            })
            .collect();
        let table = draw(&["COMPONENT", "STATE", "WAITS FOR"], &rows);
        Self::text(&format!("{table}Total: {} pending\n", waiting.len()));
    }

    /// `tree`.
    pub fn tree(&self, lines: &[tree::Line]) {
        if self.json {
            return Self::value(&json!({"version": VERSION, "tree": lines}));
        }
        for line in lines {
            Self::text(&format!("{}\n", line.text()));
        }
    }

    /// Names of all components, one a line.
    pub fn names(&self, status: &Status) {
        let names: Vec<_> = status.components.iter().map(|component| &*component.name).collect();
        if self.json {
            return Self::value(&json!({"version": VERSION, "names": names}));
        }
        for name in names {
            Self::text(&format!("{name}\n"));
        }
    }

    /// Print text as it is: not for `anstream` to interpret.
    pub fn raw(text: &str) {
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    /// Print what a component wrote at once, and tell whether anybody still reads. It is not for `anstream` to interpret,
    /// and for no terminal either.
    pub fn foreign(text: &str) -> bool {
        let mut out = std::io::stdout().lock();
        let shown = if out.is_terminal() { harmless(text) } else { Cow::Borrowed(text) };
        out.write_all(shown.as_bytes()).and_then(|()| out.flush()).is_ok()
    }
}

/// Text with everything spelled out that would control a terminal: what a service writes is not to move the cursor of
/// whoever reads it, rename the window or type for them.
fn harmless(text: &str) -> Cow<'_, str> {
    let controls = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(controls) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if controls(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// "1 note", "2 notes".
pub fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

fn status_row(c: &ComponentStatus) -> Vec<Cell> {
    let dash = || "-".to_owned();
    let health = match c.health {
        Health::None => "-",
        Health::Healthy => "healthy",
        Health::Failing => "failing",
    };
    vec![
        Cell::plain(&*c.name),
        marked_state_cell(c.state, mark_of(c).as_deref()),
        Cell::plain(c.pid.map_or_else(dash, |pid| pid.to_string())),
        Cell::plain(c.uptime_ms.map_or_else(dash, uptime)),
        Cell::plain(c.restarts.to_string()),
        Cell::plain(health),
        Cell::plain(c.detail.clone().unwrap_or_default()),
    ]
}

/// The two largest units: `3d4h`, `5m6s`, `7s`.
pub fn uptime(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest}s"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// What holds of a component besides its state: that it is kept from running, or what a checkpoint has to do with it.
fn mark_of(component: &ComponentStatus) -> Option<String> {
    let checkpoint = || component.checkpoint.map(|mark| mark.to_string());
    component.freezer.map(|mark| mark.to_string()).or_else(checkpoint)
}

/// A state in its colour, with what no state tells.
pub fn marked_state_cell(state: State, mark: Option<&str>) -> Cell {
    match mark {
        None => state_cell(state),
        Some(mark) => Cell::styled(marked_state(state, Some(mark)), AnsiColor::Cyan.on_default()),
    }
}

/// The same without colour.
pub fn marked_state(state: State, mark: Option<&str>) -> String {
    mark.map_or_else(|| state.to_string(), |mark| format!("{state} ({mark})"))
}

/// A state in its colour.
pub fn state_cell(state: State) -> Cell {
    let colour = match state {
        State::Active | State::Done => AnsiColor::Green,
        State::Degraded | State::Starting | State::ReadyWait | State::Stopping => AnsiColor::Yellow,
        State::Failed | State::Backoff | State::Cycle => AnsiColor::Red,
        State::Inactive | State::Removed => AnsiColor::BrightBlack,
    };
    Cell::styled(state.name(), colour.on_default())
}

fn level_name(level: CapabilityStatus) -> &'static str {
    match level {
        CapabilityStatus::Up => "UP",
        CapabilityStatus::Degraded => "DEGRADED",
        CapabilityStatus::Down => "DOWN",
    }
}

fn level_style(level: CapabilityStatus) -> Style {
    let colour = match level {
        CapabilityStatus::Up => AnsiColor::Green,
        CapabilityStatus::Degraded => AnsiColor::Yellow,
        CapabilityStatus::Down => AnsiColor::Red,
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use super::{count, harmless, uptime};

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|n| count(n, "note")), ["0 notes", "1 note", "2 notes"]);
    }

    #[test]
    fn uptime_shows_two_units() {
        assert_eq!(uptime(999), "0s");
        assert_eq!(uptime(65_000), "1m5s");
        assert_eq!(uptime(3_600_000), "1h0m");
        assert_eq!(uptime(90_000_000), "1d1h");
    }

    #[test]
    fn what_a_service_writes_controls_no_terminal() {
        for (text, shown) in [
            ("an ordinary line\twith a tab, ä and 日本\n", "an ordinary line\twith a tab, ä and 日本\n"),
            ("\x1b]0;title\x07\x1b[2J\r\n", "\\u{1b}]0;title\\u{7}\\u{1b}[2J\\r\n"),
            ("\u{9b}31m\x7f\0", "\\u{9b}31m\\u{7f}\\u{0}"),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }
}
