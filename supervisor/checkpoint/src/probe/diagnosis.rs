//! The kernel, asked by trying.

use std::io;
use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SOCK_DIAG};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};
use rustix::thread::{CapabilitySet, capabilities};

use super::{Answer, Help, said};

/// `SOCK_DIAG_BY_FAMILY`, `NLMSG_ERROR`, `NLMSG_DONE`, `NLM_F_REQUEST | NLM_F_DUMP` of linux/sock_diag.h and linux/netlink.h.
const BY_FAMILY: u16 = 20;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const DUMP_REQUEST: u16 = 0x0301;
/// Bytes of a message's head.
const HEAD: usize = 16;
/// Bytes of an answer that are looked at: its head, and the error in it.
const ANSWER_LIMIT: usize = 4096;
/// Zeros after family and protocol: as many as the longest question, that about internet sockets, has. States are among
/// them, so nothing is listed.
const QUESTION: usize = 56;

/// Sockets of one kind: family and protocol, and the module that tells of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sockets {
    family: u8,
    protocol: u8,
    module: &'static str,
}

pub(super) const UNIX: Sockets = Sockets { family: 1, protocol: 0, module: "unix_diag" };
pub(super) const TCP: Sockets = Sockets { family: 2, protocol: 6, module: "tcp_diag" };
pub(super) const UDP: Sockets = Sockets { family: 2, protocol: 17, module: "udp_diag" };
pub(super) const PACKET: Sockets = Sockets { family: 17, protocol: 0, module: "af_packet_diag" };
pub(super) const NETLINK: Sockets = Sockets { family: 16, protocol: 0, module: "netlink_diag" };

/// What CRIU does to processes needs the administrator's right, or the one that was made for it and two more.
pub(super) fn rights() -> Answer {
    let help = |right: &str| Help::Right(right.to_owned());
    let sets = capabilities(None).map_err(|error| (said(error), help("root")))?;
    let has = |set| sets.effective.contains(set);
    if has(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE) {
        return Ok(());
    }
    Err(("neither CAP_SYS_ADMIN nor CAP_SYS_PTRACE may be lacking".to_owned(), help("root")))
}

/// The file is there only with the option.
pub(super) fn checkpoint_restore() -> Answer {
    let file = Path::new("/proc/sys/kernel/ns_last_pid");
    if file.exists() {
        return Ok(());
    }
    let why = format!("the kernel has no {}", file.display());
    Err((why, Help::Option("CONFIG_CHECKPOINT_RESTORE".to_owned())))
}

/// Opening it loads the module, if that can be.
pub(super) fn netfilter() -> Answer {
    match netlink(NETFILTER) {
        Ok(_) => Ok(()),
        Err(error) => Err((said(error), Help::Module("nfnetlink".to_owned()))),
    }
}

/// Asking for them loads the module, if that can be.
pub(super) fn sockets(kind: Sockets) -> Answer {
    ask_for(kind).map_err(|error| (error.to_string(), Help::Module(kind.module.to_owned())))
}

/// Since Linux 6.16 an internet socket refuses to tell SO_PASSCRED; a CRIU that asks all the same gives up.
pub(super) fn socket_options(criu_knows: bool) -> Answer {
    let refused = || -> Result<bool, Errno> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok(sockopt::socket_passcred(socket).is_err())
    };
    // A kernel without internet sockets has none to be asked.
    if criu_knows || !refused().unwrap_or(false) {
        return Ok(());
    }
    let why = "internet sockets of this kernel have no SO_PASSCRED, which this CRIU asks for".to_owned();
    Err((why, Help::Package("criu 4.2 or later".to_owned())))
}

fn netlink(protocol: Protocol) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
}

fn ask_for(kind: Sockets) -> io::Result<()> {
    let socket = netlink(SOCK_DIAG)?;
    let mut question = Vec::with_capacity(HEAD + QUESTION);
    question.extend(((HEAD + QUESTION) as u32).to_ne_bytes());
    question.extend(BY_FAMILY.to_ne_bytes());
    question.extend(DUMP_REQUEST.to_ne_bytes());
    // Its number, and the kernel as the other side.
    question.extend([0; 8]);
    question.extend([kind.family, kind.protocol]);
    question.resize(HEAD + QUESTION, 0);
    send(&socket, &question, SendFlags::empty())?;
    let mut answer = [0; ANSWER_LIMIT];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    match refusal(&answer[..length.min(ANSWER_LIMIT)]) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The error in an answer, if it is one: of the question, or with which a list ends that has nothing in it.
fn refusal(answer: &[u8]) -> Option<io::Error> {
    let kind = answer.get(4..4 + size_of::<u16>())?;
    let code = answer.get(HEAD..HEAD + size_of::<i32>())?;
    if !matches!(u16::from_ne_bytes(kind.try_into().ok()?), MESSAGE_ERROR | MESSAGE_DONE) {
        return None;
    }
    let code = i32::from_ne_bytes(code.try_into().ok()?);
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_answers() {
        let message = |kind: u16, code: i32| {
            let head = [&36_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &code.to_ne_bytes()];
            refusal(&head.concat()).and_then(|error| error.raw_os_error())
        };
        assert_eq!(message(MESSAGE_ERROR, -2), Some(2));
        assert_eq!(message(MESSAGE_ERROR, 0), None);
        // So the kernel answers about TCP sockets without their module.
        assert_eq!(message(MESSAGE_DONE, -2), Some(2));
        assert_eq!(message(MESSAGE_DONE, 0), None);
        assert_eq!(message(BY_FAMILY, -2), None);
        assert_eq!(refusal(&[0; 8]).map(|error| error.to_string()), None);
    }

    #[test]
    fn what_no_kernel_has_is_missing() {
        // No family has this number.
        let nothing = Sockets { family: 250, protocol: 0, module: "nothing_diag" };
        let (why, help) = sockets(nothing).expect_err("there is none");
        assert!(!why.is_empty());
        assert_eq!(help, Help::Module("nothing_diag".to_owned()));
    }

    #[test]
    fn a_criu_that_knows_is_not_held_up() {
        assert_eq!(socket_options(true), Ok(()));
    }
}
