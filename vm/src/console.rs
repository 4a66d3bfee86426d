//! The guest's serial console, watched while it is written.
//!
//! QEMU itself writes the log file, so nothing is lost when the harness dies. The watcher reads the same bytes, keeps
//! the last of them for error messages, and compares each line with [`patterns`].

mod patterns;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};

pub use patterns::Class;

/// Lines kept for excerpts: a kernel's report of a panic with two back-traces.
const KEPT_LINES: usize = 200;
/// A longer line is cut; the console is a human's view, the log file has it whole.
const MAX_LINE_BYTES: usize = 1024;
/// Lines that follow a finding and belong to it.
const EXCERPT_AFTER: usize = 40;
/// Lines before a finding that may explain it.
const EXCERPT_BEFORE: usize = 5;
/// Findings kept; a kernel that warns in a loop must not fill the host's memory.
const MAX_FINDINGS: usize = 100;

/// Something on the console that is not supposed to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub class: Class,
    /// The line that shows it, without its time stamp.
    pub title: String,
    /// The lines around it.
    pub excerpt: Vec<String>,
}

impl Finding {
    /// The kernel panicked because PID 1 is gone, which is PID 1's fault and not the kernel's.
    pub fn is_end_of_init(&self) -> bool {
        self.class == Class::Panic
            && ["Attempted to kill init", "No working init found", "Requested init "]
                .iter()
                .any(|part| self.title.contains(part))
    }
}

/// Reads lines, keeps the last ones and finds what is wrong. Fed with bytes in any cut.
#[derive(Debug, Default)]
pub struct Analyzer {
    partial: Vec<u8>,
    lines: VecDeque<String>,
    findings: Vec<Finding>,
    /// Findings whose excerpt still grows: index and lines to come.
    growing: Vec<(usize, usize)>,
}

impl Analyzer {
    /// Takes the next bytes; true when they contained a new finding.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let before = self.findings.len();
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                self.line(String::from_utf8_lossy(&line).trim_end().to_owned());
            } else if self.partial.len() < MAX_LINE_BYTES {
                self.partial.push(byte);
            }
        }
        self.findings.len() > before
    }

    /// What was found so far, in order.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The last `count` lines, the unfinished one included.
    pub fn tail(&self, count: usize) -> String {
        let partial = String::from_utf8_lossy(&self.partial);
        let unfinished = Some(partial.as_ref()).filter(|line| !line.is_empty());
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).chain(unfinished).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    fn line(&mut self, line: String) {
        for (finding, left) in &mut self.growing {
            self.findings[*finding].excerpt.push(line.clone());
            *left -= 1;
        }
        self.growing.retain(|(_, left)| *left > 0);
        let text = patterns::without_timestamp(&line);
        if let Some(class) = patterns::classify(text)
            && self.findings.len() < MAX_FINDINGS
        {
            let start = self.lines.len().saturating_sub(EXCERPT_BEFORE);
            let mut excerpt: Vec<String> = self.lines.range(start..).cloned().collect();
            excerpt.push(line.clone());
            self.growing.push((self.findings.len(), EXCERPT_AFTER));
            self.findings.push(Finding { class, title: text.to_owned(), excerpt });
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// A console that is being watched.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<Shared>,
    /// Its sender is the reader's, and goes with it.
    open: watch::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    analyzer: Mutex<Analyzer>,
    /// Told at each fatal finding.
    fatal: Notify,
}

impl Console {
    /// Watches the stream until QEMU closes it.
    pub fn watch(stream: UnixStream) -> Self {
        let (reader, open) = watch::channel(());
        let console = Self { shared: Arc::default(), open };
        tokio::spawn(console.clone().read(stream, reader));
        console
    }

    async fn read(self, mut stream: UnixStream, _reader: watch::Sender<()>) {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if self.analyzer().push(&buffer[..count]) && self.fatal_finding().is_some() {
                self.shared.fatal.notify_waiters();
            }
        }
    }

    /// Waits until QEMU has closed the console and everything before that is known.
    pub async fn closed(&self) {
        let mut open = self.open.clone();
        while open.changed().await.is_ok() {}
    }

    /// What was found so far, in order.
    pub fn findings(&self) -> Vec<Finding> {
        self.analyzer().findings().to_vec()
    }

    /// The first finding after which the guest is of no use.
    pub fn fatal_finding(&self) -> Option<Finding> {
        self.analyzer().findings().iter().find(|finding| finding.class.is_fatal()).cloned()
    }

    /// Ends when the guest's kernel has failed.
    pub async fn failure(&self) -> Finding {
        loop {
            let told = self.shared.fatal.notified();
            if let Some(finding) = self.fatal_finding() {
                return finding;
            }
            told.await;
        }
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> String {
        self.analyzer().tail(count)
    }

    fn analyzer(&self) -> MutexGuard<'_, Analyzer> {
        self.shared.analyzer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_in_two_is_one_line() {
        let mut analyzer = Analyzer::default();
        assert!(!analyzer.push(b"[    1.0] Kernel pan"));
        assert!(analyzer.push(b"ic - not syncing: Attempted to kill init! exitcode=0x00000009\r\n"));
        let finding = &analyzer.findings()[0];
        assert_eq!(finding.class, Class::Panic);
        assert_eq!(finding.title, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009");
    }

    #[test]
    fn the_excerpt_has_what_came_before_and_after() {
        let mut analyzer = Analyzer::default();
        analyzer.push(b"one\nOops: 0000 [#1] SMP\nCPU: 0\nRIP: x\n");
        assert_eq!(analyzer.findings()[0].excerpt, ["one", "Oops: 0000 [#1] SMP", "CPU: 0", "RIP: x"]);
    }

    #[test]
    fn the_tail_has_the_unfinished_line() {
        let mut analyzer = Analyzer::default();
        analyzer.push(b"one\ntwo\nthr");
        assert_eq!(analyzer.tail(2), "two\nthr");
    }

    #[test]
    fn memory_is_bounded() {
        let mut analyzer = Analyzer::default();
        for _ in 0..10_000 {
            analyzer.push(b"WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n");
        }
        assert_eq!(analyzer.findings().len(), MAX_FINDINGS);
        assert_eq!(analyzer.lines.len(), KEPT_LINES);
        analyzer.push(&vec![b'x'; 100_000]);
        assert_eq!(analyzer.partial.len(), MAX_LINE_BYTES);
    }
}
