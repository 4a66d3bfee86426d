//! What makes a descriptor the one it is said to be.
//!
//! Both sides look for themselves: a socket by its type, whether it listens, and its cookie, which
//! the kernel gives once for as long as the socket lives, whoever holds it (`SO_COOKIE`, Linux
//! 4.12); anything else by device and inode, which is all there is (two event descriptors look
//! alike). The digest is FNV-1a of 64 bits (IETF draft-eastlake-fnv): it finds mistakes, and is no
//! protection against who wants to lie.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::{FileType, fstat};
use rustix::io;
use rustix::net::{SocketType, sockopt};

/// A descriptor's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A socket.
    Socket {
        /// What it carries.
        kind: SocketKind,
        /// Whether it accepts connections.
        listens: bool,
        /// The kernel's number for it.
        cookie: u64,
    },
    /// Anything else: file, pipe, memory.
    File {
        /// `st_mode`'s type, as a number.
        kind: u32,
        /// Its device.
        device: u64,
        /// Its number there.
        inode: u64,
    },
}

/// Kinds of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// Bytes in order, as of TCP.
    Stream,
    /// Messages that stand alone, as of UDP.
    Datagram,
    /// Messages in order.
    SeqPacket,
    /// Any other.
    Other(u32),
}

impl Identity {
    /// Of this descriptor.
    pub fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let descriptor = descriptor.as_fd();
        // Most are sockets, and nobody serves while thousands of them are looked at: so no call more than is needed.
        let kind = match sockopt::socket_type(descriptor) {
            Ok(SocketType::STREAM) => SocketKind::Stream,
            Ok(SocketType::DGRAM) => SocketKind::Datagram,
            Ok(SocketType::SEQPACKET) => SocketKind::SeqPacket,
            Ok(other) => SocketKind::Other(other.as_raw()),
            Err(io::Errno::NOTSOCK) => {
                let stat = fstat(descriptor)?;
                let kind = FileType::from_raw_mode(stat.st_mode).as_raw_mode();
                return Ok(Self::File { kind, device: stat.st_dev, inode: stat.st_ino });
            }
            Err(error) => return Err(error),
        };
        let listens = sockopt::socket_acceptconn(descriptor)?;
        let cookie = sockopt::socket_cookie(descriptor)?;
        Ok(Self::Socket { kind, listens, cookie })
    }

    /// Whether it is a socket that accepts connections.
    pub fn is_listener(self) -> bool {
        matches!(self, Self::Socket { listens: true, .. })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { kind, listens, cookie } => {
                let kind = match kind {
                    SocketKind::Stream => "stream".to_owned(),
                    SocketKind::Datagram => "datagram".to_owned(),
                    SocketKind::SeqPacket => "seqpacket".to_owned(),
                    SocketKind::Other(number) => format!("socket-{number}"),
                };
                write!(f, "{}{kind}:{cookie}", if *listens { "listening-" } else { "" })
            }
            Self::File { kind, device, inode } => write!(f, "file-{kind:o}:{device}:{inode}"),
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Digest {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// Of nothing.
    pub fn new() -> Self {
        Self(Self::BASIS)
    }

    /// Go on with these bytes and an end mark, so that "ab", "c" is not "a", "bc".
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(b"\n") {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }

    /// Of all that was added.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_copy_is_the_same_and_another_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let identity = Identity::of(&listener).expect("an identity");
        assert!(identity.is_listener());
        assert_eq!(Identity::of(listener.try_clone().expect("a copy")), Ok(identity));
        assert_ne!(Identity::of(&other), Ok(identity));
        let datagrams = Identity::of(UdpSocket::bind("127.0.0.1:0").expect("a socket")).expect("an identity");
        assert!(!datagrams.is_listener());
        assert!(datagrams.to_string().starts_with("datagram:"), "{datagrams}");
        let file = Identity::of(std::fs::File::open("/").expect("a folder")).expect("an identity");
        assert!(file.to_string().starts_with("file-40000:"), "{file}");
    }

    #[test]
    fn the_digest_sees_order_and_borders() {
        let of = |parts: &[&str]| {
            let mut digest = Digest::new();
            for part in parts {
                digest.add(part.as_bytes());
            }
            digest.value()
        };
        // The published vector of "foobar" (0x8594_4171_f739_67e8) and one step more.
        assert_eq!(of(&["foobar"]), 0x3453_16a7_168b_8506);
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
    }
}
