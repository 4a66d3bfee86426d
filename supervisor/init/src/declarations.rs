//! The configuration directory: all component files at the start, and what changes later.
//!
//! A file counts when its writer closes it or when it is moved into place, so that a half-written
//! one is never read. If the kernel lost events, everything is read again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tracing::{error, warn};
use yakiros_core::component::{FILE_LIMIT, parse_bytes};
use yakiros_core::diagnostic::{Diagnostic, Severity};
use yakiros_core::engine::{FileChange, FileContent};

/// The end of a component file's name.
const SUFFIX: &str = ".toml";

/// See the module documentation.
pub struct Declarations {
    directory: PathBuf,
    inotify: Option<Inotify>,
    /// Paths of the files that were reported and not reported gone.
    known: BTreeSet<String>,
}

impl Declarations {
    /// Begin to watch `directory`, which is created when it is absent. Without a watch (said in
    /// the log) files are read at the start and on request.
    pub fn new(directory: &Path) -> Self {
        let inotify = match watch(directory) {
            Ok(inotify) => Some(inotify),
            Err(error) => {
                let directory = directory.display();
                error!("failed to watch {directory}: {error}; changes need a reload");
                None
            }
        };
        Self { directory: directory.to_path_buf(), inotify, known: BTreeSet::new() }
    }

    /// A descriptor that becomes readable when a file has changed.
    pub fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        let inotify = self.inotify.as_ref()?;
        Some(inotify.as_fd().try_clone_to_owned())
    }

    /// The files that changed since the last call.
    pub fn poll(&mut self) -> Vec<FileChange> {
        let Some(inotify) = &self.inotify else {
            return Vec::new();
        };
        let mut paths = BTreeSet::new();
        let mut lost = false;
        while let Ok(events) = inotify.read_events() {
            for event in events {
                lost |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let created = event.mask == AddWatchFlags::IN_CREATE;
                if let Some(path) = event.name.as_deref().and_then(|name| self.component_file(name))
                    && !(created && is_being_written(&path))
                {
                    paths.insert(path);
                }
            }
        }
        if lost {
            return self.read_all();
        }
        let changes = paths.into_iter().map(read).collect();
        self.remember(changes)
    }

    /// All files, and those that are gone.
    pub fn read_all(&mut self) -> Vec<FileChange> {
        let mut paths = std::mem::take(&mut self.known);
        match fs::read_dir(&self.directory) {
            Ok(entries) => {
                let found = entries.flatten().map(|entry| entry.file_name());
                paths.extend(found.filter_map(|name| self.component_file(&name)));
            }
            Err(error) => {
                error!("failed to read {}: {error}", self.directory.display());
            }
        }
        let changes = paths.into_iter().map(read).collect();
        self.remember(changes)
    }

    fn remember(&mut self, changes: Vec<FileChange>) -> Vec<FileChange> {
        for change in &changes {
            if matches!(change.content, FileContent::Gone) {
                self.known.remove(&change.file);
            } else {
                self.known.insert(change.file.clone());
            }
        }
        changes
    }

    /// The whole path, as people can open it, if the name is one of a component file. Hidden files
    /// are editors' own.
    fn component_file(&self, name: &OsStr) -> Option<String> {
        let name = name.to_str()?;
        let is_one = name.ends_with(SUFFIX) && !name.starts_with('.');
        is_one.then(|| self.directory.join(name).to_string_lossy().into_owned())
    }
}

/// A plain new file is reported again when its writer closes it; a link is complete.
fn is_being_written(path: &str) -> bool {
    let meta = fs::symlink_metadata(path);
    meta.is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}

fn read(path: String) -> FileChange {
    let content = match read_file(Path::new(&path)) {
        Ok(bytes) => content_of(&path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileContent::Gone,
        Err(error) => rejected(
            &path,
            vec![Diagnostic::whole_file(Severity::Error, format!("failed to read the file: {error}"))],
        ),
    };
    FileChange { file: path, content }
}

fn watch(directory: &Path) -> io::Result<Inotify> {
    fs::create_dir_all(directory)?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE;
    inotify.add_watch(directory, flags)?;
    Ok(inotify)
}

/// Read a regular file without ever waiting for one that is not.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the reader sees that it is too long.
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn content_of(path: &str, bytes: &[u8]) -> FileContent {
    let parsed = parse_bytes(bytes);
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
