//! Sockets that no table of the kernel's lists: they are neither bound nor connected.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::libc;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Socket;

/// Asks a socket for its network namespace (`SIOCGSKNS` of the kernel's `linux/sockios.h`).
const GET_NETWORK: libc::Ioctl = 0x894c;

/// What the socket at a process's descriptor is, if it was made in the network of that process.
pub(super) fn own(pid: i32, descriptor: i32) -> io::Result<Option<Socket>> {
    let process = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    let socket = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?;
    let network = network(&socket)?.metadata()?;
    let its = fs::metadata(format!("/proc/{pid}/ns/net"))?;
    if (network.dev(), network.ino()) != (its.dev(), its.ino()) {
        return Ok(None);
    }
    Ok(match (sockopt::socket_domain(&socket)?, sockopt::socket_type(&socket)?) {
        (AddressFamily::UNIX, _) => Some(Socket::Unix),
        (AddressFamily::PACKET, _) => Some(Socket::Packet),
        (AddressFamily::NETLINK, _) => Some(Socket::Netlink),
        (AddressFamily::INET | AddressFamily::INET6, SocketType::STREAM) => Some(Socket::Tcp),
        (AddressFamily::INET | AddressFamily::INET6, SocketType::DGRAM) => Some(Socket::Udp),
        (AddressFamily::INET | AddressFamily::INET6, _) => Some(Socket::Raw),
        _ => None,
    })
}

fn network(socket: &OwnedFd) -> io::Result<File> {
    // SAFETY: a call on an open descriptor, which touches no memory.
    let number = unsafe { libc::ioctl(socket.as_raw_fd(), GET_NETWORK) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { File::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::net::socket;

    use super::*;

    #[test]
    fn a_socket_that_is_not_bound_is_of_the_network_where_it_was_made() {
        let pid = i32::try_from(std::process::id()).expect("a number");
        let unbound = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        let bound = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let of = |number: i32| own(pid, number);
        if matches!(of(unbound.as_raw_fd()), Err(error) if error.raw_os_error() == Some(libc::EPERM)) {
            // Only who may change networks may ask.
            return;
        }
        assert_eq!(of(unbound.as_raw_fd()).expect("asked"), Some(Socket::Tcp));
        assert_eq!(of(bound.as_raw_fd()).expect("asked"), Some(Socket::Udp));
        of(i32::MAX).expect_err("there is none");
        let elsewhere = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            socket(AddressFamily::INET, SocketType::STREAM, None).ok()
        });
        if let Some(elsewhere) = elsewhere.join().expect("its end") {
            assert_eq!(of(elsewhere.as_raw_fd()).expect("asked"), None);
        }
    }
}
