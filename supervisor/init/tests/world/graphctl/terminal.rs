//! What a terminal is sent: it is left as it was, and no component controls it.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use yakiros_core::journal::State;

use super::log::{parrot, say};
use super::program;
use crate::guest::{Guest, until};
use crate::speaker;

/// A `graphctl` on a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    /// What it was sent so far.
    seen: Vec<u8>,
}

impl Terminal {
    fn start(guest: &Guest, arguments: &[&str]) -> Self {
        // `script` makes the terminal, whose Ctrl-C is a byte of its input. `exec`, because a shell that
        // stayed would be interrupted as well, and its exit code reported.
        let (program, socket) = (program().display(), guest.socket());
        let command = format!("exec {program} --socket {} {}", socket.display(), arguments.join(" "));
        // Who runs in the background of a shell is not interrupted, nor are its children; these are to be.
        let mut child = Command::new("env")
            .args([
                "--default-signal=INT",
                "script",
                "--quiet",
                "--return",
                "--command",
                &command,
                "/dev/null",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        let keys = child.stdin.take().expect("its input");
        let screen = child.stdout.take().expect("its output");
        Self { child, keys, screen, seen: Vec::new() }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Wait until something is shown.
    fn shows(&mut self, part: &str) {
        let mut buffer = [0; 4096];
        while !self.text().contains(part) {
            let count = self.screen.read(&mut buffer).expect("a picture");
            assert!(count > 0, "it ended without {part:?}: {}", self.text());
            self.seen.extend_from_slice(&buffer[..count]);
        }
    }

    /// All that it was sent, once the program has ended, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        self.screen.read_to_end(&mut self.seen).expect("the rest");
        let code = self.child.wait().expect("script").code();
        (self.text(), code)
    }

    /// The same after a Ctrl-C.
    fn interrupt(mut self) -> (String, Option<i32>) {
        self.keys.write_all(b"\x03").expect("Ctrl-C");
        self.end()
    }
}

#[test]
fn a_terminal_is_given_back_as_it_was() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    for (arguments, part) in [(&["status", "--watch"][..], "Summary: 1 active"), (&["top"], "1 running, ")] {
        let mut terminal = Terminal::start(&guest, arguments);
        terminal.shows(part);
        assert!(terminal.text().contains("\x1b[?1049h"), "{arguments:?} takes the alternate screen");
        let (shown, code) = terminal.interrupt();
        assert!(shown.contains("\x1b[?7h\x1b[?25h\x1b[?1049l"), "{shown}");
        assert_eq!(code, Some(0));
    }
}

#[test]
fn what_components_use_is_a_table_where_nothing_can_be_redrawn() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    let pid = guest.component("steady").pid.expect("a process");
    let table = guest.says(&["top", "--interval", "0.1"]);
    let row = table.lines().find(|line| line.starts_with("steady ")).expect("a row");
    assert!(row.contains(&pid.to_string()), "{table}");
    let samples = guest.says(&["top", "-n", "2", "--interval", "0.1", "--json"]);
    let samples: Vec<serde_json::Value> =
        samples.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[1]["components"][0]["pid"], pid);
}

/// Gives a terminal's window another title; by both ways to begin it.
const TITLES: [(&str, &str); 2] = [("mine 1", "\x1b]0;mine 1\x07"), ("mine 2", "\u{9d}0;mine 2\u{9c}")];

#[test]
fn no_component_controls_the_terminal_of_who_looks_at_it() {
    let Some((guest, mut speaker)) = speaker::start("[lifecycle]\nreadiness = \"notify\"\n") else {
        return;
    };
    speaker.tell("READY=1");
    guest.wait("speaker", State::Active, None);
    let pipe = parrot(&guest, "parrot");
    for (mine, title) in TITLES {
        speaker.tell(&format!("STATUS={title}"));
        until("the status", || guest.component("speaker").status_text.filter(|text| text.contains(mine)));
        // Programs get it as it was written.
        say(&guest, &pipe, "parrot", &format!("{title}\n"));
        assert!(guest.says(&["log", "parrot", "1"]).contains(title));
        for arguments in [&["log", "parrot"][..], &["status"], &["status", "speaker"]] {
            let (shown, _) = Terminal::start(&guest, arguments).end();
            assert!(shown.contains(mine), "{arguments:?}: {shown:?}");
            assert!(!shown.contains(title), "{arguments:?}: {shown:?}");
        }
        for arguments in [&["log", "parrot", "-f"][..], &["status", "--watch"]] {
            let mut terminal = Terminal::start(&guest, arguments);
            terminal.shows(mine);
            let (shown, _) = terminal.interrupt();
            assert!(!shown.contains(title), "{arguments:?}: {shown:?}");
        }
    }
}
