//! The client against servers that are right, and against servers that are wrong in one way each.

use std::fs::File;
use std::io::{self, BufReader};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use yakiros_load::check::{Checker, Counts, Verdict};
use yakiros_load::client::{self, IdleState, Load, Pace, Target};
use yakiros_load::frame::Frame;
use yakiros_load::history;

/// Longest wait for what comes within milliseconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a request here.
const BYTES: usize = 64;

/// How a server treats the replies it makes. Each is wrong once per connection.
#[derive(Clone, Copy)]
enum Way {
    Right,
    Leaves,
    Repeats,
    Swaps,
    Damages,
    Ends,
    Mixes,
}

/// Which request of a connection is treated so.
const WRONG: u64 = 3;
/// After this one every wrong way has had its effect.
const ENOUGH: u64 = WRONG + 2;

fn load(target: Target) -> Load {
    Load {
        target,
        connections: 5,
        idle: 0,
        connecting: client::CONNECTING,
        idle_state: IdleState::Open,
        pace: Pace::Closed { pipeline: 4 },
        bytes: BYTES,
        split: None,
        requests_per_connection: None,
        drain: PATIENCE,
        ready_file: None,
    }
}

/// Serve a connection in this way; `enough` gets a permit after [`ENOUGH`] or at its end.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    way: Way,
    enough: &Semaphore,
) -> io::Result<()> {
    let mut kept: Vec<u8> = Vec::new();
    for number in 0_u64.. {
        if number == ENOUGH {
            enough.add_permits(1);
        }
        let mut frame = [0; BYTES];
        let mut filled = 0;
        while filled < BYTES {
            match stream.read(&mut frame[filled..]).await? {
                0 => {
                    enough.add_permits(usize::from(number < ENOUGH));
                    return stream.shutdown().await;
                }
                count => filled += count,
            }
        }
        match (number == WRONG, way) {
            (true, Way::Leaves) => continue,
            (true, Way::Repeats) => stream.write_all(&frame).await?,
            (true, Way::Swaps) => {
                kept = frame.to_vec();
                continue;
            }
            (true, Way::Damages) => frame[BYTES - 2] ^= 1,
            (true, Way::Ends) => {
                enough.add_permits(1);
                return Ok(());
            }
            (true, Way::Mixes) => frame = stranger(number),
            _ => {}
        }
        stream.write_all(&frame).await?;
        stream.write_all(&std::mem::take(&mut kept)).await?;
    }
    Ok(())
}

fn stranger(sequence: u64) -> [u8; BYTES] {
    let mut frame = [0; BYTES];
    Frame { connection: u32::MAX, sequence }.encode(&mut frame);
    frame
}

/// Take connections and serve them.
async fn accept(listener: TcpListener, way: Way, enough: Rc<Semaphore>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let enough = Rc::clone(&enough);
        tokio::task::spawn_local(async move { serve(stream, way, &enough).await });
    }
}

/// A server of this kind, and what the client finds when each connection came beyond the wrong reply.
fn judged(way: Way, change: impl FnOnce(Load) -> Load) -> Verdict {
    local(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let load = change(load(Target::Tcp(listener.local_addr().expect("an address"))));
        let enough = Rc::new(Semaphore::new(0));
        tokio::task::spawn_local(accept(listener, way, Rc::clone(&enough)));
        let stop = async { drop(enough.acquire_many(load.connections).await) };
        client::run(load.clone(), None, stop).await.expect("a verdict")
    })
}

fn local<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, future)
}

#[test]
fn a_right_server_is_clean() {
    let verdict = judged(Way::Right, |load| load);
    assert!(verdict.clean, "{verdict}");
    assert_eq!(verdict.counts.requests, verdict.counts.replies);
    assert_eq!((verdict.counts.connections, verdict.counts.unended), (5, 0));
}

#[test]
fn each_use_of_connections_is_clean() {
    let uses: [fn(Load) -> Load; 6] = [
        |load| Load { idle: 50, ..load },
        |load| Load { idle: 5, idle_state: IdleState::HalfSent, ..load },
        |load| Load { idle: 5, idle_state: IdleState::HalfClosed, ..load },
        |load| Load { split: Some(Duration::from_millis(2)), ..load },
        |load| Load { requests_per_connection: Some(2), ..load },
        |load| Load { pace: Pace::Open { interval: Duration::from_millis(5) }, ..load },
    ];
    for (number, change) in uses.into_iter().enumerate() {
        let verdict = judged(Way::Right, change);
        assert!(verdict.clean, "{number}: {verdict}");
        if number == 0 {
            assert_eq!(verdict.counts.connections, 55);
        }
    }
}

#[test]
fn a_file_tells_when_all_connections_are_in_their_state() {
    for idle_state in [IdleState::Open, IdleState::HalfSent] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ready");
        let verdict = local(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
            let target = Target::Tcp(listener.local_addr().expect("an address"));
            let enough = Rc::new(Semaphore::new(0));
            let served = Rc::clone(&enough);
            let mut accepting = tokio::task::spawn_local(async move {
                let mut streams = Vec::new();
                for _ in 0..8 {
                    streams.push(listener.accept().await.expect("a connection").0);
                }
                streams
            });
            let load =
                Load { connections: 3, idle: 5, idle_state, ready_file: Some(path.clone()), ..load(target) };
            let stop = async {
                let mut streams = (&mut accepting).await.expect("eight connections");
                // One has no reply yet.
                let last = streams.pop();
                let serve_it = |stream| {
                    let served = Rc::clone(&served);
                    tokio::task::spawn_local(async move { serve(stream, Way::Right, &served).await });
                };
                streams.into_iter().for_each(&serve_it);
                drop(enough.acquire_many(2).await);
                assert!(!path.exists(), "{idle_state:?}");
                last.into_iter().for_each(serve_it);
                while !path.exists() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            client::run(load, None, stop).await.expect("a verdict")
        });
        assert!(verdict.clean, "{idle_state:?}: {verdict}");
        assert_eq!(verdict.counts.connections, 8, "{idle_state:?}");
    }
}

#[test]
fn one_connection_is_established_after_the_other_if_so_asked() {
    let verdict = local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let load =
            Load { connecting: 1, idle: 2, ..load(Target::Tcp(listener.local_addr().expect("an address"))) };
        let stop = async {
            let enough = Rc::new(Semaphore::new(0));
            for number in 0..7 {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.readable().await.expect("a request");
                tokio::select! {
                    biased;
                    _ = listener.accept() => panic!("another one before the reply of number {number}"),
                    () = tokio::task::yield_now() => {}
                }
                let enough = Rc::clone(&enough);
                tokio::task::spawn_local(async move { serve(stream, Way::Right, &enough).await });
            }
        };
        client::run(load.clone(), None, stop).await.expect("a verdict")
    });
    assert!(verdict.clean, "{verdict}");
    assert_eq!(verdict.counts.connections, 7);
}

#[test]
fn every_wrong_server_is_found_out() {
    let count = |counts: Counts, way| match way {
        Way::Right => 0,
        Way::Leaves => counts.lost,
        Way::Repeats => counts.duplicated,
        Way::Swaps => counts.reordered,
        Way::Damages => counts.damaged,
        Way::Ends => counts.closed + counts.broken,
        Way::Mixes => counts.strangers,
    };
    for way in [Way::Leaves, Way::Repeats, Way::Swaps, Way::Damages, Way::Ends, Way::Mixes] {
        let verdict = judged(way, |load| load);
        assert!(!verdict.clean && count(verdict.counts, way) >= 1, "{}: {verdict}", way as u8);
    }
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let verdict = local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        // Nobody listens at the port of a client, and nobody else gets it.
        let client =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let target = Target::Tcp(client.local_addr().expect("an address"));
        client::run(load(target), None, std::future::ready(())).await.expect("a verdict")
    });
    assert!(!verdict.clean);
    assert_eq!((verdict.counts.refused, verdict.counts.connections), (5, 0), "{verdict}");
}

#[test]
fn unix_sockets_do_as_well() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("socket");
    let verdict = local(async {
        let listener = UnixListener::bind(&path).expect("a listener");
        let enough = Rc::new(Semaphore::new(0));
        let served = Rc::clone(&enough);
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let served = Rc::clone(&served);
                tokio::task::spawn_local(async move { serve(stream, Way::Right, &served).await });
            }
        });
        let stop = async { drop(enough.acquire_many(5).await) };
        client::run(load(Target::Unix(path.clone())), None, stop).await.expect("a verdict")
    });
    assert!(verdict.clean, "{verdict}");
}

#[test]
fn datagrams_do_as_well() {
    let verdict = local(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let target = Target::Udp(socket.local_addr().expect("an address"));
        let enough = Rc::new(Semaphore::new(0));
        let served = Rc::clone(&enough);
        tokio::task::spawn_local(async move {
            let mut buffer = [0; BYTES];
            loop {
                let (count, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
                socket.send_to(&buffer[..count], from).await.expect("sent");
                served.add_permits(1);
            }
        });
        let stop = async { drop(enough.acquire_many(50).await) };
        client::run(load(target), None, stop).await.expect("a verdict")
    });
    assert!(verdict.clean, "{verdict}");
}

/// What is judged while it happens and what is judged from the file is the same.
#[test]
fn the_history_gives_the_same_verdict() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("history");
    let to = Box::new(File::create(&path).expect("a file"));
    let verdict = local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let target = Target::Tcp(listener.local_addr().expect("an address"));
        tokio::task::spawn_local(accept(listener, Way::Damages, Rc::new(Semaphore::new(0))));
        let stop = tokio::time::sleep(Duration::from_millis(50));
        client::run(load(target), Some(to), stop).await.expect("a verdict")
    });
    let mut checker = Checker::default();
    let from = BufReader::new(File::open(&path).expect("the history"));
    history::read(from, |record| checker.add(record)).expect("a history");
    let text = |verdict: &Verdict| serde_json::to_string(verdict).expect("JSON");
    assert_eq!(text(&checker.finish()), text(&verdict));
}
