//! Sockets of either family behind one name, so that a server need not care which it has.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use tokio::io::{Interest, ReadBuf, Ready};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use yakiros_handoff::Item;
use yakiros_handoff::identity::{Identity, SocketKind};

/// The longest datagram that is answered, in bytes: UDP's.
pub const DATAGRAM_BYTES: usize = 65_507;

/// Accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener),
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Of TCP.
    Tcp(TcpStream),
    /// To a path.
    Unix(UnixStream),
}

/// Messages that stand alone.
#[derive(Debug)]
pub enum Datagrams {
    /// Of UDP.
    Udp(UdpSocket),
    /// At a path.
    Unix(UnixDatagram),
}

/// Who has sent a datagram.
#[derive(Debug)]
pub enum Sender {
    /// Over UDP.
    Udp(SocketAddr),
    /// From a path, if the sender has one.
    Unix(tokio::net::unix::SocketAddr),
}

impl Listener {
    /// At a path; what an earlier life has left there is removed.
    pub fn at(path: &Path) -> io::Result<Self> {
        remove(path)?;
        UnixListener::bind(path).map(Self::Unix)
    }

    /// From another process; an error if it does not accept connections.
    pub fn taken(Item { descriptor, identity, .. }: Item) -> io::Result<Self> {
        if !identity.is_listener() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a listener that does not listen"));
        }
        Ok(match family(&descriptor)? {
            AddressFamily::Unix => Self::Unix(UnixListener::from_std(descriptor.into())?),
            _ => Self::Tcp(TcpListener::from_std(descriptor.into())?),
        })
    }

    /// See [`TcpListener::poll_accept`].
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        Poll::Ready(Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = ready!(listener.poll_accept(context))?;
                // Small answers must not wait for more to come.
                let _ = stream.set_nodelay(true);
                Stream::Tcp(stream)
            }
            Self::Unix(listener) => Stream::Unix(ready!(listener.poll_accept(context))?.0),
        }))
    }
}

impl Stream {
    /// From another process; an error if it is no stream.
    pub fn taken(Item { descriptor, identity, .. }: Item) -> io::Result<Self> {
        if !matches!(identity, Identity::Socket { kind: SocketKind::Stream, listens: false, .. }) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a connection that is none"));
        }
        Ok(match family(&descriptor)? {
            AddressFamily::Unix => Self::Unix(UnixStream::from_std(descriptor.into())?),
            _ => Self::Tcp(TcpStream::from_std(descriptor.into())?),
        })
    }

    /// See [`TcpStream::ready`].
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// See [`TcpStream::try_read_buf`]. What leaves room has emptied the socket: it is ready again when more has come,
    /// after all others that are ready now. Otherwise a client that asks again at once would be served again and
    /// again, and the others not.
    pub fn try_read_buf(&self, to: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                read_once(to, |to| stream.try_read_buf(to), |read| stream.try_io(Interest::READABLE, read))
            }
            Self::Unix(stream) => {
                read_once(to, |to| stream.try_read_buf(to), |read| stream.try_io(Interest::READABLE, read))
            }
        }
    }

    /// See [`TcpStream::try_write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

impl Datagrams {
    /// At a path; what an earlier life has left there is removed.
    pub fn at(path: &Path) -> io::Result<Self> {
        remove(path)?;
        UnixDatagram::bind(path).map(Self::Unix)
    }

    /// From another process; an error if it has no datagrams.
    pub fn taken(Item { descriptor, identity, .. }: Item) -> io::Result<Self> {
        if !matches!(identity, Identity::Socket { kind: SocketKind::Datagram, .. }) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "datagrams that are none"));
        }
        Ok(match family(&descriptor)? {
            AddressFamily::Unix => Self::Unix(UnixDatagram::from_std(descriptor.into())?),
            _ => Self::Udp(UdpSocket::from_std(descriptor.into())?),
        })
    }

    /// The next datagram, in `buffer`.
    pub fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Sender>> {
        Poll::Ready(Ok(match self {
            Self::Udp(socket) => Sender::Udp(ready!(socket.poll_recv_from(context, buffer))?),
            Self::Unix(socket) => Sender::Unix(ready!(socket.poll_recv_from(context, buffer))?),
        }))
    }

    /// Answer, without waiting: a datagram that cannot be sent is lost, as datagrams are.
    pub fn answer(&self, to: &Sender, bytes: &[u8]) -> io::Result<()> {
        let sent = match (self, to) {
            (Self::Udp(socket), Sender::Udp(address)) => socket.try_send_to(bytes, *address),
            (Self::Unix(socket), Sender::Unix(address)) => match address.as_pathname() {
                Some(path) => socket.try_send_to(bytes, path),
                None => Ok(0),
            },
            _ => Ok(0),
        };
        sent.map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Read, and with `ready` (`try_io`) say that the socket is not ready any more if it is empty.
fn read_once(
    to: &mut Vec<u8>,
    read: impl Fn(&mut Vec<u8>) -> io::Result<usize>,
    ready: impl Fn(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
) -> io::Result<usize> {
    let room = to.capacity() - to.len();
    let mut result = Err(io::ErrorKind::WouldBlock.into());
    // What it gives is what was given to it.
    let _ = ready(&mut || {
        result = read(to);
        match result {
            Ok(count) if count == 0 || count == room => Ok(()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    });
    result
}

fn family(descriptor: &OwnedFd) -> io::Result<AddressFamily> {
    let name: SockaddrStorage = getsockname(descriptor.as_raw_fd())?;
    Ok(name.family().unwrap_or(AddressFamily::Unspec))
}

/// Remove a path that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
