//! Sockets that component files declare: opened once, kept for as long as they are declared.
//!
//! An address of the network is bound here, which waits for nobody. A path is bound by a child (see [`crate::lookup`]):
//! where it lies, a file system may take its time.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tokio::task::spawn_local;
use tokio::time::timeout;
use yakiros_core::component::{Listen, Socket, SocketKind};

use crate::lookup::{self, Owner, Question};
use crate::supervisor::Supervisor;

/// Time for a file system to bind a path, as for it to tell what is at one.
const LIMIT: Duration = Duration::from_secs(10);

/// A declared socket that is open.
#[derive(Debug)]
pub struct Opened {
    /// What it was opened for.
    pub declared: Socket,
    /// The socket.
    pub fd: OwnedFd,
}

impl Opened {
    /// Whether it serves for this declaration as it is, but for its name and backlog.
    pub fn serves(&self, wanted: &Socket) -> bool {
        let Self { declared, .. } = self;
        let file = |socket: &Socket| match socket.listen {
            Listen::Address(_) => None,
            Listen::Path(_) => Some((socket.mode, socket.user, socket.group)),
        };
        (&declared.listen, declared.kind, file(declared)) == (&wanted.listen, wanted.kind, file(wanted))
    }

    /// Take over the rest of a declaration that it serves for.
    pub fn renew(&mut self, wanted: &Socket) -> io::Result<()> {
        if self.declared.backlog != wanted.backlog {
            accept(&self.fd, wanted)?;
        }
        self.declared = wanted.clone();
        Ok(())
    }

    /// Close it, and have the file of its path removed.
    pub fn let_go(self, supervisor: &Rc<Supervisor>) -> Option<OwnedFd> {
        match self.declared.listen {
            // Its address is to be free at once. Without lingering nothing is waited for.
            Listen::Address(_) => {
                let _ = setsockopt(&self.fd, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 });
                None
            }
            Listen::Path(path) => {
                let supervisor = Rc::clone(supervisor);
                spawn_local(async move {
                    // What cannot be removed is replaced by the next who listens there.
                    let _ =
                        timeout(LIMIT, lookup::ask(&supervisor, Question::Remove, Path::new(&path))).await;
                });
                Some(self.fd)
            }
        }
    }
}

/// Open a socket on an address of the network; `None` for a path.
pub fn open(declared: &Socket) -> io::Result<Option<OwnedFd>> {
    let Listen::Address(address) = declared.listen else { return Ok(None) };
    let address = SockaddrStorage::from(address);
    let family = if address.as_sockaddr_in6().is_some() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, kind(declared), SockFlag::SOCK_CLOEXEC, None)?;
    // A server that comes back does not wait for its old connections; for messages it would be to share the port.
    if declared.kind == SocketKind::Stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &address)?;
    accept(&fd, declared)?;
    Ok(Some(fd))
}

/// The same for a path, by a child.
pub async fn open_path(supervisor: &Rc<Supervisor>, declared: &Socket, path: &str) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, kind(declared), SockFlag::SOCK_CLOEXEC, None)?;
    let owner = Owner { mode: declared.mode, user: declared.user, group: declared.group };
    let question = Question::Bind(fd.as_raw_fd(), owner);
    timeout(LIMIT, lookup::ask(supervisor, question, Path::new(path)))
        .await
        .unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)))?;
    accept(&fd, declared)?;
    Ok(fd)
}

fn kind(declared: &Socket) -> SockType {
    match declared.kind {
        SocketKind::Stream => SockType::Stream,
        SocketKind::Datagram => SockType::Datagram,
        SocketKind::SeqPacket => SockType::SeqPacket,
    }
}

/// Let connections come, if it has any.
fn accept(fd: &OwnedFd, declared: &Socket) -> io::Result<()> {
    if declared.kind == SocketKind::Datagram {
        return Ok(());
    }
    // The kernel takes the least of this and its own limit.
    let backlog = i32::try_from(declared.backlog).unwrap_or(i32::MAX);
    // SAFETY: a call on an open descriptor.
    match unsafe { libc::listen(fd.as_raw_fd(), backlog) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
