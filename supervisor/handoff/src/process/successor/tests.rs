//! Both sides of a hand-over within one process, with the test as the supervisor.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::message::{Part, Summary};
use crate::{Inheritance, Request, State, Verdict};

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
    let Start::Fresh(channel) = start_on(theirs, false).expect("a start") else {
        panic!("it is a fresh one");
    };
    supervisor.expect(&Report::Hello { version: VERSION, parts: false });
    (supervisor, channel)
}

/// A process that starts, and the supervisor's end of its channel.
fn starting(generation: u64) -> (Supervisor, Successor) {
    let (supervisor, theirs) = Supervisor::new(&Order::Prepare { generation });
    let Start::Successor(successor) = start_on(theirs, false).expect("a start") else {
        panic!("it is to take over");
    };
    supervisor.expect(&Report::Hello { version: VERSION, parts: false });
    assert_eq!(successor.generation(), generation);
    (supervisor, successor)
}

/// Bring both so far that `old` is asked and `new` waits for what comes.
fn connect(old: &Supervisor, new: &Supervisor) {
    new.expect(&Report::Prepared);
    let (from, to) = pair();
    new.order(&Order::Take(Part::All), Some(from.as_fd()));
    old.order(&Order::Offer { generation: 2, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
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
    new.order(&Order::Offer { generation: 3, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
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
            old.order(&Order::Offer { generation: 3, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
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
        old.order(&Order::Offer { generation, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
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
    old.order(
        &Order::Offer { generation: 2, limit: Duration::from_millis(u64::MAX), part: Part::All },
        Some(to.as_fd()),
    );
    assert!(channel.asked().expect("a message").expect("an offer").deadline() > Instant::now());
}

#[test]
fn a_state_that_cannot_be_written_is_a_failed_upgrade_and_no_more() {
    let (old, mut channel) = serving();
    let (_from, to) = pair();
    old.order(&Order::Offer { generation: 2, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
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
    old.order(&Order::Offer { generation: 2, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
    assert!(channel.asked().expect("nothing to be done").is_none());
    setrlimit(Resource::Nofile, limit(64)).expect("a limit");
    old.expect(&failed(socket::NO_DESCRIPTOR));
    old.order(&Order::Offer { generation: 3, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
    assert_eq!(channel.asked().expect("a message").expect("an offer").generation(), 3);
}

#[test]
fn a_taker_that_is_gone_and_a_giver_that_is_gone() {
    // The other end is closed: that is said, and nobody has to be waited for.
    let (old, channel) = serving();
    let giver = giver(channel, Vec::new(), State::empty().expect("a state"));
    let (from, to) = pair();
    drop(from);
    old.order(&Order::Offer { generation: 2, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
    drop(to);
    let why = "the other process does not take: Broken pipe (os error 32)";
    old.expect(&failed(why));
    assert_eq!(giver.join().expect("no panic").expect("a verdict"), Verdict::Resume(why.into()));

    let (new, successor) = starting(2);
    let taker = taker(successor);
    new.expect(&Report::Prepared);
    let (from, to) = pair();
    new.order(&Order::Take(Part::All), Some(from.as_fd()));
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
    let received = transfer::receive(from.as_fd(), Part::All, Some(Instant::now() + LIMIT));
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
        let taker = scope.spawn(|| transfer::receive(from.as_fd(), Part::All, deadline));
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
    assert!(matches!(start_on(theirs, false), Err(Error::Protocol(what)) if what == "COMMIT"));
    drop(supervisor);
    let (old, mut channel) = serving();
    old.order(&Order::Take(Part::All), None);
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
    let Start::Fresh(mut channel) = start_on(theirs, false).expect("a start") else {
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
        old.order(&Order::Offer { generation: 5, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
        assert_eq!(channel.offered().await.expect("an offer").generation(), 5);
        // One that is there does not wait until nothing else is to be done.
        old.order(&Order::Offer { generation: 6, limit: LIMIT, part: Part::All }, Some(to.as_fd()));
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
    Channel::new(Some(theirs), 2, Stage::Whole).fail("the index is broken").expect("said");
    new.expect(&failed("the index is broken"));
    // Without a supervisor nobody has to know.
    Channel::new(None, 0, Stage::Whole).fail("the index is broken").expect("nothing to be done");
}

/// A process that can give in two parts, with a listener and a connection, and the client of that.
struct Parted {
    supervisor: Supervisor,
    channel: Channel,
    listener: OwnedFd,
    address: std::net::SocketAddr,
    served: OwnedFd,
    client: TcpStream,
}

/// What waits to be begun by the process.
fn begun(first: &Order) -> (Supervisor, Start) {
    let (supervisor, theirs) = Supervisor::new(first);
    let start = start_on(theirs, true).expect("a start");
    supervisor.expect(&Report::Hello { version: VERSION, parts: true });
    (supervisor, start)
}

fn parted() -> Parted {
    let (supervisor, start) = begun(&Order::Complete);
    let Start::Fresh(channel) = start else { panic!("it is a fresh one") };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).expect("connected");
    let (served, _) = listener.accept().expect("a connection");
    Parted { supervisor, channel, listener: listener.into(), address, served: served.into(), client }
}

/// Ask one to give a part and the other to take it.
fn connect_part(old: &Supervisor, new: &Supervisor, part: Part) {
    let (from, to) = pair();
    new.order(&Order::Take(part), Some(from.as_fd()));
    old.order(&Order::Offer { generation: 2, limit: LIMIT, part }, Some(to.as_fd()));
}

impl Parted {
    /// Bring it so far that a canary serves new connections; returns that with its supervisor and what it has.
    fn lend(&mut self) -> (Supervisor, Channel, Inheritance) {
        let (new, start) = begun(&Order::Prepare { generation: 2 });
        let Start::Successor(successor) = start else { panic!("it is to take over") };
        let canary = thread::spawn(move || {
            let (inheritance, ready) = successor.take().expect("the listeners");
            (ready.serve().expect("a channel"), inheritance)
        });
        new.expect(&Report::Prepared);
        connect_part(&self.supervisor, &new, Part::Listeners);
        let Some(Request::Lend(loan)) = self.channel.wait_for_request(Some(LIMIT)).expect("a request") else {
            panic!("its listeners are asked for")
        };
        loan.lend([("listener", &self.listener)]).expect("lent");
        let offered = summary(self.supervisor.report());
        assert_eq!(summary(new.report()), offered);
        assert_eq!((offered.descriptors, offered.state), (1, 0));
        new.expect(&Report::Ready);
        new.order(&Order::Commit, None);
        new.expect(&Report::Serving);
        let (channel, inheritance) = canary.join().expect("no panic");
        assert_eq!(inheritance.part, Part::Listeners);
        assert!(!self.channel.accepts() && channel.accepts());
        (new, channel, inheritance)
    }
}

#[test]
fn a_canary_has_new_connections_first_and_then_everything() {
    let mut old = parted();
    let (new, mut canary, mut inheritance) = old.lend();
    let listener = TcpListener::from(inheritance.remove("listener").expect("the listener"));
    let _newcomer = TcpStream::connect(old.address).expect("connected");
    let (_own, _) = listener.accept().expect("its own connection");

    let Parted { supervisor, mut channel, served, mut client, .. } = old;
    let giver = thread::spawn(move || {
        let Some(Request::Give(offer)) = channel.wait_for_request(Some(LIMIT)).expect("a request") else {
            panic!("the rest is asked for")
        };
        assert!(offer.is_rest());
        offer.give([("client", &served)], || State::new(7, b"half a request")).expect("a verdict")
    });
    let taker = thread::spawn(move || {
        let Some(Request::Take(rest)) = canary.wait_for_request(Some(LIMIT)).expect("a request") else {
            panic!("the rest is to be taken")
        };
        let (inheritance, merge) = rest.take().expect("everything");
        merge.serve().expect("told to serve");
        (inheritance, canary)
    });
    connect_part(&supervisor, &new, Part::Rest);
    let offered = summary(supervisor.report());
    assert_eq!(summary(new.report()), offered);
    new.expect(&Report::Ready);
    new.order(&Order::Commit, None);
    new.expect(&Report::Serving);
    supervisor.order(&Order::Release, None);
    assert_eq!(giver.join().expect("no panic"), Verdict::Released);
    let (mut inheritance, mut canary) = taker.join().expect("no panic");
    assert_eq!((inheritance.part, inheritance.state.version()), (Part::Rest, 7));
    let mut moved = TcpStream::from(inheritance.remove("client").expect("the connection"));
    moved.write_all(b"answer").expect("sent");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).expect("received");
    // From now on it is as every other one: without a supervisor it serves on.
    drop(new);
    assert!(matches!(canary.requested(), Ok(None)) && canary.accepts());
}

#[test]
fn who_has_lent_its_listeners_accepts_again_when_the_other_one_is_gone() {
    let mut old = parted();
    let (new, canary, _) = old.lend();
    drop((new, canary));
    // Asked for the rest, and told in the same breath that there is nobody any more who could take it.
    let (from, to) = pair();
    drop(from);
    old.supervisor.order(&Order::Offer { generation: 2, limit: LIMIT, part: Part::Rest }, Some(to.as_fd()));
    old.supervisor.order(&Order::Abort("it was killed".to_owned()), None);
    assert!(matches!(old.channel.requested(), Ok(Some(Request::Accept(why))) if why == "it was killed"));
    assert!(old.channel.accepts());
    // And is asked again by another upgrade, which ends with the supervisor.
    let (new, canary, _) = old.lend();
    drop((new, canary, old.supervisor));
    assert!(matches!(old.channel.requested(), Ok(Some(Request::Accept(_)))));
    assert!(matches!(old.channel.requested(), Ok(None)) && old.channel.accepts());
}

#[test]
fn who_cannot_give_the_rest_does_not_accept_before_it_is_told_to() {
    let mut old = parted();
    let _canary = old.lend();
    let (from, to) = pair();
    drop(from);
    old.supervisor.order(&Order::Offer { generation: 2, limit: LIMIT, part: Part::Rest }, Some(to.as_fd()));
    let Some(Request::Give(offer)) = old.channel.requested().expect("a request") else {
        panic!("the rest is asked for")
    };
    let verdict = offer.give([("client", &old.served)], State::empty).expect("a verdict");
    assert!(matches!(verdict, Verdict::Resume(why) if why.contains("does not take")));
    assert!(matches!(old.supervisor.report(), Report::Failed { generation: 2, .. }));
    assert!(!old.channel.accepts(), "the canary may live");
    old.supervisor.order(&Order::Abort("it is gone".to_owned()), None);
    assert!(matches!(old.channel.requested(), Ok(Some(Request::Accept(_)))));
    assert!(old.channel.accepts());
}

#[test]
fn a_canary_ends_with_the_supervisor_unless_it_is_told_that_it_is_alone() {
    let mut old = parted();
    let (new, mut canary, _) = old.lend();
    drop(new);
    assert!(matches!(canary.requested(), Ok(Some(Request::End))));

    let mut old = parted();
    let (new, mut canary, _) = old.lend();
    new.order(&Order::Commit, None);
    assert!(matches!(canary.requested(), Ok(None)));
    drop(new);
    assert!(matches!(canary.requested(), Ok(None)));
}

#[test]
fn who_knows_nothing_of_parts_is_told_that_it_should() {
    let mut old = parted();
    let (_from, to) = pair();
    let part = Part::Listeners;
    old.supervisor.order(&Order::Offer { generation: 2, limit: LIMIT, part }, Some(to.as_fd()));
    assert!(
        matches!(old.channel.asked(), Err(Error::Protocol(what)) if what.contains("a part is asked for"))
    );
}

#[cfg(feature = "tokio")]
#[test]
fn a_request_is_waited_for_among_other_things() {
    let mut old = parted();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _canary = old.lend();
    runtime.block_on(async {
        old.supervisor.order(&Order::Abort("it was killed".to_owned()), None);
        assert!(matches!(old.channel.request().await, Ok(Request::Accept(_))));
    });
    assert!(old.channel.accepts());
}
