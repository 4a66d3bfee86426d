//! Starts one process: everything is prepared before the child exists, so that the child makes
//! nothing but plain system calls, and every step that can fail is reported with its errno.
//! Most children run in the supervisor's own memory until they execute (see [`loan`]).
//!
//! The child gets: its own session, default signals and an empty mask, its cgroup from birth,
//! 0 = `/dev/null`, 1 and 2 = its log, from 3 on what is held for it (`LISTEN_FDS`), behind that the notification
//! descriptor and the channel for hot swaps if it asked for one, and no other descriptor; `/` as working directory and umask
//! 022 if it did not ask for others, its limits, what [`sandbox`] makes of its isolation, and a fresh environment, in
//! which no name comes twice: what is declared replaces the base, and what the supervisor says of
//! the process itself replaces both.

mod child;
mod clone;
mod lanes;
mod loan;
mod maps;
mod sandbox;
mod stacks;

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;
use yakiros_core::component::{Command, Component, Isolation, Namespace};
use yakiros_core::journal::Exit;

use crate::sys;
use lanes::Lane;
use loan::Launch;
use maps::Maps;

pub use child::{Report, read_report};
pub use lanes::prepare as prepare_lanes;
pub use loan::Loan;
pub use sandbox::{NotCompiled, Steps, names as step_names};

/// Permissions that files of a component do not get by which nothing else is declared.
const UMASK: libc::mode_t = 0o022;

/// Search path of components; the supervisor itself may have been started without one.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first number that a child gets besides input, output and error: where what is held for it begins
/// (`SD_LISTEN_FDS_START`).
pub const FIRST_FD: RawFd = 3;

/// The number of the notification descriptor in a child that is given so many descriptors.
pub fn notify_fd(given: usize) -> RawFd {
    FIRST_FD.saturating_add(RawFd::try_from(given).unwrap_or(RawFd::MAX))
}

/// The number of the channel for hot swaps in a child that is given so many descriptors.
pub fn handoff_fd(given: usize) -> RawFd {
    notify_fd(given).saturating_add(1)
}

/// Everything the child needs, allocated by the parent.
pub struct Image {
    program: CString,
    argv: Vec<CString>,
    environment: Vec<CString>,
    /// What it does to itself before exec.
    steps: Steps,
    umask: libc::mode_t,
    /// A step sets the limit of open files, from the supervisor's own one.
    limits_files: bool,
    namespaces: u64,
    /// Of its user namespace.
    maps: Option<Maps>,
    /// Where the child hears that they hold.
    mapped: Option<RawFd>,
    /// Variables that have the child's own number as their value, which it writes itself.
    own_numbers: Vec<&'static str>,
    /// Whether the child may run in the supervisor's memory.
    shares_memory: bool,
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
    /// What is held for the component, to be at [`FIRST_FD`] and behind.
    pub given: &'a [RawFd],
    /// Readiness by `NOTIFY_FD`.
    pub notify: Option<&'a OwnedFd>,
    /// The channel for hot swaps.
    pub handoff: Option<&'a OwnedFd>,
    /// Closed by a successful exec; a failure is written to it.
    pub report: &'a OwnedFd,
    /// The cgroup to be born in.
    pub cgroup: Option<&'a OwnedFd>,
}

impl Image {
    /// Prepare the start of a component.
    pub fn new(component: &Component, generation: u64, extra: &[String], steps: Steps) -> io::Result<Self> {
        let mut words = vec![component.binary.as_str()];
        words.extend(component.args.iter().map(String::as_str));
        let own_numbers = own_numbers(component, extra);
        let mut environment = environment(component, generation, extra);
        environment.retain(|text| !own_numbers.contains(&name_of(text)));
        Ok(Self {
            program: c_string(&component.binary)?,
            argv: words.into_iter().map(c_string).collect::<Result<_, _>>()?,
            environment: c_strings(&environment)?,
            steps,
            umask: component.environment.umask.unwrap_or(UMASK),
            limits_files: component.resources.files_max.is_some(),
            namespaces: clone_flags(&component.isolation),
            maps: Maps::of(&component.isolation),
            mapped: None,
            own_numbers,
            shares_memory: may_share_memory(component),
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
            steps: Steps::new(),
            umask: UMASK,
            limits_files: false,
            namespaces: 0,
            maps: None,
            mapped: None,
            own_numbers: Vec::new(),
            shares_memory: false,
        })
    }
}

/// What the child of a component does to itself before exec; these parts of its control group are given to its user.
pub fn steps(component: &Component, given: &[PathBuf]) -> Result<Steps, NotCompiled> {
    sandbox::compile(component, given, sandbox::Kernel::own())
}

/// Whether nothing that becomes of the child before exec becomes of the supervisor, too. The kernel ends all who have the
/// memory of a process that it ends for want of memory, but for process 1 of the machine. A score of the OOM killer is
/// written for all of them. And with a change of the user all of them lose the right to be looked at (`PR_SET_DUMPABLE`),
/// or, where `fs.suid_dumpable` is 1, do not, and others of that user could look at the supervisor. So could a process with
/// few capabilities at the memory of one that has as few.
fn may_share_memory(component: &Component) -> bool {
    let security = &component.security;
    let changes_rights = security.has_account() || security.capabilities.is_some();
    let is_scored = component.resources.process.oom_score_adjust.is_some();
    let alone = component.resources.memory_max.is_none() && component.cgroup() == component.name;
    let isolation = &component.isolation;
    // The kernel lets nobody into a time namespace who shares memory, and a first process stays in it.
    let is_apart = isolation.has(Namespace::User) || isolation.has(Namespace::Time) || isolation.init;
    alone && !changes_rights && !is_scored && !is_apart
}

/// The variables of a component's process, each name once.
fn environment(component: &Component, generation: u64, extra: &[String]) -> Vec<String> {
    let mut all = base_environment();
    all.extend(component.hotswap.env_vars.iter().filter_map(|text| variable(text)));
    all.extend(component.environment.variables.iter().filter_map(|text| variable(text)));
    if !component.isolation.secrets.is_empty() {
        all.push(format!("CREDENTIALS_DIRECTORY={}", sandbox::SECRETS));
    }
    all.push(format!("GRAPH_COMPONENT={}", component.name));
    all.push(format!("GRAPH_GENERATION={generation}"));
    all.extend_from_slice(extra);
    if let Some(interval) = component.lifecycle.watchdog {
        all.push(format!("WATCHDOG_USEC={}", interval.as_micros()));
    }
    let mut seen = HashSet::new();
    let last: Vec<bool> = all.iter().rev().map(|text| seen.insert(name_of(text).to_owned())).collect();
    let mut last = last.into_iter().rev();
    all.retain(|_| last.next().unwrap_or(true));
    all
}

/// Variables that the child writes: whose watchdog is meant, and whose descriptors.
fn own_numbers(component: &Component, extra: &[String]) -> Vec<&'static str> {
    let given = extra.iter().any(|text| name_of(text) == "LISTEN_FDS");
    let numbers = [component.lifecycle.watchdog.map(|_| "WATCHDOG_PID"), given.then_some("LISTEN_PID")];
    numbers.into_iter().flatten().collect()
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

/// Namespaces that clone itself gives.
fn clone_flags(isolation: &Isolation) -> u64 {
    isolation
        .namespaces
        .iter()
        .map(|namespace| match namespace {
            Namespace::Mount => libc::CLONE_NEWNS as u64,
            Namespace::Pid => libc::CLONE_NEWPID as u64,
            Namespace::Uts => libc::CLONE_NEWUTS as u64,
            Namespace::Ipc => libc::CLONE_NEWIPC as u64,
            // The child takes these itself. To make a network the kernel may have to wait for others that change one.
            Namespace::Cgroup | Namespace::Time | Namespace::Net => 0,
            Namespace::User => libc::CLONE_NEWUSER as u64,
        })
        .fold(0, |all, flag| all | flag)
}

/// What a command that was run to ask something answers: an exit status of 0, or why not.
pub fn outcome(key: &str, report: Option<&OwnedFd>, exit: Exit) -> Result<(), Rc<str>> {
    let mut buffer = [0_u8; 8];
    let failure = match report.map(|report| sys::read_now(report, &mut buffer)) {
        Some(Ok(Some(count))) => read_report(&buffer[..count], &[]),
        _ => None,
    };
    match (failure, exit) {
        (Some(Report { step, errno, .. }), _) => {
            let error = io::Error::from_raw_os_error(errno);
            Err(format!("{key}: failed to {step}: {error}").into())
        }
        (None, Exit::Code(0)) => Ok(()),
        (None, exit) => Err(format!("{key} {exit}").into()),
    }
}

/// A process that was created. How far it came is told by the report pipe.
pub struct Started {
    /// Its id.
    pub pid: i32,
    /// What it uses until it has executed or ended.
    pub loan: Option<Loan>,
}

/// Create the process.
pub fn start(mut image: Image, fds: &Descriptors<'_>, common: &Common) -> io::Result<Started> {
    // The numbers that the child's descriptors get may be free in the supervisor, and then be those of
    // what it needs after that. The copies go when the child has its own.
    let beyond = handoff_fd(fds.given.len());
    let moved = clear_of(beyond, fds.report)?;
    let report = moved.as_ref().unwrap_or(fds.report);
    let channel = fds.handoff.map(|fd| clear_of(beyond, fd)).transpose()?.flatten();
    let notify = fds.notify.filter(|_| !fds.given.is_empty());
    let notify = notify.map(|fd| clear_of(beyond, fd)).transpose()?.flatten();
    let copies = fds.given.iter().filter(|fd| **fd <= beyond);
    let copies = copies.map(|fd| copy_above(beyond, *fd)).collect::<io::Result<Vec<_>>>()?;
    let mut copied = copies.iter().map(AsRawFd::as_raw_fd);
    let given: Vec<_> =
        fds.given.iter().filter_map(|fd| if *fd <= beyond { copied.next() } else { Some(*fd) }).collect();
    let maps = image.maps.take();
    // The child has nothing else to do than to wait for it.
    let word = maps.as_ref().map(|_| pipe2(OFlag::O_CLOEXEC)).transpose()?;
    image.mapped = word.as_ref().map(|(read, _)| read.as_raw_fd());
    let fds = &Descriptors {
        handoff: channel.as_ref().or(fds.handoff),
        notify: notify.as_ref().or(fds.notify),
        given: &given,
        ..*fds
    };
    // A score that is written is that of all who have the memory.
    let shares = image.shares_memory && !common.oom_lowered;
    let namespaces = image.namespaces;
    // A lane has no place for a channel of hot swaps and for what is held: few components have either.
    let plain = fds.handoff.is_none() && fds.given.is_empty();
    let lane = if shares && plain { Lane::take(fds) } else { None };
    let launch = Launch::new(image, fds, report, common, lane);
    if shares {
        return launch.lend(fds.cgroup, namespaces);
    }
    // SAFETY: the child calls `Plan::run` at once, which makes plain system calls on what the
    // parent prepared, allocates nothing and never returns.
    match unsafe { sys::clone_child(fds.cgroup, namespaces) }? {
        // SAFETY: this is the child of the clone above; the pointers of the plan are alive, for
        // it has a copy of the parent's memory.
        0 => unsafe { launch.plan().run() },
        pid => {
            if let (Some(maps), Some((_, word))) = (maps, word) {
                maps.write(pid, word)?;
            }
            Ok(Started { pid, loan: None })
        }
    }
}

/// A copy of a descriptor above `beyond`, up to which numbers are passed, if it is not above already.
fn clear_of(beyond: RawFd, fd: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let low = fd.as_raw_fd() <= beyond;
    low.then(|| copy_above(beyond, fd.as_raw_fd())).transpose()
}

fn copy_above(beyond: RawFd, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call has no effect but a new descriptor, which nobody else owns.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, beyond.saturating_add(1)) {
            copy @ 0.. => Ok(OwnedFd::from_raw_fd(copy)),
            _ => Err(io::Error::last_os_error()),
        }
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
        let extra = ["NOTIFY_FD=3", "LISTEN_FDS=2"].map(str::to_owned);
        let own_numbers = own_numbers(&component, &extra);
        assert_eq!(own_numbers, ["WATCHDOG_PID", "LISTEN_PID"]);
        let mut all = environment(&component, 7, &extra);
        all.retain(|text| !own_numbers.contains(&name_of(text)));
        let inherited = ["LANG", "LC_ALL", "TZ", "TERM"];
        let ours: Vec<_> = all.iter().filter(|text| !inherited.contains(&name_of(text))).collect();
        let expected = [
            "PATH=/opt",
            "MODE=fast",
            "GRAPH_COMPONENT=a",
            "GRAPH_GENERATION=7",
            "NOTIFY_FD=3",
            "LISTEN_FDS=2",
            "WATCHDOG_USEC=2000000",
        ];
        assert_eq!(ours, expected);
    }

    #[test]
    fn who_has_fewer_rights_than_the_supervisor_does_not_share_its_memory() {
        let shares = |more: &str| {
            let text = format!("[component]\nname = \"a\"\nbinary = \"/bin/true\"\n{more}");
            may_share_memory(&yakiros_core::component::parse(&text).component.expect("a component"))
        };
        assert!(shares("") && shares("[isolation]\nnamespaces = [\"mount\", \"pid\"]\n"));
        for more in ["capabilities = []", "user = 33", "groups = [7]"] {
            assert!(!shares(&format!("[security]\n{more}\n")), "{more}");
        }
    }

    #[test]
    fn the_report_is_kept_clear_of_what_is_passed() {
        const HANDOFF: RawFd = 4;
        assert_eq!([notify_fd(0), handoff_fd(0), notify_fd(2), handoff_fd(2)], [3, HANDOFF, 5, 6]);
        // SAFETY: standard error stays open; the value is never dropped.
        let low = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(2) });
        let moved = clear_of(HANDOFF, &low).expect("a copy").expect("moved");
        assert!(moved.as_raw_fd() > HANDOFF);
        assert!(clear_of(HANDOFF, &moved).expect("no error").is_none());
    }
}
