use std::io::Write as _;
use std::os::unix::net::UnixStream;

use tokio::sync::Notify;
use yakiros_handoff::Item;
use yakiros_handoff::identity::Identity;

use super::*;

/// More than the tasks that tokio runs between two looks at what has come.
const CLIENTS: u64 = 200;

/// Answers nothing, and notes who has asked: one byte a client.
struct Notes {
    order: Rc<RefCell<Vec<u8>>>,
    all: Rc<Notify>,
}

impl App for Notes {
    type State = ();
    const VERSION: u32 = 1;

    fn answer(&mut self, input: &mut Vec<u8>, _: &mut Vec<u8>) -> Flow {
        let mut order = self.order.borrow_mut();
        order.append(input);
        if order.len() as u64 == CLIENTS {
            self.all.notify_one();
        }
        Flow::Go
    }

    fn state(&self) {}

    fn go_on(&mut self, (): ()) {}
}

/// A client, and its own end.
fn client(turn: u64) -> (Client, UnixStream) {
    let (near, far) = UnixStream::pair().expect("two ends");
    near.set_nonblocking(true).expect("a socket");
    let identity = Identity::of(&near).expect("a socket");
    let item = Item { name: CONNECTION.to_owned(), descriptor: near.into(), identity };
    let stream = Stream::taken(item).expect("a stream");
    (Client { stream, talk: Talk::default(), turn }, far)
}

fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

#[test]
fn clients_are_served_in_the_order_in_which_they_come() {
    let (order, all) = (Rc::default(), Rc::new(Notify::new()));
    let shared = Shared::new(Notes { order: Rc::clone(&order), all: Rc::clone(&all) }, CLIENTS);
    on_one_thread(async {
        let (clients, ends): (Vec<_>, Vec<_>) = (0..CLIENTS).map(client).unzip();
        // The last ones ask first: that must not matter.
        for (number, mut end) in ends.iter().enumerate().rev() {
            end.write_all(&[number as u8]).expect("room for a byte");
        }
        let Ok(Start::Fresh(channel)) = yakiros_handoff::start() else { panic!("a supervisor") };
        let server = Server { shared, sockets: Sockets::default(), limit: usize::MAX };
        tokio::select! {
            ended = server.serve(clients, channel) => panic!("the server has ended: {ended:?}"),
            () = all.notified() => {}
        }
    });
    assert_eq!(*order.borrow(), (0..CLIENTS as u8).collect::<Vec<_>>());
}

#[test]
fn those_are_given_first_that_have_waited_for_the_longest() {
    let turns = on_one_thread(async {
        let mut tasks = JoinSet::new();
        for turn in [7, 3, 9, 1] {
            tasks.spawn_local(async move { Some(client(turn).0) });
        }
        tasks.spawn_local(async { None });
        gather(&mut tasks).await.iter().map(|client| client.turn).collect::<Vec<_>>()
    });
    assert_eq!(turns, [1, 3, 7, 9]);
}

#[test]
fn a_client_has_its_next_turn_only_when_more_has_come() {
    on_one_thread(async {
        let (Client { stream, .. }, mut end) = client(0);
        let mut input = Vec::with_capacity(4);
        let is_ready = || async {
            tokio::select! {
                biased;
                _ = stream.ready(Interest::READABLE) => true,
                () = yield_now() => false,
            }
        };
        for (bytes, more) in [(b"ab".as_slice(), false), (b"cdef", true)] {
            end.write_all(bytes).expect("room");
            stream.ready(Interest::READABLE).await.expect("a socket");
            input.clear();
            let count = stream.try_read_buf(&mut input).expect("bytes");
            assert_eq!((&input[..], count), (bytes, bytes.len()));
            assert_eq!(is_ready().await, more, "after {bytes:?}");
        }
        // The last read could not know that nothing was left: the next one finds out.
        input.clear();
        let error = stream.try_read_buf(&mut input).expect_err("nothing is left");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(!is_ready().await);
        drop(end);
        stream.ready(Interest::READABLE).await.expect("a socket");
        assert_eq!(stream.try_read_buf(&mut input).expect("the end"), 0);
        assert!(is_ready().await, "the end stays");
    });
}
