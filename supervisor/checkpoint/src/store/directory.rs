//! Directories by descriptor: nothing below one is reached by a path that somebody could have changed meanwhile, and no
//! symbolic link is followed.

use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{
    self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, statat, unlinkat,
};
use rustix::io::Errno;

/// How deep what is removed may be: a draft has three levels.
const DEPTH_LIMIT: u32 = 8;
/// Most entries of a directory that are looked at: those of a checkpoint with some room, far above the others.
const ENTRIES_LIMIT: usize = 100_000;
/// For others to be done, who remove what is too old and put a checkpoint in its place: processes may stand still meanwhile.
const TURN_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two looks.
const TURN_LOOK: Duration = Duration::from_millis(5);
/// How often a turn is asked for again: each time somebody else has had theirs.
const TURNS_LIMIT: usize = 1024;
/// What is opened is never waited for, inherited, or a link.
const ALWAYS: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// Memory of processes is nobody else's business.
const PRIVATE: Mode = Mode::RWXU;
/// And neither is a file of it.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// See [`Directory::turn`]. It is over when this is dropped, and leaves nothing.
#[derive(Debug)]
pub(crate) struct Turn {
    directory: OwnedFd,
    name: &'static str,
    _file: OwnedFd,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // What stays is taken up by the next.
        let _ = unlinkat(&self.directory, self.name, AtFlags::empty());
    }
}

/// What is in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub name: OsString,
    pub kind: Kind,
}

/// As far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Directory,
    File,
    Link,
    Other,
}

impl Directory {
    /// The path is the administrator's, and may have links.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// One in it.
    pub fn child(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        let fd = fs::openat(&self.fd, name, ALWAYS | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anybody but its owner, who is root or this process's user, can change what is in it.
    pub fn is_private(&self) -> io::Result<bool> {
        let status = fstat(&self.fd)?;
        let own = status.st_uid == rustix::process::geteuid().as_raw() || status.st_uid == 0;
        Ok(own && !Mode::from_raw_mode(status.st_mode).intersects(Mode::WGRP | Mode::WOTH))
    }

    /// Make one in it.
    pub fn make(&self, name: &str) -> io::Result<()> {
        Ok(fs::mkdirat(&self.fd, name, PRIVATE)?)
    }

    /// A regular file in it, to be read.
    pub fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let file = File::from(fs::openat(&self.fd, name.as_ref(), ALWAYS | OFlags::RDONLY, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    }

    /// A new file in it, to be written.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = ALWAYS | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        Ok(fs::openat(&self.fd, name, flags, PRIVATE_FILE)?.into())
    }

    /// A symbolic link in it.
    pub fn link(&self, name: &str, target: &str) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.fd, name)?)
    }

    /// Where one leads.
    pub fn target(&self, name: &str) -> io::Result<CString> {
        Ok(fs::readlinkat(&self.fd, name, Vec::new())?)
    }

    /// By name.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            if entries.len() == ENTRIES_LIMIT {
                return Err(io::Error::other(format!("more than {ENTRIES_LIMIT} entries")));
            }
            let kind = self.kind(entry.file_name(), entry.file_type())?;
            entries.push(Entry { name: OsString::from_vec(entry.file_name().to_bytes().to_vec()), kind });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn kind(&self, name: &CStr, told: FileType) -> io::Result<Kind> {
        // Some file systems do not tell.
        let kind = match told {
            FileType::Unknown => {
                FileType::from_raw_mode(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            told => told,
        };
        Ok(match kind {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        })
    }

    /// Move something from here to a place where nothing is.
    pub fn rename(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        match fs::renameat_with(&self.fd, name, &to.fd, new, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag. What is in place of a directory that is not empty stays there.
            Err(Errno::INVAL) => Ok(fs::renameat(&self.fd, name, &to.fd, new)?),
            result => Ok(result?),
        }
    }

    /// Until the disk has what names are in it.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }

    /// Take it for oneself alone, or with others, until it is dropped; false if somebody else has it.
    pub fn lock(&self, alone: bool) -> io::Result<bool> {
        let operation = if alone {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match flock(&self.fd, operation) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            result => result.map(|()| true).map_err(Into::into),
        }
    }

    /// The same with others, for as long as any copy of what is given is open.
    pub fn hold(&self) -> io::Result<OwnedFd> {
        let copy = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)?;
        // Nobody else knows of it yet, or all who do have it with others.
        flock(&copy, FlockOperation::NonBlockingLockShared)?;
        Ok(copy)
    }

    /// Wait until it is one's turn, among all who ask for it here by this name; for [`TURN_LIMIT`] at most.
    pub fn turn(&self, name: &'static str) -> io::Result<Turn> {
        let begun = Instant::now();
        for _ in 0..TURNS_LIMIT {
            let flags = ALWAYS | OFlags::RDWR | OFlags::CREATE;
            let file = fs::openat(&self.fd, name, flags, PRIVATE_FILE)?;
            while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                if error != Errno::WOULDBLOCK {
                    return Err(error.into());
                }
                if begun.elapsed() > TURN_LIMIT {
                    let why = format!("others have not done with it within {} s", TURN_LIMIT.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                sleep(TURN_LOOK);
            }
            let here = fstat(&file)?;
            match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino) => {
                    let directory = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)?;
                    return Ok(Turn { directory, name, _file: file });
                }
                // Who had it before has removed it, and somebody else may have another.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(format!("{TURNS_LIMIT} others came before")))
    }

    /// Whether what has this name is this very directory.
    pub fn is(&self, parent: &Self, name: &str) -> io::Result<bool> {
        let here = fstat(&self.fd)?;
        match statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Remove an empty directory in it; false if it is not empty or not there.
    pub fn remove_empty(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        match unlinkat(&self.fd, name.as_ref(), AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(false),
            result => result.map(|()| true).map_err(Into::into),
        }
    }

    /// Remove something in it with all that is below.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        self.remove_below(name.as_ref(), DEPTH_LIMIT)
    }

    fn remove_below(&self, name: &OsStr, depth: u32) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            Err(Errno::NOENT) => return Ok(()),
            result => return Ok(result?),
        }
        let directory = self.child(name)?;
        if depth == 0 {
            return Err(io::Error::other(format!("more than {DEPTH_LIMIT} directories within each other")));
        }
        directory.entries()?.iter().try_for_each(|entry| directory.remove_below(&entry.name, depth - 1))?;
        self.remove_empty(name).map(drop)
    }

    /// Bytes that this process may still write to its file system.
    pub fn room(&self) -> io::Result<u64> {
        let status = fs::fstatvfs(&self.fd)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Entry {
    /// Its name for people, and to compare it with names that are text.
    pub fn text(&self) -> Cow<'_, str> {
        self.name.to_string_lossy()
    }
}
