//! What can go wrong while the guest image or QEMU is provided.
//!
//! An [`ImageError`] says what was being done; its [`ImageErrorKind`] says why it failed and carries what a
//! program needs to react (hashes, byte counts, the command and its last lines).

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A step towards the guest image or QEMU that failed.
///
/// Displays as `<what was being done>: <reason>`, to complete "failed to …".
#[derive(Debug)]
pub struct ImageError {
    doing: String,
    // Boxed: the error travels through many `Result`s and the kind is large.
    kind: Box<ImageErrorKind>,
}

/// Why a step failed.
#[derive(Debug)]
pub enum ImageErrorKind {
    /// No directory for the cache can be derived from the environment.
    NoCacheDir,
    /// A file operation failed.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file system is full, or would be.
    NoSpace {
        /// A path on the file system.
        path: PathBuf,
        /// Bytes wanted, when known before the start.
        needed: Option<u64>,
        /// Bytes free when asked.
        free: u64,
    },
    /// Content differs from its pin or its published checksum.
    Hash {
        /// The artifact or member.
        name: String,
        /// Kind of the hashes, as it is usually written.
        algorithm: &'static str,
        /// Hash of the pin, or as published by the mirror, in hex.
        expected: String,
        /// Hash of what came, in hex.
        found: String,
    },
    /// Fewer bytes than announced.
    Truncated {
        /// The artifact or member.
        name: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A server or a mirror's directory does not hold a file.
    NotFound {
        /// Its address.
        url: String,
        /// What the user can do.
        fix: String,
    },
    /// A file could not be brought from a server.
    Transfer {
        /// Its address.
        url: String,
        /// Why.
        reason: String,
    },
    /// A command failed because it could not reach its servers.
    Network {
        /// The command line.
        command: String,
        /// Its last lines on stderr.
        stderr: String,
    },
    /// A command failed.
    Command {
        /// The command line.
        command: String,
        /// Exit code or signal, as text.
        status: String,
        /// Its last lines on stderr.
        stderr: String,
    },
    /// A command did not end in time and was killed with its process group.
    CommandTimeout {
        /// The command line.
        command: String,
        /// The limit it ran into.
        limit: Duration,
        /// Its last lines on stderr.
        stderr: String,
    },
    /// Another run holds a cache entry for too long.
    Locked {
        /// The entry.
        entry: String,
        /// How long this run waited.
        waited: Duration,
    },
    /// A file is not in the format it should be in.
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This system cannot do it; the text says what to give instead.
    Unsupported {
        /// What is missing.
        reason: String,
        /// What the user can do.
        fix: String,
    },
}

impl ImageError {
    pub(crate) fn new(doing: impl Into<String>, kind: ImageErrorKind) -> Self {
        Self { doing: doing.into(), kind: Box::new(kind) }
    }

    pub(crate) fn format(doing: impl Into<String>, path: &Path, reason: impl Into<String>) -> Self {
        Self::new(doing, ImageErrorKind::Format { path: path.to_path_buf(), reason: reason.into() })
    }

    pub(crate) fn unsupported(
        doing: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(doing, ImageErrorKind::Unsupported { reason: reason.into(), fix: fix.into() })
    }

    /// An I/O error at `path`; a full file system becomes [`ImageErrorKind::NoSpace`].
    pub(crate) fn io(doing: impl Into<String>, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageErrorKind::NoSpace {
                path: path.to_path_buf(),
                needed: None,
                free: free_bytes(path).unwrap_or(0),
            },
            _ => ImageErrorKind::Io { path: path.to_path_buf(), source },
        };
        Self::new(doing, kind)
    }

    /// What was being done, in the infinitive.
    pub fn doing(&self) -> &str {
        &self.doing
    }

    /// The reason.
    pub fn kind(&self) -> &ImageErrorKind {
        &self.kind
    }
}

/// Bytes an ordinary user may still write to the file system that holds `path` (or its nearest existing parent).
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.kind)
    }
}

impl fmt::Display for ImageErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCacheDir => f.write_str(
                "no cache directory: none of YAKIROS_CACHE_DIR, XDG_CACHE_HOME and HOME is set to an absolute path",
            ),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NoSpace { path, needed: Some(needed), free } => write!(
                f,
                "{}: not enough space: {} needed, {} free",
                path.display(),
                human_bytes(*needed),
                human_bytes(*free)
            ),
            Self::NoSpace { path, needed: None, free } => {
                write!(f, "{}: no space left, {} free", path.display(), human_bytes(*free))
            }
            Self::Hash { name, algorithm, expected, found } => {
                write!(f, "{name} has the wrong content: {algorithm} expected {expected}, found {found}; the file was removed")
            }
            Self::Truncated { name, expected, found } => {
                write!(f, "{name} is incomplete: {expected} bytes expected, {found} found; the file was removed")
            }
            Self::NotFound { url, fix } => write!(f, "{url} does not exist; {fix}"),
            Self::Transfer { url, reason } => write!(f, "{url} could not be fetched: {reason}"),
            Self::Network { command, stderr } => write!(f, "`{command}` could not reach the network{}", tail(stderr)),
            Self::Command { command, status, stderr } => write!(f, "`{command}` ended with {status}{}", tail(stderr)),
            Self::CommandTimeout { command, limit, stderr } => {
                write!(f, "`{command}` was killed after {} s{}", limit.as_secs(), tail(stderr))
            }
            Self::Locked { entry, waited } => {
                write!(f, "another run has held the cache entry {entry} for {} s", waited.as_secs())
            }
            Self::Format { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Unsupported { reason, fix } => write!(f, "{reason}; {fix}"),
        }
    }
}

impl Error for ImageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.kind() {
            ImageErrorKind::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let last = lines.len().saturating_sub(STDERR_LINES_SHOWN);
    lines[last..].iter().flat_map(|line| ["\n  | ", line]).collect()
}

/// Lines of a failed command that a message repeats: enough for the cause, short enough to read.
const STDERR_LINES_SHOWN: usize = 6;

/// `bytes` in the largest decimal unit below it, as package tools print sizes.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} bytes"),
    }
}

/// Adds what was being done, and where, to an I/O result.
pub(crate) trait IoContext<T> {
    /// Turns an I/O error into an [`ImageError`] about `path`.
    fn at(self, doing: &str, path: &Path) -> Result<T, ImageError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, doing: &str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|e| ImageError::io(doing, path, e))
    }
}

impl<T> IoContext<T> for Result<T, rustix::io::Errno> {
    fn at(self, doing: &str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|e| ImageError::io(doing, path, e.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_as_such() {
        let error = ImageError::io("write x", Path::new("/"), io::Error::from_raw_os_error(28));
        assert!(matches!(error.kind(), ImageErrorKind::NoSpace { needed: None, .. }));
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(human_bytes(12), "12 bytes");
        assert_eq!(human_bytes(85_618_482), "85.6 MB");
    }

    #[test]
    fn only_the_last_lines_of_a_command_are_repeated() {
        let stderr = (0..20).map(|i| format!("line {i}")).collect::<Vec<_>>().join("\n");
        let kind = ImageErrorKind::Command { command: "x".into(), status: "exit code 1".into(), stderr };
        let text = kind.to_string();
        assert!(text.starts_with("`x` ended with exit code 1\n  | line 14"), "{text}");
        assert!(text.ends_with("line 19"), "{text}");
    }
}
