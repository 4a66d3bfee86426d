//! `[[sockets]]`: sockets that the supervisor opens for a component and gives to each of its processes.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys::Word;
use super::reader::Reader;
use super::values::{Problem, parse_address, text, word};
use crate::descriptors::{NAME_LIMIT, SOCKETS_LIMIT, is_name};
use crate::diagnostic::rules;

/// The section.
const S: &str = "sockets";

/// What a socket is called that has no name.
const UNNAMED: &str = "socket";

/// Connections that may wait to be accepted when a file does not say: what the kernel allows by itself
/// (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Everybody may connect, as to an address of the network.
const MODE: u32 = 0o666;

/// The longest path of a unix socket, in bytes: `sun_path` has 108, of which one is the end.
const PATH_LIMIT: usize = 107;

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// Its type.
    pub kind: SocketKind,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Permissions, owner and group of the file of a path.
    pub mode: u32,
    /// See [`Socket::mode`]; the supervisor's when absent.
    pub user: Option<u32>,
    /// See [`Socket::mode`].
    pub group: Option<u32>,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listen {
    /// An address of the network.
    Address(SocketAddr),
    /// A path.
    Path(String),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketKind {
    /// Connections of bytes: TCP, or a unix stream.
    Stream,
    /// Messages without connections: UDP, or unix datagrams.
    Datagram,
    /// Connections of messages.
    SeqPacket,
}

impl Word for SocketKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("stream", Self::Stream), ("datagram", Self::Datagram), ("seqpacket", Self::SeqPacket)];
}

/// All sockets of a file.
pub(super) fn sockets(r: &mut Reader<'_>) -> Vec<Socket> {
    let mut found: Vec<Socket> = Vec::new();
    let mut places = HashSet::new();
    for place in 0..r.sections(S) {
        r.enter(place);
        if place >= SOCKETS_LIMIT {
            let message = format!("a component has at most {SOCKETS_LIMIT} sockets");
            r.report(&rules::OUT_OF_RANGE, S, "listen", &message, None);
            break;
        }
        if let Some(socket) = socket(r) {
            if !places.insert((socket.listen.clone(), socket.kind)) {
                let message = format!("{} is listened on twice", socket.listen);
                r.report(&rules::SOCKET_TWICE, S, "listen", &message, Some("once is enough".to_owned()));
            }
            found.push(socket);
        }
    }
    r.enter(0);
    found
}

fn socket(r: &mut Reader<'_>) -> Option<Socket> {
    if !r.has(S, "listen") {
        r.missing(S, "listen", "write listen = \"ADDRESS:PORT\" or listen = \"/path\" under [[sockets]]");
    }
    let listen = r.get(S, "listen", listen);
    let name = r.get(S, "name", name).unwrap_or_else(|| UNNAMED.to_owned());
    let kind = r.get(S, "type", word::<SocketKind>).unwrap_or(SocketKind::Stream);
    let backlog = r.number(S, "backlog").and_then(|n| u32::try_from(n).ok());
    let mode = r.get(S, "mode", mode);
    let owner = |r: &mut Reader<'_>, key| r.number(S, key).and_then(|n| u32::try_from(n).ok());
    let (user, group) = (owner(r, "user"), owner(r, "group"));
    let listen = listen?;
    if let Listen::Address(_) = listen {
        if kind == SocketKind::SeqPacket {
            let help = Some("listen on a path, or take \"stream\"".to_owned());
            r.report(&rules::SEQPACKET_ADDRESS, S, "type", "the network has no \"seqpacket\" sockets", help);
        }
        for key in ["mode", "user", "group"] {
            r.without(S, key, "only the file of a path has it");
        }
    }
    if kind == SocketKind::Datagram {
        r.without(S, "backlog", "there are no connections to wait");
    }
    let (backlog, mode) = (backlog.unwrap_or(BACKLOG), mode.unwrap_or(MODE));
    Some(Socket { name, listen, kind, backlog, mode, user, group })
}

fn listen(value: &DeValue<'_>) -> Result<Listen, Problem> {
    let given = text(value)?;
    if given.starts_with('/') && given.len() <= PATH_LIMIT {
        return Ok(Listen::Path(given));
    }
    let help = format!(
        "write numbers, as \"0.0.0.0:8080\" or \"[::]:8080\", or an absolute path of at most {PATH_LIMIT} bytes"
    );
    let problem = || Problem::new(&rules::NO_LISTEN, format!("is nothing to listen on: {given:?}"));
    parse_address(&given).map(Listen::Address).ok_or_else(|| problem().help(help))
}

fn name(value: &DeValue<'_>) -> Result<String, Problem> {
    let name = text(value)?;
    if is_name(name.as_bytes()) {
        return Ok(name);
    }
    Err(Problem::new(&rules::DESCRIPTOR_NAME, format!("cannot be {name:?}")).help(format!(
        "a descriptor's name is ASCII without control characters and colons, of at most {NAME_LIMIT} bytes"
    )))
}

/// Permissions in octal, as chmod(1) takes them.
pub(super) fn mode(value: &DeValue<'_>) -> Result<u32, Problem> {
    let given = text(value)?;
    let digits = (3..=4).contains(&given.len()) && given.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(&given, 8).ok().filter(|mode| digits && *mode <= 0o777);
    let problem = || Problem::new(&rules::NO_MODE, format!("are no permissions: {given:?}"));
    mode.ok_or_else(|| problem().help("write them in octal, as \"0660\""))
}
