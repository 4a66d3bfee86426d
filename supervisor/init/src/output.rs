//! The output of components: `<state-dir>/<name>.log`, bounded, rotated once.
//!
//! Standard output and error go through a pipe that the event loop reads with a budget, so a
//! component that floods neither stops the supervisor nor fills the memory: it is slowed by its
//! own pipe. A log and its predecessor have at most twice [`LOG_LIMIT`] bytes.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::io::unix::AsyncFd;
use yakiros_core::control::{Answer, LogText, PAGE_BYTES};

use crate::sys;

/// Bytes after which a log is rotated. `/run` is memory: 300 components that write a lot stay
/// below 160 MB.
const LOG_LIMIT: u64 = 256 * 1024;

/// Bytes read at once, and between two chances for everybody else.
const CHUNK: usize = 16 * 1024;

/// The most bytes read from a pipe after its component has ended: what a pipe holds.
const DRAIN_LIMIT: usize = 64 * 1024;

/// The most bytes of a log in one answer, as they are on the wire: a page like that of any other
/// answer, for clients that do not read theirs make the supervisor hold it.
const TAIL_LIMIT: usize = PAGE_BYTES;

thread_local! {
    /// One buffer for all logs: nothing waits while it is in use.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// The reading end of one component's output, and the file it goes to.
pub struct Log {
    pipe: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Log {
    /// Begin to keep the output of `name`.
    pub fn new(state_dir: &Path, name: &str, read: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: sys::watch(read)?, path: log_path(state_dir, name) })
    }

    /// Copy until every writer has closed the pipe.
    pub async fn follow(self: Rc<Self>) {
        loop {
            let Ok(mut ready) = self.pipe.readable().await else {
                return;
            };
            match self.copy_chunk() {
                Some(0) => return,
                Some(_) => {}
                None => ready.clear_ready(),
            }
            drop(ready);
            tokio::task::yield_now().await;
        }
    }

    /// Copy what is in the pipe now.
    pub fn drain(&self) {
        let mut copied = 0;
        while copied < DRAIN_LIMIT {
            match self.copy_chunk() {
                None | Some(0) => return,
                Some(count) => copied += count,
            }
        }
    }

    /// Copy one chunk: its size, `Some(0)` at the end, `None` when there is nothing now.
    fn copy_chunk(&self) -> Option<usize> {
        BUFFER.with_borrow_mut(|buffer| {
            let count = sys::read_now(self.pipe.get_ref(), buffer).unwrap_or(Some(0))?;
            if count > 0 {
                // A full /run loses output, never the component.
                let _ = append(&self.path, &buffer[..count]);
            }
            Some(count)
        })
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open_for_append(path)?;
    if file.metadata()?.len() + bytes.len() as u64 > LOG_LIMIT {
        fs::rename(path, rotated(path))?;
        file = open_for_append(path)?;
    }
    file.write_all(bytes)
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn log_path(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join(format!("{name}.log"))
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The component is no longer declared: its logs go.
pub fn remove(state_dir: &Path, name: &str) {
    let path = log_path(state_dir, name);
    for path in [rotated(&path), path] {
        // Most components never had a second file, some not even one.
        let _ = fs::remove_file(path);
    }
}

/// The last `lines` lines of a component's output.
pub fn tail(state_dir: &Path, name: &str, lines: u32) -> Answer {
    let path = log_path(state_dir, name);
    match read_tail(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            Answer::Log(LogText { text: last_lines(last_page(&text), lines).to_owned() })
        }
        Err(error) => Answer::Refused {
            message: format!("failed to read {}: {error}", path.display()),
            near: Vec::new(),
        },
    }
}

/// The end of the log; just after a rotation the end of its predecessor comes before it.
fn read_tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = read_end(&rotated(path)).unwrap_or_default();
    match read_end(path) {
        Ok(end) => bytes.extend(end),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(bytes)
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_LIMIT as u64)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_LIMIT as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The end of the text that fits into an answer, from the start of a line unless the last line
/// alone is too long.
fn last_page(text: &str) -> &str {
    let mut left = TAIL_LIMIT;
    let mut start = text.len();
    for (at, character) in text.char_indices().rev() {
        // Bytes in JSON.
        let cost = match character {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        if cost > left {
            let page = &text[start..];
            let line = page.find('\n').map(|end| &page[end + 1..]);
            return line.filter(|rest| !rest.is_empty()).unwrap_or(page);
        }
        left -= cost;
        start = at;
    }
    text
}

fn last_lines(text: &str, lines: u32) -> &str {
    if lines == 0 {
        return "";
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    let mut ends = body.rmatch_indices('\n');
    let start = ends.nth(lines as usize - 1).map_or(0, |(at, _)| at + 1);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::{TAIL_LIMIT, last_lines, last_page};

    #[test]
    fn an_answer_is_bounded_whatever_is_in_the_log() {
        for piece in ["\u{1}", "\"", "é", "\u{fffd}", "a line\n", "\n", "x"] {
            let text = piece.repeat(TAIL_LIMIT);
            let page = last_page(&text);
            let line = serde_json::to_string(page).expect("a string");
            assert!(line.len() <= TAIL_LIMIT + 2, "{piece:?}: {}", line.len());
            assert!(line.len() > TAIL_LIMIT - 16, "{piece:?}: {}", line.len());
            assert!(piece != "a line\n" || page.starts_with("a line"), "whole lines");
        }
        assert_eq!(last_page("a\nb\n"), "a\nb\n");
    }

    #[test]
    fn the_last_lines_are_whole() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last_lines("a\nb\nc", 1), "c");
        assert_eq!(last_lines("a\n", 5), "a\n");
        assert_eq!(last_lines("", 5), "");
        assert_eq!(last_lines("a\n", 0), "");
    }
}
