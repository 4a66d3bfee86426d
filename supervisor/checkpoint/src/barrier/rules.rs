//! The barrier in the language of nf_tables, where it is called so:
//!
//! ```text
//! table inet yakiros-jump {
//!     set ipv4 { type ipv4_addr . inet_service . ipv4_addr . inet_service; timeout LIMIT; }
//!     set ipv6 { type ipv6_addr . inet_service . ipv6_addr . inet_service; timeout LIMIT; }
//!     set listeners4 { type ipv4_addr . inet_service; timeout LIMIT; }
//!     set listeners6 { type ipv6_addr . inet_service; timeout LIMIT; }
//!     set ports { type nf_proto . inet_service; timeout LIMIT; }
//!     chain input {
//!         type filter hook input priority -300;
//!         ip saddr . tcp sport . ip daddr . tcp dport @ipv4 drop
//!         tcp flags & (fin | syn | rst | ack) == syn ip daddr . tcp dport @listeners4 drop
//!         ip6 saddr . tcp sport . ip6 daddr . tcp dport @ipv6 drop
//!         tcp flags & (fin | syn | rst | ack) == syn ip6 daddr . tcp dport @listeners6 drop
//!         tcp flags & (fin | syn | rst | ack) == syn meta nfproto . tcp dport @ports drop
//!     }
//! }
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Connections;
use crate::netfilter::{APPEND, Attributes, Batch, CREATE, Kind, OWNED, TABLE_FLAGS, TABLE_NAME};

const CHAIN: &str = "input";
const IPV4: &str = "ipv4";
const IPV6: &str = "ipv6";
const LISTENERS4: &str = "listeners4";
const LISTENERS6: &str = "listeners6";
const PORTS: &str = "ports";
/// Elements in one message: an attribute has 64 KiB at most, and an element 52 bytes.
const TOGETHER: usize = 1000;
/// Such messages that fit into one batch: a socket takes some 200 KiB at a time.
pub const AT_ONCE: usize = 3;

// From the kernel's `linux/netfilter.h` and `linux/netfilter/nf_tables.h`, by the names that they have there.
const NF_INET_LOCAL_IN: u32 = 1;
/// Before everything else that looks at packets (`NF_IP_PRI_RAW`).
const PRIORITY: i32 = -300;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const NFT_SET_TIMEOUT: u32 = 0x10;
/// Registers of four bytes (`NFT_REG32_00`), and that of the verdict.
const REGISTERS: u32 = 8;
const NFT_REG_VERDICT: u32 = 0;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

// Types of data, as `nft` shows them; several are written one behind the other.
const PROTOCOL: u32 = 2;
const ADDRESS4: u32 = 7;
const ADDRESS6: u32 = 8;
const SERVICE: u32 = 13;
const TYPE_BITS: u32 = 6;

/// Where something is in the head of a TCP packet: its place and its length, in bytes.
const SOURCE_PORT: (u32, u32) = (0, 2);
const TARGET_PORT: (u32, u32) = (2, 2);
const FLAGS: (u32, u32) = (13, 1);
/// FIN, SYN, RST and ACK; and what the first packet of a connection has of them.
const ALL_FLAGS: u8 = 0x17;
const SYN: u8 = 0x02;

/// What a version of IP has.
struct Version {
    /// Its number.
    number: u8,
    /// Where sources and targets are in the heads of packets, and how long they are, in bytes.
    source: u32,
    target: u32,
    length: u32,
    /// An address, as a type of data.
    address: u32,
    /// The sets for connections and for places where somebody listens.
    pairs: &'static str,
    listeners: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        number: NFPROTO_IPV4,
        source: 12,
        target: 16,
        length: 4,
        address: ADDRESS4,
        pairs: IPV4,
        listeners: LISTENERS4,
    },
    Version {
        number: NFPROTO_IPV6,
        source: 8,
        target: 24,
        length: 16,
        address: ADDRESS6,
        pairs: IPV6,
        listeners: LISTENERS6,
    },
];

/// The table with nothing in its sets, in the place of one that is there. What comes into them stays so long. One that is
/// `owned` is gone with the socket by which this is sent, and nobody else may change it.
pub fn table(name: &str, is_owned: bool, limit: Duration) -> Batch {
    let about = Attributes::new().text(TABLE_NAME, name);
    let made = if is_owned { about.clone().number(TABLE_FLAGS, OWNED) } else { about.clone() };
    let hook = Attributes::new().number(1, NF_INET_LOCAL_IN).number(2, PRIORITY.cast_unsigned());
    let chain = Attributes::new().text(1, name).text(3, CHAIN).nest(4, &hook);
    let chain = chain.number(5, NF_ACCEPT).text(7, "filter");
    let mut batch = Batch::new()
        // One that is not there cannot be removed.
        .add(Kind::NewTable, CREATE, &about)
        .add(Kind::DeleteTable, 0, &about)
        .add(Kind::NewTable, CREATE, &made)
        .add(Kind::NewChain, CREATE, &chain);
    let mut sets = vec![(PORTS, vec![PROTOCOL, SERVICE], 4 + 4)];
    for Version { address, length, pairs, listeners, .. } in VERSIONS {
        sets.push((pairs, vec![address, SERVICE, address, SERVICE], 2 * (length + 4)));
        sets.push((listeners, vec![address, SERVICE], length + 4));
    }
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    for ((set, types, length), id) in sets.into_iter().zip(1..) {
        let kind = types.iter().fold(0, |all, one| all << TYPE_BITS | one);
        let set = Attributes::new().text(1, name).text(2, set).number(3, NFT_SET_TIMEOUT);
        let set = set.number(4, kind).number(5, length).number(10, id).long(11, limit);
        batch = batch.add(Kind::NewSet, CREATE, &set);
    }
    for version in VERSIONS {
        let Version { number, source, target, length, pairs, listeners, .. } = version;
        let port = REGISTERS + length / 4;
        let is_version = [meta(NFT_META_NFPROTO, REGISTERS), equals(&[number])];
        let pair = [
            payload(NETWORK_HEADER, (source, length), REGISTERS),
            payload(TRANSPORT_HEADER, SOURCE_PORT, port),
            payload(NETWORK_HEADER, (target, length), port + 1),
            payload(TRANSPORT_HEADER, TARGET_PORT, port + 1 + length / 4),
            is_in(pairs),
            drop_it(),
        ];
        let place = [
            payload(NETWORK_HEADER, (target, length), REGISTERS),
            payload(TRANSPORT_HEADER, TARGET_PORT, port),
            is_in(listeners),
            drop_it(),
        ];
        let pair = is_version.iter().chain(&is_tcp()).chain(&pair).cloned().collect::<Vec<_>>();
        let place =
            is_version.iter().chain(&is_tcp()).chain(&begins()).chain(&place).cloned().collect::<Vec<_>>();
        for expressions in [pair, place] {
            batch = batch.add(Kind::NewRule, CREATE | APPEND, &rule(name, &expressions));
        }
    }
    let port = [
        meta(NFT_META_NFPROTO, REGISTERS),
        payload(TRANSPORT_HEADER, TARGET_PORT, REGISTERS + 1),
        is_in(PORTS),
        drop_it(),
    ];
    let expressions: Vec<_> = is_tcp().into_iter().chain(begins()).chain(port).collect();
    batch.add(Kind::NewRule, CREATE | APPEND, &rule(name, &expressions))
}

/// What comes into the sets, in parts: the set's name, and keys.
pub fn elements(connections: &Connections) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut sets: [(&str, Vec<Vec<u8>>); 5] =
        [IPV4, IPV6, LISTENERS4, LISTENERS6, PORTS].map(|set| (set, Vec::new()));
    let mut put = |set: &str, key| {
        if let Some((_, keys)) = sets.iter_mut().find(|(name, _)| *name == set) {
            keys.push(key);
        }
    };
    for (local, remote) in &connections.pairs {
        // Of what arrives, the other end is the source.
        put(if local.is_ipv4() { IPV4 } else { IPV6 }, [key(remote), key(local)].concat());
    }
    for place in &connections.listeners {
        let on_any = |number: u8| [&[number, 0, 0, 0][..], &port(place)].concat();
        match place.ip() {
            IpAddr::V4(address) if address.is_unspecified() => put(PORTS, on_any(NFPROTO_IPV4)),
            // Such a socket has both, unless it says otherwise, which the kernel does not tell.
            IpAddr::V6(address) if address.is_unspecified() => {
                put(PORTS, on_any(NFPROTO_IPV4));
                put(PORTS, on_any(NFPROTO_IPV6));
            }
            IpAddr::V4(_) => put(LISTENERS4, key(place)),
            IpAddr::V6(_) => put(LISTENERS6, key(place)),
        }
    }
    let parts = |(name, keys): (_, Vec<Vec<u8>>)| {
        keys.chunks(TOGETHER).map(|part| (name, part.to_vec())).collect::<Vec<_>>()
    };
    sets.into_iter().flat_map(parts).collect()
}

/// Put some of them there, with what a batch has already. What is there stays.
pub fn add(batch: Batch, table: &str, (set, keys): &(&str, Vec<Vec<u8>>)) -> Batch {
    let list = keys.iter().fold(Attributes::new(), |list, key| {
        let element = Attributes::new().nest(1, &Attributes::new().bytes(DATA_VALUE, key));
        list.nest(LIST_ELEM, &element)
    });
    batch.add(Kind::NewElements, CREATE, &Attributes::new().text(1, table).text(2, set).nest(3, &list))
}

/// An address and a port, each at a multiple of four bytes.
fn key(end: &SocketAddr) -> Vec<u8> {
    let mut bytes = match end.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.extend(port(end));
    bytes
}

fn port(end: &SocketAddr) -> [u8; 4] {
    let [high, low] = end.port().to_be_bytes();
    [high, low, 0, 0]
}

/// A step of a rule: its name, and what it is told.
type Expression = (&'static str, Attributes);

/// Go on with TCP only.
fn is_tcp() -> [Expression; 2] {
    [meta(NFT_META_L4PROTO, REGISTERS), equals(&[IPPROTO_TCP])]
}

/// Go on with the first packet of a connection only.
fn begins() -> [Expression; 3] {
    [payload(TRANSPORT_HEADER, FLAGS, REGISTERS), masked(ALL_FLAGS), equals(&[SYN])]
}

fn rule(table: &str, expressions: &[Expression]) -> Attributes {
    let mut list = Attributes::new();
    for (name, told) in expressions {
        list = list.nest(LIST_ELEM, &Attributes::new().text(1, name).nest(2, told));
    }
    Attributes::new().text(1, table).text(2, CHAIN).nest(4, &list)
}

/// Something about the packet, into a register.
fn meta(key: u32, register: u32) -> Expression {
    ("meta", Attributes::new().number(1, register).number(2, key))
}

/// Go on if the first register has this.
fn equals(value: &[u8]) -> Expression {
    let data = Attributes::new().bytes(DATA_VALUE, value);
    ("cmp", Attributes::new().number(1, REGISTERS).number(2, 0).nest(3, &data))
}

/// A part of the packet into a register, and those behind it.
fn payload(header: u32, (at, length): (u32, u32), register: u32) -> Expression {
    ("payload", Attributes::new().number(1, register).number(2, header).number(3, at).number(4, length))
}

/// Keep some bits of the first byte of the first register.
fn masked(mask: u8) -> Expression {
    let [mask, nothing] = [mask, 0].map(|byte| Attributes::new().bytes(DATA_VALUE, &[byte]));
    let told = Attributes::new().number(1, REGISTERS).number(2, REGISTERS).number(3, 1);
    ("bitwise", told.nest(4, &mask).nest(5, &nothing))
}

/// Go on if what the registers have from the first on is in a set.
fn is_in(set: &str) -> Expression {
    ("lookup", Attributes::new().text(1, set).number(2, REGISTERS))
}

fn drop_it() -> Expression {
    let verdict = Attributes::new().nest(DATA_VERDICT, &Attributes::new().number(1, NF_DROP));
    ("immediate", Attributes::new().number(1, NFT_REG_VERDICT).nest(2, &verdict))
}
