//! Runs the host's tools with limits, hashes what they bring, and asks for space first.
//!
//! Guarantees: a command gets at most its time limit, then it is killed with its whole process group. It is killed as
//! well when this process dies; a child of a wrapper script may outlive that for a moment, and finds its work
//! directory gone once the next run has cleaned up. Captured output is bounded. Progress is reported while it runs.

pub(crate) mod mirror;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use sha2::{Digest, Sha256};

use crate::image::{ImageError, ImageErrorKind, IoContext, Progress, free_bytes};

/// Limit for commands that fetch: 100 MB at 1 Mbit/s, as for the cache's locks.
pub(crate) const FETCH_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Limit for commands that work on local files; they take seconds.
pub(crate) const LOCAL_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How often a running command and its download directory are looked at.
const POLL: Duration = Duration::from_millis(50);
/// Stdout kept of a command: package lists are the largest, at some 100 kB.
const MAX_STDOUT: usize = 16 << 20;
/// Stderr kept of a command: its end holds the cause.
const MAX_STDERR: usize = 16 << 10;
/// Space asked for beyond what is known to be needed, for indexes and bookkeeping.
const SPARE: u64 = 16 << 20;
const HASH_BUFFER: usize = 1 << 20;
/// What tools say when they cannot reach a server, in the C locale.
const NETWORK_WORDS: [&str; 9] = [
    "Temporary failure resolving",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Could not resolve",
    "Could not connect",
    "Network is unreachable",
    "Failed to establish a new connection",
    "Connection timed out",
    "Connection refused",
];

/// A directory whose growth shows how far a download is.
pub(crate) struct Watch<'a> {
    pub label: &'a str,
    pub dir: &'a Path,
    pub total: Option<u64>,
}

/// Runs `command` and returns its stdout. `doing` completes "failed to …".
pub(crate) fn run(
    doing: &str,
    mut command: Command,
    limit: Duration,
    watch: Option<&Watch<'_>>,
    progress: &dyn Progress,
) -> Result<String, ImageError> {
    die_with_parent(&mut command);
    run_to_end(doing, command, limit, watch, progress)
}

/// Like [`run`], but the command goes on when this process is killed: for what changes the system and must not be
/// cut short, such as the installation of a package.
pub(crate) fn run_to_end(
    doing: &str,
    mut command: Command,
    limit: Duration,
    watch: Option<&Watch<'_>>,
    progress: &dyn Progress,
) -> Result<String, ImageError> {
    let line = command_line(&command);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return Err(ImageError::io(doing, Path::new(command.get_program()), e)),
    };
    let stdout = child.stdout.take().map(|pipe| thread::spawn(move || read_bounded(pipe, MAX_STDOUT, false)));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(move || read_bounded(pipe, MAX_STDERR, true)));
    let status = wait(&mut child, limit, watch, progress);
    // Children that outlive the command (an orphaned download method) would keep the pipes open for ever.
    kill_group(&child);
    let text = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    if watch.is_some() {
        progress.done();
    }
    match status.at(doing, Path::new(command.get_program()))? {
        Some(status) if status.success() => Ok(stdout),
        Some(status) => Err(ImageError::new(doing, failure(line, status, stderr, &stdout))),
        None => Err(ImageError::new(doing, ImageErrorKind::CommandTimeout { command: line, limit, stderr })),
    }
}

/// Fails unless `bytes` fit on the file system of `path`.
pub(crate) fn ensure_space(doing: &str, path: &Path, bytes: u64) -> Result<(), ImageError> {
    let needed = bytes.saturating_add(SPARE);
    match free_bytes(path) {
        Some(free) if free < needed => {
            let kind = ImageErrorKind::NoSpace { path: path.to_path_buf(), needed: Some(needed), free };
            Err(ImageError::new(doing, kind))
        }
        _ => Ok(()),
    }
}

/// SHA-256 in hex and size of a file.
pub(crate) fn hash_file(path: &Path) -> Result<(String, u64), ImageError> {
    let mut file = File::open(path).at("hash", path)?;
    hash_copy(&mut file, &mut io::sink()).at("hash", path)
}

/// SHA-256 of `bytes` in hex.
pub(crate) fn hash_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Copies all of `from` to `to`; SHA-256 in hex and size of what was copied.
pub(crate) fn hash_copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER];
    let mut size = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok((hex(&hasher.finalize()), size)),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        size += n as u64;
    }
}

/// Compares a fetched file with what was announced; removes the file when it differs.
pub(crate) fn check_file(
    doing: &str,
    name: &str,
    path: &Path,
    size: Option<u64>,
    sha256: &str,
) -> Result<u64, ImageError> {
    let (found_hash, found_size) = hash_file(path)?;
    let kind = if found_hash == sha256 {
        return Ok(found_size);
    } else if let Some(expected) = size.filter(|expected| found_size < *expected) {
        ImageErrorKind::Truncated { name: name.into(), expected, found: found_size }
    } else {
        ImageErrorKind::Hash {
            name: name.into(),
            algorithm: "sha256",
            expected: sha256.into(),
            found: found_hash,
        }
    };
    fs::remove_file(path).at(doing, path)?;
    Err(ImageError::new(doing, kind))
}

/// The first program of `names` found on PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // Administration tools are not on an ordinary user's PATH everywhere.
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn wait(
    child: &mut Child,
    limit: Duration,
    watch: Option<&Watch<'_>>,
    progress: &dyn Progress,
) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            kill_group(child);
            child.wait()?;
            return Ok(None);
        }
        if let Some(watch) = watch {
            progress.bytes(watch.label, tree_size(watch.dir), watch.total);
        }
        thread::sleep(POLL);
    }
}

fn kill_group(child: &Child) {
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        // An error means that the group has no process any more.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// A killed harness must not leave a download running into a directory that is about to be removed.
fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure only makes one system call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into));
    }
}

fn failure(command: String, status: ExitStatus, stderr: String, stdout: &str) -> ImageErrorKind {
    if NETWORK_WORDS.iter().any(|word| stderr.contains(word)) {
        return ImageErrorKind::Network { command, stderr };
    }
    let status = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    };
    // Some tools explain themselves on stdout only.
    let stderr = if stderr.trim().is_empty() { stdout.to_owned() } else { stderr };
    ImageErrorKind::Command { command, status, stderr }
}

/// Reads to the end so that the writer never blocks, and keeps the first or the last `limit` bytes.
fn read_bounded(mut from: impl Read, limit: usize, keep_end: bool) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return kept,
            Ok(n) if keep_end => {
                kept.extend_from_slice(&buffer[..n]);
                kept.drain(..kept.len().saturating_sub(limit));
            }
            Ok(n) => {
                let room = limit.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..n.min(room)]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
    }
}

fn tree_size(dir: &Path) -> u64 {
    let Ok(items) = fs::read_dir(dir) else { return 0 };
    items
        .flatten()
        .map(|item| match item.metadata() {
            Ok(found) if found.is_dir() => tree_size(&item.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The command as a person would type it; settings (`-oKey=value`), which would fill a screen, are left out.
fn command_line(command: &Command) -> String {
    let mut words = vec![Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()).filter(|arg| !arg.starts_with("-o")));
    words.join(" ")
}

/// `bytes` as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
