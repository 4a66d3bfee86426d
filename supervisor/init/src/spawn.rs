//! Starts one process: everything is prepared before the child exists, so that the child makes
//! nothing but plain system calls, and every step that can fail is reported with its errno.
//!
//! The child gets: its own session, default signals and an empty mask, its cgroup from birth,
//! 0 = `/dev/null`, 1 and 2 = its log, the notification descriptor if it asked for one, and no
//! other descriptor; `/` as working directory, umask 022, its limits, and a fresh environment, in
//! which no name comes twice: what is declared replaces the base, and what the supervisor says of
//! the process itself replaces both.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;

use nix::libc;
use yakiros_core::component::{Command, Component, Namespace};
use yakiros_core::journal::Exit;

use crate::sys;

/// Search path of components; the supervisor itself may have been started without one.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The number of the notification descriptor in the child.
pub const NOTIFY_FD: RawFd = 3;

/// Steps of the child's set-up, in order. Each completes "failed to …".
const STEPS: &[&str] = &[
    "start a session",
    "reset the signal mask",
    "connect standard input to /dev/null",
    "connect standard output to the log",
    "connect standard error to the log",
    "pass the notification descriptor",
    "close inherited descriptors",
    "set the limit of open files",
    "set the host name",
    "change to the directory /",
    "execute the binary",
];

/// Everything the child needs, allocated by the parent.
pub struct Image {
    program: CString,
    argv: Vec<CString>,
    environment: Vec<CString>,
    hostname: Option<CString>,
    files_max: Option<u64>,
    namespaces: u64,
    /// Whether the child is told its own number, as whose watchdog is meant.
    watched: bool,
}

/// What the supervisor lends every child.
pub struct Common {
    /// `/dev/null`.
    pub null: OwnedFd,
    /// The limit of open files that the supervisor was started with.
    pub files: libc::rlimit,
    /// Whether the supervisor's own OOM score was lowered, so that the child's has to be raised.
    pub oom_lowered: bool,
}

/// Descriptors for one child. The parent drops them after the start.
pub struct Descriptors<'a> {
    /// Written to by standard output and error.
    pub log: &'a OwnedFd,
    /// Readiness by `NOTIFY_FD`.
    pub notify: Option<&'a OwnedFd>,
    /// Closed by a successful exec; a failure is written to it.
    pub report: &'a OwnedFd,
    /// The cgroup to be born in.
    pub cgroup: Option<&'a OwnedFd>,
}

impl Image {
    /// Prepare the start of a component.
    pub fn new(component: &Component, generation: u64, extra: &[String]) -> io::Result<Self> {
        let mut words = vec![component.binary.as_str()];
        words.extend(component.args.iter().map(String::as_str));
        let watchdog = component.lifecycle.watchdog;
        let environment = environment(component, generation, extra);
        let hostname = component.isolation.hostname.as_deref().map(c_string);
        Ok(Self {
            program: c_string(&component.binary)?,
            argv: words.into_iter().map(c_string).collect::<Result<_, _>>()?,
            environment: c_strings(&environment)?,
            hostname: hostname.transpose()?,
            files_max: component.resources.files_max,
            namespaces: clone_flags(&component.isolation.namespaces),
            watched: watchdog.is_some(),
        })
    }

    /// Prepare a probe: a command line in the environment of the component it asks about.
    pub fn probe(words: &[&str], component: &str) -> io::Result<Self> {
        let mut environment = base_environment();
        environment.push(format!("GRAPH_COMPONENT={component}"));
        let program = words.first().copied().unwrap_or_default();
        Ok(Self {
            program: c_string(program)?,
            argv: words.iter().copied().map(c_string).collect::<Result<_, _>>()?,
            environment: c_strings(&environment)?,
            hostname: None,
            files_max: None,
            namespaces: 0,
            watched: false,
        })
    }
}

/// The variables of a component's process, each name once.
fn environment(component: &Component, generation: u64, extra: &[String]) -> Vec<String> {
    let mut all = base_environment();
    all.extend(component.hotswap.env_vars.iter().filter_map(|text| variable(text)));
    all.push(format!("GRAPH_COMPONENT={}", component.name));
    all.push(format!("GRAPH_GENERATION={generation}"));
    all.extend_from_slice(extra);
    if let Some(interval) = component.lifecycle.watchdog {
        all.push(format!("WATCHDOG_USEC={}", interval.as_micros()));
        // The child writes its own.
        all.retain(|text| name_of(text).as_bytes() != &OWN_NUMBER[..OWN_NUMBER.len() - 1]);
    }
    let mut seen = HashSet::new();
    let last: Vec<bool> = all.iter().rev().map(|text| seen.insert(name_of(text).to_owned())).collect();
    let mut last = last.into_iter().rev();
    all.retain(|_| last.next().unwrap_or(true));
    all
}

/// The name in `NAME=VALUE`.
fn name_of(text: &str) -> &str {
    text.split('=').next().unwrap_or_default()
}

fn base_environment() -> Vec<String> {
    let mut environment = vec![PATH.to_owned()];
    for name in ["LANG", "LC_ALL", "TZ", "TERM"] {
        environment.extend(variable(name));
    }
    environment
}

/// `NAME=VALUE` as it is; `NAME` with the supervisor's own value, if it has one.
fn variable(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    let value = std::env::var(text).ok()?;
    Some(format!("{text}={value}"))
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn c_strings(texts: &[String]) -> io::Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text)).collect()
}

/// The command line of a probe's command.
pub fn words(command: &Command) -> Vec<&str> {
    match command {
        Command::Shell(line) => vec!["/bin/sh", "-c", line],
        Command::Direct(words) => words.iter().map(String::as_str).collect(),
    }
}

/// Namespaces that clone itself can give; `Isolation::unsupported` names the others.
fn clone_flags(namespaces: &[Namespace]) -> u64 {
    namespaces
        .iter()
        .map(|namespace| match namespace {
            Namespace::Mount => libc::CLONE_NEWNS as u64,
            Namespace::Pid => libc::CLONE_NEWPID as u64,
            Namespace::Net => libc::CLONE_NEWNET as u64,
            Namespace::Uts => libc::CLONE_NEWUTS as u64,
            Namespace::Ipc => libc::CLONE_NEWIPC as u64,
            Namespace::Cgroup => libc::CLONE_NEWCGROUP as u64,
            Namespace::User | Namespace::Time => 0,
        })
        .fold(0, |all, flag| all | flag)
}

/// A failure of the child's set-up as it comes through the report pipe.
pub fn read_report(bytes: &[u8]) -> Option<(&'static str, i32)> {
    let (step, errno) = bytes.split_first_chunk::<4>()?;
    let step = *STEPS.get(u32::from_ne_bytes(*step) as usize)?;
    let errno = i32::from_ne_bytes(*errno.first_chunk::<4>()?);
    Some((step, errno))
}

/// What a command that was run to ask something answers: an exit status of 0, or why not.
pub fn outcome(key: &str, report: Option<&OwnedFd>, exit: Exit) -> Result<(), Rc<str>> {
    let mut buffer = [0_u8; 8];
    let failure = match report.map(|report| sys::read_now(report, &mut buffer)) {
        Some(Ok(Some(count))) => read_report(&buffer[..count]),
        _ => None,
    };
    match (failure, exit) {
        (Some((step, errno)), _) => {
            let error = io::Error::from_raw_os_error(errno);
            Err(format!("{key}: failed to {step}: {error}").into())
        }
        (None, Exit::Code(0)) => Ok(()),
        (None, exit) => Err(format!("{key} {exit}").into()),
    }
}

/// A step by its name, as it was passed from the process image before.
pub fn step(name: &str) -> Option<&'static str> {
    STEPS.iter().copied().find(|step| *step == name)
}

/// Create the process. Returns its id; how far it came is told by the report pipe.
pub fn start(image: &Image, fds: &Descriptors<'_>, common: &Common) -> io::Result<i32> {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain([ptr::null()]).collect()
    };
    let argv = pointers(&image.argv);
    let mut environment = pointers(&image.environment);
    let mut own_number = [0_u8; OWN_NUMBER_BYTES];
    let own_number = own_number.as_mut_ptr();
    if image.watched {
        // Before the null at the end.
        environment.insert(image.environment.len(), own_number.cast_const().cast());
    }
    let files =
        image.files_max.map_or(common.files, |limit| libc::rlimit { rlim_cur: limit, rlim_max: limit });
    // The number of the notification descriptor may be free in the supervisor, and then be that
    // of the report pipe. Both go when the child has its copies.
    let moved = clear_of_notify(fds.report)?;
    let report = moved.as_ref().unwrap_or(fds.report);
    let plan = Plan {
        program: image.program.as_ptr(),
        argv: argv.as_ptr(),
        environment: environment.as_ptr(),
        hostname: image.hostname.as_deref(),
        files,
        null: common.null.as_raw_fd(),
        log: fds.log.as_raw_fd(),
        notify: fds.notify.map(std::os::fd::AsRawFd::as_raw_fd),
        report: report.as_raw_fd(),
        reset_oom: common.oom_lowered,
        own_number,
    };
    // SAFETY: the child calls `Plan::run` at once, which makes plain system calls on what the
    // parent prepared, allocates nothing and never returns.
    match unsafe { sys::clone_child(fds.cgroup, image.namespaces) }? {
        // SAFETY: this is the child of the clone above; the pointers of the plan are alive, for
        // it has a copy of the parent's memory.
        0 => unsafe { plan.run() },
        pid => Ok(pid),
    }
}

/// A copy of a descriptor above [`NOTIFY_FD`], if it is not above it already.
fn clear_of_notify(fd: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    if fd.as_raw_fd() > NOTIFY_FD {
        return Ok(None);
    }
    let copy = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(NOTIFY_FD + 1))?;
    // SAFETY: the descriptor is new, and nobody else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(copy) }))
}

/// What the child does, in plain values.
struct Plan<'a> {
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    hostname: Option<&'a std::ffi::CStr>,
    files: libc::rlimit,
    null: RawFd,
    log: RawFd,
    notify: Option<RawFd>,
    report: RawFd,
    reset_oom: bool,
    /// [`OWN_NUMBER_BYTES`] for the variable that the child writes itself.
    own_number: *mut u8,
}

impl Plan<'_> {
    /// The child's whole life before exec.
    ///
    /// # Safety
    /// Only in a child process of its own memory; the plan's pointers must be valid.
    unsafe fn run(&self) -> ! {
        // SAFETY: the calls are async-signal-safe, and their pointers are valid by the caller's
        // promise or are to locals.
        unsafe {
            let failed = self.set_up();
            let errno = *libc::__errno_location();
            let mut message = [0_u8; 8];
            message[..4].copy_from_slice(&failed.to_ne_bytes());
            message[4..].copy_from_slice(&errno.to_ne_bytes());
            libc::write(self.report, message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    }

    /// Runs the steps in the order of [`STEPS`] and returns the one that failed.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn set_up(&self) -> u32 {
        // SAFETY: as above; each call is checked.
        unsafe {
            if libc::setsid() < 0 {
                return 0;
            }
            let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(mask.as_mut_ptr());
            if libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut()) != 0 {
                return 1;
            }
            for (step, (from, to)) in [(self.null, 0), (self.log, 1), (self.log, 2)].into_iter().enumerate() {
                if libc::dup2(from, to) < 0 {
                    return 2 + step as u32;
                }
            }
            if self.pass_notify() < 0 {
                return 5;
            }
            let first = if self.notify.is_some() { NOTIFY_FD as libc::c_uint + 1 } else { 3 };
            let all = libc::c_uint::MAX;
            let on_exec = libc::CLOSE_RANGE_CLOEXEC;
            if libc::syscall(libc::SYS_close_range, first, all, on_exec) != 0 {
                return 6;
            }
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.files) != 0 {
                return 7;
            }
            if self.reset_oom {
                reset_oom_score();
            }
            if let Some(name) = self.hostname
                && libc::sethostname(name.as_ptr(), name.count_bytes()) != 0
            {
                return 8;
            }
            libc::umask(0o022);
            if libc::chdir(c"/".as_ptr()) != 0 {
                return 9;
            }
            write_own_number(self.own_number, libc::getpid());
            libc::execve(self.program, self.argv, self.environment);
            10
        }
    }

    /// Bring the notification descriptor to its number.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn pass_notify(&self) -> libc::c_int {
        let Some(fd) = self.notify else {
            return 0;
        };
        // SAFETY: plain calls on numbers. `start` makes sure that none that is needed later has
        // the number that is overwritten here.
        unsafe {
            if fd == NOTIFY_FD {
                return libc::fcntl(fd, libc::F_SETFD, 0);
            }
            libc::dup2(fd, NOTIFY_FD)
        }
    }
}

/// Give a child the ordinary OOM score. A failure is not worth refusing a start for.
///
/// # Safety
/// Only in a child process.
unsafe fn reset_oom_score() {
    // SAFETY: plain calls on a literal path and a literal text.
    unsafe {
        let path = c"/proc/self/oom_score_adj".as_ptr();
        let fd = libc::open(path, libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, c"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
    }
}

/// The variable's name and the equals sign.
const OWN_NUMBER: &[u8] = b"WATCHDOG_PID=";

/// The longest process id has 10 digits in 32 bits; a null follows.
const OWN_NUMBER_BYTES: usize = OWN_NUMBER.len() + 10 + 1;

/// Write `WATCHDOG_PID=` and a number, by the child itself: nobody knows its number before.
///
/// # Safety
/// The pointer must be to [`OWN_NUMBER_BYTES`] zeroes.
unsafe fn write_own_number(to: *mut u8, number: libc::pid_t) {
    let mut digits = [0_u8; 10];
    let mut first = digits.len();
    let mut left = number.unsigned_abs();
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    // SAFETY: both lengths together are below the promised size.
    unsafe {
        ptr::copy_nonoverlapping(OWN_NUMBER.as_ptr(), to, OWN_NUMBER.len());
        let digits = &digits[first..];
        ptr::copy_nonoverlapping(digits.as_ptr(), to.add(OWN_NUMBER.len()), digits.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_comes_twice_and_declared_ones_replace_the_base() {
        let text = "[component]\nname = \"a\"\nbinary = \"/bin/true\"\n[lifecycle]\nwatchdog_interval = 2\n\
                    [hotswap]\nenv_vars = [\"PATH=/opt\", \"MODE=slow\", \"MODE=fast\", \"WATCHDOG_PID=1\", \
                    \"GRAPH_COMPONENT=b\", \"NOTIFY_FD=9\"]\n";
        let component = yakiros_core::component::parse(text).component.expect("a component");
        let all = environment(&component, 7, &["NOTIFY_FD=3".to_owned()]);
        let inherited = ["LANG", "LC_ALL", "TZ", "TERM"];
        let ours: Vec<_> = all.iter().filter(|text| !inherited.contains(&name_of(text))).collect();
        let expected = [
            "PATH=/opt",
            "MODE=fast",
            "GRAPH_COMPONENT=a",
            "GRAPH_GENERATION=7",
            "NOTIFY_FD=3",
            "WATCHDOG_USEC=2000000",
        ];
        assert_eq!(ours, expected);
    }

    #[test]
    fn a_number_is_written_in_full() {
        for number in [1, 10, 4_194_304, i32::MAX] {
            let mut text = [0_u8; OWN_NUMBER_BYTES];
            // SAFETY: it has the promised size.
            unsafe { write_own_number(text.as_mut_ptr(), number) };
            let text = std::ffi::CStr::from_bytes_until_nul(&text).expect("a null");
            assert_eq!(text.to_str(), Ok(&*format!("WATCHDOG_PID={number}")));
        }
    }

    #[test]
    fn the_report_is_kept_clear_of_the_notification_descriptor() {
        // SAFETY: standard error stays open; the value is never dropped.
        let low = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(2) });
        let moved = clear_of_notify(&low).expect("a copy").expect("moved");
        assert!(moved.as_raw_fd() > NOTIFY_FD);
        assert!(clear_of_notify(&moved).expect("no error").is_none());
    }
}
