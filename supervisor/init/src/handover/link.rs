//! The supervisor's end of one channel.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use yakiros_core::engine::{Event, RunId};
use yakiros_handoff::message::{MESSAGE_LIMIT, Order, Report};

use crate::notify::queue;
use crate::notify::{Budget, PAUSE};
use crate::supervisor::Supervisor;
use crate::sys;

/// Messages that are read in [`PAUSE`]. A hot swap has eight of both processes together.
const MESSAGES: u32 = 32;

/// The most messages that are read at once: more than a process has to say in one hot swap.
const LAST_LOOK: usize = 16;

/// See the module documentation.
pub(super) struct Link {
    socket: AsyncFd<OwnedFd>,
    budget: RefCell<Budget>,
    /// The task that reads it.
    listener: RefCell<Option<AbortHandle>>,
    /// A child reads it (see [`super::relay`]), and nobody else may.
    lent: Cell<bool>,
    /// The inode of the process's end, which a checkpoint names.
    other: Cell<Option<u64>>,
    /// Lets a child go that holds the socket until it is closed here. Closed after it, by its place in
    /// this list.
    gate: Option<OwnedFd>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.gate = queue::before_close(self.socket.get_ref());
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What a look at the channel finds.
enum Next {
    Said(Event),
    /// Nothing now.
    Nothing,
    /// Nothing any more; and why, if that is worth a word.
    Over(Option<Event>),
}

impl Link {
    /// Take an end into use.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        // Where the kernel can; elsewhere they are found by looking.
        let _ = sys::refuse_descriptors(&socket);
        Ok(Self {
            socket: sys::watch(socket)?,
            budget: RefCell::new(Budget::new(MESSAGES)),
            listener: RefCell::default(),
            lent: Cell::new(false),
            other: Cell::new(None),
            gate: None,
        })
    }

    /// The process gets this end.
    pub(super) fn note_other(&self, end: &OwnedFd) {
        self.other.set(nix::sys::stat::fstat(end).ok().map(|stat| stat.st_ino));
    }

    /// See [`Self::note_other`].
    pub(super) fn other(&self) -> Option<u64> {
        self.other.get()
    }

    /// From the process image before.
    pub(super) fn set_other(&self, inode: u64) {
        self.other.set(Some(inode));
    }

    /// Send a message now, or not at all. Who may have to wait for it finds the end of its channel then.
    pub(super) fn send(&self, order: &Order, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = order.to_string();
        let fd = descriptor.map(|fd| fd.as_raw_fd());
        let rights = fd.as_ref().map(|fd| ControlMessage::ScmRights(std::slice::from_ref(fd)));
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(text.as_bytes())];
        match sendmsg::<()>(self.as_raw_fd(), &parts, rights.as_slice(), flags, None) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.give_up(order, error)),
        }
    }

    /// A message cannot be sent. A process that was asked to give waits for its verdict without a limit, so it is not
    /// left without one; a question that was not asked changes nothing.
    fn give_up(&self, order: &Order, error: Errno) -> io::Error {
        let asks = matches!(order, Order::Offer { .. } | Order::Take(_));
        if error == Errno::EAGAIN || !asks {
            let _ = shutdown(self.as_raw_fd(), Shutdown::Both);
        }
        match error {
            Errno::EAGAIN => io::Error::other("it does not read what it is told"),
            error => error.into(),
        }
    }

    /// Take messages for as long as the run lasts.
    pub(super) async fn serve(self: Rc<Self>, supervisor: Rc<Supervisor>, run: RunId) {
        loop {
            let Ok(mut ready) = self.socket.readable().await else {
                return;
            };
            if !self.budget.borrow_mut().take(sys::now()) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            match self.next(run) {
                Next::Said(event) => supervisor.dispatch(event),
                Next::Nothing => ready.clear_ready(),
                Next::Over(last) => {
                    if let Some(event) = last {
                        supervisor.dispatch(event);
                    }
                    return;
                }
            }
        }
    }

    /// This task serves it.
    pub(super) fn note_listener(&self, task: AbortHandle) {
        self.listener.replace(Some(task));
    }

    /// From now on a child reads it, descriptors and all; or it is the supervisor again, without.
    pub(super) fn lend(&self, lent: bool) {
        self.lent.set(lent);
        if lent {
            self.stop();
        }
        // Where the kernel knows the difference.
        let _ = sys::take_descriptors(self.socket.get_ref(), lent);
    }

    /// The run is over: end the task.
    pub(super) fn stop(&self) {
        if let Some(task) = self.listener.take() {
            task.abort();
        }
    }

    /// What waits, whatever the budget.
    pub(super) fn take_waiting(&self, run: RunId) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < LAST_LOOK && !self.lent.get() {
            match self.next(run) {
                Next::Said(event) => events.push(event),
                Next::Nothing => break,
                Next::Over(last) => {
                    events.extend(last);
                    break;
                }
            }
        }
        events
    }

    /// Whether the other side can still say something.
    fn is_open(&self) -> bool {
        let ended = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
        let mut end = [PollFd::new(self.socket.get_ref().as_fd(), ended)];
        let looked = poll(&mut end, PollTimeout::ZERO);
        // What is found is no flag that the library knows.
        looked.is_ok() && end[0].any() == Some(false)
    }

    fn next(&self, run: RunId) -> Next {
        // One more than is allowed tells that a message is longer.
        let mut bytes = [0; MESSAGE_LIMIT + 1];
        let mut came = queue::read_bare(self.as_raw_fd(), &mut bytes);
        if matches!(came, Ok(0)) {
            // A message of no bytes looks like the end.
            if self.is_open() {
                queue::remove(self.as_raw_fd());
                return Next::Said(Event::Garbled(run, "it sent an empty message".into()));
            }
            // The kernel looks at the queue, and then whether the other side has closed (`unix_dgram_recvmsg`): the last
            // words that came in between are still there.
            came = queue::read_bare(self.as_raw_fd(), &mut bytes);
        }
        match came {
            Ok(0) => Next::Over(None),
            Ok(count) => Next::Said(match read(&bytes[..count]) {
                Ok(report) => Event::Reported(run, report),
                Err(why) => Event::Garbled(run, why.into()),
            }),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Next::Nothing,
                io::ErrorKind::InvalidData => {
                    Next::Over(Some(Event::Garbled(run, "it sent descriptors to the supervisor".into())))
                }
                _ => Next::Over(None),
            },
        }
    }
}

fn read(bytes: &[u8]) -> Result<Report, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it said what is no text".to_owned())?;
    text.parse().map_err(|error| format!("it said what makes no sense: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::pair;
    use crate::notify::tests::in_event_loop;
    use nix::sys::socket::{recv, send};
    use std::time::Duration;
    use yakiros_handoff::message::Part;

    #[test]
    fn what_waits_while_a_child_reads_is_left_to_it() {
        in_event_loop(async || {
            let (own, other) = pair().expect("a pair");
            let link = Link::new(own).expect("a link");
            send(other.as_raw_fd(), b"HELLO version=1", MsgFlags::empty()).expect("sent");
            link.lend(true);
            assert!(link.take_waiting(RunId(1)).is_empty());
            link.lend(false);
            assert_eq!(link.take_waiting(RunId(1)).len(), 1);
        });
    }

    #[test]
    fn who_waits_for_a_verdict_that_cannot_be_sent_finds_the_end() {
        in_event_loop(async || {
            let (own, other) = pair().expect("a pair");
            let link = Link::new(own).expect("a link");
            let heard = || recv(other.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT);
            let offer = Order::Offer { generation: 2, limit: Duration::from_secs(1), part: Part::All };
            for question in [Order::Take(Part::All), offer] {
                let _ = link.give_up(&question, Errno::ENOBUFS);
                assert_eq!(heard(), Err(Errno::EAGAIN), "{question}: it was not asked, and serves on");
            }
            let error = link.give_up(&Order::Abort("late".to_owned()), Errno::ENOBUFS);
            assert_eq!(error.raw_os_error(), Some(Errno::ENOBUFS as i32));
            assert_eq!(heard(), Ok(0), "the end");
        });
    }
}
