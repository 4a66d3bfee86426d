//! `NOTIFY_SOCKET`: a component says something about itself (sd_notify(3)).
//!
//! The socket is there for the whole life of a run. Who speaks is the kernel's word (SO_PASSCRED):
//! only the component's own process, one in its cgroup, or one in its session counts; whatever
//! anybody else sends is dropped. A sender that was reaped before its message was read cannot be
//! told from a stranger: one that ends at once waits for `BARRIER=1` first, as systemd-notify does.
//!
//! Descriptors that come with a message are closed once it has been acted on. For `BARRIER=1`
//! that is the answer; nothing else is done with any.
//!
//! Flooding costs the flooder: no more than [`BURST`] messages are read in [`PAUSE`], and a sender
//! whose messages are not read is held up by the kernel.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::unistd::{Pid, getsid};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use yakiros_core::engine::{Event, RunId};
use yakiros_core::notify::{MESSAGE_LIMIT, Notification, parse};

use crate::reexec::Luggage;
use crate::supervisor::Supervisor;

/// Messages read before the reader pauses. A start says a handful of things, a watchdog beats a
/// few times a second at most.
const BURST: usize = 32;

/// The pause after them. With [`BURST`] it makes 320 messages a second, a few milliseconds of work.
const PAUSE: Duration = Duration::from_millis(100);

/// The most descriptors that the kernel passes with one message (`SCM_MAX_FD`). With room for all
/// of them nothing is cut short, and none is left open by mistake.
const DESCRIPTORS: usize = 253;

/// One run's socket. Its name in the file system goes with it.
pub struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it cannot be removed, the next run of this number removes it before binding.
        let _ = fs::remove_file(&self.path);
    }
}

/// A message, who sent it, and the descriptors that came with it.
struct Message {
    sender: Option<i32>,
    said: Notification,
    descriptors: Vec<OwnedFd>,
}

impl Socket {
    /// Bind the socket of a run.
    pub fn open(run: RunId, state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("notify");
        fs::create_dir_all(&directory)?;
        let path = directory.join(run.0.to_string());
        // Left over from a supervisor before this one.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        let own = Self { socket, path };
        setsockopt(&own.socket, sockopt::PassCred, &true)?;
        // A component that runs as another user reports too. Others may write, and are not heard.
        fs::set_permissions(&own.path, fs::Permissions::from_mode(0o666))?;
        Ok(own)
    }

    /// For the next process image.
    pub fn pass(&self) -> (RawFd, PathBuf) {
        (self.socket.as_raw_fd(), self.path.clone())
    }

    /// From the process image before.
    pub fn take((fd, path): (RawFd, PathBuf), luggage: &mut Luggage) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(luggage.socket(fd)?);
        Ok(Self { socket: UnixDatagram::from_std(socket)?, path })
    }

    /// The variable that tells the process where it is.
    pub fn variable(&self) -> String {
        format!("NOTIFY_SOCKET={}", self.path.display())
    }

    /// Take messages for as long as the run lasts.
    pub async fn serve(self: Rc<Self>, supervisor: Rc<Supervisor>, run: RunId) {
        let mut left = BURST;
        loop {
            if self.socket.readable().await.is_err() {
                // Never with a socket of ours; a pause keeps it from becoming a loop.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            match self.socket.try_io(Interest::READABLE, || receive(self.socket.as_raw_fd())) {
                Ok(message) => act(&supervisor, run, message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => {}
            }
            left -= 1;
            if left == 0 {
                tokio::time::sleep(PAUSE).await;
                left = BURST;
            }
        }
    }
}

/// Give the engine what a process of the component says. Descriptors are closed after that.
fn act(supervisor: &Rc<Supervisor>, run: RunId, message: Message) {
    let Message { sender, said, descriptors } = message;
    let heard = sender.is_some_and(|pid| supervisor.processes.borrow().belongs(run, pid));
    if heard && said != Notification::default() {
        supervisor.dispatch(Event::Notified(run, said));
    }
    drop(descriptors);
}

/// Read one message.
fn receive(socket: RawFd) -> io::Result<Message> {
    let mut bytes = [0_u8; MESSAGE_LIMIT];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(nix::libc::ucred, [RawFd; DESCRIPTORS]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
    let (mut sender, mut descriptors) = (None, Vec::new());
    for part in received.cmsgs()? {
        match part {
            ControlMessageOwned::ScmCredentials(from) => sender = Some(from.pid()),
            ControlMessageOwned::ScmRights(numbers) => {
                // SAFETY: the kernel has just made these for this process, and nobody else has them.
                descriptors.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
            _ => {}
        }
    }
    let count = received.bytes;
    Ok(Message { sender, said: parse(&bytes[..count]), descriptors })
}

/// Whether `pid` is in the session that `leader` began: its children, unless they left it.
pub fn in_session(leader: Pid, pid: i32) -> bool {
    // 0 stands for the caller itself, and for a sender outside of this process's namespace.
    pid > 0 && getsid(Some(Pid::from_raw(pid))) == Ok(leader)
}
