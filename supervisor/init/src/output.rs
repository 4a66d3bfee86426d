//! The output of components: `<state-dir>/<name>.log`, each line with the time at which it began,
//! bounded, rotated once.
//!
//! Standard output and error go through a pipe that the event loop reads with a budget, so a
//! component that floods neither stops the supervisor nor fills the memory: it is slowed by its
//! own pipe. Logs take turns, one chunk at a time: however many components flood, whatever else has
//! to be done waits for one chunk and not for one of each. A log and its predecessor have at most
//! twice [`LOG_LIMIT`] bytes. Two processes of a component that hands over may write at once; each begins its
//! own lines there. A full disk or a missing directory loses output, never the component; for
//! want of room the journal says so. A log that was removed is begun anew.

mod read;
mod stamp;

use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use memchr::memchr;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use yakiros_core::control::Strain;
use yakiros_core::engine::{Event, RunId};

use crate::supervisor::Supervisor;
use crate::sys;
use stamp::{STAMP_BYTES, Stamp};

pub use read::{end, read};

/// Bytes after which a log is rotated. `/run` is memory: 300 components that write a lot stay
/// below 160 MB.
const LOG_LIMIT: u64 = 256 * 1024;

/// Bytes read at once, and between two chances for everybody else.
const CHUNK: usize = 16 * 1024;

/// Bytes written at once: a chunk and the stamps of several hundred lines. Shorter lines take
/// more than one write.
const BATCH: usize = 32 * 1024;

/// Logs that are told of at once; the kernel tells of the others next.
const AT_ONCE: usize = 16;

/// The most bytes that are copied in one go when a component has ended: what a pipe holds, unless it was made larger.
const AT_END: usize = 64 * 1024;

/// What a component has come to whose output is lost for want of room.
const NO_ROOM: &str = "the end of the room for its log";

thread_local! {
    /// One set of buffers for all logs: nothing waits while they are in use.
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        chunk: vec![0; CHUNK],
        batch: Vec::with_capacity(BATCH),
        stamp: Stamp::default(),
    });
}

struct Buffers {
    chunk: Vec<u8>,
    batch: Vec<u8>,
    stamp: Stamp,
}

/// The output of all components, in one place of the event loop: a task and a registration for each log would take as
/// much memory as everything else that is kept of its component.
pub struct Logs {
    poll: Epoll,
    /// How often it was asked which logs have something.
    round: Cell<u64>,
}

impl Logs {
    /// No log yet.
    pub fn new() -> io::Result<Rc<Self>> {
        let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Rc::new(Self { poll, round: Cell::new(0) }))
    }

    /// Copy what components write, for ever. An error is one of the event loop's.
    pub async fn copy(self: Rc<Self>, supervisor: Rc<Supervisor>) -> io::Result<()> {
        let watched = sys::watch(self.poll.0.try_clone()?)?;
        let mut events = [EpollEvent::empty(); AT_ONCE];
        loop {
            let mut ready = watched.readable().await?;
            match self.poll.wait(&mut events, EpollTimeout::ZERO) {
                Ok(0) => ready.clear_ready(),
                Ok(count) => {
                    self.round.set(self.round.get() + 1);
                    for event in &events[..count] {
                        self.take_turn(&supervisor, RunId(event.data()));
                        // After each turn the event loop looks at everything else.
                        tokio::task::yield_now().await;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Copy one chunk of a run's output, if the run is not over by now.
    fn take_turn(&self, supervisor: &Rc<Supervisor>, run: RunId) {
        let copied = supervisor.processes.borrow().with_log(run, |log| {
            log.note_turn(self.round.get());
            let copied = log.copy_chunk();
            if copied == Some(0) {
                log.ignore();
            }
            copied.map(|count| (count, Rc::clone(&log.name), log.loss(run)))
        });
        match copied.flatten() {
            None => {}
            Some((0, ..)) => supervisor.processes.borrow_mut().expect_end(run),
            Some((_, name, loss)) => {
                if let Some(loss) = loss {
                    supervisor.dispatch(loss);
                }
                supervisor.log_grew(&name);
            }
        }
    }
}

/// The reading end of one component's output, and the file it goes to.
pub struct Log {
    pipe: OwnedFd,
    name: Rc<str>,
    sink: RefCell<Sink>,
    /// The last round in which it had something.
    turn: Cell<u64>,
    /// Bytes read from the pipe.
    copied: Cell<u64>,
    /// Output was lost for want of room, and [`Log::loss`] has not told.
    is_full: Cell<bool>,
    logs: Rc<Logs>,
}

impl Log {
    /// Begin to keep the output of a run of the component of this name.
    pub fn new(logs: &Rc<Logs>, run: RunId, place: (&Path, &str), pipe: OwnedFd) -> io::Result<Self> {
        let (state_dir, name) = place;
        logs.poll.add(&pipe, EpollEvent::new(EpollFlags::EPOLLIN, run.0))?;
        let sink = RefCell::new(Sink::new(log_path(state_dir, name)));
        Ok(Self {
            pipe,
            name: name.into(),
            sink,
            turn: Cell::new(0),
            copied: Cell::new(0),
            is_full: Cell::new(false),
            logs: Rc::clone(logs),
        })
    }

    /// The pipe, for the next process image; the file is found again by its name.
    pub fn pass(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Another run of the same component may write to the same file. One that `goes_on` may be in the middle of a line.
    pub fn share(&self, goes_on: bool) {
        let mut sink = self.sink.borrow_mut();
        sink.shared = true;
        if goes_on && sink.path.exists() {
            // If that fails it is tried again with what comes.
            let _ = sink.open();
        }
    }

    /// It has something in this round.
    fn note_turn(&self, round: u64) {
        if self.turn.replace(round) + 1 < round {
            self.sink.borrow_mut().idle = true;
        }
    }

    /// Every writer has closed the pipe.
    fn ignore(&self) {
        // It may not be watched any more, which is what is wanted.
        let _ = self.logs.poll.delete(&self.pipe);
    }

    /// Bytes that were written to it until now.
    pub fn written(&self) -> u64 {
        self.copied.get() + sys::unread(&self.pipe).map_or(0, |count| count as u64)
    }

    /// Whether more is left of the first so many bytes than [`Log::finish`] takes. Turns go on as long as the run is not
    /// over.
    pub fn is_behind(&self, written: u64) -> bool {
        written.saturating_sub(self.copied.get()) > AT_END as u64
    }

    /// The component has ended: copy what is in the pipe now, and end its last line.
    pub fn finish(&self) {
        let end = self.copied.get() + AT_END as u64;
        while self.copied.get() < end && self.copy_chunk().is_some_and(|count| count > 0) {}
        self.sink.borrow_mut().end_line();
    }

    /// What the engine has to know of output that was lost for want of room since this was asked last.
    pub fn loss(&self, run: RunId) -> Option<Event> {
        self.is_full.take().then(|| Event::Strained(run, Strain { what: NO_ROOM.into(), times: 1 }))
    }

    /// Copy one chunk: its size, `Some(0)` at the end, `None` when there is nothing now.
    fn copy_chunk(&self) -> Option<usize> {
        BUFFERS.with_borrow_mut(|Buffers { chunk, batch, stamp }| {
            let count = sys::read_now(&self.pipe, chunk).unwrap_or(Some(0))?;
            self.copied.set(self.copied.get() + count as u64);
            if count > 0 {
                let stamp = stamp.at(sys::wall_clock());
                // A full /run loses output, never the component.
                let taken = self.sink.borrow_mut().take(&chunk[..count], stamp, batch);
                if taken.is_err_and(|error| is_full(&error)) {
                    self.is_full.set(true);
                }
            }
            Some(count)
        })
    }
}

/// There is no room, or none for us.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Drop for Log {
    fn drop(&mut self) {
        // Closing is not enough: a child that is between its creation and exec has the pipe open too.
        self.ignore();
    }
}

/// The file of a log, held open while its component runs.
struct Sink {
    path: PathBuf,
    /// `None` before the first byte and after a failure.
    file: Option<File>,
    /// Bytes in the file.
    size: u64,
    /// The next byte begins a line.
    at_start: bool,
    /// Nothing was written for a while: the file may have been removed or cut since.
    idle: bool,
    /// Another run may write to it, or make another file of it.
    shared: bool,
}

impl Sink {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, size: 0, at_start: true, idle: false, shared: false }
    }

    /// Write a chunk, each line that begins in it with `stamp`.
    fn take(&mut self, chunk: &[u8], stamp: &[u8], batch: &mut Vec<u8>) -> io::Result<()> {
        self.prepare()?;
        batch.clear();
        let mut rest = chunk;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            if batch.len() + STAMP_BYTES + line.len() > BATCH {
                self.write(batch)?;
                batch.clear();
            }
            if self.at_start {
                batch.extend_from_slice(stamp);
            }
            batch.extend_from_slice(line);
            self.at_start = line.ends_with(b"\n");
            rest = after;
        }
        self.write(batch)
    }

    /// Have the right file open.
    fn prepare(&mut self) -> io::Result<()> {
        if self.shared {
            self.catch_up()?;
        }
        if std::mem::take(&mut self.idle)
            && let Some(file) = &self.file
        {
            let metadata = file.metadata()?;
            self.size = metadata.len();
            if metadata.nlink() == 0 {
                self.file = None;
            }
        }
        if self.file.is_none() {
            self.open()?;
        }
        Ok(())
    }

    /// See what another run has made of the file meanwhile.
    fn catch_up(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            let own = file.metadata()?;
            let same = fs::symlink_metadata(&self.path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
            if same && own.len() == self.size {
                return Ok(());
            }
        }
        self.open()?;
        // What was written meanwhile stands between the parts of a line.
        if !self.at_start {
            self.write(b"\n")?;
            self.at_start = true;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        // The name is the log's own: a link there would lead elsewhere.
        options.create(true).append(true).read(true).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(&self.path)?;
        self.size = file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(at) = self.size.checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        self.at_start = last == [b'\n'];
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.write_all(bytes);
        if written.is_err() {
            // How much of it is there is not known: look again before the next.
            self.file = None;
        }
        written
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.size + length > LOG_LIMIT {
            self.note_what_goes();
            match fs::rename(&self.path, rotated(&self.path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let at_start = self.at_start;
            self.open()?;
            self.at_start = at_start;
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
            self.size += length;
        }
        Ok(())
    }

    /// The older file is about to be replaced: keep the time of its last line, for those who ask for
    /// lines of then. Without it they are told nothing, which is no reason to keep nothing.
    fn note_what_goes(&self) {
        let Ok(written) = fs::metadata(rotated(&self.path)).and_then(|older| older.modified()) else {
            return;
        };
        let mark = OpenOptions::new().write(true).create(true).truncate(true).open(gone(&self.path));
        let _ = mark.and_then(|mark| mark.set_modified(written));
    }

    /// What the component wrote last is a line, whether it ended it or not.
    fn end_line(&mut self) {
        if self.shared && self.file.is_some() && self.catch_up().is_err() {
            self.file = None;
        }
        if self.file.is_some() && !self.at_start {
            // As with any other output, a full disk loses it.
            let _ = self.write(b"\n");
            self.at_start = true;
        }
    }
}

fn log_path(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join(format!("{name}.log"))
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// An empty file whose time is that of the newest line that is no longer kept.
fn gone(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gone");
    name.into()
}

/// The component is no longer declared: its logs go.
pub fn remove(state_dir: &Path, name: &str) {
    let path = log_path(state_dir, name);
    for path in [gone(&path), rotated(&path), path] {
        // Most components never had a second file, some not even one.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &[u8] = b"2026-11-21T12:00:00.000Z ";

    struct Bench {
        dir: tempfile::TempDir,
        sink: Sink,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("temporary directory");
            let sink = Sink::new(log_path(dir.path(), "a"));
            Self { dir, sink }
        }

        fn take(&mut self, text: &[u8]) {
            self.sink.take(text, STAMP, &mut Vec::new()).expect("written");
        }

        /// The log without its stamps, which must be at the start of each line and nowhere else.
        fn lines(&self) -> Vec<String> {
            let text = fs::read_to_string(&self.sink.path).expect("a log");
            let stamp = std::str::from_utf8(STAMP).expect("text");
            let bare = |line: &str| line.strip_prefix(stamp).expect("a stamp").to_owned();
            let lines: Vec<_> = text.lines().map(bare).collect();
            assert!(lines.iter().all(|line| !line.contains(stamp)), "{lines:?}");
            lines
        }
    }

    #[test]
    fn a_line_is_stamped_once_where_it_begins() {
        let mut bench = Bench::new();
        for piece in ["one\ntw", "o", "\n\nfo", "ur"] {
            bench.take(piece.as_bytes());
        }
        assert_eq!(bench.lines(), ["one", "two", "", "four"]);
        // The next process begins a line of its own.
        bench.sink.end_line();
        bench.sink = Sink::new(bench.sink.path.clone());
        bench.take(b"five\n");
        assert_eq!(bench.lines(), ["one", "two", "", "four", "five"]);
        // One that goes on in the middle of a line, as after a re-execution, does not.
        bench.take(b"si");
        bench.sink = Sink::new(bench.sink.path.clone());
        bench.take(b"x\n");
        assert_eq!(bench.lines().last().map(String::as_str), Some("six"));
    }

    #[test]
    fn short_lines_and_long_ones_are_all_kept() {
        let mut bench = Bench::new();
        bench.take(&[b'\n'; CHUNK / 4]);
        assert_eq!(bench.lines().len(), CHUNK / 4);
        for _ in 0..3 {
            bench.take(&[b'x'; CHUNK]);
        }
        bench.take(b"\n");
        assert_eq!(bench.lines().last().map(String::len), Some(3 * CHUNK));
    }

    #[test]
    fn both_files_stay_below_the_limit() {
        let mut bench = Bench::new();
        for number in 0..20_000 {
            bench.take(format!("line {number}\n").as_bytes());
        }
        let size = |path: &Path| fs::metadata(path).expect("a log").len();
        let older = rotated(&bench.sink.path);
        assert!(size(&older) <= LOG_LIMIT && size(&bench.sink.path) <= LOG_LIMIT);
        assert!(size(&older) > LOG_LIMIT - BATCH as u64, "it was rotated too early");
        assert_eq!(bench.lines().last().map(String::as_str), Some("line 19999"));
        let gone = fs::metadata(gone(&bench.sink.path)).expect("a mark that something is gone");
        assert_eq!(gone.len(), 0);
        let kept = fs::metadata(&older).expect("a log").modified().expect("a time");
        assert!(gone.modified().expect("a time") <= kept, "what is kept is told to be gone");
        assert_eq!(fs::read_dir(bench.dir.path()).expect("a directory").count(), 3);
        remove(bench.dir.path(), "a");
        assert_eq!(fs::read_dir(bench.dir.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn two_runs_write_to_one_log_each_in_lines_of_its_own() {
        let mut bench = Bench::new();
        let mut other = Sink::new(bench.sink.path.clone());
        bench.sink.shared = true;
        other.shared = true;
        let take = |other: &mut Sink, text: &str| {
            other.take(text.as_bytes(), STAMP, &mut Vec::new()).expect("written");
        };
        bench.take(b"old one\nold ");
        take(&mut other, "new one\nnew ");
        bench.take(b"two\n");
        take(&mut other, "two\n");
        bench.take(b"old three");
        take(&mut other, "new three\n");
        bench.sink.end_line();
        let lines = ["old one", "old ", "new one", "new ", "two", "two", "old three", "new three"];
        assert_eq!(bench.lines(), lines);
        // One makes another file of it, and the other one goes on in that.
        for number in 0..20_000 {
            bench.take(format!("line {number}\n").as_bytes());
        }
        take(&mut other, "after that\n");
        bench.take(b"and this\n");
        assert_eq!(bench.lines()[bench.lines().len() - 2..], ["after that", "and this"]);
        let size = |path: &Path| fs::metadata(path).expect("a log").len();
        assert!(size(&rotated(&bench.sink.path)) <= LOG_LIMIT && size(&bench.sink.path) <= LOG_LIMIT);
    }

    #[test]
    fn a_log_that_is_removed_or_cut_goes_on() {
        let mut bench = Bench::new();
        bench.take(b"one\n");
        fs::remove_file(&bench.sink.path).expect("removed");
        bench.sink.idle = true;
        bench.take(b"two\n");
        assert_eq!(bench.lines(), ["two"]);
        File::create(&bench.sink.path).expect("cut");
        bench.sink.idle = true;
        bench.take(b"three\n");
        assert_eq!(bench.lines(), ["three"]);
        assert_eq!(bench.sink.size, (STAMP.len() + 6) as u64);
        // Removed just before it is rotated.
        fs::remove_file(&bench.sink.path).expect("removed");
        bench.sink.size = LOG_LIMIT;
        bench.take(b"four\n");
        assert_eq!(bench.lines(), ["four"]);
    }

    #[test]
    fn a_failure_loses_output_and_nothing_else() {
        let mut bench = Bench::new();
        bench.take(b"one\n");
        // Every write to it fails as on a full disk.
        bench.sink.file = OpenOptions::new().write(true).open("/dev/full").ok();
        assert!(bench.sink.take(b"lost\n", STAMP, &mut Vec::new()).is_err_and(|error| is_full(&error)));
        bench.take(b"two\n");
        assert_eq!(bench.lines(), ["one", "two"]);
    }
}
