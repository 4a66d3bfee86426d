//! Hot swaps of processes that are asked by a signal for what they serve: what such a one says then on its channel is
//! passed on to that of the next, descriptors and all, until it says that it is done.
//!
//! A child does that, with a time limit. So no descriptor of a service ever gets into process 1, whose last close could
//! take as long as the service likes, and nothing that either says there is taken for a word to the supervisor.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::slice;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::{AbortHandle, spawn_local};
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
    Silent = 1,
    /// The other one does not take.
    Deaf,
    /// A message was longer, or had more descriptors, than there may be.
    Long,
}

/// A child that passes on.
struct Relay {
    giver: RunId,
    pid: i32,
    /// It says there how many there were.
    report: OwnedFd,
    time: AbortHandle,
}

/// Those under way, by who receives.
#[derive(Default)]
pub struct Relays(RefCell<HashMap<RunId, Relay>>);

/// Ask one process to give, and pass it on to the other. The event says why that cannot be.
pub fn begin(supervisor: &Rc<Supervisor>, giver: RunId, taker: RunId, limit: Duration) -> Option<Event> {
    let begun = try_begin(supervisor, giver, taker, limit);
    let failed =
        |error| Relayed::NotTaken(format!("failed to pass on what the old process gives: {error}").into());
    begun.err().map(|error| Event::Relayed(taker, failed(error)))
}

fn try_begin(supervisor: &Rc<Supervisor>, giver: RunId, taker: RunId, limit: Duration) -> io::Result<()> {
    let lost = || io::Error::other("its channel is lost");
    let from = supervisor.handovers.link(giver).ok_or_else(lost)?;
    let to = supervisor.handovers.link(taker).ok_or_else(lost)?;
    let process =
        supervisor.processes.borrow().number(giver).ok_or_else(|| io::Error::other("it has ended"))?;
    // It is not reaped, so the number is its own, and the descriptor is its own for as long as it is open.
    let process = sys::process_descriptor(process)?;
    let (report, write) = sys::pipe()?;
    // Until the child is done nobody else reads there.
    from.stop();
    let _ = sys::take_descriptors(from.socket(), true);
    // SAFETY: the child makes plain system calls on what was prepared, and ends.
    let pid = match unsafe { sys::clone_child(None, 0) } {
        // SAFETY: this is the child.
        Ok(0) => unsafe { pass_on(from.as_raw_fd(), to.as_raw_fd(), process.as_raw_fd(), write.as_raw_fd()) },
        Ok(pid) => pid,
        Err(error) => {
            resume(supervisor, giver);
            return Err(error);
        }
    };
    let time = spawn_local(async move {
        tokio::time::sleep(limit).await;
        // It is not reaped, or this task would have been ended: the number is its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    });
    let relay = Relay { giver, pid, report, time: time.abort_handle() };
    supervisor.relays.0.borrow_mut().insert(taker, relay);
    supervisor.processes.borrow_mut().relay_begun(pid, taker);
    Ok(())
}

/// The supervisor reads the channel again.
fn resume(supervisor: &Rc<Supervisor>, giver: RunId) {
    if let Some(link) = supervisor.handovers.link(giver) {
        let _ = sys::take_descriptors(link.socket(), false);
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
    relay.time.abort();
    resume(supervisor, relay.giver);
    let mut count = [0; 4];
    let outcome = match exit {
        Exit::Code(0) if matches!(sys::read_now(&relay.report, &mut count), Ok(Some(4))) => {
            Relayed::Whole(u32::from_ne_bytes(count))
        }
        Exit::Code(code) if code == Failed::Silent as i32 => {
            Relayed::NotGiven("it has ended before it gave everything".into())
        }
        Exit::Code(code) if code == Failed::Deaf as i32 => {
            Relayed::NotTaken("the new process does not take what the old one gives".into())
        }
        Exit::Code(code) if code == Failed::Long as i32 => {
            Relayed::NotGiven("it gives more than 253 descriptors or 512 bytes at once".into())
        }
        _ => Relayed::NotGiven("it has not given everything within its time (HANDOFF_COMPLETE)".into()),
    };
    supervisor.dispatch(Event::Relayed(taker, outcome));
}

/// The child's whole life.
///
/// # Safety
/// Only in a child process.
unsafe fn pass_on(from: RawFd, to: RawFd, process: RawFd, report: RawFd) -> ! {
    let mut kept = [from, to, process, report];
    kept.sort_unstable();
    let mut count = 0_u32;
    // SAFETY: as the caller promises.
    unsafe {
        sys::close_all_but(&kept);
        // What it gave too late, when it was asked before.
        while pass_one(from, None, libc::MSG_DONTWAIT, &mut count).is_ok() {}
        let (nothing, flags) = (std::ptr::null::<libc::siginfo_t>(), 0);
        libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGUSR1, nothing, flags);
    }
    count = 0;
    let code = loop {
        // SAFETY: as the caller promises.
        match unsafe { pass_one(from, Some(to), 0, &mut count) } {
            Ok(false) => {}
            Ok(true) => break 0,
            Err(failed) => break failed as i32,
        }
    };
    let count = count.to_ne_bytes();
    // SAFETY: the buffer is a local; nothing of the parent's is run on the way out.
    unsafe {
        libc::write(report, count.as_ptr().cast(), count.len());
        libc::_exit(code)
    }
}

/// Pass one message on, or to nobody. Whether it was the last.
///
/// # Safety
/// Only in a child process: it closes every descriptor that came.
unsafe fn pass_one(
    from: RawFd,
    to: Option<RawFd>,
    flags: libc::c_int,
    count: &mut u32,
) -> Result<bool, Failed> {
    let mut bytes = [0_u8; MESSAGE_LIMIT];
    let mut space = [0_u64; SPACE];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: plain data; zero is valid for it.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&space) as _;
    // SAFETY: everything that the message points to is a local.
    let length = unsafe { libc::recvmsg(from, &raw mut message, libc::MSG_CMSG_CLOEXEC | flags) };
    let length = usize::try_from(length).unwrap_or(0);
    if length == 0 {
        return Err(Failed::Silent);
    }
    if let Some(to) = to {
        if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(Failed::Long);
        }
        // What came is what is sent: the kernel has set the length of what lies in `space`.
        // SAFETY: as above.
        let sent = unsafe {
            (*message.msg_iov).iov_len = length;
            libc::sendmsg(to, &raw const message, libc::MSG_NOSIGNAL)
        };
        if sent < 0 {
            return Err(Failed::Deaf);
        }
    }
    // SAFETY: the kernel has written the headers; what they hold are descriptors of this process alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(found) = header.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
                let length = found.cmsg_len - libc::CMSG_LEN(0) as usize;
                let (numbers, _) = slice::from_raw_parts(libc::CMSG_DATA(header), length).as_chunks();
                for number in numbers {
                    libc::close(RawFd::from_ne_bytes(*number));
                }
                *count += numbers.len() as u32;
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(bytes[..length].trim_ascii_end() == END)
}
