//! Looks at paths that components declare, and never waits for a file system: one that has died, on the network or
//! behind FUSE, holds whoever asks it for as long as it likes.
//!
//! What the kernel knows by itself is asked directly (see [`Lookups::open`]). Everything else is asked by a child, which
//! may wait: it is killed when nobody wants its answer any more. A killed one may be held by its file system for ever;
//! so there is one for each path at most, and [`CHILDREN`] for all. Who comes later waits. How long an answer may take is
//! up to who asks.

mod mounts;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{SockaddrLike as _, UnixAddr};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::supervisor::Supervisor;
use crate::sys;

use mounts::{Kind, Mounts};

/// Children that wait for file systems at the same time. Ordinary ones answer within a millisecond; those of a dead one
/// cost memory for as long as it holds them, killed or not.
const CHILDREN: usize = 32;

/// What tells one file from another of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// See the module documentation.
pub struct Lookups {
    mounts: RefCell<Mounts>,
    places: Arc<Semaphore>,
    /// Children that are not reaped.
    children: RefCell<HashMap<i32, Child>>,
    /// One of them is.
    reaped: Notify,
}

/// A child that is not reaped.
struct Child {
    path: PathBuf,
    /// `None` if there were too many already when this process image began.
    _place: Option<OwnedSemaphorePermit>,
}

impl Default for Lookups {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(CHILDREN));
        Self { mounts: RefCell::default(), places, children: RefCell::default(), reaped: Notify::new() }
    }
}

impl Lookups {
    /// Open a path for reference only (`O_PATH`), on a file system that can be asked about what was opened. `None` if
    /// only the file system could tell what is there.
    ///
    /// By the table of mounts the walk ends in a trusted file system, and the kernel takes it without asking one on the
    /// way (`RESOLVE_CACHED`, openat2(2)). In one that is all in memory, a name that is not there is in no cache: it is
    /// looked for from the mount point on. The table knows of no links, so there may be none on the way.
    pub fn open(&self, path: &Path) -> Option<io::Result<OwnedFd>> {
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_) | Component::CurDir);
        if !path.is_absolute() || !path.components().all(is_plain) {
            return None;
        }
        let mut mounts = self.mounts.borrow_mut();
        let (point, kind) = mounts.of(path)?;
        let cached = open_by(None, path, libc::RESOLVE_CACHED);
        if kind == Kind::Disk || !is_unknown(&cached) {
            return (!is_unknown(&cached)).then_some(cached);
        }
        let below = path.strip_prefix(point).ok().filter(|below| !below.as_os_str().is_empty())?;
        let root = open_by(None, point, libc::RESOLVE_CACHED).ok()?;
        let found = open_by(Some(&root), below, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV);
        (!is_unknown(&found)).then_some(found)
    }

    /// What is at a path, if that can be told at once.
    pub fn identity_now(&self, path: &Path) -> Option<io::Result<Identity>> {
        Some(self.open(path)?.and_then(|fd| identity_of(&fd)))
    }

    /// A child that was passed from the process image before, and that nobody waits for any more.
    pub fn abandon(&self, pid: i32, path: PathBuf) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        self.children.borrow_mut().insert(pid, Child { path, _place: place });
    }

    /// Children that are not reaped, for the next process image.
    pub fn pass(&self) -> Vec<(i32, PathBuf)> {
        self.children.borrow().iter().map(|(pid, child)| (*pid, child.path.clone())).collect()
    }

    /// A child of this process has been reaped; it may be one of these.
    pub fn reaped(&self, pid: i32) {
        if self.children.borrow_mut().remove(&pid).is_some() {
            self.reaped.notify_waiters();
        }
    }

    fn is_asked_about(&self, path: &Path) -> bool {
        self.children.borrow().values().any(|child| child.path == path)
    }
}

/// What a child is asked to do.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// What is at the path?
    Look,
    /// Can the socket at the path be connected to?
    Connect,
    /// Bind this socket to the path, in the place of one that is there, and give the file this owner.
    Bind(RawFd, Owner),
    /// Remove the socket at the path.
    Remove,
}

/// Permissions, user and group of a file; the supervisor's own user and group without.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// Permissions.
    pub mode: u32,
    /// User.
    pub user: Option<u32>,
    /// Group.
    pub group: Option<u32>,
}

/// What is at a path, however long that takes to find out. Dropping it ends the search.
pub async fn identity(supervisor: &Rc<Supervisor>, path: &Path) -> io::Result<Identity> {
    match supervisor.lookups.identity_now(path) {
        Some(found) => found,
        None => ask(supervisor, Question::Look, path).await,
    }
}

/// Have a child answer. Dropping it ends the child. The answer to [`Question::Connect`] is in no more than success.
pub async fn ask(supervisor: &Rc<Supervisor>, question: Question, path: &Path) -> io::Result<Identity> {
    let lookups = &supervisor.lookups;
    let place = loop {
        while lookups.is_asked_about(path) {
            lookups.reaped.notified().await;
        }
        let place = Arc::clone(&lookups.places).acquire_owned().await.map_err(io::Error::other)?;
        if !lookups.is_asked_about(path) {
            break place;
        }
    };
    let (read, write) = sys::pipe()?;
    let read = sys::watch(read)?;
    let pid = start(question, path, &write)?;
    drop(write);
    lookups.children.borrow_mut().insert(pid, Child { path: path.to_owned(), _place: Some(place) });
    let _end = EndWith { supervisor, pid };
    let mut bytes = [0_u8; Reply::BYTES];
    loop {
        let mut ready = read.readable().await?;
        match sys::read_now(read.get_ref(), &mut bytes)? {
            None => ready.clear_ready(),
            Some(count) => {
                let reply = (count == Reply::BYTES).then(|| Reply::from_bytes(bytes));
                return reply.ok_or_else(|| io::Error::other("the process that looked was ended"))?.read();
            }
        }
    }
}

/// Ends a child that nobody waits for any more.
struct EndWith<'a> {
    supervisor: &'a Rc<Supervisor>,
    pid: i32,
}

impl Drop for EndWith<'_> {
    fn drop(&mut self) {
        // Until it is reaped the number is its own.
        if self.supervisor.lookups.children.borrow().contains_key(&self.pid) {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// What a child writes: an error number, or 0 and an [`Identity`].
struct Reply([i64; 5]);

impl Reply {
    const BYTES: usize = 40;

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut numbers = [0; 5];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = i64::from_ne_bytes(*word);
        }
        Self(numbers)
    }

    fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (word, number) in bytes.chunks_exact_mut(8).zip(self.0) {
            word.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    fn of(errno: libc::c_int, stat: Option<&libc::stat>) -> Self {
        let found = stat.map_or([0; 4], |stat| {
            [stat.st_dev.cast_signed(), stat.st_ino.cast_signed(), stat.st_ctime, stat.st_ctime_nsec]
        });
        Self([i64::from(errno), found[0], found[1], found[2], found[3]])
    }

    fn read(&self) -> io::Result<Identity> {
        let [errno, device, inode, seconds, nanoseconds] = self.0;
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(libc::EIO)));
        }
        let (device, inode) = (device.cast_unsigned(), inode.cast_unsigned());
        Ok(Identity { device, inode, changed: (seconds, nanoseconds) })
    }
}

/// Start the child. Everything that it needs is made before.
fn start(question: Question, path: &Path, report: &OwnedFd) -> io::Result<i32> {
    let address = match question {
        Question::Connect | Question::Bind(..) => Some(UnixAddr::new(path)?),
        Question::Look | Question::Remove => None,
    };
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the child makes plain system calls on what is prepared here, and never returns.
    match unsafe { sys::clone_child(None, 0) }? {
        // SAFETY: this is the child.
        0 => unsafe { answer(question, &path, address.as_ref(), report.as_raw_fd()) },
        pid => Ok(pid),
    }
}

/// The child's whole life.
///
/// # Safety
/// Only in a child process of its own memory.
unsafe fn answer(question: Question, path: &CStr, address: Option<&UnixAddr>, report: RawFd) -> ! {
    // SAFETY: async-signal-safe calls on locals and on what the parent prepared.
    unsafe {
        match question {
            Question::Bind(socket, _) => sys::close_all_but(&[socket.min(report), socket.max(report)]),
            _ => sys::close_all_but(&[report]),
        }
        // A killed one may be held by its file system for long: it is not to look like a part of the supervisor.
        libc::prctl(libc::PR_SET_NAME, c"graph-lookup".as_ptr());
        let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
        let done = match (question, address) {
            (Question::Connect, Some(address)) => {
                let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
                if fd < 0 { fd } else { libc::connect(fd, address.as_ptr().cast(), address.len()) }
            }
            (Question::Bind(socket, owner), Some(address)) => bind(path, socket, address, owner),
            (Question::Remove, _) => remove_socket(path),
            _ => libc::stat(path.as_ptr(), stat.as_mut_ptr()),
        };
        let errno = if done == 0 { 0 } else { *libc::__errno_location() };
        let bytes = Reply::of(errno, Some(&stat.assume_init())).to_bytes();
        libc::write(report, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(0)
    }
}

/// Bind a socket to a path; 0, or -1 with `errno`.
///
/// # Safety
/// Only in a child process of its own memory.
unsafe fn bind(path: &CStr, socket: RawFd, address: &UnixAddr, owner: Owner) -> libc::c_int {
    // SAFETY: async-signal-safe calls on what the parent prepared.
    unsafe {
        // What is no socket stays, and binding fails.
        let _ = remove_socket(path);
        libc::umask(0o777 & !owner.mode);
        let done = libc::bind(socket, address.as_ptr().cast(), address.len());
        if done != 0 || (owner.user, owner.group) == (None, None) {
            return done;
        }
        let id = |id: Option<u32>| id.unwrap_or(u32::MAX);
        libc::lchown(path.as_ptr(), id(owner.user), id(owner.group))
    }
}

/// Remove a socket's file, and nothing else; 0, or -1 with `errno`.
///
/// # Safety
/// Only in a child process of its own memory.
unsafe fn remove_socket(path: &CStr) -> libc::c_int {
    // SAFETY: async-signal-safe calls on a local and on what the parent prepared.
    unsafe {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
        let found = libc::lstat(path.as_ptr(), stat.as_mut_ptr());
        if found != 0 || stat.assume_init().st_mode & libc::S_IFMT != libc::S_IFSOCK {
            return found;
        }
        libc::unlink(path.as_ptr())
    }
}

/// Open for reference by openat2(2), without following a link.
fn open_by(directory: Option<&OwnedFd>, path: &Path, resolve: u64) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let directory = directory.map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
    // SAFETY: the structure is plain data, for which zero is valid; the pointers are to locals, and a descriptor that
    // is returned is new.
    unsafe {
        let mut how: libc::open_how = std::mem::zeroed();
        how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
        how.resolve = resolve | libc::RESOLVE_NO_SYMLINKS;
        let fd =
            libc::syscall(libc::SYS_openat2, directory, path.as_ptr(), &raw const how, size_of_val(&how));
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Whether the kernel could not tell by itself: it would have had to ask, or follow a link, or it is one from before
/// Linux 5.12.
fn is_unknown(found: &io::Result<OwnedFd>) -> bool {
    let unknown = [libc::EAGAIN, libc::ELOOP, libc::EINVAL, libc::ENOSYS, libc::EXDEV];
    found.as_ref().is_err_and(|error| error.raw_os_error().is_some_and(|errno| unknown.contains(&errno)))
}

fn identity_of(fd: impl AsFd) -> io::Result<Identity> {
    let stat = nix::sys::stat::fstat(fd)?;
    Reply::of(0, Some(&stat)).read()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    /// A folder in memory, which every Linux has there.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").expect("a folder in memory")
    }

    #[test]
    fn what_lies_in_memory_is_told_at_once() {
        let lookups = Lookups::default();
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        let kind = |name: &str| Some(lookups.open(&at(name))?.map(drop).map_err(|error| error.kind()));
        assert_eq!(kind("absent"), Some(Err(io::ErrorKind::NotFound)));
        assert_eq!(kind("absent/too"), Some(Err(io::ErrorKind::NotFound)));
        fs::write(at("file"), "").expect("a file");
        assert_eq!(kind("file"), Some(Ok(())));
        assert_eq!(kind("file/below"), Some(Err(io::ErrorKind::NotADirectory)));
        let first = lookups.identity_now(&at("file")).expect("at once").expect("a file");
        fs::remove_file(at("file")).expect("removed");
        assert_eq!(kind("file"), Some(Err(io::ErrorKind::NotFound)));
        std::thread::sleep(Duration::from_millis(20));
        fs::write(at("file"), "").expect("another file");
        assert_ne!(lookups.identity_now(&at("file")).expect("at once").expect("a file"), first);
    }

    #[test]
    fn what_may_lead_elsewhere_is_not() {
        let lookups = Lookups::default();
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").expect("a file");
        std::os::unix::fs::symlink("file", at("link")).expect("a link");
        for path in [at("link"), at("../file"), "file".into(), "/proc/self/exe".into()] {
            assert!(lookups.open(&path).is_none(), "{}", path.display());
        }
    }

    #[test]
    fn a_child_says_what_it_found() {
        let folder = folder();
        let path = folder.path().join("file");
        let answer = |question, path: &Path| {
            let (read, write) = sys::pipe().expect("a pipe");
            let pid = start(question, path, &write).expect("a child");
            let mut status = 0;
            // SAFETY: the pointer is to a local; the child is this test's own.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            let mut bytes = [0; Reply::BYTES];
            assert_eq!(sys::read_now(&read, &mut bytes).expect("an answer"), Some(Reply::BYTES));
            Reply::from_bytes(bytes).read().map_err(|error| error.kind())
        };
        assert_eq!(answer(Question::Look, &path), Err(io::ErrorKind::NotFound));
        assert_eq!(answer(Question::Connect, &path), Err(io::ErrorKind::NotFound));
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let known = Lookups::default().identity_now(&path).expect("at once").expect("a socket");
        assert_eq!(answer(Question::Look, &path), Ok(known));
        assert!(answer(Question::Connect, &path).is_ok());
    }
}
