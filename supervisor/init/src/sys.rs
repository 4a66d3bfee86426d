//! The system calls that no library wraps, each behind one safe function.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A pipe whose ends are closed by exec; the reading end does not block.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_RDONLY | OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Descriptors for pipes, logs and clients of several thousand components. Numbers are given out
/// from the lowest, so those in use lie below.
pub const FILES_WANTED: u64 = 65_536;

/// Whether a number is that of the reading end of a pipe as [`pipe`] makes it. Async-signal-safe.
pub fn is_reading_pipe(fd: libc::c_int) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the calls change nothing, and the structure is read only when it was filled.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let reads = flags >= 0 && flags & libc::O_ACCMODE == libc::O_RDONLY && flags & libc::O_NONBLOCK != 0;
        reads
            && libc::fstat(fd, stat.as_mut_ptr()) == 0
            && stat.assume_init().st_mode & libc::S_IFMT == libc::S_IFIFO
    }
}

/// Close everything but some descriptors, given in rising order. Async-signal-safe.
///
/// # Safety
/// Only in a child process that uses no other descriptor of its parent's.
pub unsafe fn close_all_but(kept: &[libc::c_int]) {
    let mut first = 0;
    for fd in kept.iter().filter_map(|fd| libc::c_uint::try_from(*fd).ok()) {
        if fd > first {
            // SAFETY: a call on numbers.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

/// A descriptor of a process that is not reaped.
pub fn process_descriptor(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a call on numbers; a descriptor that is returned is new.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// A copy of a descriptor that a process has under this number. The process must be a child, or below one.
pub fn descriptor_of(pid: i32, number: RawFd) -> io::Result<OwnedFd> {
    let process = process_descriptor(pid)?;
    // SAFETY: a call on numbers; a descriptor that is returned is new, and is closed by exec.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Whether a process has a handler for a signal, or waits for it: sent to one that has neither it could be the end of it.
pub fn handles(pid: i32, signal: Signal) -> bool {
    let status = read_small(std::path::Path::new(&format!("/proc/{pid}/status")));
    status.is_ok_and(|status| is_handled(&status, signal))
}

fn is_handled(status: &str, signal: Signal) -> bool {
    // Sets of signals, as the kernel writes them: bits from signal 1 on, in hexadecimal.
    let set = |name| {
        let text = status.lines().find_map(|line| line.strip_prefix(name));
        text.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
    };
    let bit = |signal: i32| 1_u64 << (signal - 1);
    let (caught, blocked) = (set("SigCgt:"), set("SigBlk:"));
    // Who waits for a signal has it blocked. But a C library blocks all for a moment while it forks, its own ones among
    // them, which no program blocks.
    let waits = blocked & bit(OF_THE_C_LIBRARY) == 0 && blocked & bit(signal as i32) != 0;
    waits || caught & bit(signal as i32) != 0
}

/// The first real-time signal, which glibc and musl both keep to themselves (signal(7)): `sigfillset` leaves it out.
const OF_THE_C_LIBRARY: i32 = 32;

/// Have the kernel refuse messages with descriptors to a socket, and to those that it accepts: the last
/// close of one takes as long as its sender likes. Only Linux since 6.16 can (`SO_PASSRIGHTS`).
pub fn refuse_descriptors(socket: impl AsFd) -> io::Result<()> {
    take_descriptors(socket, false)
}

/// The same, or have them taken again.
pub fn take_descriptors(socket: impl AsFd, take: bool) -> io::Result<()> {
    /// As in the kernel's `asm-generic/socket.h`.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let take = libc::c_int::from(take);
    let size = size_of_val(&take) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a local of that size.
    let done =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const take).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's version, its first two numbers; `None` if it does not begin with them.
pub fn kernel_version() -> Option<(u32, u32)> {
    let mut names = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the pointer is to a local that the call fills; zero is valid for it.
    let names = unsafe {
        libc::uname(names.as_mut_ptr());
        names.assume_init()
    };
    // SAFETY: the kernel ends it with a zero, as the array was filled with before.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    two_numbers(release.to_str().ok()?)
}

fn two_numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|sign: char| !sign.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A timer by the monotonic clock, to be set with [`set_timer`] and watched.
pub fn timer() -> io::Result<OwnedFd> {
    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
    Ok(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?.into())
}

/// Have a timer expire once when the monotonic clock says `at`, or at once if it has, and no more for what it was set to
/// before.
pub fn set_timer(timer: impl AsFd, at: Duration) -> io::Result<()> {
    // Zero would stop it.
    let at = at.max(Duration::from_nanos(1));
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // What lies beyond the clock's end does not come.
    let seconds = libc::time_t::try_from(at.as_secs()).unwrap_or(libc::time_t::MAX);
    let value = libc::timespec { tv_sec: seconds, tv_nsec: libc::c_long::from(at.subsec_nanos()) };
    let expiration = libc::itimerspec { it_interval: never, it_value: value };
    let fd = timer.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a local; the old value is not asked for.
    match unsafe {
        libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &raw const expiration, ptr::null_mut())
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Wait for a descriptor to become readable in the event loop.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same open descriptor and closes it only when dropped,
    // which is after the registration, for the `AsyncFd` owns both.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(Into::into)
}

/// Read what is there. `None` when there is nothing now, `Some(0)` at the end.
pub fn read_now(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match nix::unistd::read(fd.as_fd(), buffer) {
            Ok(count) => return Ok(Some(count)),
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// End a child, and the group that it leads by now. It must not be reaped yet, so that the number is its own.
pub fn end_child(pid: Pid) {
    let _ = killpg(pid, Signal::SIGKILL);
    // Before setsid there is no group of that number.
    let _ = kill(pid, Signal::SIGKILL);
}

/// Bytes that wait in a pipe.
pub fn unread(pipe: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the pointer is to a local of the type that this call fills.
    let done = unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if done == 0 { Ok(usize::try_from(count).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// The monotonic clock.
pub fn now() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// The wall clock: the time since 1970 (zero if it stands before that), without leap seconds.
pub fn wall_clock() -> Duration {
    clock(libc::CLOCK_REALTIME)
}

/// The wall clock's time at the zero of the monotonic clock, in milliseconds.
pub fn origin_ms() -> i64 {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    ms(wall_clock()) - ms(now())
}

/// A time since 1970 by the calendar, in UTC.
pub fn utc(seconds: u64) -> libc::tm {
    let seconds = libc::time_t::try_from(seconds).unwrap_or(0);
    let mut date = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; what it does not fill is zero, which is valid
    // for every field.
    unsafe {
        libc::gmtime_r(&raw const seconds, date.as_mut_ptr());
        date.assume_init()
    }
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec; the call has no other effect.
    let result = unsafe { libc::clock_gettime(id, &raw mut time) };
    debug_assert_eq!(result, 0, "both clocks always exist");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Give every signal its default effect: what the parent of this process ignored would be
/// ignored by every component too. The kernel is asked directly, for the C library keeps two
/// signals to itself.
pub fn default_signals() {
    /// As in the kernel: handler, flags, restorer and mask, all of them zero.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    const SIGNALS: libc::c_int = 64;
    for signal in 1..=SIGNALS {
        // SAFETY: the structure is at least as long as the kernel's and zero is its default; the
        // signals that cannot be set are refused. No handler is taken away that is needed.
        unsafe {
            let none = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), none, MASK_BYTES);
        }
    }
}

/// All signals but those that report a fault of this very process.
pub fn block_signals() -> io::Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set; the others get an initialised one. The mask of
    // this thread changes, which is what the function is for, and there is no other thread.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for fault in FAULTS {
            libc::sigdelset(set.as_mut_ptr(), *fault);
        }
        if libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(set.assume_init())
    }
}

/// Signals that the kernel sends for a fault of the running instruction.
pub const FAULTS: &[libc::c_int] =
    &[libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

/// A descriptor from which the signals of `set` are read.
pub fn signalfd(set: &libc::sigset_t) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised; -1 asks for a new descriptor, which nobody else owns.
    unsafe {
        let fd = libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// One signal read from a signalfd.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// The sender's process id, 0 when it was the kernel.
    pub sender: i32,
}

/// Read one pending signal.
pub fn read_signal(fd: impl AsFd) -> io::Result<Option<Received>> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buffer = [0_u8; SIZE];
    match read_now(fd, &mut buffer)? {
        Some(SIZE) => {
            // SAFETY: the kernel filled the whole structure, which is plain data.
            let info: libc::signalfd_siginfo = unsafe { ptr::read_unaligned(buffer.as_ptr().cast()) };
            Ok(Some(Received { signal: info.ssi_signo as i32, sender: info.ssi_pid as i32 }))
        }
        _ => Ok(None),
    }
}

/// Flags of `clone3` beyond 32 bits, for which libc's constants are too narrow.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// See [`CLONE_CLEAR_SIGHAND`].
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What `clone3` is asked for: a child with all signal handlers at their default, in `cgroup` from birth if given, and what
/// `flags` say.
pub fn clone_args(cgroup: Option<&OwnedFd>, flags: u64) -> libc::clone_args {
    // SAFETY: plain numbers, of which zero means nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_CLEAR_SIGHAND | flags;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    args
}

/// Create a child with a copy of this memory (see [`clone_args`]). Returns its process id in the parent and 0 in the child,
/// like `fork`.
///
/// # Safety
/// The child may only make async-signal-safe calls until exec or exit.
pub unsafe fn clone_child(cgroup: Option<&OwnedFd>, namespaces: u64) -> io::Result<libc::pid_t> {
    let args = clone_args(cgroup, namespaces);
    // SAFETY: the structure is complete and its size is given; without a stack and CLONE_VM the
    // child runs on a copy of this one. What the child may do is the caller's promise.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pid as libc::pid_t)
}

/// Read a small file of the kernel's (`/proc`, `/sys`) into a text.
pub fn read_small(path: &std::path::Path) -> io::Result<String> {
    /// Far above any of the files read this way; they are one page at most.
    const LIMIT: u64 = 1024 * 1024;
    let mut text = String::new();
    File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// What a descriptor is, as one of `S_IFMT`.
pub fn kind_of(fd: impl AsFd) -> io::Result<libc::mode_t> {
    Ok(nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT)
}

/// The file of a bound socket, whatever its name is by now: see `SIOCUNIXFILE` in unix(7)'s kernel
/// sources. Needs CAP_NET_ADMIN.
pub fn socket_file(socket: impl AsFd) -> io::Result<OwnedFd> {
    /// `SIOCPROTOPRIVATE`, the first that is a protocol's own.
    const SIOCUNIXFILE: u64 = 0x89E0;
    // SAFETY: the call takes no argument; a descriptor that is returned is new.
    unsafe {
        let fd = libc::ioctl(socket.as_fd().as_raw_fd(), SIOCUNIXFILE as _, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Have a descriptor closed by exec, or not.
pub fn set_close_on_exec(fd: RawFd, close: bool) -> io::Result<()> {
    // SAFETY: a call on two numbers that changes nothing but this flag.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, if close { libc::FD_CLOEXEC } else { 0 }) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A file in memory that can be sealed.
pub fn memory_file(name: &CStr) -> io::Result<File> {
    // SAFETY: the name is a C string; the descriptor is new and nobody else owns it.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from_raw_fd(fd))
    }
}

/// Seals without which a state is not taken: nobody can have changed it since it was written.
const SEALS: libc::c_int = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Let nobody change a file in memory any more, whoever has it open.
pub fn seal(file: &File) -> io::Result<()> {
    // SAFETY: a call on an open descriptor.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether nobody can change it any more.
pub fn is_sealed(file: &File) -> bool {
    // SAFETY: a call on an open descriptor. A negative answer has all bits set, the sign's too.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & SEALS == SEALS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_signal_handles_it_and_who_forks_does_not() {
        let handles = |blocked: u64, caught: u64| {
            let status =
                format!("Name:\ta\nSigBlk:\t{blocked:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{caught:016x}\n", 0);
            is_handled(&status, Signal::SIGUSR1)
        };
        let usr1 = 1 << (Signal::SIGUSR1 as i32 - 1);
        assert!(handles(usr1, 0) && handles(0, usr1) && handles(u64::MAX, usr1));
        assert!(!handles(0, 0) && !handles(!usr1, !usr1));
        // `sigfillset` of glibc, and what is blocked for a fork, as the kernel shows them: without SIGKILL and SIGSTOP.
        assert!(handles(0xffff_fffe_7ffb_feff, 0));
        assert!(!handles(0xffff_ffff_fffb_feff, 0));
    }

    #[test]
    fn a_kernel_tells_its_version() {
        for (release, numbers) in [
            ("6.18.44-fc-v669", (6, 18)),
            ("6.1.0-49-amd64", (6, 1)),
            ("7.0", (7, 0)),
            ("10.12-rc1", (10, 12)),
        ] {
            assert_eq!(two_numbers(release), Some(numbers), "{release}");
        }
        assert!(two_numbers("linux").is_none() && two_numbers("6").is_none());
        assert!(kernel_version() > Some((3, 0)));
    }

    #[test]
    fn a_child_is_ended_with_the_group_that_it_leads_if_it_does() {
        use std::io::{BufRead as _, BufReader, Read as _};
        use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
        use std::process::{Command, Stdio};
        // Each ends by itself, and not by a signal; the child of the second has something to say then.
        let scripts = ["echo begun; exec sleep 30", "{ echo begun; sleep 30; echo survived; } & wait"];
        for (own_group, script) in [false, true].into_iter().zip(scripts) {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::null());
            if own_group {
                command.process_group(0);
            }
            let mut child = command.spawn().expect("a shell");
            let mut output = BufReader::new(child.stdout.take().expect("its output"));
            let mut said = String::new();
            output.read_line(&mut said).expect("its output");
            assert_eq!(said, "begun\n");
            end_child(Pid::from_raw(i32::try_from(child.id()).expect("a process id")));
            assert_eq!(child.wait().expect("its end").signal(), Some(libc::SIGKILL));
            output.read_to_string(&mut said).expect("the end of its output");
            assert_eq!(said, "begun\n", "whether it leads a group: {own_group}");
        }
    }
}
