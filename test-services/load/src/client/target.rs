//! Where the server is.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

/// The address of a server that sends back what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `tcp:ADDRESS:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
    /// `udp:ADDRESS:PORT`; a request is a datagram.
    Udp(SocketAddr),
    /// `unix-datagram:PATH`; a request is a datagram. The client's own path is beside it.
    UnixDatagram(PathBuf),
}

/// A connection of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Target {
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Small requests must not wait for more to come.
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Udp(address) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(address).await?;
                Box::new(Datagrams(socket))
            }
            Self::UnixDatagram(path) => Box::new(LocalDatagrams::connect(path)?),
        })
    }

    /// Whether the other side can see that nothing more will come, and says so in turn.
    pub(super) fn has_an_end(&self) -> bool {
        !matches!(self, Self::Udp(_) | Self::UnixDatagram(_))
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = |rest: &str| rest.parse().map_err(|error| format!("{rest}: {error}"));
        match text.split_once(':') {
            Some(("tcp", rest)) => address(rest).map(Self::Tcp),
            Some(("udp", rest)) => address(rest).map(Self::Udp),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("unix-datagram", path)) if !path.is_empty() => Ok(Self::UnixDatagram(path.into())),
            _ => {
                Err("expected tcp:ADDRESS:PORT, udp:ADDRESS:PORT, unix:PATH or unix-datagram:PATH".to_owned())
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::UnixDatagram(path) => write!(f, "unix-datagram:{}", path.display()),
        }
    }
}

/// A connected socket of datagrams, read and written as if it were a stream: each write is one.
struct Datagrams(UdpSocket);

impl AsyncRead for Datagrams {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_recv(context, buffer)
    }
}

impl AsyncWrite for Datagrams {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(context, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The same at a path of its own, without which nobody could answer.
struct LocalDatagrams {
    socket: UnixDatagram,
    own: PathBuf,
}

impl LocalDatagrams {
    fn connect(path: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut own = path.as_os_str().to_owned();
        own.push(format!(".client-{}-{number}", std::process::id()));
        let own = PathBuf::from(own);
        let socket = UnixDatagram::bind(&own)?;
        let this = Self { socket, own };
        this.socket.connect(path)?;
        Ok(this)
    }
}

impl Drop for LocalDatagrams {
    fn drop(&mut self) {
        // It may be gone with its folder.
        let _ = fs::remove_file(&self.own);
    }
}

impl AsyncRead for LocalDatagrams {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.poll_recv(context, buffer)
    }
}

impl AsyncWrite for LocalDatagrams {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for text in ["tcp:127.0.0.1:8080", "udp:[::1]:9", "unix:/run/a:b", "unix-datagram:/c"] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), text);
        }
        for text in ["", "tcp", "unix:", "http:127.0.0.1:80", "tcp:localhost:80"] {
            text.parse::<Target>().expect_err(text);
        }
    }
}
