//! Takes one step, in the child.
//!
//! Raw system calls and nothing else: see [`super::super::child`]. Indexing that could panic is not used, and sums wrap.

mod account;
mod clock;
mod filter;
mod init;
mod landlock;
mod mount;
mod network;
mod privilege;
mod secret;

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::ptr;

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::op::{GROUPS_LIMIT, Op, SOURCES_LIMIT};

pub use secret::SECRET_LIMIT;

/// What one step finds and another takes.
pub struct Registers {
    user: u32,
    group: u32,
    groups: [u32; GROUPS_LIMIT],
    /// How many of them are found.
    count: usize,
    /// The connection to the kernel's interfaces.
    links: RawFd,
    /// The number of one of them.
    link: i32,
    /// The root from before a new one.
    old_root: RawFd,
    /// What was opened before anything was mounted.
    sources: [RawFd; SOURCES_LIMIT],
    /// How many of them are open.
    opened: usize,
    /// Of Landlock, under way.
    ruleset: RawFd,
    /// What it forbids.
    rights: u64,
}

impl Registers {
    /// Nothing is found yet.
    pub fn new() -> Self {
        // What stands for "as it is" to setresuid(2).
        let as_it_is = u32::MAX;
        Self {
            user: as_it_is,
            group: as_it_is,
            groups: [as_it_is; GROUPS_LIMIT],
            count: 0,
            links: -1,
            link: 0,
            old_root: -1,
            sources: [-1; SOURCES_LIMIT],
            opened: 0,
            ruleset: -1,
            rights: 0,
        }
    }

    /// One that could not be opened has its place all the same, for those that come after.
    fn add_source(&mut self, found: Result<RawFd, Errno>) -> Result<(), Errno> {
        let place = self.sources.get_mut(self.opened).ok_or(Errno::E2BIG)?;
        self.opened = self.opened.wrapping_add(1);
        *place = found?;
        Ok(())
    }

    fn source(&self, number: usize) -> Result<RawFd, Errno> {
        self.sources.get(number).copied().filter(|fd| *fd >= 0).ok_or(Errno::EBADF)
    }

    fn add_group(&mut self, group: u32) -> Result<(), Errno> {
        let place = self.groups.get_mut(self.count).ok_or(Errno::E2BIG)?;
        *place = group;
        self.count = self.count.wrapping_add(1);
        Ok(())
    }
}

/// Take a step.
///
/// # Safety
/// Only in a child process; the operation must be nobody else's meanwhile.
pub unsafe fn apply(op: &Op, registers: &mut Registers) -> Result<(), Errno> {
    // SAFETY: plain calls on what the operation owns and on locals.
    unsafe {
        match op {
            Op::User(user) => (registers.user, registers.group) = (*user, *user),
            Op::FindUser(name) => {
                (registers.user, registers.group) = account::find(account::USERS, name)?;
            }
            Op::Group(group) => registers.group = *group,
            Op::FindGroup(name) => registers.group = account::find(account::GROUPS, name)?.0,
            Op::OtherGroup(group) => registers.add_group(*group)?,
            Op::FindOtherGroup(name) => registers.add_group(account::find(account::GROUPS, name)?.0)?,
            Op::Own(path) => {
                let (user, group) = (registers.user, registers.group);
                let flags = libc::AT_SYMLINK_NOFOLLOW;
                syscall!(Sysno::fchownat, libc::AT_FDCWD, path.as_ptr(), user, group, flags)?;
            }
            Op::Unshare(flags) => drop(syscall!(Sysno::unshare, *flags)?),
            Op::Write { path, text } => write_file(path, text)?,
            Op::HostName(name) => drop(syscall!(Sysno::sethostname, name.as_ptr(), name.count_bytes())?),
            Op::OpenLinks => network::open(registers)?,
            Op::FindLink(name) => network::find(name, registers)?,
            Op::Link(message) => network::send(message, registers)?,
            Op::RaiseLink(name) => network::raise(name)?,
            Op::Limit { resource, limit } => {
                let none = ptr::null_mut::<libc::rlimit>();
                syscall!(Sysno::prlimit64, 0, *resource, ptr::from_ref(limit), none)?;
            }
            Op::Nice(nice) => drop(syscall!(Sysno::setpriority, libc::PRIO_PROCESS, 0, *nice)?),
            Op::Schedule { policy, priority } => {
                let parameter = libc::sched_param { sched_priority: *priority };
                syscall!(Sysno::sched_setscheduler, 0, *policy, &raw const parameter)?;
            }
            Op::IoPriority(priority) => drop(syscall!(Sysno::ioprio_set, WHO_PROCESS, 0, *priority)?),
            Op::Affinity(mask) => {
                syscall!(Sysno::sched_setaffinity, 0, size_of_val(mask.as_slice()), mask.as_ptr())?;
            }
            Op::Directory(path) => drop(syscall!(Sysno::chdir, path.as_ptr())?),
            Op::Forbid(set) => privilege::forbid(*set)?,
            Op::KeepCapabilities => drop(syscall!(Sysno::prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0)?),
            Op::SecureBits(bits) => drop(syscall!(Sysno::prctl, libc::PR_SET_SECUREBITS, *bits, 0, 0, 0)?),
            Op::SetGroups => drop(syscall!(Sysno::setgroups, registers.count, registers.groups.as_ptr())?),
            Op::SetGroup => {
                let group = registers.group;
                syscall!(Sysno::setresgid, group, group, group)?;
            }
            Op::SetUser => {
                let user = registers.user;
                syscall!(Sysno::setresuid, user, user, user)?;
            }
            Op::Capabilities { keep, inheritable } => privilege::limit(*keep, *inheritable)?,
            Op::Ambient(set) => privilege::raise_ambient(*set)?,
            Op::NoNewPrivileges => drop(syscall!(Sysno::prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?),
            Op::PrivateMounts => mount::make_private()?,
            Op::MakeDirectory(path) => {
                let _ = syscall!(Sysno::mkdirat, libc::AT_FDCWD, path.as_ptr(), 0o755);
            }
            Op::Mount { kind, target, flags, data } => mount::mount(kind, target, *flags, data)?,
            Op::EnterRoot { path, read_only } => mount::enter_root(path, *read_only, registers)?,
            Op::LeaveOldRoot => mount::leave_old_root(registers)?,
            Op::Tree(path) => registers.add_source(mount::tree(path))?,
            Op::Source { path, flags } => {
                let flags = *flags | libc::O_CLOEXEC;
                let found = syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags).map(descriptor);
                registers.add_source(found)?;
            }
            Op::Bind { source, target, read_only } => {
                mount::bind(registers.source(*source)?, target, *read_only)?;
            }
            Op::ReadOnly(path) => mount::make_read_only(path)?,
            Op::Seal(path) => mount::seal(path)?,
            Op::Hide { path, null } => mount::hide(path, registers.source(*null)?)?,
            Op::Secret { source, target } => secret::copy(registers.source(*source)?, target, registers)?,
            Op::LandlockBegin(rights) => landlock::begin(*rights, registers)?,
            Op::LandlockAllow { path, access } => landlock::allow(path, *access, registers)?,
            Op::LandlockRestrict => landlock::restrict(registers)?,
            Op::BecomeRoot => {
                syscall!(Sysno::setresgid, 0, 0, 0)?;
                syscall!(Sysno::setresuid, 0, 0, 0)?;
            }
            Op::EnterTime => clock::enter()?,
            Op::Init => init::begin()?,
            Op::Filter(filter) => filter::install(filter)?,
        }
    }
    Ok(())
}

/// `IOPRIO_WHO_PROCESS` of ioprio_set(2).
const WHO_PROCESS: libc::c_int = 1;

/// A descriptor as a system call returns it.
fn descriptor(result: usize) -> RawFd {
    RawFd::try_from(result).unwrap_or(-1)
}

/// Write a text to a file that exists, in one call: the kernel's take it as a whole.
///
/// # Safety
/// Only in a child process.
unsafe fn write_file(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: plain calls on what the caller has.
    unsafe {
        let fd = descriptor(syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags)?);
        let written = syscall!(Sysno::write, fd, text.as_ptr(), text.len());
        let _ = syscall!(Sysno::close, fd);
        written.map(drop)
    }
}
