//! What a child does between its creation and exec.
//!
//! It may run in the supervisor's own memory, at the same time as the supervisor. So it makes raw system calls and
//! nothing else: the C library's would write `errno`, which is the supervisor's. It takes no lock, allocates nothing, cannot
//! panic, and writes to nothing but its stack and what the plan names as its own.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::ptr;
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::FIRST_FD;
use super::sandbox::{Op, Registers, Step, apply};

/// Steps of the child's set-up, in order. Each completes "failed to …".
const STEPS: [&str; 14] = [
    "take a table of descriptors of its own",
    "start a session",
    "reset the signal mask",
    "connect standard input to /dev/null",
    "connect standard output to the log",
    "connect standard error to the log",
    "pass the descriptors that are held for it",
    "pass the notification descriptor",
    "pass the channel for hot swaps",
    "close inherited descriptors",
    "set the limit of open files",
    "change to the directory /",
    "execute the binary",
    "wait for the maps of its user namespace",
];

/// Numbers of steps from here on are places in the list of the component's own (see [`super::sandbox`]).
const OWN_STEPS: u32 = 0x1000;

/// Set in the number of a step without which the child goes on.
const PASSED_OVER: u32 = 0x8000_0000;

/// The longest process id has 10 digits in 32 bits; a null follows.
pub const OWN_NUMBER_BYTES: usize = 10 + 1;

/// The kernel's signal mask has 64 bits.
const MASK_BYTES: usize = 8;

/// A step that did not work, by its place in [`STEPS`] or in the component's own.
struct Failure {
    step: u32,
    errno: Errno,
}

impl Failure {
    /// Tell it. It fits into a pipe that is read.
    ///
    /// # Safety
    /// Only in a child process.
    unsafe fn tell(&self, report: RawFd) {
        // The same eight bytes that `read_report` takes apart.
        let message = [self.step, self.errno.into_raw().cast_unsigned()];
        // SAFETY: the pointer is to a local.
        let _ = unsafe { syscall!(Sysno::write, report, message.as_ptr(), size_of_val(&message)) };
    }
}

/// What comes through the report pipe.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The step that did not work.
    pub step: Rc<str>,
    /// Why.
    pub errno: i32,
    /// Whether the child went on without it.
    pub passed_over: bool,
}

/// Take eight bytes of the report pipe apart. `own` are the names of the component's own steps.
pub fn read_report(bytes: &[u8], own: &[Box<str>]) -> Option<Report> {
    let (number, errno) = bytes.split_first_chunk::<4>()?;
    let number = u32::from_ne_bytes(*number);
    let errno = i32::from_ne_bytes(*errno.first_chunk::<4>()?);
    let place = number & !PASSED_OVER;
    let step = match place.checked_sub(OWN_STEPS) {
        Some(own_place) => own.get(own_place as usize)?,
        None => *STEPS.get(place as usize)?,
    };
    Some(Report { step: step.into(), errno, passed_over: number & PASSED_OVER != 0 })
}

/// What the child does, in plain values.
pub struct Plan {
    pub program: *const libc::c_char,
    pub argv: *const *const libc::c_char,
    pub environment: *const *const libc::c_char,
    /// What the component asks for beside: its start and its length.
    pub own_steps: (*const Step, usize),
    /// Permissions that files it makes do not get.
    pub umask: libc::mode_t,
    /// The limit of open files, unless a step of its own sets it.
    pub files: Option<libc::rlimit>,
    pub null: RawFd,
    pub log: RawFd,
    /// What is to be at [`FIRST_FD`] and behind: its start and its length. All of it is above whatever is passed.
    pub given: (*const RawFd, usize),
    pub notify: Option<RawFd>,
    /// The number that the notification descriptor gets.
    pub notify_at: RawFd,
    /// Above whatever is passed.
    pub handoff: Option<RawFd>,
    /// The number that the channel gets, the next after the notification descriptor's.
    pub handoff_at: RawFd,
    pub report: RawFd,
    /// Where the supervisor's table of descriptors is shared: how to get one's own.
    pub table: Option<Table>,
    /// Where the supervisor says that the user namespace is mapped.
    pub maps: Option<RawFd>,
    pub reset_oom: bool,
    /// [`OWN_NUMBER_BYTES`] each, behind a variable's name and an equals sign, for what the child writes itself: their
    /// start and their count.
    pub own_numbers: (*const *mut u8, usize),
}

/// How a child that shares the supervisor's table of descriptors takes its own (see [`super::lanes`]).
pub struct Table {
    /// Descriptors from here are not copied.
    pub beyond: libc::c_uint,
    /// Set once the child has its own.
    pub taken: *const AtomicBool,
    /// An event descriptor that is told then.
    pub wake: RawFd,
}

impl Plan {
    /// The child's whole life before exec.
    ///
    /// # Safety
    /// Only in a child process; the plan's pointers must be valid, and be nobody else's until it has executed or ended.
    pub unsafe fn run(&self) -> ! {
        // SAFETY: the pointers are valid by the caller's promise or are to locals.
        unsafe {
            if let Err(failure) = self.set_up() {
                failure.tell(self.report);
            }
            loop {
                let _ = syscall!(Sysno::exit_group, 127);
            }
        }
    }

    /// Runs the steps in the order of [`STEPS`]; returns only when one has failed.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn set_up(&self) -> Result<(), Failure> {
        let at = |step: u32| move |errno: Errno| Failure { step, errno };
        let blocked = self.blocked_signals();
        // SAFETY: as above.
        unsafe {
            self.take_table().map_err(at(0))?;
            self.await_maps().map_err(at(13))?;
            syscall!(Sysno::setsid).map_err(at(1))?;
            let (mask, none) = (&raw const blocked, ptr::null_mut::<u64>());
            syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, mask, none, MASK_BYTES).map_err(at(2))?;
            syscall!(Sysno::dup3, self.null, 0, 0).map_err(at(3))?;
            syscall!(Sysno::dup3, self.log, 1, 0).map_err(at(4))?;
            syscall!(Sysno::dup3, self.log, 2, 0).map_err(at(5))?;
            self.pass_given().map_err(at(6))?;
            self.pass_notify().map_err(at(7))?;
            if let Some(channel) = self.handoff {
                syscall!(Sysno::dup3, channel, self.handoff_at, 0).map_err(at(8))?;
            }
            self.close_others().map_err(at(9))?;
            if let Some(files) = &self.files {
                let (files, none) = (ptr::from_ref(files), ptr::null_mut::<libc::rlimit>());
                syscall!(Sysno::prlimit64, 0, libc::RLIMIT_NOFILE, files, none).map_err(at(10))?;
            }
            if self.reset_oom {
                reset_oom_score();
            }
            let _ = syscall!(Sysno::umask, self.umask);
            syscall!(Sysno::chdir, c"/".as_ptr()).map_err(at(11))?;
            self.take_own_steps()?;
            let own = syscall!(Sysno::getpid).unwrap_or(0);
            let (numbers, count) = self.own_numbers;
            let mut place = 0;
            while place < count {
                write_number(*numbers.add(place), own);
                place = place.wrapping_add(1);
            }
            syscall!(Sysno::execve, self.program, self.argv, self.environment).map_err(at(12))?;
        }
        Ok(())
    }

    /// No signal is blocked, but all for who becomes the first process of a namespace: it passes on what comes before.
    fn blocked_signals(&self) -> u64 {
        let (steps, count) = self.own_steps;
        // SAFETY: the list is alive as long as the plan.
        let steps = unsafe { slice::from_raw_parts(steps, count) };
        if steps.iter().any(|step| matches!(step.op, Op::Init)) { u64::MAX } else { 0 }
    }

    /// What the component asks for. Descriptors that are passed have their numbers by now.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn take_own_steps(&self) -> Result<(), Failure> {
        let (steps, count) = self.own_steps;
        let mut registers = Registers::new();
        let mut number = OWN_STEPS;
        // SAFETY: the list is alive as long as the plan.
        for step in unsafe { slice::from_raw_parts(steps, count) } {
            // SAFETY: this is a child process, and the list is its own.
            match unsafe { apply(&step.op, &mut registers) } {
                // SAFETY: the same.
                Err(errno) if step.optional => unsafe {
                    Failure { step: number | PASSED_OVER, errno }.tell(self.report);
                },
                done => done.map_err(|errno| Failure { step: number, errno })?,
            }
            number = number.wrapping_add(1);
        }
        Ok(())
    }

    /// Wait for the supervisor's word that its user namespace is mapped; until then it is nobody there.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn await_maps(&self) -> Result<(), Errno> {
        let Some(maps) = self.maps else { return Ok(()) };
        let mut word = 0_u8;
        // SAFETY: the pointer is to a local.
        match unsafe { syscall!(Sysno::read, maps, &raw mut word, size_of_val(&word))? } {
            0 => Err(Errno::EPIPE),
            _ => Ok(()),
        }
    }

    /// Copy what is needed of the supervisor's table of descriptors, if that is shared. Nothing may be opened, closed or
    /// duplicated before.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn take_table(&self) -> Result<(), Errno> {
        let Some(table) = &self.table else { return Ok(()) };
        let one = 1_u64;
        // SAFETY: plain calls on numbers and a local; the flag is alive as long as the plan.
        unsafe {
            syscall!(Sysno::close_range, table.beyond, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)?;
            (*table.taken).store(true, Ordering::Release);
            // It can only fail when it was told 2^64 times since the supervisor has looked.
            let _ = syscall!(Sysno::write, table.wake, &raw const one, size_of_val(&one));
        }
        Ok(())
    }

    /// Close what is not the program's, but for the report, which exec closes: what belongs to other components is not to
    /// be held by one whose exec takes long.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn close_others(&self) -> Result<(), Errno> {
        let mut first = self.notify_at;
        if self.notify.is_some() {
            first = first.wrapping_add(1);
        }
        // SAFETY: plain calls on numbers.
        unsafe {
            if self.handoff.is_some() {
                if first < self.handoff_at {
                    syscall!(Sysno::close_range, first, self.handoff_at.wrapping_sub(1), 0)?;
                }
                first = self.handoff_at.wrapping_add(1);
            }
            if self.report > first {
                syscall!(Sysno::close_range, first, self.report.wrapping_sub(1), 0)?;
            }
            syscall!(Sysno::close_range, self.report.wrapping_add(1), libc::c_uint::MAX, 0).map(drop)
        }
    }

    /// Bring what is held for the component to its numbers. None of it has one of them, nor has what comes after.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn pass_given(&self) -> Result<(), Errno> {
        let (given, count) = self.given;
        let (mut place, mut number) = (0, FIRST_FD);
        while place < count {
            // SAFETY: the place is below the count; a plain call on numbers.
            unsafe { syscall!(Sysno::dup3, *given.add(place), number, 0)? };
            (place, number) = (place.wrapping_add(1), number.wrapping_add(1));
        }
        Ok(())
    }

    /// Bring the notification descriptor to its number.
    ///
    /// # Safety
    /// As [`Plan::run`].
    unsafe fn pass_notify(&self) -> Result<(), Errno> {
        // SAFETY: plain calls on numbers. `start` makes sure that none that is needed later has
        // the number that is overwritten here.
        unsafe {
            match self.notify {
                None => Ok(()),
                Some(fd) if fd == self.notify_at => syscall!(Sysno::fcntl, fd, libc::F_SETFD, 0).map(drop),
                Some(fd) => syscall!(Sysno::dup3, fd, self.notify_at, 0).map(drop),
            }
        }
    }
}

/// Give a child the ordinary OOM score. A failure is not worth refusing a start for.
///
/// # Safety
/// Only in a child process of its own memory: the score is that of all who have the memory.
unsafe fn reset_oom_score() {
    const PATH: &CStr = c"/proc/self/oom_score_adj";
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: plain calls on a literal path and a literal text.
    unsafe {
        if let Ok(fd) = syscall!(Sysno::openat, libc::AT_FDCWD, PATH.as_ptr(), flags) {
            let _ = syscall!(Sysno::write, fd, c"0".as_ptr(), 1);
            let _ = syscall!(Sysno::close, fd);
        }
    }
}

/// Write a number, by the child itself: nobody knows its number before.
///
/// # Safety
/// The pointer must be to [`OWN_NUMBER_BYTES`] zeroes, and the number below 2^32.
unsafe fn write_number(to: *mut u8, number: usize) {
    let mut digits = 1;
    let mut left = number / 10;
    while left > 0 {
        digits += 1;
        left /= 10;
    }
    left = number;
    // SAFETY: there are at most ten digits.
    unsafe {
        let mut at = to.add(digits);
        for _ in 0..digits {
            at = at.sub(1);
            at.write(b'0' + (left % 10) as u8);
            left /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_full() {
        for number in [1, 9, 10, 4_194_304, i32::MAX as usize, u32::MAX as usize] {
            let mut text = [0_u8; OWN_NUMBER_BYTES];
            // SAFETY: it has the promised size.
            unsafe { write_number(text.as_mut_ptr(), number) };
            let text = CStr::from_bytes_until_nul(&text).expect("a null");
            assert_eq!(text.to_str(), Ok(&*number.to_string()));
        }
    }
}
