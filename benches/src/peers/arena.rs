//! A supervisor as process 1 of its own namespaces, on a root of its own in memory.
//!
//! A root is a copy of the supervisor's files and of the service. It lives on a tmpfs of this process's mount namespace,
//! so it is gone with this process, however that ends; a supervisor gets SIGKILL when this process dies.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::time::{ClockId, clock_gettime};
use yakiros_core::control::{Answer, AnswerLine, Request, encode_request};

/// Where roots are made. Any directory would do, for the mount over it is seen by this process alone.
const PLACE: &str = "/mnt";

/// Directories that programs expect in a root.
const DIRECTORIES: [&str; 8] = ["proc", "sys", "dev", "run", "tmp", "etc", "var/log", "usr/bin"];

/// Names that are links into `usr` on every current system.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Devices: name, major and minor number.
const DEVICES: [(&str, u64, u64); 4] = [("null", 1, 3), ("zero", 1, 5), ("random", 1, 8), ("urandom", 1, 9)];

/// The service, in each root.
pub const SERVICE: &str = "/usr/bin/test-stamp";

/// Where services note when they came to life.
pub const STAMPS: &str = "stamps";

/// Where what supervisor and services say goes.
const OUTPUT: &str = "output.log";

/// As in `linux/capability.h`.
const CAP_SYS_RESOURCE: libc::c_ulong = 24;

/// Environment of process 1, as a kernel gives it.
const ENVIRONMENT: [&CStr; 2] = [c"HOME=/", c"TERM=linux"];

/// A place for roots.
#[derive(Debug)]
pub struct Field {
    place: PathBuf,
    cgroup: Option<PathBuf>,
}

impl Field {
    /// Make the place, and a control group under which all groups of supervisors lie.
    pub fn new() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("tmpfs"), PLACE, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
        let cgroup = cgroup_root().map(|root| root.join(format!("yakiros-bench-{}", std::process::id())));
        if let Some(path) = &cgroup {
            fs::create_dir(path)?;
        }
        Ok(Self { place: PLACE.into(), cgroup })
    }

    /// A root with the files of `source` and the service.
    pub fn root(&self, source: &Path, service: &Path) -> io::Result<PathBuf> {
        let root = self.place.join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for directory in DIRECTORIES {
            fs::create_dir_all(root.join(directory))?;
        }
        for name in MERGED {
            fs::create_dir_all(root.join("usr").join(name))?;
            std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name))?;
        }
        copy_tree(source, &root)?;
        fs::copy(service, root.join(&SERVICE[1..]))?;
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        Ok(root)
    }

    /// Execute `argv` as process 1 on `root`.
    pub fn start(&self, root: &Path, argv: &[&str]) -> io::Result<Arena> {
        let stamps = root.join(STAMPS);
        fs::write(&stamps, "")?;
        let (mut read, write) = io::pipe()?;
        let plan = Plan::new(root, argv, self.cgroup.as_deref(), write.into())?;
        let pid = plan.start()?;
        drop(plan);
        let mut arena = Arena { pid, stamps, output: root.join(OUTPUT), started: 0 };
        let mut message = String::new();
        read.read_to_string(&mut message)?;
        let started = message.strip_prefix("exec ").and_then(|text| text.parse().ok());
        arena.started = started.ok_or_else(|| io::Error::other(message.clone()))?;
        Ok(arena)
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        if let Some(path) = &self.cgroup {
            remove_groups(path);
        }
    }
}

/// A running supervisor. Dropping it ends everything inside.
#[derive(Debug)]
pub struct Arena {
    /// The number of process 1 outside.
    pub pid: i32,
    /// The monotonic clock just before exec, in nanoseconds.
    pub started: u64,
    stamps: PathBuf,
    output: PathBuf,
}

impl Arena {
    /// When each service came to life, in nanoseconds of the monotonic clock, in the order of their writing.
    pub fn stamps(&self) -> Vec<u64> {
        let text = fs::read_to_string(&self.stamps).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The length of what services have noted: it grows with each that comes to life.
    pub fn noted(&self) -> u64 {
        fs::metadata(&self.stamps).map_or(0, |stamps| stamps.len())
    }

    /// Ask graph-resolver, which answers within `limit`.
    pub fn ask(&self, request: Request, limit: Duration) -> io::Result<Answer> {
        let socket = format!("/proc/{}/root/run/graph-resolver.sock", self.pid);
        let mut stream = BufReader::new(UnixStream::connect(socket)?);
        stream.get_ref().set_read_timeout(Some(limit))?;
        stream.get_mut().write_all(&encode_request(request)?)?;
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        Ok(serde_json::from_str::<AnswerLine>(&answer)?.answer)
    }

    /// The end of what supervisor and services said.
    pub fn output(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        let end = &text[text.len().saturating_sub(400)..];
        // Without the colours that some write to a console.
        let text = String::from_utf8_lossy(end);
        text.trim().replace('\n', " | ").chars().filter(|character| !character.is_control()).collect()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: calls on a child of this process that is not reaped before; its namespace ends with it.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// Everything the child needs.
struct Plan<'a> {
    root: &'a Path,
    program: CString,
    argv: Vec<CString>,
    procs: Option<PathBuf>,
    report: OwnedFd,
}

impl<'a> Plan<'a> {
    fn new(root: &'a Path, argv: &[&str], cgroup: Option<&Path>, report: OwnedFd) -> io::Result<Self> {
        let argv = argv.iter().map(|word| CString::new(*word)).collect::<Result<Vec<_>, _>>()?;
        let program = argv.first().cloned().unwrap_or_default();
        Ok(Self { root, program, argv, procs: cgroup.map(|path| path.join("cgroup.procs")), report })
    }

    /// Create process 1 of new namespaces. Returns its number out here.
    fn start(&self) -> io::Result<i32> {
        let flags = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC;
        // SAFETY: plain data for which zero is valid.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = flags.bits() as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        // SAFETY: like fork: the child runs on a copy of this process, which has one thread by contract.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
        match pid {
            ..0 => Err(io::Error::last_os_error()),
            0 => self.child(),
            pid => Ok(pid as i32),
        }
    }

    fn child(&self) -> ! {
        let error = match self.set_up() {
            Ok(()) => {
                self.say(&format!("exec {}", now()));
                nix::unistd::execve(&self.program, &self.argv, &ENVIRONMENT).unwrap_err().into()
            }
            Err(error) => error,
        };
        self.say(&format!("failed to execute it: {error}"));
        // SAFETY: ends this process at once, with nothing of the parent's cleaned up.
        unsafe { libc::_exit(127) }
    }

    fn say(&self, text: &str) {
        // The pipe is closed by exec.
        let _ = nix::unistd::write(&self.report, text.as_bytes());
    }

    fn set_up(&self) -> io::Result<()> {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        if let Some(procs) = &self.procs {
            // The group of this process becomes the root of what it sees.
            fs::write(procs, "0")?;
            unshare(CloneFlags::CLONE_NEWCGROUP)?;
        }
        let inside = |path: &str| self.root.join(path);
        let none = MsFlags::empty();
        mount(Some(self.root), self.root, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        mount(Some("proc"), &inside("proc"), Some("proc"), none, None::<&str>)?;
        mount(Some("sysfs"), &inside("sys"), Some("sysfs"), none, None::<&str>)?;
        if self.procs.is_some() {
            mount(Some("cgroup2"), &inside("sys/fs/cgroup"), Some("cgroup2"), none, None::<&str>)?;
        }
        for (place, options) in [("dev", "mode=0755"), ("run", "mode=0755"), ("tmp", "mode=1777")] {
            mount(Some("tmpfs"), &inside(place), Some("tmpfs"), none, Some(options))?;
        }
        for (name, major, minor) in DEVICES {
            let mode = Mode::from_bits_truncate(0o666);
            mknod(&inside("dev").join(name), SFlag::S_IFCHR, mode, makedev(major, minor))?;
        }
        let output = fs::OpenOptions::new().append(true).create(true).open(inside(OUTPUT))?;
        // What is said on the console is said here.
        fs::write(inside("dev/console"), "")?;
        mount(Some(&inside(OUTPUT)), &inside("dev/console"), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        nix::unistd::chdir(self.root)?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        let null = fs::File::open("/dev/null")?;
        for (from, to) in [(null.as_raw_fd(), 0), (output.as_raw_fd(), 1), (output.as_raw_fd(), 2)] {
            // SAFETY: plain calls on open descriptors of this process.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        nix::unistd::setsid()?;
        // As runtimes of containers do by default. With it process 1 could lower its OOM score, as that of a machine need
        // not, and each child would have to raise its own.
        // SAFETY: a call on numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// The monotonic clock in nanoseconds.
pub fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// Where control groups of version 2 are mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|f| f.get(2) == Some(&"cgroup2")).find_map(|f| f.get(1).map(PathBuf::from))
}

/// Remove a group and all below it. Their processes were killed, and leave within moments.
fn remove_groups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    for _ in 0..100 {
        if fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Copy files, links and directories. What lies in `lib` and the like goes below `usr`.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            // A name that is there already is one of `MERGED`.
            let _ = std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
