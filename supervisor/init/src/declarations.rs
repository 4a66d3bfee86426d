//! The configuration directory: all component files at the start, and what changes later.
//!
//! A file counts when its writer closes it or when it is moved or linked into place, so that a
//! half-written one is never read. If the kernel lost events, or the directory itself was
//! replaced, everything is read again. What looks like a component file and is none is refused
//! and named, never passed over.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tracing::{error, info, warn};
use yakiros_core::component::Parsed;
use yakiros_core::diagnostic::Diagnostic;
use yakiros_core::engine::{FileChange, FileContent};
use yakiros_files::{Files, Loaded, component_file, load, open};

/// Time after which a new file that nobody has written and closed is looked at, and a directory
/// that went away is looked for, again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Time for who replaces the directory to put the new one in place. Then it is created: an empty
/// one that is watched is better than none.
const REPLACE_TIME: Duration = Duration::from_secs(1);

/// Reads of a few hundred events each in one go; who writes files without end does not keep
/// everybody else waiting.
const READ_BUDGET: usize = 16;

/// See the module documentation.
pub struct Declarations {
    directory: PathBuf,
    inotify: Option<Inotify>,
    /// The directory's watch; `None` while it is away.
    watch: Option<WatchDescriptor>,
    /// Since when the directory is away.
    away: Option<Instant>,
    /// Files that were reported and not reported gone.
    known: Files,
    /// New files that nobody has closed after writing yet.
    unfinished: Files,
}

/// What a call of [`Declarations::poll`] found.
#[derive(Debug, Default)]
pub struct Polled {
    /// The files that changed.
    pub changes: Vec<FileChange>,
    /// There is more to read at once.
    pub more: bool,
}

impl Declarations {
    /// Begin to watch `directory`, which is created when it is absent. Without a watch (said in
    /// the log) files are read at the start and on request.
    pub fn new(directory: &Path) -> Self {
        let mut new = Self::unwatched(directory);
        new.create_and_watch();
        new
    }

    /// The same after a take-over: a directory that is being replaced is waited for as usual.
    pub fn resume(directory: &Path) -> Self {
        let mut new = Self::unwatched(directory);
        if new.add_watch().is_err() {
            new.away = Some(Instant::now());
        }
        new
    }

    fn unwatched(directory: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let inotify = inotify.inspect_err(|error| {
            error!("failed to watch files: {error}; changes need a reload");
        });
        Self {
            directory: directory.to_path_buf(),
            inotify: inotify.ok(),
            watch: None,
            away: None,
            known: Files::new(),
            unfinished: Files::new(),
        }
    }

    /// A descriptor that becomes readable when a file has changed.
    pub fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        let inotify = self.inotify.as_ref()?;
        Some(inotify.as_fd().try_clone_to_owned())
    }

    /// The files that changed since the last call.
    pub fn poll(&mut self) -> Polled {
        let mut paths = Files::new();
        let mut again = false;
        let mut reads = 0;
        while reads < READ_BUDGET
            && let Some(inotify) = &self.inotify
            && let Ok(events) = inotify.read_events()
        {
            reads += 1;
            for event in events {
                again |= self.note(&event, &mut paths);
            }
        }
        let more = reads == READ_BUDGET;
        let changes = if again && self.away.is_none() {
            self.read_all()
        } else {
            self.remember(paths.into_iter().map(read).collect())
        };
        Polled { changes, more }
    }

    /// Take one event. Whether everything has to be read again.
    fn note(&mut self, event: &InotifyEvent, paths: &mut Files) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        if Some(event.wd) != self.watch {
            // Of a directory that was watched before.
            return false;
        }
        let away = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
        if event.mask.intersects(away) {
            return self.leave();
        }
        if let Some((shown, path)) =
            event.name.as_deref().and_then(|name| component_file(&self.directory, name))
        {
            if event.mask == AddWatchFlags::IN_CREATE && is_plain(&path) {
                self.unfinished.insert(shown, path);
            } else {
                self.unfinished.remove(&shown);
                paths.insert(shown, path);
            }
        }
        false
    }

    /// The directory was moved or deleted: let go of it, and take the one in its place if it is
    /// there already. Whether it is.
    fn leave(&mut self) -> bool {
        warn!("{} was moved or deleted", self.directory.display());
        if let (Some(inotify), Some(watch)) = (&self.inotify, self.watch.take()) {
            // Fails for one that is deleted, and so what.
            let _ = inotify.rm_watch(watch);
        }
        self.away = Some(Instant::now());
        self.watch_existing()
    }

    /// Whether [`Declarations::look_again`] is to be called after [`LOOK_AGAIN`].
    pub fn wants_another_look(&self) -> bool {
        self.away.is_some() || !self.unfinished.is_empty()
    }

    /// Look for what may have come without an event: a new file that was complete when it
    /// appeared (a hard link), or the directory that is away.
    pub fn look_again(&mut self) -> Vec<FileChange> {
        if let Some(away) = self.away {
            if self.watch_existing() {
                return self.read_all();
            }
            if away.elapsed() >= REPLACE_TIME {
                self.create_and_watch();
                return self.read_all();
            }
        }
        // One that is being written gives an event when its writer closes it, but not if the writer
        // knows it by another name: so it is looked at until then.
        let waiting = std::mem::take(&mut self.unfinished).into_iter();
        let (written, complete): (Vec<_>, Vec<_>) = waiting.partition(|(_, path)| is_being_written(path));
        self.unfinished.extend(written);
        self.remember(complete.into_iter().map(read).collect())
    }

    fn watch_existing(&mut self) -> bool {
        let watched = self.add_watch().is_ok();
        if watched {
            info!("watching {} again", self.directory.display());
        }
        watched
    }

    /// Create the directory if need be and watch it; what fails is said.
    fn create_and_watch(&mut self) {
        self.away = None;
        if let Err(error) = fs::create_dir_all(&self.directory).and_then(|()| self.add_watch()) {
            error!("failed to watch {}: {error}; changes need a reload", self.directory.display());
        }
    }

    fn add_watch(&mut self) -> io::Result<()> {
        let Some(inotify) = &self.inotify else {
            return Ok(());
        };
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        self.watch = Some(inotify.add_watch(&self.directory, flags)?);
        self.away = None;
        Ok(())
    }

    /// All files, and those that are gone.
    pub fn read_all(&mut self) -> Vec<FileChange> {
        if self.watch.is_none() && self.away.is_none() {
            self.create_and_watch();
        }
        let mut paths = std::mem::take(&mut self.known);
        self.unfinished.clear();
        match yakiros_files::list(&self.directory) {
            Ok(found) => paths.extend(found),
            Err(error) => {
                error!("failed to read {}: {error}", self.directory.display());
            }
        }
        let changes = paths.into_iter().map(read).collect();
        self.remember(changes)
    }

    /// The same after a take-over, with the files that were known before. One that is just being
    /// written gives an event when its writer closes it.
    pub fn take_over(&mut self, known: &[String]) -> Vec<FileChange> {
        let as_shown = |file: &String| (file.clone(), PathBuf::from(file));
        self.known = known.iter().map(as_shown).collect();
        if self.away.is_some() {
            return Vec::new();
        }
        let found = match yakiros_files::list(&self.directory) {
            Ok(found) => found,
            Err(error) => {
                error!("failed to read {}: {error}", self.directory.display());
                return Vec::new();
            }
        };
        let mut paths = self.known.clone();
        paths.extend(found);
        let complete = paths.into_iter().filter(|(_, path)| !is_being_written(path));
        self.remember(complete.map(read).collect())
    }

    fn remember(&mut self, changes: Vec<(PathBuf, FileChange)>) -> Vec<FileChange> {
        let remembered = changes.into_iter().map(|(path, change)| {
            if matches!(change.content, FileContent::Gone) {
                self.known.remove(&change.file);
            } else {
                self.known.insert(change.file.clone(), path);
            }
            change
        });
        remembered.collect()
    }
}

/// Whether a new file may be one that is still being written: a link is complete.
fn is_plain(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path);
    meta.is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}

/// Whether somebody has the file open for writing: then the kernel refuses a lease to read it.
fn is_being_written(path: &Path) -> bool {
    let Ok(file) = open(path) else {
        return false;
    };
    // SAFETY: calls on a descriptor that is open; the lease is given back at once.
    unsafe {
        if libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0 {
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK);
            return false;
        }
    }
    // Another error is that of a file system without leases.
    io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}

fn read((shown, path): (String, PathBuf)) -> (PathBuf, FileChange) {
    let content = match load(&path) {
        None => FileContent::Gone,
        Some(Loaded { parsed, .. }) => content_of(&shown, parsed),
    };
    (path, FileChange { file: shown, content })
}

fn content_of(path: &str, parsed: Parsed) -> FileContent {
    match parsed.component {
        Some(component) => {
            for finding in &parsed.diagnostics {
                warn!("{}", finding.compact(path));
            }
            FileContent::Component(Box::new(component))
        }
        None => rejected(path, parsed.diagnostics),
    }
}

fn rejected(path: &str, diagnostics: Vec<Diagnostic>) -> FileContent {
    for finding in &diagnostics {
        if finding.is_error() {
            error!("rejected {}", finding.compact(path));
        } else {
            warn!("{}", finding.compact(path));
        }
    }
    FileContent::Rejected(diagnostics)
}
