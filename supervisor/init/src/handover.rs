//! The channels of hot swaps. Each process of a component that hands over has one, for all of its life;
//! `docs/reference/hot-swap.md` says what goes over it.
//!
//! Nothing that a process does there can hold up or cost the supervisor what the process chooses:
//!
//! * Nothing waits to be sent. A channel that is full belongs to a process that does not read: it is
//!   shut down, so that the process finds out that nobody can tell it any more what is to become of it.
//! * Messages are read at a rate, and one that makes no sense is told as such and has no other effect.
//! * Descriptors are never received here (see [`queue`]). What one process gives to the other goes over
//!   a connection of these two, of which the supervisor keeps no end.
//! * What a process said before its end is read before it is reaped, and what it said in time before its
//!   time is over.

mod link;
pub mod relay;
pub mod released;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use tokio::task::spawn_local;
use tracing::error;
use yakiros_core::engine::{Event, Place, RunId};
use yakiros_handoff::message::{Order, Part};

use crate::reexec::Luggage;
use crate::spawn::handoff_fd;
use crate::supervisor::Supervisor;

use link::Link;

/// The channels of all processes that have one.
#[derive(Default)]
pub struct Handovers {
    links: RefCell<HashMap<RunId, Rc<Link>>>,
}

/// A channel before its process exists. How the process is to begin waits in it.
pub struct Channel {
    own: Link,
    child: OwnedFd,
}

impl Channel {
    /// For a process of this generation that begins so.
    pub fn open(place: Place, generation: u64) -> io::Result<Self> {
        let (own, child) = pair()?;
        let own = Link::new(own)?;
        own.note_other(&child);
        match place {
            Place::Alone | Place::Beside => own.send(&Order::Complete, None)?,
            Place::Successor => own.send(&Order::Prepare { generation }, None)?,
            // How it begins is passed on from the one that serves.
            Place::Receiver => {}
        }
        Ok(Self { own, child })
    }

    /// For a process that has begun before, in another place: nothing waits in it.
    pub fn bare() -> io::Result<Self> {
        let (own, child) = pair()?;
        let own = Link::new(own)?;
        own.note_other(&child);
        Ok(Self { own, child })
    }

    /// The variable that tells a process about it that is given so many descriptors.
    pub fn variable(given: usize) -> String {
        format!("HANDOFF_FD={}", handoff_fd(given))
    }

    /// The descriptor to pass to the process.
    pub fn child_end(&self) -> &OwnedFd {
        &self.child
    }
}

impl Handovers {
    /// Keep a channel: its process exists, and has its end.
    pub fn keep(&self, run: RunId, channel: Channel) {
        self.links.borrow_mut().insert(run, Rc::new(channel.own));
    }

    /// Whether a run has a channel.
    pub fn has(&self, run: RunId) -> bool {
        self.links.borrow().contains_key(&run)
    }

    /// The inode of the process's end of a channel.
    pub fn child_inode(&self, run: RunId) -> Option<u64> {
        self.link(run)?.other()
    }

    /// All of them, for the next process image.
    pub fn pass_inodes(&self) -> Vec<(RunId, u64)> {
        let links = self.links.borrow();
        let mut passed: Vec<_> = links.iter().filter_map(|(run, link)| Some((*run, link.other()?))).collect();
        // The same channels give the same state.
        passed.sort_unstable();
        passed
    }

    /// From the process image before.
    pub fn take_inodes(&self, passed: Vec<(RunId, u64)>) {
        for (run, inode) in passed {
            if let Some(link) = self.link(run) {
                link.set_other(inode);
            }
        }
    }

    /// The program runs: what it says counts from now on.
    pub fn listen(&self, supervisor: &Rc<Supervisor>, run: RunId) {
        if let Some(link) = self.link(run) {
            let task = spawn_local(Rc::clone(&link).serve(Rc::clone(supervisor), run));
            link.note_listener(task.abort_handle());
        }
    }

    /// The run is over.
    pub fn forget(&self, run: RunId) {
        let link = self.links.borrow_mut().remove(&run);
        if let Some(link) = link {
            link.stop();
        }
    }

    /// What waits in a channel.
    pub fn take_waiting(&self, run: RunId) -> Vec<Event> {
        self.link(run).map(|link| link.take_waiting(run)).unwrap_or_default()
    }

    /// Tell a process. The event says that it could not be told.
    pub fn order(&self, run: RunId, order: &Order) -> Option<Event> {
        self.send(run, order, None).err().map(|error| garbled(run, order, &error))
    }

    /// Have one process give to another, over a connection of their own. The event says why they cannot.
    pub fn connect(
        &self,
        giver: RunId,
        taker: RunId,
        generation: u64,
        limit: Duration,
        part: Part,
    ) -> Option<Event> {
        let (give, take) = match pair().and_then(|(give, take)| {
            // The taker has nothing to say there; so nothing can wait in this end when it is closed here.
            shutdown(give.as_raw_fd(), Shutdown::Read)?;
            Ok((give, take))
        }) {
            Ok(pair) => pair,
            Err(error) => return Some(garbled(taker, &Order::Take(part), &error)),
        };
        // In this order: as long as the giver has no end, nothing can wait in the other when it is closed here.
        let told = self.send(taker, &Order::Take(part), Some(&take));
        drop(take);
        if let Err(error) = told {
            return Some(garbled(taker, &Order::Take(part), &error));
        }
        let offer = Order::Offer { generation, limit, part };
        let error = self.send(giver, &offer, Some(&give)).err()?;
        // For a shortage of the moment nobody is restarted: then it is the new one that gets nothing.
        let blamed = if is_shortage(&error) { taker } else { giver };
        Some(garbled(blamed, &offer, &error))
    }

    fn send(&self, run: RunId, order: &Order, descriptor: Option<&OwnedFd>) -> io::Result<()> {
        let link = self.link(run).ok_or_else(|| io::Error::other("its channel is lost"))?;
        link.send(order, descriptor.map(AsFd::as_fd))
    }

    fn link(&self, run: RunId) -> Option<Rc<Link>> {
        self.links.borrow().get(&run).cloned()
    }

    /// For the next process image.
    pub fn pass(&self) -> Vec<(RunId, RawFd)> {
        let mut passed: Vec<_> =
            self.links.borrow().iter().map(|(run, link)| (*run, link.as_raw_fd())).collect();
        // The same channels give the same state.
        passed.sort_unstable();
        passed
    }

    /// From the process image before. A process whose channel is lost finds its end, and runs on.
    pub fn take_over(&self, passed: Vec<(RunId, RawFd)>, luggage: &mut Luggage) {
        for (run, fd) in passed {
            match luggage.socket(fd).and_then(Link::new) {
                Ok(link) => {
                    self.links.borrow_mut().insert(run, Rc::new(link));
                }
                Err(error) => error!("the channel of a process was lost on the way: {error}"),
            }
        }
    }
}

/// Two ends of a connection that keeps messages apart, closed by exec. Neither end is made not to block:
/// the process that gets one may want to wait, and here nothing is called that does.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Whether something may be sent later that cannot be sent now.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::ENOBUFS, Errno::ENOMEM, Errno::ETOOMANYREFS];
    error.raw_os_error().is_some_and(|number| shortages.contains(&Errno::from_raw(number)))
}

fn garbled(run: RunId, order: &Order, error: &io::Error) -> Event {
    let text = order.to_string();
    let word = text.split(' ').next().unwrap_or_default();
    Event::Garbled(run, format!("failed to tell it {word}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::in_event_loop;
    use nix::sys::socket::{MsgFlags, recv};

    const FIRST: RunId = RunId(1);
    const SECOND: RunId = RunId(2);

    /// The message at the head of a process's queue.
    fn heard(child: &OwnedFd) -> Result<String, Errno> {
        let mut bytes = [0; 512];
        let count = recv(child.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    /// Channels of two processes, and the processes' ends.
    fn two() -> (Handovers, OwnedFd, OwnedFd) {
        let all = Handovers::default();
        let mut ends = Vec::new();
        for (run, place) in [(FIRST, Place::Alone), (SECOND, Place::Successor)] {
            let channel = Channel::open(place, 2).expect("a channel");
            ends.push(channel.child.try_clone().expect("a copy"));
            all.keep(run, channel);
        }
        let second = ends.pop().expect("two");
        (all, ends.pop().expect("two"), second)
    }

    fn why(event: Option<Event>) -> (RunId, String) {
        match event {
            Some(Event::Garbled(run, why)) => (run, why.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_process_finds_out_how_it_begins_without_waiting() {
        in_event_loop(async || {
            let (_all, first, second) = two();
            assert_eq!(heard(&first).as_deref(), Ok("HANDOFF_COMPLETE"));
            assert_eq!(heard(&second).as_deref(), Ok("PREPARE generation=2"));
        });
    }

    #[test]
    fn two_are_connected_in_one_direction_and_nothing_of_it_is_kept() {
        in_event_loop(async || {
            let (all, first, second) = two();
            let before = std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
            assert!(all.connect(FIRST, SECOND, 2, Duration::from_secs(10), Part::Rest).is_none());
            assert_eq!(std::fs::read_dir("/proc/self/fd").expect("descriptors").count(), before);
            let ends = [(&first, "OFFER generation=2 limit_ms=10000 part=rest"), (&second, "TAKE part=rest")]
                .map(|(end, text)| {
                    assert!(heard(end).is_ok(), "how it begins");
                    let mut control = nix::cmsg_space!([RawFd; 1]);
                    let mut bytes = [0; 512];
                    let mut parts = [io::IoSliceMut::new(&mut bytes)];
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
                    let message = nix::sys::socket::recvmsg::<()>(
                        end.as_raw_fd(),
                        &mut parts,
                        Some(&mut control),
                        flags,
                    )
                    .expect("a message");
                    let rights = message.cmsgs().expect("rights").find_map(|part| match part {
                        nix::sys::socket::ControlMessageOwned::ScmRights(fds) => Some(fds),
                        _ => None,
                    });
                    let length = message.bytes;
                    assert_eq!(std::str::from_utf8(&bytes[..length]), Ok(text));
                    let fd = rights.expect("a descriptor")[0];
                    // SAFETY: it is new, and nobody else owns it.
                    unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) }
                });
            let [give, take] = ends;
            let send = |end: &OwnedFd| {
                nix::sys::socket::send(end.as_raw_fd(), b"x", MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            };
            assert_eq!(send(&give), Ok(1));
            assert_eq!(heard(&take).as_deref(), Ok("x"));
            assert_eq!(send(&take), Err(Errno::EPIPE), "nothing goes back");
        });
    }

    #[test]
    fn who_cannot_be_told_is_named() {
        in_event_loop(async || {
            let (all, first, second) = two();
            drop(second);
            let (run, text) = why(all.connect(FIRST, SECOND, 2, Duration::from_secs(1), Part::All));
            assert!(run == SECOND && text.starts_with("failed to tell it TAKE: "), "{run:?}: {text}");
            drop(first);
            let (run, text) = why(all.order(FIRST, &Order::Abort("late".to_owned())));
            assert!(run == FIRST && text.starts_with("failed to tell it ABORT: "), "{run:?}: {text}");
            all.forget(FIRST);
            let (_, text) = why(all.order(FIRST, &Order::Release));
            assert_eq!(text, "failed to tell it RELEASE: its channel is lost");
        });
    }

    #[test]
    fn a_process_that_does_not_read_finds_the_end_and_nobody_waits_for_it() {
        in_event_loop(async || {
            let (all, first, _second) = two();
            let told = std::iter::repeat_with(|| all.order(FIRST, &Order::Abort("again".to_owned())));
            let refused = told.take(100_000).find_map(|event| event).expect("it is full");
            assert!(why(Some(refused)).1.contains("ABORT: it does not read"), "and why");
            let mut left = std::iter::repeat_with(|| heard(&first)).skip_while(|text| {
                text.as_deref().is_ok_and(|text| text.starts_with("ABORT") || text == "HANDOFF_COMPLETE")
            });
            assert_eq!(left.next(), Some(Ok(String::new())), "the end");
        });
    }

    #[test]
    fn what_makes_no_sense_is_told_once_and_what_carries_descriptors_ends_the_reading() {
        in_event_loop(async || {
            let (all, first, _second) = two();
            let say = |bytes: &[u8]| {
                nix::sys::socket::send(first.as_raw_fd(), bytes, MsgFlags::empty()).expect("sent");
            };
            say(b"HELLO version=1");
            say(b"\xff\xfe");
            say(&[b'x'; 4096]);
            say(b"HELLO");
            say(b"");
            say(b"READY");
            let texts: Vec<_> = all.take_waiting(FIRST).iter().map(|event| format!("{event:?}")).collect();
            assert_eq!(texts.len(), 6, "{texts:?}");
            let parts = [
                "Hello { version: 1, parts: false }",
                "no text",
                "513 bytes",
                "version=NUMBER",
                "empty",
                "Ready",
            ];
            for (text, part) in texts.iter().zip(parts) {
                assert!(text.contains(part), "{text} has {part}");
            }
            let null = std::fs::File::open("/dev/null").expect("/dev/null");
            let fds = [null.as_raw_fd()];
            let control = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
            let bytes = [io::IoSlice::new(b"HELLO version=1")];
            let sent =
                nix::sys::socket::sendmsg::<()>(first.as_raw_fd(), &bytes, &control, MsgFlags::empty(), None);
            // Newer kernels refuse them.
            if sent.is_ok() {
                say(b"READY");
                let texts: Vec<_> = all.take_waiting(FIRST).iter().map(|e| format!("{e:?}")).collect();
                assert!(matches!(&texts[..], [one] if one.contains("descriptors")), "{texts:?}");
            }
        });
    }
}
