//! Where the server is.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket, UnixStream};

/// The address of a server that sends back what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `tcp:ADDRESS:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
    /// `udp:ADDRESS:PORT`; a request is a datagram.
    Udp(SocketAddr),
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
        })
    }

    /// Whether the other side can see that nothing more will come, and says so in turn.
    pub(super) fn has_an_end(&self) -> bool {
        !matches!(self, Self::Udp(_))
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
            _ => Err("expected tcp:ADDRESS:PORT, udp:ADDRESS:PORT or unix:PATH".to_owned()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for text in ["tcp:127.0.0.1:8080", "udp:[::1]:9", "unix:/run/a:b"] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), text);
        }
        for text in ["", "tcp", "unix:", "http:127.0.0.1:80", "tcp:localhost:80"] {
            text.parse::<Target>().expect_err(text);
        }
    }
}
