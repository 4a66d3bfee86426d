//! Interfaces: rtnetlink(7) and netdevice(7).

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::ptr;

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::super::op::{MESSAGE_LIMIT, Message};
use super::{Registers, descriptor};

/// Where the kernel's answer has its error number: behind its header.
const ERROR_AT: usize = 16;

/// The kernel's answer has the header of what was asked for behind it.
const ANSWER_BYTES: usize = 2 * ERROR_AT + 4;

/// Connect to the interfaces of the namespace that the child is in now.
///
/// # Safety
/// Only in a child process.
pub unsafe fn open(registers: &mut Registers) -> Result<(), Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: plain calls on numbers. The descriptor before it is the child's own.
    unsafe {
        let fd = descriptor(syscall!(Sysno::socket, libc::AF_NETLINK, kind, libc::NETLINK_ROUTE)?);
        if registers.links >= 0 {
            let _ = syscall!(Sysno::close, registers.links);
        }
        registers.links = fd;
    }
    Ok(())
}

/// Find an interface by its name, in the namespace that the child is in.
///
/// # Safety
/// Only in a child process.
pub unsafe fn find(name: &CStr, registers: &mut Registers) -> Result<(), Errno> {
    // SAFETY: as the caller promises; the kernel fills in the index.
    unsafe {
        with_interface(name, |fd, request| {
            syscall!(Sysno::ioctl, fd, libc::SIOCGIFINDEX, ptr::from_mut(request))?;
            registers.link = request.ifr_ifru.ifru_ifindex;
            Ok(())
        })
    }
}

/// Bring an interface up.
///
/// # Safety
/// Only in a child process.
pub unsafe fn raise(name: &CStr) -> Result<(), Errno> {
    // SAFETY: as the caller promises; the kernel fills in the flags.
    unsafe {
        with_interface(name, |fd, request| {
            syscall!(Sysno::ioctl, fd, libc::SIOCGIFFLAGS, ptr::from_mut(request))?;
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            syscall!(Sysno::ioctl, fd, libc::SIOCSIFFLAGS, ptr::from_ref(request)).map(drop)
        })
    }
}

/// Send a message with the numbers that were found, and hear what the kernel says of it: it has answered when the call
/// returns.
///
/// # Safety
/// Only in a child process.
pub unsafe fn send(message: &Message, registers: &Registers) -> Result<(), Errno> {
    let mut bytes = [0_u8; MESSAGE_LIMIT];
    let length = message.bytes.len();
    let room = bytes.get_mut(..length).ok_or(Errno::EMSGSIZE)?;
    room.iter_mut().zip(&message.bytes).for_each(|(to, from)| *to = *from);
    // SAFETY: a call without arguments.
    let process = unsafe { syscall!(Sysno::getpid)? } as u32;
    put(room, message.link_at, registers.link as u32)?;
    put(room, message.process_at, process)?;
    let mut answer = [0_u8; ANSWER_BYTES];
    let (none, no_length) = (ptr::null::<libc::sockaddr>(), ptr::null_mut::<libc::socklen_t>());
    // SAFETY: plain calls on locals of the lengths that are given.
    let received = unsafe {
        syscall!(Sysno::sendto, registers.links, bytes.as_ptr(), length, 0, none, 0)?;
        let (to, room) = (answer.as_mut_ptr(), answer.len());
        syscall!(Sysno::recvfrom, registers.links, to, room, libc::MSG_DONTWAIT, none, no_length)?
    };
    let error =
        answer.get(ERROR_AT..).and_then(|rest| rest.first_chunk::<4>()).filter(|_| received > ERROR_AT);
    match error.map(|error| i32::from_ne_bytes(*error)) {
        Some(0) => Ok(()),
        Some(error) => Err(Errno::new(error.wrapping_neg())),
        None => Err(Errno::EPROTO),
    }
}

fn put(bytes: &mut [u8], at: Option<usize>, number: u32) -> Result<(), Errno> {
    let Some(at) = at else { return Ok(()) };
    let room = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()).ok_or(Errno::EINVAL)?;
    *room = number.to_ne_bytes();
    Ok(())
}

/// Do something to an interface by netdevice(7).
///
/// # Safety
/// Only in a child process.
unsafe fn with_interface(
    name: &CStr,
    act: impl FnOnce(RawFd, &mut libc::ifreq) -> Result<(), Errno>,
) -> Result<(), Errno> {
    // SAFETY: plain calls on a local, which is plain data for which zero is valid.
    unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let fd = descriptor(syscall!(Sysno::socket, libc::AF_INET, kind, 0)?);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
            *to = from.cast_signed();
        }
        let done = act(fd, &mut request);
        let _ = syscall!(Sysno::close, fd);
        done
    }
}
