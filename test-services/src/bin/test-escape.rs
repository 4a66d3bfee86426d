//! Tries to do what a component that is shut in may not.
//!
//! 0 means that it was done, 1 that it was refused, with the kernel's reason on standard error. Each attempt is one that
//! an ordinary program of root's succeeds with: a test that sees it refused sees it succeed without the restriction, too.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::chroot;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::libc;
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-escape",
    about: "Tries one thing that a component that is shut in may not do. Ends with 0 if it was\n\
            done, with 1 if it was refused. Attempts (with what --target is):\n\
            be-root            be root\n\
            be-root-by         be root by executing a program (a set-user-ID copy of this one)\n\
            connect            connect to a port (its number) of the machine's loopback\n\
            join-group         move itself to another control group (its directory)\n\
            know-landlock      ask the kernel for the version of its Landlock\n\
            leave-root         reach a file of the machine's root (its path)\n\
            lift-limit         lift a limit of its control group (its file)\n\
            load-module        load a module of the kernel (its file)\n\
            mount              mount a file system in memory (on that directory)\n\
            raw-socket         open a socket that reads every packet\n\
            read               read a file (its path)\n\
            see-memory         find shared memory (its number)\n\
            set-clock          set the wall clock, to what it is\n\
            set-hostname       change the host name (to that)\n\
            share-memory       make shared memory (its number) for others to find\n\
            signal             send a signal, as kill does (PID:SIGNAL)\n\
            trace              trace a process (its number)\n\
            unshare            make a namespace\n\
            write              write a file (its path)",
    options: &[
        Opt { name: "--attempt", value: Some("NAME"), default: None, help: "what to try, see above" },
        Opt { name: "--target", value: Some("TEXT"), default: Some(""), help: "on what, see above" },
    ],
};

/// One thing to try, on a target.
type Attempt = fn(&str) -> io::Result<()>;

/// By name.
const ATTEMPTS: [(&str, Attempt); 19] = [
    ("be-root", be_root),
    ("be-root-by", be_root_by),
    ("connect", connect),
    ("join-group", |group| put(&format!("{group}/cgroup.procs"), "0")),
    ("know-landlock", know_landlock),
    ("leave-root", leave_root),
    ("lift-limit", lift_limit),
    ("load-module", load_module),
    ("mount", mount),
    ("raw-socket", raw_socket),
    ("read", |path| fs::read(path).map(drop)),
    ("see-memory", see_memory),
    ("set-clock", set_clock),
    ("set-hostname", set_hostname),
    ("share-memory", share_memory),
    ("signal", signal),
    ("trace", trace),
    ("unshare", unshare),
    ("write", |path| put(path, "escaped\n")),
];

/// For a connection on one machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let name: String =
        values.optional("--attempt")?.ok_or_else(|| Error::Usage("--attempt is missing".into()))?;
    let target: String = values.parse("--target")?;
    let (_, attempt) = ATTEMPTS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| Error::Usage(format!("--attempt {name}: no such attempt")))?;
    attempt(&target).map_err(Error::failed(format!("{name} {target}")))?;
    println!("{name} {target}: done");
    Ok(ExitCode::SUCCESS)
}

/// What a system call came to.
fn outcome(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn text(of: &str) -> io::Result<CString> {
    CString::new(of).map_err(io::Error::other)
}

fn number<T: std::str::FromStr>(of: &str) -> io::Result<T> {
    of.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{of} is no number")))
}

/// Writes to a file of the kernel's or another one.
fn put(path: &str, what: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(what.as_bytes())
}

fn lift_limit(file: &str) -> io::Result<()> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.ok_or_else(|| io::Error::other("it is in no group"))?;
    put(&format!("/sys/fs/cgroup{own}/{file}"), "max")
}

fn be_root(_: &str) -> io::Result<()> {
    // SAFETY: it takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn be_root_by(program: &str) -> io::Result<()> {
    let status = Command::new(program).args(["--attempt", "be-root"]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program} {status}"))) }
}

fn connect(port: &str) -> io::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], number(port)?));
    TcpStream::connect_timeout(&address, CONNECT_LIMIT).map(drop)
}

/// landlock_create_ruleset(2) with `LANDLOCK_CREATE_RULESET_VERSION`.
fn know_landlock(_: &str) -> io::Result<()> {
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) })
}

/// First as it stands, then by the root of process 1, then by a second chroot while a directory outside of it is open
/// (chroot(2)).
fn leave_root(path: &str) -> io::Result<()> {
    let inner = "/leave-root";
    let out = || -> io::Result<()> {
        let outside = File::open("/")?;
        fs::create_dir_all(inner)?;
        chroot(inner)?;
        // SAFETY: a call on an open descriptor.
        outcome(unsafe { libc::fchdir(outside.as_raw_fd()) })?;
        for _ in 0..64 {
            std::env::set_current_dir("..")?;
        }
        chroot(".")?;
        fs::metadata(path).map(drop)
    };
    fs::metadata(path).or_else(|_| fs::metadata(format!("/proc/1/root{path}"))).map(drop).or_else(|_| out())
}

fn load_module(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: an open descriptor, and text that ends with a null.
    outcome(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) })
}

fn mount(place: &str) -> io::Result<()> {
    let place = text(place)?;
    // SAFETY: all are texts that end with a null, and none is written to.
    outcome(unsafe {
        libc::mount(c"escaped".as_ptr(), place.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null())
    })
}

fn raw_socket(_: &str) -> io::Result<()> {
    // SAFETY: it takes numbers. The descriptor is closed with the process.
    outcome(unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) })
}

fn see_memory(key: &str) -> io::Result<()> {
    // SAFETY: it takes numbers, and without IPC_CREAT it makes nothing.
    outcome(unsafe { libc::shmget(number(key)?, 0, 0) })
}

fn share_memory(key: &str) -> io::Result<()> {
    // SAFETY: it takes numbers.
    outcome(unsafe { libc::shmget(number(key)?, 4096, libc::IPC_CREAT | 0o600) })
}

fn set_clock(_: &str) -> io::Result<()> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both get a pointer to a local of the size that they take.
    outcome(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) })?;
    // SAFETY: as above.
    outcome(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) })
}

fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: a pointer to so many bytes, which are only read.
    outcome(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
}

fn signal(target: &str) -> io::Result<()> {
    let (pid, signal) = target.split_once(':').unwrap_or((target, "0"));
    // SAFETY: it takes numbers.
    outcome(unsafe { libc::kill(number(pid)?, number(signal)?) })
}

fn trace(pid: &str) -> io::Result<()> {
    let pid: libc::pid_t = number(pid)?;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no memory is passed. The process goes on by itself when this one ends.
    outcome(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) })
}

fn unshare(_: &str) -> io::Result<()> {
    // SAFETY: it takes a number.
    outcome(unsafe { libc::unshare(libc::CLONE_NEWUTS) })
}
