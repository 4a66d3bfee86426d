//! The program that takes over: found by its name once, held by a descriptor from then on, so that
//! what is executed is what was tried, whatever a package manager does to the name meanwhile.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;

/// The program that runs, whatever has become of its file.
const RUNNING: &str = "/proc/self/exe";

/// Where the program was executed from at first.
static PATH: OnceLock<PathBuf> = OnceLock::new();

/// Note where the program lies, while that can be told.
pub fn note_program() {
    if let Ok(path) = std::fs::read_link(RUNNING) {
        // The kernel marks one that was replaced before we looked.
        let name = path.as_os_str().as_bytes();
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        let _ = PATH.set(OsStr::from_bytes(name).into());
    }
}

/// The program of this name in the directory of this one.
pub fn beside(name: &str) -> PathBuf {
    PATH.get().and_then(|path| path.parent()).unwrap_or(Path::new("/sbin")).join(name)
}

/// Where the next program lies.
pub(super) fn path() -> io::Result<&'static Path> {
    PATH.get().map(PathBuf::as_path).ok_or_else(|| io::Error::other("the program's file is not known"))
}

/// A program that was found.
pub(super) struct Program {
    /// For reference only (`O_PATH`).
    file: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl Program {
    /// One that was opened at `path`.
    pub(super) fn new(file: OwnedFd, path: &Path) -> Self {
        Self { file, path: path.to_owned() }
    }

    /// The one that runs.
    pub(super) fn running() -> io::Result<Self> {
        let file = nix::fcntl::open(RUNNING, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self::new(file, Path::new(RUNNING)))
    }

    /// Execute it in place of this process. Returns only if that fails.
    pub(super) fn execute(&self, words: &[CString]) -> io::Result<Infallible> {
        let flags = AtFlags::AT_EMPTY_PATH;
        let Err(errno) = nix::unistd::execveat(&self.file, c"", words, &environment(), flags);
        Err(io::Error::other(format!("failed to execute {}: {}", self.path.display(), errno.desc())))
    }
}

/// The environment of this process, for the next.
pub(super) fn environment() -> Vec<CString> {
    let join = |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b'=');
    std::env::vars_os().filter_map(|variable| CString::new(join(variable)).ok()).collect()
}
