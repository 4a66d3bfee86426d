//! The end: every component is stopped already; the rest of the machine follows.
//!
//! SIGTERM to what is left, SIGKILL to what is left then, data to the disks, file systems off in
//! reverse order, the root read-only, and the power off or the machine restarted. Each step has a
//! limit; a hung disk does not keep the machine up.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::{info, warn};
use yakiros_core::engine::Halt;
use yakiros_core::journal::Exit;

use crate::{machine, signals, sys};

/// Time for clients to take their last answers.
pub const LAST_ANSWERS: Duration = Duration::from_millis(50);

/// Time between SIGTERM and SIGKILL for processes that belong to no component.
const TERM_TIME: Duration = Duration::from_secs(2);

/// Time for killed processes to be gone.
const KILL_TIME: Duration = Duration::from_secs(2);

/// Time for a sync. A disk that takes longer does not answer at all.
const SYNC_TIME: Duration = Duration::from_secs(30);

/// Time for one file system to come off. Far above what a busy disk takes; a server that does not
/// answer takes for ever.
const UNMOUNT_TIME: Duration = Duration::from_secs(5);

/// Time for all file systems to come off. What is mounted then was synced before.
const UNMOUNT_ALL_TIME: Duration = Duration::from_secs(30);

/// Pause between two looks.
const STEP: Duration = Duration::from_millis(5);

/// Processes that go on under the next kernel: they stand still, and are neither told to end nor waited for. Their ends
/// would end the connections that are written down with them.
pub type Held = BTreeSet<i32>;

/// Take the machine down. Never returns. A kernel that is to be executed and cannot be is a restart.
pub fn finish(halt: Halt, held: &Held) -> ! {
    end_all(held);
    let (mode, what) = match halt {
        Halt::PowerOff => (RebootMode::RB_POWER_OFF, "power off"),
        Halt::Reboot => (RebootMode::RB_AUTOBOOT, "restarting"),
        Halt::Kexec => (RebootMode::RB_KEXEC, "executing the kernel that is loaded"),
    };
    info!("{what}");
    let Err(error) = reboot(mode);
    warn!("failed to take the machine down: {error}");
    if halt == Halt::Kexec {
        warn!("the machine restarts instead: what was held ends with all else, and its checkpoints are kept");
        for pid in held {
            // It is to hear that it ends.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
        end_all(&Held::new());
        let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
        warn!("failed to restart: {error}");
    }
    loop {
        // Process 1 must not end; the console stays as it is.
        reap_for(TERM_TIME, &Held::new());
        // Without children the above returns at once.
        std::thread::sleep(TERM_TIME);
    }
}

/// End every process but those that are held, and bring the data to the disks.
fn end_all(held: &Held) {
    end_processes(Signal::SIGTERM, TERM_TIME, held);
    end_processes(Signal::SIGKILL, KILL_TIME, held);
    sync();
    if machine::is_whole_machine() {
        unmount_all();
        sync();
    }
}

/// Signal every process but this one and those that are held, and reap until no other is left or the time is over.
fn end_processes(signal: Signal, limit: Duration, held: &Held) {
    if held.is_empty() {
        if kill(Pid::from_raw(-1), signal).is_err() {
            // There is none.
            return;
        }
        return reap_for(limit, held);
    }
    for pid in others(held) {
        // It may have ended meanwhile. Threads of the kernel hear nothing.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    reap_for(limit, held);
}

/// The numbers of all processes but this one and those that are held.
fn others(held: &Held) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id();
    pids.filter(|pid| pid.cast_unsigned() != own && !held.contains(pid)).collect()
}

/// Reap until there is no child any more but those that are held, or the time is over.
fn reap_for(limit: Duration, held: &Held) {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        while let Some(pid) = signals::next_ended() {
            signals::take(pid);
        }
        if !has_children(held) {
            return;
        }
        std::thread::sleep(STEP);
    }
}

fn has_children(held: &Held) -> bool {
    if !held.is_empty() {
        let own = std::process::id();
        let list = sys::read_small(Path::new(&format!("/proc/self/task/{own}/children")));
        // A kernel that does not tell gives them their time.
        return list.map_or(true, |list| has_others(&list, held));
    }
    let flags = nix::sys::wait::WaitPidFlag::WNOHANG;
    nix::sys::wait::waitpid(None, Some(flags)) != Err(nix::errno::Errno::ECHILD)
}

/// Whether a list of children, as the kernel writes it, has others than those that are held.
fn has_others(list: &str, held: &Held) -> bool {
    list.split_whitespace().any(|pid| pid.parse::<i32>().is_ok_and(|pid| !held.contains(&pid)))
}

/// What became of work given to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    /// It did not end in time, or could not be begun.
    Overdue,
}

/// Do what may block for ever in a child, and wait for it no longer than `limit`. Process 1 itself
/// could not be freed from such a call.
///
/// # Safety
/// `work` may make async-signal-safe calls only; it must not allocate.
unsafe fn in_child(limit: Duration, work: impl FnOnce() -> bool) -> Outcome {
    // SAFETY: the child does what the caller promises is allowed, and ends.
    let child = match unsafe { sys::clone_child(None, 0) } {
        // SAFETY: this is the child.
        Ok(0) => unsafe { libc::_exit(i32::from(!work())) },
        Ok(pid) => pid,
        Err(error) => {
            warn!("failed to create a process: {error}");
            return Outcome::Overdue;
        }
    };
    let end = Instant::now() + limit;
    loop {
        match signals::take(child) {
            Some(Exit::Code(0)) => return Outcome::Done,
            Some(_) => return Outcome::Failed,
            None if Instant::now() >= end => break,
            None => std::thread::sleep(STEP),
        }
    }
    // Many waits of the kernel end with a kill; the rest is left behind.
    let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    Outcome::Overdue
}

/// Data to the disks.
fn sync() {
    // SAFETY: one system call.
    let outcome = unsafe {
        in_child(SYNC_TIME, || {
            libc::sync();
            true
        })
    };
    if outcome != Outcome::Done {
        warn!("the disks did not take all data within {SYNC_TIME:?}");
    }
}

/// File systems off in reverse order of their mounting, and the root read-only.
fn unmount_all() {
    let end = Instant::now() + UNMOUNT_ALL_TIME;
    let table = sys::read_small(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let places: Vec<_> = table.lines().filter_map(mount_point).collect();
    for place in places.iter().rev() {
        // Needed to the end, or without anything to lose.
        if place == Path::new("/") || is_of_the_kernel(place) {
            continue;
        }
        let limit = UNMOUNT_TIME.min(end.saturating_duration_since(Instant::now()));
        // A mount point has no NUL byte: the kernel's own text named it.
        let Ok(path) = CString::new(place.as_os_str().as_bytes()) else { continue };
        // SAFETY: plain system calls on a path that is prepared.
        match unsafe { in_child(limit, || take_off(&path)) } {
            Outcome::Done => {}
            Outcome::Failed => warn!("failed to unmount {}", place.display()),
            Outcome::Overdue => warn!("{} did not come off within {limit:?}", place.display()),
        }
    }
    // SAFETY: one system call on a literal.
    let outcome = unsafe { in_child(UNMOUNT_TIME, || remount_read_only(c"/")) };
    if outcome != Outcome::Done {
        info!("the root file system stays writable");
    }
}

/// Unmount; what is busy is made read-only and taken out of sight. Makes system calls only.
fn take_off(place: &CStr) -> bool {
    if umount2(place, MntFlags::empty()).is_ok() {
        return true;
    }
    let read_only = remount_read_only(place);
    umount2(place, MntFlags::MNT_DETACH).is_ok() || read_only
}

/// File systems that hold nothing; the log and the devices are needed until the end.
fn is_of_the_kernel(place: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|kernel| place.starts_with(kernel))
}

fn remount_read_only(place: &CStr) -> bool {
    let none: Option<&CStr> = None;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, place, none, flags, none).is_ok()
}

/// The fifth field of a line of mountinfo, with its octal escapes undone.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escape = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = escape.and_then(|digits| str::from_utf8(digits).ok());
        if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_returns_is_given_up() {
        let limit = Duration::from_millis(50);
        let begun = Instant::now();
        // SAFETY: system calls on nothing.
        let outcome = unsafe {
            in_child(limit, || {
                loop {
                    libc::pause();
                }
            })
        };
        assert_eq!(outcome, Outcome::Overdue);
        assert!(begun.elapsed() >= limit);
        assert!(begun.elapsed() < SYNC_TIME);
        // SAFETY: no call at all.
        let answers = unsafe { [in_child(SYNC_TIME, || true), in_child(SYNC_TIME, || false)] };
        assert_eq!(answers, [Outcome::Done, Outcome::Failed]);
    }

    #[test]
    fn what_is_held_is_not_told_to_end_and_not_waited_for() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("a number");
        let own = i32::try_from(std::process::id()).expect("a number");
        let all = others(&Held::new());
        assert!(all.contains(&pid) && !all.contains(&own));
        assert!(!others(&Held::from([pid])).contains(&pid));
        let list = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).expect("children");
        // Other tests of this process have children of their own, and other threads may have made this one.
        let list = format!("{list} {pid} ");
        let mut held: Held = list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        assert!(!has_others(&list, &held), "{list}");
        held.remove(&pid);
        assert!(has_others(&list, &held), "{list}");
        child.kill().and_then(|()| child.wait()).expect("its end");
    }

    #[test]
    fn mount_points_with_blanks_are_read() {
        let line = "36 35 98:0 / /mnt/my\\040disk rw,noatime - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some("/mnt/my disk".into()));
        assert_eq!(mount_point("garbage"), None);
    }
}
