//! Messages of rtnetlink(7) that connect a network namespace of its own: an interface at a bridge, its address, a route.
//!
//! The child sends them itself, in its place in the order: numbers that only it knows are put in there.

use std::net::IpAddr;

use nix::libc;
use yakiros_core::component::{Namespace, Network, Restriction};

use super::super::Op;
use super::super::op::{MESSAGE_LIMIT, Message};
use super::{Compiler, NotCompiled, c_string};

/// What the interface is called in the namespace.
const NAME: &str = "eth0";

/// `VETH_INFO_PEER` of `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;

/// Lengths of `struct nlmsghdr`, and of an attribute's head.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// All steps of a network namespace.
pub fn steps(compiler: &mut Compiler<'_>) -> Result<(), NotCompiled> {
    if !compiler.isolation.has(Namespace::Net) {
        return Ok(());
    }
    let network = compiler.isolation.network.clone();
    if let Some(Network { bridge, .. }) = &network {
        compiler.must("ask for the machine's interfaces", Op::OpenLinks);
        compiler.must(format!("find the bridge {bridge}"), Op::FindLink(c_string(bridge)?));
    }
    compiler.must("take a network namespace of its own", Op::Unshare(libc::CLONE_NEWNET));
    compiler.restrict(Restriction::Loopback, "bring the interface lo up", Op::RaiseLink(c"lo".into()));
    if let Some(network) = &network {
        connect(compiler, network)?;
    }
    Ok(())
}

fn connect(compiler: &mut Compiler<'_>, network: &Network) -> Result<(), NotCompiled> {
    let Network { bridge, address, prefix, gateway } = network;
    let name = c_string(NAME)?;
    compiler.must(format!("make an interface at the bridge {bridge}"), Op::Link(veth()));
    compiler.must("ask for its own interfaces", Op::OpenLinks);
    compiler.must(format!("find its interface {NAME}"), Op::FindLink(name.clone()));
    compiler
        .must(format!("give {NAME} the address {address}/{prefix}"), Op::Link(addressed(*address, *prefix)));
    compiler.must(format!("bring the interface {NAME} up"), Op::RaiseLink(name));
    if let Some(gateway) = gateway {
        compiler.must(format!("make {gateway} its gateway"), Op::Link(routed(*gateway)));
    }
    Ok(())
}

/// A pair of interfaces: one at the bridge, which the kernel names, the other in the namespace of the process that sends.
fn veth() -> Message {
    let mut message = Builder::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    message.link(libc::IFF_UP as u32);
    message.attribute(libc::IFLA_MASTER, Builder::found_link);
    message.attribute(libc::IFLA_LINKINFO, |message| {
        message.attribute(libc::IFLA_INFO_KIND, |message| message.bytes(b"veth\0"));
        message.attribute(libc::IFLA_INFO_DATA, |message| {
            message.attribute(VETH_INFO_PEER, |message| {
                message.link(0);
                message.attribute(libc::IFLA_IFNAME, |message| {
                    message.bytes(NAME.as_bytes());
                    message.bytes(b"\0");
                });
                message.attribute(libc::IFLA_NET_NS_PID, Builder::own_process);
            });
        });
    });
    message.finish()
}

/// An address of the interface that was found. One of IPv6 is used at once: nobody else has it on a network of one's own.
fn addressed(address: IpAddr, prefix: u8) -> Message {
    let mut message = Builder::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    message.bytes(&[family(address), prefix, flags, 0]);
    message.found_link();
    message.attribute(libc::IFA_LOCAL, |message| message.address(address));
    message.attribute(libc::IFA_ADDRESS, |message| message.address(address));
    message.finish()
}

/// Everything else goes to the gateway.
fn routed(gateway: IpAddr) -> Message {
    let mut message = Builder::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    let (table, protocol, scope, kind) =
        (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST);
    message.bytes(&[family(gateway), 0, 0, 0, table, protocol, scope, kind]);
    message.bytes(&0_u32.to_ne_bytes());
    message.attribute(libc::RTA_GATEWAY, |message| message.address(gateway));
    message.attribute(libc::RTA_OIF, Builder::found_link);
    message.finish()
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

/// A message under way.
struct Builder(Message);

impl Builder {
    fn new(kind: u16, flags: libc::c_int) -> Self {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(Message { bytes, link_at: None, process_at: None })
    }

    /// `struct ifinfomsg`: of any kind, with these flags.
    fn link(&mut self, flags: u32) {
        self.bytes(&[0; 8]);
        self.bytes(&flags.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let begin = self.0.bytes.len();
        self.bytes(&[0; ATTRIBUTE]);
        content(self);
        // The length is without what comes after it for the next to be aligned.
        let length = u16::try_from(self.0.bytes.len() - begin).unwrap_or(u16::MAX);
        self.0.bytes[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.bytes[begin + 2..begin + ATTRIBUTE].copy_from_slice(&kind.to_ne_bytes());
        self.0.bytes.resize(self.0.bytes.len().next_multiple_of(ATTRIBUTE), 0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.bytes.extend_from_slice(bytes);
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    fn found_link(&mut self) {
        self.0.link_at = Some(self.0.bytes.len());
        self.bytes(&[0; 4]);
    }

    fn own_process(&mut self) {
        self.0.process_at = Some(self.0.bytes.len());
        self.bytes(&[0; 4]);
    }

    fn finish(mut self) -> Message {
        let length = u32::try_from(self.0.bytes.len()).unwrap_or(u32::MAX);
        self.0.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        debug_assert!(self.0.bytes.len() <= MESSAGE_LIMIT, "the child has no room for more");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attributes of a part of a message, by kind.
    fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut found = Vec::new();
        while bytes.len() >= ATTRIBUTE {
            let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            let (length, kind) = (usize::from(number(0)), number(2));
            found.push((kind, bytes[ATTRIBUTE..length].to_vec()));
            bytes = bytes.get(length.next_multiple_of(ATTRIBUTE)..).unwrap_or_default();
        }
        found
    }

    #[test]
    fn messages_are_as_long_as_they_say_and_leave_room_for_what_the_child_knows() {
        let (four, six) = ("10.0.0.1".parse().expect("address"), "fd00::1".parse().expect("address"));
        let all = [veth(), addressed(four, 24), addressed(six, 64), routed(four), routed(six)];
        for message in &all {
            let length = u32::from_ne_bytes(message.bytes[..4].try_into().expect("four bytes"));
            assert_eq!(length as usize, message.bytes.len());
            assert!(message.bytes.len() <= MESSAGE_LIMIT && message.bytes.len() % ATTRIBUTE == 0);
            for at in [message.link_at, message.process_at].into_iter().flatten() {
                assert_eq!(message.bytes[at..at + 4], [0; 4]);
            }
        }
        assert!(all.iter().all(|message| message.link_at.is_some()));
        assert_eq!(all.iter().filter(|message| message.process_at.is_some()).count(), 1, "the pair's");
    }

    #[test]
    fn the_other_end_is_called_eth0() {
        let own = attributes(&veth().bytes[HEADER + 16..]);
        assert_eq!(
            own.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
            [libc::IFLA_MASTER, libc::IFLA_LINKINFO]
        );
        let info = attributes(&own[1].1);
        assert_eq!(info[0], (libc::IFLA_INFO_KIND, b"veth\0".to_vec()));
        let peer = attributes(&info[1].1);
        assert_eq!(peer[0].0, VETH_INFO_PEER);
        let ends = attributes(&peer[0].1[16..]);
        assert_eq!(ends[0], (libc::IFLA_IFNAME, b"eth0\0".to_vec()));
        assert_eq!(ends[1], (libc::IFLA_NET_NS_PID, vec![0; 4]));
    }
}
