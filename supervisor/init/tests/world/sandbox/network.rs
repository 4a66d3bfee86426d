//! A network namespace that is connected to a bridge.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use yakiros_core::journal::State;

use super::refused::failed;
use super::start_as;
use crate::examples::built;
use crate::guest::{Guest, PATIENCE, until};

/// Make a bridge by an old call of its kind, which needs no other program.
const SIOCBRADDBR: libc::Ioctl = 0x89a0;

/// Do something in the network namespace of the supervisor.
fn inside<T: Send>(guest: &Guest, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{}/ns/net", guest.init_pid())).expect("its namespace");
    let there = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("the right to go there");
        act()
    };
    std::thread::scope(|scope| scope.spawn(there).join().expect("a result"))
}

/// A bridge with the address 10.9.8.1/24, up.
fn bridge(name: &str) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let call = |number, argument: *const libc::ifreq| {
        // SAFETY: a call on a descriptor and a local.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, argument) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    call(SIOCBRADDBR, (&raw const request.ifr_name).cast())?;
    for (number, address) in [(libc::SIOCSIFADDR, [10, 9, 8, 1]), (libc::SIOCSIFNETMASK, [255, 255, 255, 0])]
    {
        // SAFETY: plain data for which zero is valid.
        let mut address_of: libc::sockaddr = unsafe { std::mem::zeroed() };
        address_of.sa_family = libc::AF_INET as u16;
        for (to, from) in address_of.sa_data[2..].iter_mut().zip(address) {
            *to = u8::cast_signed(from);
        }
        request.ifr_ifru.ifru_addr = address_of;
        call(number, &raw const request)?;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    call(libc::SIOCSIFFLAGS, &raw const request)
}

fn file(name: &str, bridge: &str, address: &str) -> String {
    let binary = built("handoff-echo");
    format!(
        "[component]\nname = {name:?}\nbinary = {binary:?}\nargs = [\"0.0.0.0:7007\"]\n[isolation]\n\
         namespaces = [\"net\", \"pid\"]\ninit = true\n\
         network = {{ bridge = {bridge:?}, address = {address:?}, gateway = \"10.9.8.1\" }}\n"
    )
}

fn echo(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((address, 7007))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn a_namespace_is_reached_through_its_bridge_and_nothing_of_it_is_left() {
    let Some(guest) = start_as("-pmfn") else { return };
    inside(&guest, || bridge("br7")).expect("a bridge: the kernel needs CONFIG_BRIDGE and CONFIG_VETH");
    for (name, address) in [("one", "10.9.8.2"), ("two", "10.9.8.3")] {
        guest.declare(&format!("{name}.toml"), &file(name, "br7", &format!("{address}/24")));
        until("the declaration", || guest.status().0.iter().any(|c| *c.name == *name).then_some(()));
        guest.wait(name, State::Active, None);
        let heard = inside(&guest, || until("an answer", || echo(address).ok()));
        assert_eq!(heard, "hello");
    }
    // Its default route is there, and its end of the pair is the only interface but lo.
    let pid = guest.component("one").pid.expect("a process").to_string();
    let interfaces = ["nsenter", "-t", &pid, "-n", "sh", "-c"];
    let check = |script: &str| {
        let mut command = guest.command_inside(&["-p", "-m"]);
        command.args(interfaces).arg(script).status().expect("nsenter").success()
    };
    assert!(check("test $(grep -c : /proc/net/dev) = 2 && grep -q eth0 /proc/net/dev"));
    assert!(check("grep -q '^eth0.00000000.0108090A' /proc/net/route"), "the gateway");
    assert!(!check("grep -q nonsense /proc/net/dev"), "a check that can fail");
    // What was made goes with the namespace.
    let count = || {
        inside(&guest, || {
            std::fs::read_to_string("/proc/thread-self/net/dev").expect("interfaces").lines().count()
        })
    };
    let with = count();
    guest.graphctl(&["stop", "one"]);
    guest.graphctl(&["stop", "two"]);
    until("the interfaces to go", || (count() == with - 2).then_some(()));
    // Without the bridge there is no start.
    guest.declare("lost.toml", &file("lost", "br8", "10.9.8.4/24"));
    let detail = failed(&guest, "lost");
    assert!(detail.contains("failed to find the bridge br8: no such device"), "{detail}");
}
