//! Where a restore works, and the names of sockets that are kept meanwhile. What a worker leaves that was killed goes with
//! the next one, or with who puts right what it has left.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};

/// Begins the name of each directory.
const PREFIX: &str = "restore-";
/// Is in each name that is given to a socket beside its own.
const MARK: &str = ".kept-";
/// The list of these names, with a NUL byte after each.
const NAMES: &str = "names";
/// Most bytes of it that are read: some for each of the sockets that are kept.
const NAMES_LIMIT: u64 = 1 << 20;
/// Most directories that are looked at: each is of a worker that was killed.
const LEFT_LIMIT: usize = 256;
/// Most names that are tried.
const ATTEMPTS: usize = 8;

/// A directory for CRIU's log and the number of the process, which are gone with the value.
pub(super) struct Work {
    path: PathBuf,
    /// It is in use as long as this is locked.
    _lock: File,
}

impl Work {
    /// A new one, with what others have left removed.
    pub(super) fn make(below: &Path) -> io::Result<Self> {
        sweep(below);
        for _ in 0..ATTEMPTS {
            let path = below.join(format!("{PREFIX}{:016x}", random()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // Another worker may have taken it for left, until it is locked.
            let Ok(lock) = File::open(&path) else { continue };
            flock(&lock, FlockOperation::LockExclusive)?;
            let inode = lock.metadata()?.ino();
            if fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == inode) {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::other(format!("{ATTEMPTS} new directories were removed at once")))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keep unix sockets that listen reachable while CRIU takes their names away: see [`Name`].
    pub(super) fn keep<'a>(&self, paths: impl Iterator<Item = &'a Path>) -> io::Result<Vec<Name>> {
        let random = random();
        let named = |path: &'a Path| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!("{MARK}{random:016x}"));
            (path, path.with_file_name(name))
        };
        let all: Vec<_> = paths.map(named).collect();
        // Before there is any of them.
        let list: Vec<_> =
            all.iter().flat_map(|(_, beside)| [beside.as_os_str().as_bytes(), b"\0"]).collect();
        fs::write(self.path.join(NAMES), list.concat())?;
        Ok(all.into_iter().map(|(path, beside)| Name::keep(path, beside)).collect())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // It holds nothing that anybody looks for.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Remove what workers have left that were killed. What cannot be removed is in nobody's way.
pub(super) fn sweep(below: &Path) {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()));
    for path in left.take(LEFT_LIMIT).map(|entry| entry.path()) {
        let Ok(directory) = File::open(&path) else { continue };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Somebody works there.
            continue;
        }
        for beside in names(&path).unwrap_or_default().split(|byte| *byte == 0) {
            let beside = Path::new(OsStr::from_bytes(beside));
            let is_ours = beside.to_string_lossy().contains(MARK);
            // The socket's own name may be another's by now.
            if is_ours && fs::symlink_metadata(beside).is_ok_and(|found| found.file_type().is_socket()) {
                let _ = fs::remove_file(beside);
            }
        }
        let _ = fs::remove_dir_all(&path);
    }
}

fn names(path: &Path) -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    File::open(path.join(NAMES))?.take(NAMES_LIMIT).read_to_end(&mut list)?;
    Ok(list)
}

/// Not to be guessed from the number of a process, which comes again. Without entropy, which a machine may lack while it
/// boots, that number has to do.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => u64::from(std::process::id()),
    }
}

/// The name of a unix socket that listens and is kept: CRIU takes the name away, and gives it only to one that it makes.
pub(super) struct Name {
    path: PathBuf,
    /// The same socket.
    beside: Option<PathBuf>,
}

impl Name {
    fn keep(path: &Path, beside: PathBuf) -> Self {
        // Where there is no such name any more, nobody misses it.
        let linked = fs::hard_link(path, &beside).is_ok();
        Self { path: path.to_owned(), beside: linked.then_some(beside) }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // A rename of one name to another of the same file does nothing, so one may be left.
            let _ = fs::rename(beside, &self.path);
            let _ = fs::remove_file(beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn count(directory: &Path) -> usize {
        fs::read_dir(directory).expect("a directory").count()
    }

    #[test]
    fn a_name_is_there_afterwards_whether_it_was_taken_away_or_not() {
        let (state, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = directory.path().join("x.sock");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let work = Work::make(state.path()).expect("a directory");
        for takes_away in [true, false] {
            let names = work.keep([path.as_path()].into_iter()).expect("kept");
            if takes_away {
                fs::remove_file(&path).expect("its name");
            }
            drop(names);
            UnixStream::connect(&path).expect("it listens");
            assert_eq!(count(directory.path()), 1);
        }
        drop(work.keep([directory.path().join("none").as_path()].into_iter()).expect("kept"));
        assert_eq!(count(directory.path()), 1);
        drop(work);
        assert_eq!(count(state.path()), 0);
    }

    #[test]
    #[expect(clippy::used_underscore_binding, reason = "it is let go as by the end of the process")]
    fn what_a_killed_worker_has_left_goes_with_the_next_and_what_is_used_stays() {
        let (state, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = directory.path().join("x.sock");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let mut killed = Work::make(state.path()).expect("a directory");
        std::mem::forget(killed.keep([path.as_path()].into_iter()).expect("kept"));
        let next = Work::make(state.path()).expect("a directory");
        assert_eq!((count(state.path()), count(directory.path())), (2, 2), "both are used");
        // As when it ends.
        killed._lock = File::open("/dev/null").expect("a file");
        std::mem::forget(killed);
        drop(next);
        let other = directory.path().join("y.sock");
        fs::rename(&path, &other).expect("a name");
        let _next = Work::make(state.path()).expect("a directory");
        assert_eq!((count(state.path()), count(directory.path())), (1, 1));
        assert!(other.exists(), "its own name is left alone");
    }
}
