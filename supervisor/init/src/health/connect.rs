//! Connections of probes: most are decided before the call returns, and then nothing has to wait in the event loop.
//!
//! A server on this machine accepts or refuses within the call that asks it, even where that call says that it is under
//! way. Only who is further off, or does not answer, costs a place in the event loop.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr, connect, socket,
};

use crate::notify::queue;
use crate::sys;

/// How far a connection has come.
pub enum Attempt {
    /// It stands, or was refused.
    Over(io::Result<()>),
    /// It is under way.
    Pending(OwnedFd),
}

/// Connect over TCP.
pub fn tcp(address: SocketAddr) -> Attempt {
    match address {
        SocketAddr::V4(address) => begin(AddressFamily::Inet, &SockaddrIn::from(address)),
        SocketAddr::V6(address) => begin(AddressFamily::Inet6, &SockaddrIn6::from(address)),
    }
}

/// Connect to a socket in the file system that is open for reference: by its descriptor, for the way to it may have to
/// be asked for by now.
pub fn unix(found: &OwnedFd) -> Attempt {
    match UnixAddr::new(format!("/proc/self/fd/{}", found.as_raw_fd()).as_str()) {
        Ok(address) => begin(AddressFamily::Unix, &address),
        Err(error) => Attempt::Over(Err(error.into())),
    }
}

fn begin(family: AddressFamily, address: &dyn SockaddrLike) -> Attempt {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = match socket(family, SockType::Stream, flags, None) {
        Ok(socket) => socket,
        Err(error) => return Attempt::Over(Err(error.into())),
    };
    if family == AddressFamily::Unix {
        return Attempt::Over(once(socket, address));
    }
    match connect(socket.as_raw_fd(), address) {
        Ok(()) => Attempt::Over(Ok(())),
        // Asked again, the kernel says what became of it.
        Err(Errno::EINPROGRESS) => match connect(socket.as_raw_fd(), address) {
            Ok(()) | Err(Errno::EISCONN) => Attempt::Over(Ok(())),
            Err(Errno::EALREADY | Errno::EINPROGRESS) => Attempt::Pending(socket),
            Err(error) => Attempt::Over(Err(error.into())),
        },
        Err(error) => Attempt::Over(Err(error.into())),
    }
}

/// Connect to a socket in the file system, which is decided within the call.
fn once(socket: OwnedFd, address: &dyn SockaddrLike) -> io::Result<()> {
    let refused = sys::refuse_descriptors(&socket);
    connect(socket.as_raw_fd(), address)?;
    if refused.is_err() {
        // As before Linux 6.16: it may have been sent some by now.
        let gate = queue::before_close(&socket);
        drop((socket, gate));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::sys::stat::Mode;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    fn outcome(attempt: Attempt) -> Option<Result<(), io::ErrorKind>> {
        match attempt {
            Attempt::Over(result) => Some(result.map_err(|error| error.kind())),
            Attempt::Pending(_) => None,
        }
    }

    /// What is decided within the call. The kernel puts off what it has no time for, so that on a busy machine not every
    /// call is.
    fn at_once(attempt: impl Fn() -> Attempt) -> Result<(), io::ErrorKind> {
        (0..1000).find_map(|_| outcome(attempt())).expect("decided at once")
    }

    #[test]
    fn this_machine_answers_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        assert_eq!(at_once(|| tcp(address)), Ok(()));
        // Nobody listens at the port of a client, and nobody else gets it.
        let client = std::net::TcpStream::connect(address).expect("a connection");
        let address = client.local_addr().expect("an address");
        assert_eq!(at_once(|| tcp(address)), Err(io::ErrorKind::ConnectionRefused));

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let unix = |path| {
            unix(&nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).expect("a socket"))
        };
        let listener = UnixListener::bind(&path).expect("a socket");
        assert_eq!(outcome(unix(&path)), Some(Ok(())));
        drop(listener);
        assert_eq!(outcome(unix(&path)), Some(Err(io::ErrorKind::ConnectionRefused)));
    }

    #[test]
    fn who_does_not_answer_is_waited_for() {
        // TEST-NET-1 of RFC 5737 is nobody's: no answer, or no way there at all.
        let attempt = tcp("192.0.2.1:9".parse().expect("an address"));
        assert!(!matches!(attempt, Attempt::Over(Ok(()))));
    }
}
