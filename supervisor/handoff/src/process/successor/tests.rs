//! Both sides of a hand-over within one process, with the test as the supervisor.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::message::Summary;
use crate::{Inheritance, State, Verdict};

/// Long enough for a thread to be scheduled on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair")
}

/// The supervisor's end of a channel.
struct Supervisor(OwnedFd);

impl Supervisor {
    /// A channel on which `first` waits for the process.
    fn new(first: &Order) -> (Self, OwnedFd) {
        let (ours, theirs) = pair();
        let supervisor = Self(ours);
        supervisor.order(first, None);
        (supervisor, theirs)
    }

    fn order(&self, order: &Order, with: Option<BorrowedFd<'_>>) {
        let descriptors: Vec<_> = with.into_iter().collect();
        let deadline = Some(Instant::now() + LIMIT);
        socket::send(self.0.as_fd(), order.to_string().as_bytes(), &descriptors, deadline).expect("sent");
    }

    fn report(&self) -> Report {
        let mut buffer = [0; MESSAGE_LIMIT];
        let deadline = Some(Instant::now() + LIMIT);
        let received = socket::receive(self.0.as_fd(), &mut buffer, deadline).expect("a report");
        str::from_utf8(&buffer[..received.length]).expect("text").parse().expect("a report")
    }

    fn expect(&self, report: &Report) {
        assert_eq!(self.report(), *report);
    }
}

/// A serving process, and the supervisor's end of its channel.
fn serving() -> (Supervisor, Channel) {
    let (supervisor, theirs) = Supervisor::new(&Order::Complete);
    let Start::Fresh(channel) = start_on(theirs).expect("a start") else {
        panic!("it is a fresh one");
    };
    supervisor.expect(&Report::Hello { version: VERSION });
    (supervisor, channel)
}

/// A process that starts, and the supervisor's end of its channel.
fn starting(generation: u64) -> (Supervisor, Successor) {
    let (supervisor, theirs) = Supervisor::new(&Order::Prepare { generation });
    let Start::Successor(successor) = start_on(theirs).expect("a start") else {
        panic!("it is to take over");
    };
    supervisor.expect(&Report::Hello { version: VERSION });
    assert_eq!(successor.generation(), generation);
    (supervisor, successor)
}

/// Bring both so far that `old` is asked and `new` waits for what comes.
fn connect(old: &Supervisor, new: &Supervisor) {
    new.expect(&Report::Prepared);
    let (from, to) = pair();
    new.order(&Order::Take, Some(from.as_fd()));
    old.order(&Order::Offer { generation: 2, limit: LIMIT }, Some(to.as_fd()));
}

fn summary(report: Report) -> Summary {
    match report {
        Report::Offered { summary, .. } | Report::Taken(summary) => summary,
        other => panic!("{other}"),
    }
}

/// What either says about the upgrade to generation 2.
fn failed(why: &str) -> Report {
    Report::Failed { generation: 2, why: why.to_owned() }
}

/// A process that gives `items` when it is asked.
fn giver(
    mut channel: Channel,
    items: Vec<(String, OwnedFd)>,
    state: State,
) -> thread::JoinHandle<Result<Verdict, Error>> {
    thread::spawn(move || {
        let offer = channel.wait(Some(LIMIT))?.expect("to be asked");
        offer.give(items.iter().map(|(name, descriptor)| (name.as_str(), descriptor)), || Ok(state))
    })
}

fn taker(successor: Successor) -> thread::JoinHandle<Result<(Inheritance, Ready), Error>> {
    thread::spawn(move || successor.take())
}

#[test]
fn a_connection_goes_on_where_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let (mut served, _) = listener.accept().expect("a connection");
    client.write_all(b"first half, ").expect("sent");
    let mut seen = [0; 12];
    served.read_exact(&mut seen).expect("received");
    client.write_all(b"second half").expect("sent");

    let (old, channel) = serving();
    let (new, successor) = starting(2);
    let items = vec![("listener".to_owned(), listener.into()), ("client 1".to_owned(), served.into())];
    let giver = giver(channel, items, State::new(7, &seen).expect("a state"));
    let taker = taker(successor);
    connect(&old, &new);
    let offered = summary(old.report());
    assert_eq!(summary(new.report()), offered);
    assert_eq!((offered.descriptors, offered.state), (2, 12));
    let (mut inheritance, ready) = taker.join().expect("no panic").expect("everything");
    assert_eq!(inheritance.state.version(), 7);
    assert_eq!(inheritance.state.bytes().expect("the state"), b"first half, ");

    let serving = thread::spawn(move || ready.serve());
    new.expect(&Report::Ready);
    new.order(&Order::Commit, None);
    new.expect(&Report::Serving);
    let mut channel = serving.join().expect("no panic").expect("a channel");
    old.order(&Order::Release, None);
    assert_eq!(giver.join().expect("no panic").expect("a verdict"), Verdict::Released);

    let mut moved = inheritance.remove_all("client ");
    let (name, connection) = moved.pop().expect("the connection");
    assert_eq!(name, "1");
    let mut connection = TcpStream::from(connection);
    let mut rest = [0; 11];
    connection.read_exact(&mut rest).expect("what was in flight");
    assert_eq!(&rest, b"second half");
    connection.write_all(b"answer").expect("sent");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).expect("received");
    let listener = TcpListener::from(inheritance.remove("listener").expect("the listener"));
    TcpStream::connect(listener.local_addr().expect("an address")).expect("it still listens");
    // And it can be asked in its turn.
    let (_from, to) = pair();
    new.order(&Order::Offer { generation: 3, limit: LIMIT }, Some(to.as_fd()));
    assert_eq!(channel.wait(Some(LIMIT)).expect("a message").expect("an offer").generation(), 3);
}

#[test]
fn more_descriptors_than_a_message_holds() {
    // Two messages, and few enough for the default limit of a process on both sides.
    const COUNT: usize = crate::DESCRIPTORS_PER_MESSAGE + 44;
    let (old, channel) = serving();
    let (new, successor) = starting(2);
    let socket = |number: usize| {
        (format!("socket {number}"), UdpSocket::bind("127.0.0.1:0").expect("a socket").into())
    };
    let giver = giver(channel, (0..COUNT).map(socket).collect(), State::empty().expect("a state"));
    let taker = taker(successor);
    connect(&old, &new);
    assert_eq!(summary(old.report()), summary(new.report()));
    let (inheritance, _ready) = taker.join().expect("no panic").expect("everything");
    let names: Vec<_> = inheritance.items.iter().map(|item| item.name.clone()).collect();
    assert_eq!(names, (0..COUNT).map(|number| format!("socket {number}")).collect::<Vec<_>>());
    old.order(&Order::Abort("enough seen".into()), None);
    assert_eq!(giver.join().expect("no panic").expect("a verdict"), Verdict::Resume("enough seen".into()));
}

/// How far a successor comes before it does not go on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Until {
    Started,
    Prepared,
    Taken,
    Ready,
}

#[test]
fn the_old_one_goes_on_wherever_the_successor_ends() {
    use Until::{Prepared, Ready, Started, Taken};
    for (until, by_itself) in [(Started, true), (Prepared, false), (Taken, true), (Ready, false)] {
        let (old, channel) = serving();
        let (new, successor) = starting(2);
        let giver = giver(channel, Vec::new(), State::empty().expect("a state"));
        let abort = || new.order(&Order::Abort("off".into()), None);
        if until == Started {
            successor.fail("no database").expect("said");
            new.expect(&failed("no database"));
        } else {
            let taker = taker(successor);
            if until == Prepared {
                new.expect(&Report::Prepared);
                abort();
                assert!(matches!(taker.join().expect("no panic"), Err(Error::Aborted(why)) if why == "off"));
            } else {
                connect(&old, &new);
                summary(new.report());
                let (_, ready) = taker.join().expect("no panic").expect("everything");
                if until == Taken && by_itself {
                    ready.fail("a state from the future").expect("said");
                    new.expect(&failed("a state from the future"));
                } else {
                    let serving = thread::spawn(move || ready.serve());
                    new.expect(&Report::Ready);
                    abort();
                    assert!(matches!(serving.join().expect("no panic"), Err(Error::Aborted(_))));
                }
            }
        }
        // Who was not asked is found as it was by the next upgrade.
        let (_next, to) = pair();
        if until < Taken {
            old.order(&Order::Offer { generation: 3, limit: LIMIT }, Some(to.as_fd()));
        }
        summary(old.report());
        old.order(&Order::Abort("as planned".into()), None);
        let verdict = giver.join().expect("no panic").expect("a verdict");
        assert_eq!(verdict, Verdict::Resume("as planned".into()), "{until:?}");
    }
}

#[test]
fn a_refusal_and_a_stale_abort() {
    let (old, mut channel) = serving();
    assert!(channel.asked().expect("nothing").is_none());
    old.order(&Order::Abort("of an upgrade that never asked".into()), None);
    assert!(channel.asked().expect("nothing").is_none());
    let (_from, to) = pair();
    let ask = |generation| {
        old.order(&Order::Offer { generation, limit: LIMIT }, Some(to.as_fd()));
    };
    ask(2);
    channel.asked().expect("a message").expect("an offer").refuse("in the middle\nof a backup");
    old.expect(&Report::Refused { generation: 2, why: "in the middle of a backup".into() });
    ask(3);
    channel.asked().expect("a message").expect("an offer").fail("no memory");
    old.expect(&Report::Failed { generation: 3, why: "no memory".into() });
    // Called off before it was read: it is not worth a pause.
    ask(4);
    old.order(&Order::Abort("of the fourth".into()), None);
    assert!(channel.asked().expect("nothing").is_none());
    ask(5);
    old.order(&Order::Abort("of the fifth".into()), None);
    ask(6);
    assert_eq!(channel.asked().expect("a message").expect("an offer").generation(), 6);
}

#[test]
fn any_limit_is_a_limit() {
    let (old, mut channel) = serving();
    let (_from, to) = pair();
    old.order(&Order::Offer { generation: 2, limit: Duration::from_millis(u64::MAX) }, Some(to.as_fd()));
    assert!(channel.asked().expect("a message").expect("an offer").deadline() > Instant::now());
}

#[test]
fn a_state_that_cannot_be_written_is_a_failed_upgrade_and_no_more() {
    let (old, mut channel) = serving();
    let (_from, to) = pair();
    old.order(&Order::Offer { generation: 2, limit: LIMIT }, Some(to.as_fd()));
    let offer = channel.asked().expect("a message").expect("an offer");
    let nothing: [(&str, &OwnedFd); 0] = [];
    let verdict = offer.give(nothing, || Err(std::io::Error::other("no memory"))).expect("a verdict");
    let why = "failed to write the state: no memory";
    assert_eq!(verdict, Verdict::Resume(why.into()));
    old.expect(&failed(why));
}

/// That this process is the one of the test below.
const AT_ITS_LIMIT: &str = "HANDOFF_TEST_LIMIT";

#[test]
fn who_can_have_no_more_descriptors_says_so_and_serves_on() {
    // A limit is one of the whole process, and so of other tests.
    let this = std::env::current_exe().expect("this program");
    let name = format!("{}::as_a_process_at_its_limit", module_path!().split_once("::").expect("a path").1);
    let run = std::process::Command::new(this)
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env(AT_ITS_LIMIT, "1")
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{run:?}");
}

/// Not a test: what the one above runs.
#[test]
#[ignore = "the role of a process in another test"]
fn as_a_process_at_its_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    if std::env::var_os(AT_ITS_LIMIT).is_none() {
        return;
    }
    let (old, mut channel) = serving();
    let (_from, to) = pair();
    let limit = |current| Rlimit { current: Some(current), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit(3)).expect("a limit");
    old.order(&Order::Offer { generation: 2, limit: LIMIT }, Some(to.as_fd()));
    assert!(channel.asked().expect("nothing to be done").is_none());
    setrlimit(Resource::Nofile, limit(64)).expect("a limit");
    old.expect(&failed(socket::NO_DESCRIPTOR));
    old.order(&Order::Offer { generation: 3, limit: LIMIT }, Some(to.as_fd()));
    assert_eq!(channel.asked().expect("a message").expect("an offer").generation(), 3);
}

#[test]
fn a_taker_that_is_gone_and_a_giver_that_is_gone() {
    // The other end is closed: that is said, and nobody has to be waited for.
    let (old, channel) = serving();
    let giver = giver(channel, Vec::new(), State::empty().expect("a state"));
    let (from, to) = pair();
    drop(from);
    old.order(&Order::Offer { generation: 2, limit: LIMIT }, Some(to.as_fd()));
    drop(to);
    let why = "the other process does not take: Broken pipe (os error 32)";
    old.expect(&failed(why));
    assert_eq!(giver.join().expect("no panic").expect("a verdict"), Verdict::Resume(why.into()));

    let (new, successor) = starting(2);
    let taker = taker(successor);
    new.expect(&Report::Prepared);
    let (from, to) = pair();
    new.order(&Order::Take, Some(from.as_fd()));
    drop(to);
    new.expect(&failed("failed to receive: unexpected end of file"));
    assert!(matches!(taker.join().expect("no panic"), Err(Error::Failed(..))));
}

/// What a taker says about these messages from the other side.
fn taken(messages: &[(&str, &[BorrowedFd<'_>])]) -> String {
    let (from, to) = pair();
    for (text, descriptors) in messages {
        socket::send(to.as_fd(), text.as_bytes(), descriptors, Some(Instant::now() + LIMIT)).expect("sent");
    }
    drop(to);
    let received = transfer::receive(from.as_fd(), Some(Instant::now() + LIMIT));
    received.map_or_else(|error| error.to_string(), |(_, summary)| summary.to_string())
}

#[test]
fn what_is_not_as_announced_is_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let other = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let [socket, other] = [socket.as_fd(), other.as_fd()];
    let identity = crate::process::identity::Identity::of(socket).expect("an identity").to_string();
    let found = crate::process::identity::Identity::of(other).expect("an identity").to_string();
    let list = format!("FDS 1\n{identity} mine\n");
    let state = State::new(1, b"x").expect("a state");
    assert_eq!(taken(&[(&list, &[other])]), format!("\"mine\" should be {identity:?} and is {found}"));
    assert_eq!(taken(&[(&list, &[])]), "0 descriptors came with a list of 1");
    assert_eq!(taken(&[(&list, &[socket, other])]), "2 descriptors came with a list of 1");
    assert_eq!(taken(&[("FDS x\n", &[])]), "0 descriptors came with a list of 0");
    assert_eq!(taken(&[("GARBAGE", &[])]), "an unexpected message \"GARBAGE\"");
    assert_eq!(taken(&[("END descriptors=0 state=0 digest=0", &[])]), "an end before the state");
    assert_eq!(
        taken(&[("STATE version=1 bytes=1", &[])]),
        "no state as announced: \"STATE version=1 bytes=1\""
    );
    for changeable in changeable() {
        let answer = taken(&[("STATE version=1 bytes=0", &[changeable.as_fd()])]);
        assert_eq!(answer, "the state is not in sealed memory");
    }
    let of_two = "a state of 1 bytes where 2 were announced";
    assert_eq!(taken(&[("STATE version=1 bytes=2", &[state.as_fd()])]), of_two);
    let wrong = taken(&[
        (&list, &[socket]),
        ("STATE version=1 bytes=1", &[state.as_fd()]),
        ("END descriptors=1 state=1 digest=1", &[]),
    ]);
    assert!(wrong.starts_with("received descriptors=1 state=1 digest="), "{wrong}");
    assert_eq!(taken(&[("STATE version=1 bytes=1", &[state.as_fd()])]), "unexpected end of file");
}

/// Memory that can still be changed, each in another way.
fn changeable() -> Vec<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let sealed = |with: SealFlags| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("changeable", flags).expect("memory");
        fcntl_add_seals(&memory, with).expect("seals");
        memory
    };
    let open = memfd_create("open", MemfdFlags::CLOEXEC).expect("memory");
    all.iter().map(|one| sealed(all - one)).chain([open]).collect()
}

#[test]
fn lists_of_long_names_fit_a_short_queue() {
    // The kernel doubles it: 64 KiB, and all names together are longer.
    const QUEUE: usize = 32 << 10;
    let (from, to) = pair();
    sockopt::set_socket_send_buffer_size(&to, QUEUE).expect("a size");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let name = "n".repeat(crate::NAME_LIMIT);
    let items = vec![(name.as_str(), socket.as_fd()); crate::DESCRIPTORS_PER_MESSAGE];
    let deadline = Some(Instant::now() + LIMIT);
    thread::scope(|scope| {
        let taker = scope.spawn(|| transfer::receive(from.as_fd(), deadline));
        let state = State::empty().expect("a state");
        let given = transfer::send(to.as_fd(), items, &state, deadline).expect("sent");
        let (_, taken) = taker.join().expect("no panic").expect("everything");
        assert_eq!((given, given.descriptors), (taken, 253));
    });
}

#[test]
fn a_descriptor_that_is_no_channel_is_left_alone() {
    let (one, _other) = pair();
    assert!(is_channel(one.as_fd()));
    let (stream, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
    assert!(!is_channel(stream.as_fd()), "a client of a service");
    assert!(!is_channel(UdpSocket::bind("127.0.0.1:0").expect("a socket").as_fd()));
    assert!(!is_channel(State::empty().expect("a file").as_fd()));
}

#[test]
fn what_was_sent_before_the_end_comes_before_the_end() {
    // The moment in which it could be lost is short: many are tried.
    for round in 0..1_000 {
        let (from, to) = pair();
        let sender = thread::spawn(move || {
            socket::send(to.as_fd(), b"END", &[], None).expect("sent");
            drop(to);
        });
        let mut buffer = [0; 16];
        let received = loop {
            match socket::try_receive(from.as_fd(), &mut buffer) {
                Ok(None) => std::hint::spin_loop(),
                received => break received,
            }
        };
        let received = received.unwrap_or_else(|error| panic!("round {round}: {error}")).expect("a message");
        assert_eq!(&buffer[..received.length], b"END");
        sender.join().expect("no panic");
    }
}

#[test]
fn orders_of_no_sense_are_errors() {
    let (supervisor, theirs) = Supervisor::new(&Order::Commit);
    assert!(matches!(start_on(theirs), Err(Error::Protocol(what)) if what == "COMMIT"));
    drop(supervisor);
    let (old, mut channel) = serving();
    old.order(&Order::Take, None);
    assert!(matches!(channel.asked(), Err(Error::Protocol(what)) if what == "TAKE"));
}

#[test]
fn who_serves_serves_on_without_a_supervisor() {
    let (old, mut channel) = serving();
    drop(old);
    assert!(matches!(channel.asked(), Ok(None)));
    assert!(channel.descriptor().is_none(), "there is nothing to wait for");
    // What nobody has read makes the end another one.
    let (old, theirs) = Supervisor::new(&Order::Complete);
    let Start::Fresh(mut channel) = start_on(theirs).expect("a start") else {
        panic!("it is a fresh one");
    };
    drop(old);
    assert!(matches!(channel.asked(), Ok(None)));
    assert!(channel.descriptor().is_none(), "there is nothing to wait for");
    let (old, mut channel) = serving();
    drop(old);
    let begun = Instant::now();
    let limit = Duration::from_millis(20);
    assert!(matches!(channel.wait(Some(limit)), Ok(None)));
    assert!(begun.elapsed() >= limit);
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_waits_for_the_question() {
    let (old, mut channel) = serving();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        // What is not awaited to its end loses nothing.
        tokio::select! {
            biased;
            offer = channel.offered() => panic!("{offer:?}"),
            () = std::future::ready(()) => {}
        }
        let (_from, to) = pair();
        old.order(&Order::Offer { generation: 5, limit: LIMIT }, Some(to.as_fd()));
        assert_eq!(channel.offered().await.expect("an offer").generation(), 5);
        // One that is there does not wait until nothing else is to be done.
        old.order(&Order::Offer { generation: 6, limit: LIMIT }, Some(to.as_fd()));
        tokio::select! {
            biased;
            offer = channel.offered() => assert_eq!(offer.expect("an offer").generation(), 6),
            () = std::future::ready(()) => panic!("the offer has to wait"),
        }
    });
}

#[test]
fn who_serves_can_say_that_it_fails() {
    let (new, theirs) = pair();
    let new = Supervisor(new);
    Channel::new(Some(theirs), 2).fail("the index is broken").expect("said");
    new.expect(&failed("the index is broken"));
    // Without a supervisor nobody has to know.
    Channel::new(None, 0).fail("the index is broken").expect("nothing to be done");
}
