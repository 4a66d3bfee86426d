//! `status --watch`: the view that redraws when something changes.
//!
//! It waits for a journal record newer than what is shown, so an idle machine costs nothing. On a
//! terminal it has the screen to itself and gives it back however it ends; elsewhere each change
//! is a block of its own.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crate::Failure;
use crate::client::Client;
use crate::output::Output;

/// Least time between two pictures: more than ten a second cannot be read, and a machine that
/// boots changes thousands of times.
const REDRAW_PAUSE: Duration = Duration::from_millis(100);

/// Alternate screen, no cursor, no wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";

/// The opposite, in reverse.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Lines of a terminal that does not tell its size.
const DEFAULT_HEIGHT: usize = 24;

/// Show the status until the user or the reader has enough; with `every`, at least that often.
pub fn run(
    client: &mut Client,
    output: &Output,
    name: Option<&str>,
    every: Option<Duration>,
) -> Result<(), Failure> {
    let screen = Screen::enter(output)?;
    loop {
        let status = client.status(name)?;
        let text = output.status_text(&status);
        let shown = match &screen {
            Some(_) => Screen::draw(&text),
            None if output.is_json() => Output::stream(&text),
            None => Output::stream(&format!("{text}\n")),
        };
        if !shown {
            return Ok(());
        }
        client.wait_for_change(name, status.revision, every)?;
        if screen.is_some() {
            std::thread::sleep(REDRAW_PAUSE);
        }
    }
}

/// The terminal while it is ours.
pub struct Screen;

impl Screen {
    /// Take the screen, if there is one.
    pub fn enter(output: &Output) -> Result<Option<Self>, Failure> {
        if output.is_json() || !std::io::stdout().is_terminal() {
            return Ok(None);
        }
        let failed = |error| Failure::Broken(format!("failed to prepare for Ctrl-C: {error}"));
        ctrlc::set_handler(|| {
            control(LEAVE);
            std::process::exit(0);
        })
        .map_err(failed)?;
        control(ENTER);
        Ok(Some(Self))
    }

    /// Draw a picture over the last one. Whether there is anybody to see it.
    pub fn draw(text: &str) -> bool {
        let height =
            terminal_size::terminal_size().map_or(DEFAULT_HEIGHT, |(_, height)| usize::from(height.0));
        let out = std::io::stdout();
        let plain = anstream::AutoStream::choice(&out) == anstream::ColorChoice::Never;
        let text = if plain { anstream::adapter::strip_str(text).to_string() } else { text.to_owned() };
        control(&picture(&text, height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        control(LEAVE);
    }
}

/// Send what is for the terminal itself.
fn control(text: &str) -> bool {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// As many lines as fit, the last one of them always, each over what stood there.
fn picture(text: &str, height: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let mut shown = lines.clone();
    let note;
    // The cursor stands below the last line.
    let room = height.saturating_sub(1).max(3);
    if lines.len() > room {
        shown.truncate(room - 2);
        note = format!("… {} more", lines.len() - (room - 2) - 1);
        shown.push(&note);
        shown.extend(lines.last());
    }
    let mut drawn = String::from("\x1b[H");
    for line in shown {
        drawn.push_str(line);
        drawn.push_str("\x1b[K\r\n");
    }
    drawn.push_str("\x1b[J");
    drawn
}

#[cfg(test)]
mod tests {
    use super::picture;

    fn lines(text: &str, height: usize) -> Vec<String> {
        let drawn = picture(text, height);
        let drawn = drawn.strip_prefix("\x1b[H").and_then(|rest| rest.strip_suffix("\x1b[J"));
        let drawn = drawn.expect("from the top to the end");
        drawn.split_terminator("\x1b[K\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_picture_fits_its_screen_and_keeps_the_summary() {
        let text = "HEAD\na\nb\nc\nd\nSummary\n";
        assert_eq!(lines(text, 24), ["HEAD", "a", "b", "c", "d", "Summary"]);
        assert_eq!(lines(text, 7).len(), 6);
        assert_eq!(lines(text, 6), ["HEAD", "a", "b", "… 2 more", "Summary"]);
        assert_eq!(lines(text, 0), ["HEAD", "… 4 more", "Summary"]);
    }
}
