use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::connections::address;
use super::*;
use crate::alone::alone;
use crate::netfilter::{Attributes, Kind, tables};

/// For what is not to come.
const NEVER: Duration = Duration::from_millis(300);
/// For what is to come: TCP has sent it again by then.
const SOON: Duration = Duration::from_secs(20);
/// The limit of a barrier that a test lowers itself.
const LONG: Duration = Duration::from_secs(600);

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

fn of_pairs(pairs: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> Connections {
    Connections { pairs: pairs.into_iter().collect(), ..Connections::default() }
}

/// So many that are nobody's, which come first in every set.
fn many(count: u32) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
    let there = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 5000);
    (0..count).map(move |number| (SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + number).into(), 1), there))
}

fn begins(place: SocketAddr) -> bool {
    TcpStream::connect_timeout(&place, NEVER).is_ok()
}

#[test]
fn what_is_sent_meanwhile_arrives_afterwards() {
    alone("barrier::tests::what_is_sent_meanwhile_arrives_afterwards", || {
        for at in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let (listener, mut client, mut server) = connection(at);
            let (_other_listener, mut other, mut other_server) = connection("127.0.0.1:0");
            let place = client.peer_addr().expect("an end");
            let canonical = SocketAddr::new(place.ip().to_canonical(), place.port());
            let pairs = [pair(&client), pair(&server)].into();
            let closed = Connections { pairs, listeners: [canonical].into(), elsewhere: 0 };
            let barrier = Barrier::raise(&closed, LONG).expect("raised");
            assert_eq!(barrier.closed(), &closed);
            client.write_all(b"1").expect("sent");
            server.write_all(b"2").expect("sent");
            assert!(!comes(&mut server, NEVER) && !comes(&mut client, NEVER), "{at}");
            other.write_all(b"3").expect("sent");
            assert!(comes(&mut other_server, SOON), "nobody else is concerned");
            let waits = TcpStream::connect_timeout(&place, NEVER).expect_err("it waits");
            assert_eq!(waits.kind(), io::ErrorKind::TimedOut, "{at}");
            drop(barrier);
            assert_eq!(tables().expect("a list"), BTreeSet::new());
            assert!(comes(&mut server, SOON) && comes(&mut client, SOON), "{at}");
            TcpStream::connect_timeout(&place, SOON).expect("it listens");
            drop(listener);
        }
    });
}

#[test]
fn who_listens_at_another_address_of_the_same_port_is_not_concerned() {
    alone("barrier::tests::who_listens_at_another_address_of_the_same_port_is_not_concerned", || {
        let one = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let port = one.local_addr().expect("a place").port();
        let others = ["127.0.0.2", "::1"].map(|ip| TcpListener::bind((ip, port)).expect("a socket"));
        let places = |all: &[&str]| Connections {
            listeners: all.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), port)).collect(),
            ..Connections::default()
        };
        let [second, third] = &others;
        for (closed, expected) in [
            (["127.0.0.1"], [false, true, true]),
            (["::1"], [true, true, false]),
            // A socket of IPv6 may have IPv4 as well.
            (["0.0.0.0"], [false, false, true]),
            (["::"], [false, false, false]),
        ] {
            let _barrier = Barrier::raise(&places(&closed), LONG).expect("raised");
            let found = [&one, second, third].map(|listens| begins(listens.local_addr().expect("a place")));
            assert_eq!(found, expected, "{closed:?} is closed");
        }
    });
}

#[test]
fn what_nobody_lowers_ends_by_itself() {
    alone("barrier::tests::what_nobody_lowers_ends_by_itself", || {
        let (_listener, mut client, mut server) = connection("127.0.0.1:0");
        let mut barrier = Barrier::raise(&Connections::default(), NEVER * 2).expect("raised");
        client.write_all(b"1").expect("sent");
        assert!(comes(&mut server, SOON), "nothing is in it yet");
        assert_eq!(barrier.more(&of_pairs([pair(&server)])).expect("more"), 1);
        client.write_all(b"2").expect("sent");
        assert!(!comes(&mut server, NEVER));
        assert!(comes(&mut server, SOON));
        assert_eq!(tables().expect("a list"), [TABLE.to_owned()].into(), "only what was in it is gone");
    });
}

#[test]
fn what_is_made_afterwards_is_found_and_closed() {
    alone("barrier::tests::what_is_made_afterwards_is_found_and_closed", || {
        let own = i32::try_from(std::process::id()).expect("a number");
        let (_listener, mut client, mut server) = connection("127.0.0.1:0");
        let look = || Connections::of([own]).expect("read");
        let mut barrier = Barrier::raise(&look(), LONG).expect("raised");
        let (later_listener, mut later, mut later_server) = connection("127.0.0.1:0");
        later.write_all(b"1").expect("sent");
        assert!(comes(&mut later_server, SOON), "nobody has looked again");
        let (_, more) = barrier.open(&look()).expect("both ends of it are open");
        assert_eq!(more, 1);
        assert_eq!(barrier.more(&look()).expect("more"), 2);
        assert_eq!((barrier.open(&look()), barrier.more(&look()).expect("more")), (None, 0));
        for (from, to) in [(&mut client, &mut server), (&mut later, &mut later_server)] {
            from.write_all(b"2").expect("sent");
            assert!(!comes(to, NEVER));
        }
        // It listens there, too.
        assert!(!begins(later_listener.local_addr().expect("a place")));
    });
}

/// Every millisecond another client sends a byte, while what is closed is closed once more, for good: none arrives.
#[test]
fn nothing_arrives_between_one_and_the_next() {
    alone("barrier::tests::nothing_arrives_between_one_and_the_next", || {
        let all: Vec<_> = (0..200).map(|_| connection("127.0.0.1:0")).collect();
        let (clients, servers): (Vec<_>, Vec<_>) =
            all.iter().map(|(_, client, server)| (client, server)).unzip();
        let mut closed = of_pairs(many(20_000));
        closed.extend(of_pairs(servers.iter().map(|server| pair(server))));
        let barrier = Barrier::raise(&closed, LONG).expect("raised");
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| leave(&closed, LONG).expect("raised"));
            for client in &clients {
                (&mut &**client).write_all(b"1").expect("sent");
                thread::sleep(Duration::from_millis(1));
            }
        });
        eprintln!("closed once more within {:?}", began.elapsed());
        drop(barrier);
        thread::sleep(NEVER);
        let arrived = servers.iter().filter(|server| {
            server.set_nonblocking(true).expect("a mode");
            server.peek(&mut [0]).is_ok()
        });
        assert_eq!(arrived.count(), 0);
        assert!(take_left().expect("taken") && !take_left().expect("taken"));
    });
}

#[test]
fn many_come_in_parts() {
    alone("barrier::tests::many_come_in_parts", || {
        let listeners = (1..2000).map(|port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).collect();
        let many = Connections { listeners, ..of_pairs(many(2500)) };
        assert_eq!(rules::elements(&many).len(), 3 + 2);
        let mut barrier = Barrier::raise(&many, LONG).expect("raised");
        // Those that are there already are no mistake.
        assert_eq!(barrier.more(&many).expect("more"), 0);
        for part in rules::elements(&many) {
            rules::add(Batch::new(), TABLE, &part).send_by(&barrier.socket).expect("once more");
        }
    });
}

#[test]
fn nobody_else_takes_it_away() {
    alone("barrier::tests::nobody_else_takes_it_away", || {
        let (_listener, mut client, mut server) = connection("127.0.0.1:0");
        let barrier = Barrier::raise(&of_pairs([pair(&server)]), LONG).expect("raised");
        // As `nft flush ruleset` does.
        let flush = || Batch::new().add(Kind::DeleteTable, 0, &Attributes::new()).send().expect("flushed");
        netfilter::tests::make_table("others").expect("a table");
        flush();
        assert_eq!(tables().expect("a list"), [TABLE.to_owned()].into());
        assert!(remove_table(TABLE).is_err() && Barrier::raise(&Connections::default(), LONG).is_err());
        client.write_all(b"1").expect("sent");
        assert!(!comes(&mut server, NEVER));
        drop(barrier);
        // What has no owner is gone.
        leave(&of_pairs([pair(&server)]), LONG).expect("raised");
        flush();
        assert!(comes(&mut server, SOON) && !take_left().expect("taken"));
    });
}

#[test]
fn what_was_left_is_taken_away_when_nobody_is_on_the_way() {
    alone("barrier::tests::what_was_left_is_taken_away_when_nobody_is_on_the_way", || {
        let lock = tempfile::tempdir().expect("a folder");
        leave(&Connections::default(), LONG).expect("raised");
        let held = File::open(lock.path()).expect("a folder");
        flock(&held, FlockOperation::LockExclusive).expect("locked");
        assert!(
            !take_left_by_nobody(lock.path()).expect("looked") && tables().expect("a list").contains(LEFT)
        );
        drop(held);
        assert!(take_left_by_nobody(lock.path()).expect("looked") && tables().expect("a list").is_empty());
        try_out().expect("it can be done");
        assert!(tables().expect("a list").is_empty());
    });
}

#[test]
fn connections_are_those_of_the_processes_that_are_named() {
    let own = i32::try_from(std::process::id()).expect("a number");
    let (listener, client, server) = connection("127.0.0.1:0");
    let found = Connections::of([own]).expect("read");
    assert!(found.pairs.contains(&pair(&client)) && found.pairs.contains(&pair(&server)), "{found:?}");
    assert!(found.listeners.contains(&listener.local_addr().expect("a place")), "{found:?}");
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
    let written = Connections { pairs, ..Connections::default() };
    fs::write(&path, written.to_bytes()).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(Connections::read(&path).expect("read"), written);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("a mode");
    Connections::read(&path).expect_err("others may write it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(&path, "{").expect("a file");
    Connections::read(&path).expect_err("it is cut off");
}
