//! Hot swaps of processes that are asked by a signal for what they serve: what such a one says then on its channel is
//! passed on to that of the next, descriptors and all, until it says that it is done.
//!
//! A child does that, which ends itself when the time is over, also if nobody knows of it any more. So no descriptor of a
//! service ever gets into process 1, whose last close could take as long as the service likes, and nothing that either says
//! there is taken for a word to the supervisor.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use yakiros_core::engine::{Event, Relayed, RunId};
use yakiros_core::journal::Exit;
use yakiros_handoff::message::MESSAGE_LIMIT;

use crate::supervisor::Supervisor;
use crate::sys;

/// The most descriptors of one message (`SCM_MAX_FD`).
const MOST: usize = 253;

/// Room for so many and their header, in words of 8 bytes for its alignment.
const SPACE: usize = (MOST * size_of::<RawFd>() + 32) / 8;

/// What ends the list.
const END: &[u8] = b"HANDOFF_COMPLETE";

/// How the child ends, but for success.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Failed {
    /// The one that gives ended, or closed its channel.
    Gone = 1,
    /// It has not given everything within the time.
    Late,
    /// A message was longer than there may be.
    Long,
    /// The other one does not take.
    Deaf,
    /// There was no room for what came: all descriptors of a message fit, but for want of memory or of numbers.
    Lost,
}

impl Failed {
    const ALL: [Self; 5] = [Self::Gone, Self::Late, Self::Long, Self::Deaf, Self::Lost];

    /// What that is to the hot swap: a failure of the one that was asked to give, or none of its.
    fn outcome(self) -> Relayed {
        match self {
            Self::Gone => Relayed::NotGiven("it has ended before it gave everything".into()),
            Self::Late => {
                Relayed::NotGiven("it has not given everything within its time (HANDOFF_COMPLETE)".into())
            }
            Self::Long => Relayed::NotGiven("it gives more than 512 bytes at once".into()),
            Self::Deaf => Relayed::NotTaken("the new process does not take what the old one gives".into()),
            Self::Lost => Relayed::NotTaken("there is no memory for what the old process gives".into()),
        }
    }
}

/// What a message was.
#[derive(PartialEq, Eq)]
enum Message {
    Another,
    Last,
}

/// A child that passes on.
struct Relay {
    giver: RunId,
    pid: i32,
    /// It says there how many there were.
    report: OwnedFd,
}

/// Those under way, by who receives.
#[derive(Default)]
pub struct Relays(RefCell<HashMap<RunId, Relay>>);

/// Ask one process to give, and pass it on to the other. The event says why that cannot be.
pub fn begin(supervisor: &Rc<Supervisor>, giver: RunId, taker: RunId, limit: Duration) -> Option<Event> {
    let process = supervisor.processes.borrow().number(giver);
    // It was looked at when somebody asked for the upgrade; since then it may have executed another program.
    let Some(process) = process.filter(|process| sys::handles(*process, Signal::SIGUSR1)) else {
        let why = "it does not listen for SIGUSR1".into();
        return Some(Event::Relayed(taker, Relayed::NotGiven(why)));
    };
    let begun = try_begin(supervisor, process, giver, taker, limit);
    let failed =
        |error| Relayed::NotTaken(format!("failed to pass on what the old process gives: {error}").into());
    begun.err().map(|error| Event::Relayed(taker, failed(error)))
}

fn try_begin(
    supervisor: &Rc<Supervisor>,
    process: i32,
    giver: RunId,
    taker: RunId,
    limit: Duration,
) -> io::Result<()> {
    let lost = || io::Error::other("its channel is lost");
    let from = supervisor.handovers.link(giver).ok_or_else(lost)?;
    let to = supervisor.handovers.link(taker).ok_or_else(lost)?;
    // It is not reaped, so the number is its own, and the descriptor is its own for as long as it is open.
    let process = sys::process_descriptor(process)?;
    let (report, write) = sys::pipe()?;
    let fds = [from.as_raw_fd(), to.as_raw_fd(), process.as_raw_fd(), write.as_raw_fd()];
    let seconds = libc::c_uint::try_from(limit.as_secs()).unwrap_or(libc::c_uint::MAX).max(1);
    from.lend(true);
    // SAFETY: the child makes plain system calls on what was prepared, and ends.
    let pid = match unsafe { sys::clone_child(None, 0) } {
        // SAFETY: this is the child.
        Ok(0) => unsafe { pass_on(fds, seconds) },
        Ok(pid) => pid,
        Err(error) => {
            resume(supervisor, giver);
            return Err(error);
        }
    };
    supervisor.relays.0.borrow_mut().insert(taker, Relay { giver, pid, report });
    supervisor.processes.borrow_mut().relay_begun(pid, taker);
    Ok(())
}

/// The supervisor reads the channel again.
fn resume(supervisor: &Rc<Supervisor>, giver: RunId) {
    if let Some(link) = supervisor.handovers.link(giver) {
        link.lend(false);
        supervisor.handovers.listen(supervisor, giver);
    }
}

impl Relays {
    /// Who receives is gone: end the child.
    pub fn abandon(&self, taker: RunId) {
        if let Some(relay) = self.0.borrow().get(&taker) {
            // It is not reaped, or it would not be among them: the number is its own.
            let _ = kill(Pid::from_raw(relay.pid), Signal::SIGKILL);
        }
    }
}

/// The child has ended.
pub fn reaped(supervisor: &Rc<Supervisor>, taker: RunId, exit: Exit) {
    let Some(relay) = supervisor.relays.0.borrow_mut().remove(&taker) else { return };
    resume(supervisor, relay.giver);
    let outcome = judge(exit, &relay.report);
    supervisor.dispatch(Event::Relayed(taker, outcome));
}

fn judge(exit: Exit, report: &OwnedFd) -> Relayed {
    let mut count = [0; 4];
    if exit == Exit::Code(0) && matches!(sys::read_now(report, &mut count), Ok(Some(4))) {
        return Relayed::Whole(u32::from_ne_bytes(count));
    }
    let failed = Failed::ALL.into_iter().find(|failed| exit == Exit::Code(*failed as i32));
    let killed = || Relayed::NotTaken(format!("what passes on what the old process gives {exit}").into());
    failed.map_or_else(killed, Failed::outcome)
}

/// In the child: how it fails if the time is over now.
static IF_LATE: AtomicI32 = AtomicI32::new(Failed::Late as i32);

extern "C" fn end_late(_signal: libc::c_int) {
    // SAFETY: a call that a handler may make.
    unsafe { libc::_exit(IF_LATE.load(Ordering::Relaxed)) }
}

/// The child's whole life, with the channels of who gives and of who takes, a descriptor of who gives, and where to say how
/// many descriptors there were.
///
/// # Safety
/// Only in a child process.
unsafe fn pass_on(fds: [RawFd; 4], seconds: libc::c_uint) -> ! {
    let [from, to, process, report] = fds;
    let mut kept = fds;
    kept.sort_unstable();
    // SAFETY: as the caller promises.
    let passed = unsafe {
        sys::close_all_but(&kept);
        limit_time(seconds);
        ask_and_pass_on(from, to, process)
    };
    let code = match passed {
        Ok(count) => {
            let count = count.to_ne_bytes();
            // SAFETY: the buffer is a local.
            unsafe { libc::write(report, count.as_ptr().cast(), count.len()) };
            0
        }
        Err(failed) => failed as i32,
    };
    // SAFETY: nothing of the parent's is run on the way out.
    unsafe { libc::_exit(code) }
}

/// End this process when so many seconds have passed.
///
/// # Safety
/// Only in a child process.
unsafe fn limit_time(seconds: libc::c_uint) {
    // SAFETY: plain data, of which zero is valid, and calls on locals; the handler does only what it may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = end_late as *const () as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut());
        // The supervisor's own signals are blocked.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::alarm(seconds);
    }
}

/// Ask for everything and pass it on. Returns how many descriptors there were.
///
/// # Safety
/// Only in a child process.
unsafe fn ask_and_pass_on(from: RawFd, to: RawFd, process: RawFd) -> Result<u32, Failed> {
    let mut count = 0;
    // SAFETY: as the caller promises.
    unsafe {
        // What it gave too late, when it was asked before.
        while pass_one(from, None, &mut count).is_ok() {}
        let (nothing, flags) = (ptr::null::<libc::siginfo_t>(), 0);
        if libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGUSR1, nothing, flags) != 0 {
            return Err(Failed::Gone);
        }
        count = 0;
        while pass_one(from, Some(to), &mut count)? == Message::Another {}
    }
    Ok(count)
}

/// Wait for a message and pass it on; or take one that is there and pass it to nobody.
///
/// # Safety
/// Only in a child process: it closes every descriptor that came.
unsafe fn pass_one(from: RawFd, to: Option<RawFd>, count: &mut u32) -> Result<Message, Failed> {
    let mut bytes = [0_u8; MESSAGE_LIMIT];
    let mut space = [0_u64; SPACE];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: plain data; zero is valid for it.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&space) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | if to.is_some() { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: everything that the message points to is a local.
    let length = unsafe { libc::recvmsg(from, &raw mut message, flags) };
    let length = usize::try_from(length).unwrap_or(0);
    if length == 0 {
        return Err(Failed::Gone);
    }
    if let Some(to) = to {
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(Failed::Long);
        }
        if message.msg_flags & libc::MSG_CTRUNC != 0 {
            return Err(Failed::Lost);
        }
        IF_LATE.store(Failed::Deaf as i32, Ordering::Relaxed);
        // What came is what is sent: the kernel has set the length of what lies in `space`.
        // SAFETY: as above.
        let sent = unsafe {
            (*message.msg_iov).iov_len = length;
            libc::sendmsg(to, &raw const message, libc::MSG_NOSIGNAL)
        };
        if sent < 0 {
            return Err(Failed::Deaf);
        }
        IF_LATE.store(Failed::Late as i32, Ordering::Relaxed);
    }
    // SAFETY: the kernel has written the headers; what they hold are descriptors of this process alone.
    *count += unsafe { close_all(&message) };
    Ok(if bytes[..length].trim_ascii_end() == END { Message::Last } else { Message::Another })
}

/// Close the descriptors that came with a message. Returns how many.
///
/// # Safety
/// The kernel has written the message, and nobody else uses them.
unsafe fn close_all(message: &libc::msghdr) -> u32 {
    let mut count = 0;
    // SAFETY: as the caller promises.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(found) = header.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
                let length = found.cmsg_len - libc::CMSG_LEN(0) as usize;
                let (numbers, _) = slice::from_raw_parts(libc::CMSG_DATA(header), length).as_chunks();
                for number in numbers {
                    libc::close(RawFd::from_ne_bytes(*number));
                }
                count += numbers.len() as u32;
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::pair;
    use crate::signals;
    use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
    use std::process::Command;
    use std::thread;

    #[test]
    fn who_does_not_take_is_told_from_who_does_not_give() {
        // What is sent before the question is for nobody. Whoever gives has time for it, also on a machine that is busy.
        let cases = [(0, 0, 1, Failed::Late), (100, 0, 1, Failed::Late), (0, 100, 8, Failed::Deaf)];
        for (before, after, seconds, expected) in cases {
            let (from, giver) = pair().expect("a pair");
            let (to, _taker) = pair().expect("a pair");
            // Room for a few messages, which nobody takes.
            setsockopt(&to, sockopt::SndBuf, &1).expect("a small queue");
            // As many as there is room for.
            let give = |count| {
                for _ in 0..count {
                    let _ = send(giver.as_raw_fd(), b"f", MsgFlags::MSG_DONTWAIT);
                }
            };
            give(before);
            let mut asked = Command::new("sleep").arg("1000").spawn().expect("a process");
            let process = sys::process_descriptor(asked.id() as i32).expect("a descriptor");
            let (_report, write) = sys::pipe().expect("a pipe");
            let fds = [from.as_raw_fd(), to.as_raw_fd(), process.as_raw_fd(), write.as_raw_fd()];
            // SAFETY: the child does nothing else.
            let child = match unsafe { sys::clone_child(None, 0) }.expect("a child") {
                // SAFETY: this is the child.
                0 => unsafe { pass_on(fds, seconds) },
                child => child,
            };
            // The question ends it; if the child had no time for that, there was none.
            let early = loop {
                if asked.try_wait().expect("a child").is_some() {
                    break None;
                }
                if let Some(exit) = signals::take(child) {
                    break Some(exit);
                }
                thread::sleep(Duration::from_millis(1));
            };
            give(after);
            let end = early.unwrap_or_else(|| signals::wait_for(child));
            let _ = asked.kill();
            asked.wait().expect("it ends");
            assert_eq!(end, Exit::Code(expected as i32), "{before} and {after}");
        }
    }

    #[test]
    fn only_who_does_not_give_is_to_blame() {
        let (report, _write) = sys::pipe().expect("a pipe");
        let blamed = |exit| matches!(judge(exit, &report), Relayed::NotGiven(_));
        for failed in [Failed::Gone, Failed::Late, Failed::Long] {
            assert!(blamed(Exit::Code(failed as i32)));
        }
        for exit in [Failed::Deaf, Failed::Lost].map(|failed| Exit::Code(failed as i32)) {
            assert!(!blamed(exit));
        }
        assert!(!blamed(Exit::Signal(libc::SIGKILL)) && !blamed(Exit::Code(0)), "nothing was reported");
    }
}
