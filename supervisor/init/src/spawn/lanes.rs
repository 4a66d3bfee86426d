//! Low descriptors that are lent to children, so that a child copies a short table of descriptors and not the whole.
//!
//! With a clone the kernel copies the table of its caller, and exec closes all of it again: with a thousand components
//! that is most of what a start takes. A child that runs in the supervisor's memory shares the table instead, and as its
//! first act takes a copy of the part below a number (`CLOSE_RANGE_UNSHARE`, close_range(2)). What it needs lies below.
//!
//! What makes that safe:
//! - Until it has a table of its own the child opens, closes and duplicates nothing.
//! - A lane is lent until the child has said that it has its own table, or has ended. Its numbers are open all the time:
//!   on `/dev/null` when nobody uses them. So nothing else can come to stand where a child looks.
//! - The supervisor's own end of a child's pipes is closed with that, so the end of a report is seen after it only. The
//!   child tells in memory, and by a descriptor that wakes the supervisor.
//! - Lanes of others that come along with a copy are closed by the child before anything that may wait.
//!
//! Where the kernel does not do this rightly, and when no lane is free, a child copies everything.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Descriptors, FIRST_FD};
use crate::sys;

/// Children that may be on their way to a table of their own at once. That takes microseconds once they run; what is
/// started beyond that has to copy.
pub const LANES: usize = 4;

/// Kernels before this one may leave marks of the supervisor's descriptors in a copy that is cut short, so that a program
/// could open far fewer than its limit allows (CVE-2024-45025). Some older ones were mended, but their numbers do not tell.
const COPIES_RIGHTLY: (u32, u32) = (6, 11);

/// Numbers from here are used: what a child that has a lane brings to 0 to [`FIRST_FD`] is not to lie there.
const FIRST: RawFd = FIRST_FD + 1;

/// Numbers from here are not used: the copy would be long, too. They are met only after a process image that had many
/// descriptors open and no lanes.
const BEYOND: RawFd = 256;

/// Numbers of one child.
#[derive(Clone, Copy)]
struct Numbers {
    log: RawFd,
    report: RawFd,
    notify: RawFd,
}

struct Lanes {
    /// `/dev/null`, below [`Lanes::beyond`].
    null: OwnedFd,
    /// Written to by a child that has its own table.
    wake: EventFd,
    free: Vec<Numbers>,
    /// One more than the highest number that a child needs.
    beyond: RawFd,
}

thread_local! {
    static ALL: RefCell<Option<Lanes>> = const { RefCell::new(None) };
}

/// What a child needs to know to get a table of its own.
#[derive(Clone, Copy)]
pub struct Shared {
    pub null: RawFd,
    pub log: RawFd,
    pub report: RawFd,
    pub notify: Option<RawFd>,
    /// See [`Lanes::wake`].
    pub wake: RawFd,
    /// Descriptors from here are not the child's.
    pub beyond: libc::c_uint,
}

/// Descriptors that a child finds in the supervisor's table. Dropped once the child has its own table, or has ended.
pub struct Lane {
    numbers: Numbers,
    shared: Shared,
}

/// Take the numbers into use, before many descriptors are open. Returns what becomes readable when a child has its own
/// table; `None` where children copy.
pub fn prepare(null: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    if sys::kernel_version().is_none_or(|version| version < COPIES_RIGHTLY) {
        return Ok(None);
    }
    let lanes = Lanes::new(null)?;
    let Some(lanes) = lanes else { return Ok(None) };
    let woken = fcntl(&lanes.wake, FcntlArg::F_DUPFD_CLOEXEC(0))?;
    ALL.set(Some(lanes));
    // SAFETY: the descriptor is new, and nobody else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(woken) }))
}

impl Lanes {
    fn new(null: &OwnedFd) -> io::Result<Option<Self>> {
        let (null, wake) =
            (low_copy(null)?, EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let mut beyond = null.as_raw_fd().max(wake.as_raw_fd()) + 1;
        let mut free = Vec::with_capacity(LANES);
        while free.len() < LANES {
            let lane = [low_copy(&null)?, low_copy(&null)?, low_copy(&null)?];
            let highest = lane.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(BEYOND);
            if highest >= BEYOND {
                break;
            }
            beyond = beyond.max(highest + 1);
            free.push(lane);
        }
        let usable = !free.is_empty() && beyond <= BEYOND;
        // They stay open for the life of the process.
        let numbers = |lane: [OwnedFd; 3]| {
            let [log, report, notify] = lane.map(OwnedFd::into_raw_fd);
            Numbers { log, report, notify }
        };
        Ok(usable.then(|| Self { null, wake, free: free.into_iter().map(numbers).collect(), beyond }))
    }
}

/// A copy with the lowest number that may be used.
fn low_copy(fd: &OwnedFd) -> io::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST))?;
    // SAFETY: the descriptor is new, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Have a number of a lane stand for a file.
fn put(fd: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: the number is a lane's, which nobody owns but the lane.
    match unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Lane {
    /// Put the descriptors of a child where it finds them; `None` if it has to copy.
    pub fn take(fds: &Descriptors<'_>) -> Option<Self> {
        let lane = ALL.with_borrow_mut(|all| {
            let lanes = all.as_mut()?;
            let numbers = lanes.free.pop()?;
            let shared = Shared {
                null: lanes.null.as_raw_fd(),
                log: numbers.log,
                report: numbers.report,
                notify: fds.notify.map(|_| numbers.notify),
                wake: lanes.wake.as_raw_fd(),
                beyond: lanes.beyond as libc::c_uint,
            };
            Some(Self { numbers, shared })
        })?;
        let pairs = [(Some(fds.log), lane.numbers.log), (Some(fds.report), lane.numbers.report)];
        let pairs = pairs.into_iter().chain([(fds.notify, lane.numbers.notify)]);
        let mut pairs = pairs.filter_map(|(fd, number)| Some((fd?.as_raw_fd(), number)));
        // One that is not taken gives the lane back.
        pairs.all(|(fd, number)| put(fd, number).is_ok()).then_some(lane)
    }

    /// What the child needs to know.
    pub fn shared(&self) -> Shared {
        self.shared
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let numbers = [self.numbers.log, self.numbers.report, self.numbers.notify];
        // A number that still stands for a child's pipe is not to be lent again. That cannot happen to open numbers.
        let cleared = numbers.iter().all(|number| put(self.shared.null, *number).is_ok());
        if cleared {
            ALL.with_borrow_mut(|all| all.as_mut().map(|lanes| lanes.free.push(self.numbers)));
        }
    }
}
