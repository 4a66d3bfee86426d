use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// For what is not to come.
const NEVER: Duration = Duration::from_millis(300);
/// For what is to come: TCP has sent it again by then.
const SOON: Duration = Duration::from_secs(20);
/// The limit of a barrier that a test lowers itself.
const LONG: Duration = Duration::from_secs(600);

/// Do something on a network of its own, if that may be had, with nf_tables.
fn alone(work: impl FnOnce() + Send + 'static) {
    let worked = thread::spawn(|| {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() || remove_table("none").is_err() {
            return;
        }
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        if up.is_ok_and(|status| status.success()) {
            work();
        }
    });
    worked.join().expect("it ends");
}

/// Both ends of a connection, and what listens.
fn connection(at: &str) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind(at).expect("a socket");
    let client = TcpStream::connect(listener.local_addr().expect("a place")).expect("a connection");
    let (server, _) = listener.accept().expect("a client");
    (listener, client, server)
}

fn pair(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    let [local, remote] = [stream.local_addr(), stream.peer_addr()].map(|end| end.expect("an end"));
    (
        SocketAddr::new(local.ip().to_canonical(), local.port()),
        SocketAddr::new(remote.ip().to_canonical(), remote.port()),
    )
}

/// Whether a byte comes in time.
fn comes(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).expect("a limit");
    stream.read(&mut [0]).is_ok_and(|count| count == 1)
}

#[test]
fn what_is_sent_meanwhile_arrives_afterwards() {
    alone(|| {
        for at in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let (listener, mut client, mut server) = connection(at);
            let (_other_listener, mut other, mut other_server) = connection("127.0.0.1:0");
            let port = listener.local_addr().expect("a place").port();
            let closed = Connections { pairs: [pair(&client), pair(&server)].into(), ports: [port].into() };
            raise(&closed, LONG).expect("raised");
            client.write_all(b"1").expect("sent");
            server.write_all(b"2").expect("sent");
            assert!(!comes(&mut server, NEVER) && !comes(&mut client, NEVER), "{at}");
            other.write_all(b"3").expect("sent");
            assert!(comes(&mut other_server, SOON), "nobody else is concerned");
            let place = SocketAddr::new(client.peer_addr().expect("an end").ip(), port);
            let waits = TcpStream::connect_timeout(&place, NEVER).expect_err("it waits");
            assert_eq!(waits.kind(), io::ErrorKind::TimedOut, "{at}");
            // Raised again, it is as it was.
            raise(&closed, LONG).expect("raised");
            assert!(!comes(&mut server, NEVER), "{at}");
            assert!(lower().expect("lowered") && !lower().expect("lowered"));
            assert!(comes(&mut server, SOON) && comes(&mut client, SOON), "{at}");
            TcpStream::connect_timeout(&place, SOON).expect("it listens");
        }
    });
}

#[test]
fn what_nobody_lowers_ends_by_itself() {
    alone(|| {
        let (_listener, mut client, mut server) = connection("127.0.0.1:0");
        raise(&Connections::default(), NEVER * 2).expect("raised");
        client.write_all(b"1").expect("sent");
        assert!(comes(&mut server, SOON), "nothing is in it yet");
        more(&Connections { pairs: [pair(&server)].into(), ports: BTreeSet::new() }).expect("more");
        client.write_all(b"2").expect("sent");
        assert!(!comes(&mut server, NEVER));
        assert!(comes(&mut server, SOON));
        assert!(lower().expect("lowered"), "the table is still there");
    });
}

#[test]
fn many_come_in_parts() {
    alone(|| {
        let ends = (1..=2500).map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let there = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 5000);
        let many = Connections { pairs: ends.map(|end| (end, there)).collect(), ports: (1..2000).collect() };
        assert_eq!(rules::elements(&many).len(), 3 + 2);
        raise(&many, LONG).expect("raised");
        // Those that are there already are no mistake.
        more(&many).expect("raised");
        assert!(lower().expect("lowered"));
    });
}

#[test]
fn connections_are_those_of_the_processes_that_are_named() {
    let own = i32::try_from(std::process::id()).expect("a number");
    let (listener, client, server) = connection("127.0.0.1:0");
    let found = Connections::of([own]).expect("read");
    assert!(found.pairs.contains(&pair(&client)) && found.pairs.contains(&pair(&server)), "{found:?}");
    assert!(found.ports.contains(&listener.local_addr().expect("a place").port()), "{found:?}");
    assert_eq!(Connections::of([i32::MAX]).expect("read"), Connections::default());
}

#[test]
fn addresses_are_read_as_the_kernel_writes_them() {
    let of = |text: &str| address(text).map(|address| address.to_string());
    assert_eq!(of("0100007F:1F90").as_deref(), Some("127.0.0.1:8080"));
    assert_eq!(of("00000000000000000000000001000000:0050").as_deref(), Some("[::1]:80"));
    assert_eq!(of("0000000000000000FFFF00000100007F:0050").as_deref(), Some("127.0.0.1:80"));
    for text in ["", ":", "0100007F", "0100007:1", "0100007G:1", "0100007F0:1", "0100007F:10000"] {
        assert_eq!(of(text), None, "{text}");
    }
}

#[test]
fn what_is_written_down_is_read_again_and_nothing_that_others_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(FILE);
    let end = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let pairs = [(end("127.0.0.1:80"), end("10.0.2.2:4711")), (end("[::1]:80"), end("[::1]:9"))].into();
    let written = Connections { pairs, ports: [80].into() };
    fs::write(&path, written.to_bytes()).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(Connections::read(&path).expect("read"), written);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("a mode");
    Connections::read(&path).expect_err("others may write it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(&path, "{").expect("a file");
    Connections::read(&path).expect_err("it is cut off");
}
