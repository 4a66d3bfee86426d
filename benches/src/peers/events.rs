//! When programs were executed, by the kernel's own word: its connector of process events (`linux/cn_proc.h`).
//!
//! The kernel stamps each event where it happens and puts it into the buffer of a socket. Nobody is woken by that and no
//! process is stopped, so it costs those that are watched a few microseconds, each of them the same. Only root of the
//! initial namespaces is told, and not by every kernel.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::libc;

/// Room for the events of a machine that is busy with other things: a start makes about six of 100 bytes.
const BUFFER_BYTES: libc::c_int = 4 * 1024 * 1024;

/// Lengths of `struct nlmsghdr`, of `struct cn_msg`, and of both.
const HEADER: usize = 16;
const CONNECTOR: usize = 20;
const BEFORE_EVENT: usize = HEADER + CONNECTOR;

/// Offsets in `struct proc_event`: what happened, when, and to whom.
const WHAT: usize = 0;
const WHEN: usize = 8;
const PROCESS: usize = 16;

/// The longest event has 40 bytes.
const MESSAGE_LIMIT: usize = 256;

/// A program was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executed {
    /// The process, by its number in the initial namespace.
    pub pid: i32,
    /// The monotonic clock in nanoseconds, when the new program was in place of the old one.
    pub at: u64,
}

/// A subscription to the kernel's events.
#[derive(Debug)]
pub struct Events {
    socket: OwnedFd,
}

impl Events {
    /// Subscribe.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain calls; the descriptor is new and nobody else owns it, and the pointers are to locals of the
        // sizes that are given.
        unsafe {
            let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let fd = checked(libc::socket(libc::PF_NETLINK, kind, libc::NETLINK_CONNECTOR))?;
            let socket = OwnedFd::from_raw_fd(fd);
            let room = BUFFER_BYTES;
            let size = size_of_val(&room) as libc::socklen_t;
            let option = libc::SO_RCVBUFFORCE;
            checked(libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const room).cast(), size))?;
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            address.nl_groups = libc::CN_IDX_PROC;
            let size = size_of_val(&address) as libc::socklen_t;
            checked(libc::bind(fd, (&raw const address).cast(), size))?;
            let message = subscription();
            nix::unistd::write(&socket, &message)?;
            Ok(Self { socket })
        }
    }

    /// The executions since the last call. An error says that some were lost.
    pub fn take(&self) -> io::Result<Vec<Executed>> {
        let mut all = Vec::new();
        let mut message = [0; MESSAGE_LIMIT];
        loop {
            match nix::unistd::read(&self.socket, &mut message) {
                Ok(length) => all.extend(executed(&message[..length])),
                Err(nix::errno::Errno::EAGAIN) => return Ok(all),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The request for all process events: the header of netlink, that of the connector, one word.
fn subscription() -> Vec<u8> {
    let word = libc::PROC_CN_MCAST_LISTEN.to_ne_bytes();
    let length = BEFORE_EVENT + word.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend((libc::NLMSG_DONE as u16).to_ne_bytes());
    // Flags, sequence and sender of netlink are nothing.
    message.resize(HEADER, 0);
    message.extend(libc::CN_IDX_PROC.to_ne_bytes());
    message.extend(libc::CN_VAL_PROC.to_ne_bytes());
    // Sequence and acknowledgement of the connector are nothing either.
    message.extend([0; 8]);
    message.extend((word.len() as u16).to_ne_bytes());
    message.resize(BEFORE_EVENT, 0);
    message.extend(word);
    message
}

/// The execution of which a message tells, if it does of one.
fn executed(message: &[u8]) -> Option<Executed> {
    let event = message.get(BEFORE_EVENT..)?;
    let word = |at: usize| Some(u32::from_ne_bytes(*event.get(at..)?.first_chunk()?));
    let is_execution = word(WHAT)? == libc::PROC_EVENT_EXEC;
    let at = u64::from_ne_bytes(*event.get(WHEN..)?.first_chunk()?);
    let pid = word(PROCESS)?.cast_signed();
    is_execution.then_some(Executed { pid, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(what: u32, at: u64, pid: i32) -> Vec<u8> {
        let mut message = vec![0; BEFORE_EVENT];
        message.extend(what.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(at.to_ne_bytes());
        message.extend(pid.to_ne_bytes());
        message.extend(pid.to_ne_bytes());
        message
    }

    #[test]
    fn executions_are_told_from_other_events_and_from_half_messages() {
        let whole = message(libc::PROC_EVENT_EXEC, 70_000_000_000, 4321);
        assert_eq!(executed(&whole), Some(Executed { pid: 4321, at: 70_000_000_000 }));
        assert_eq!(executed(&message(libc::PROC_EVENT_FORK, 1, 2)), None);
        assert_eq!(executed(&whole[..BEFORE_EVENT + PROCESS]), None);
        assert_eq!(executed(&[]), None);
    }

    #[test]
    fn the_subscription_has_the_form_of_the_kernel() {
        let message = subscription();
        assert_eq!(message.len(), 40);
        let word = |at: usize| u32::from_ne_bytes(*message[at..].first_chunk().expect("a word"));
        // Length and kind; both numbers of the connector; the length of the word; the word.
        assert_eq!([word(0), word(4), word(16), word(20), word(32), word(36)], [40, 3, 1, 1, 4, 1]);
    }
}
