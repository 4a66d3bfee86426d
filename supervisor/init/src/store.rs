//! Descriptors that are held for components and given to each of their processes: sockets that are declared (see
//! [`sockets`]), then what they store (sd_notify(3): `FDSTORE=1`).
//!
//! Guarantees:
//! * There are at most as many stored as the component declares, and at most [`TOTAL_LIMIT`] in all; one that is there already is
//!   not kept twice. What is not kept stays with the message that brought it, which a child closes (see
//!   [`crate::notify`]).
//! * This process asks none of them anything that a file system or a driver answers, and never does the last close of
//!   one: either may take for ever. A child holds what is let go until that is done here ([`queue::outlive`]).
//! * They go on through a re-execution.

mod sockets;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::mem::take;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;

use nix::libc;
use nix::sys::socket::{SockaddrStorage, getsockname, getsockopt, sockopt};
use serde::{Deserialize, Serialize};
use tracing::{error, warn};
use yakiros_core::component::{Component, Listen, Socket};
use yakiros_core::descriptors::{Held, NAMES_LIMIT, Origin, counted};
use yakiros_core::engine::Event;

use crate::notify::queue::{self, Held as HeldBy};
use crate::reexec::Luggage;
use crate::supervisor::Supervisor;
use sockets::Opened;

/// The most descriptors that are kept of all components. Every child that copies the table copies these too, and with
/// what a thousand components need they stay far below the usual limit of 524,288.
const TOTAL_LIMIT: usize = 16_384;

/// One that is kept.
#[derive(Debug)]
struct Kept {
    name: Rc<str>,
    fd: OwnedFd,
}

/// What is held of one component.
#[derive(Debug, Default)]
struct Store {
    sockets: Vec<Opened>,
    kept: Vec<Kept>,
    /// It was said that something is not kept.
    warned: bool,
}

/// What is held of all components.
#[derive(Default)]
pub struct Stores {
    all: RefCell<BTreeMap<Rc<str>, Store>>,
    total: Cell<usize>,
}

/// What is held of one component, for the next process image.
#[derive(Debug, Serialize, Deserialize)]
pub struct Passed {
    component: Rc<str>,
    sockets: Vec<(Socket, RawFd)>,
    kept: Vec<(Rc<str>, RawFd)>,
}

impl Passed {
    /// All descriptors.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.sockets.iter().map(|(_, fd)| *fd).chain(self.kept.iter().map(|(_, fd)| *fd))
    }
}

/// Why a declared socket is not open: the step that failed, to complete "failed to …", and the number of the error.
pub type NotOpen = (Rc<str>, i32);

/// Names and numbers of what a process is given, in this order from 3 on.
#[derive(Debug, Default)]
pub struct Given {
    /// See [`crate::spawn::Descriptors::given`].
    pub fds: Vec<RawFd>,
    /// Their names.
    pub names: Vec<String>,
}

impl Given {
    /// The variables that tell the process of them. The child adds its own number.
    pub fn environment(&self) -> Vec<String> {
        if self.fds.is_empty() {
            return Vec::new();
        }
        vec![format!("LISTEN_FDS={}", self.fds.len()), format!("LISTEN_FDNAMES={}", self.names.join(":"))]
    }
}

impl Stores {
    /// Keep descriptors that a component has sent. The event tells of the change, if there is one. What is not kept is
    /// closed: the caller sees to it that this is not the last close.
    pub fn keep(&self, component: &Component, name: &str, fds: Vec<OwnedFd>) -> Option<Event> {
        let mut all = self.all.borrow_mut();
        let store = all.entry(component.name.as_str().into()).or_default();
        let before = store.kept.len();
        let name: Rc<str> = name.into();
        for fd in fds {
            if store.kept.iter().any(|kept| is_same(&kept.fd, &fd)) {
                continue;
            }
            if let Some(limit) = store.limit_met(component, &name, self.total.get()) {
                store.warn(component, limit);
                break;
            }
            self.total.set(self.total.get() + 1);
            store.kept.push(Kept { name: Rc::clone(&name), fd });
        }
        let changed = store.kept.len() > before;
        drop(all);
        changed.then(|| self.event(&component.name))
    }

    /// Keep none of this name any more. The event tells of the change, if there is one.
    pub fn remove(&self, component: &str, name: &str) -> Option<Event> {
        let gone = {
            let mut all = self.all.borrow_mut();
            let store = all.get_mut(component)?;
            let gone: Vec<_> = store.kept.extract_if(.., |kept| &*kept.name == name).collect();
            store.warned &= gone.is_empty();
            gone
        };
        if gone.is_empty() {
            return None;
        }
        self.let_go(component, gone);
        Some(self.event(component))
    }

    /// The component is no longer declared.
    pub fn forget(&self, supervisor: &Rc<Supervisor>, component: &str) {
        let store = self.all.borrow_mut().remove(component);
        if let Some(store) = store {
            self.let_go(component, store.kept);
            close_sockets(supervisor, component, store.sockets);
        }
    }

    /// Open what is declared and not open yet, but for paths, and let go what is no longer declared. Whether everything
    /// is open.
    pub fn open(&self, supervisor: &Rc<Supervisor>, component: &Component) -> Result<bool, NotOpen> {
        let mut before = match self.all.borrow_mut().get_mut(component.name.as_str()) {
            Some(store) => take(&mut store.sockets),
            None if component.sockets.is_empty() => return Ok(true),
            None => Vec::new(),
        };
        let mut kept = Vec::new();
        for wanted in &component.sockets {
            if let Some(place) = before.iter().position(|opened| opened.serves(wanted)) {
                let mut opened = before.swap_remove(place);
                // An error would leave the backlog as it was.
                let _ = opened.renew(wanted);
                kept.push(opened);
            }
        }
        // Before anything is opened that may be in their place.
        close_sockets(supervisor, &component.name, before);
        let opened = open_addresses(component, &mut kept);
        let all_open = kept.len() == component.sockets.len();
        self.set_sockets(supervisor, component, kept);
        opened.map(|()| all_open)
    }

    /// Keep these, in the order in which they are declared, and have the engine know.
    fn set_sockets(&self, supervisor: &Supervisor, component: &Component, mut sockets: Vec<Opened>) {
        let place = |opened: &Opened| component.sockets.iter().position(|wanted| opened.serves(wanted));
        sockets.sort_by_key(place);
        let name: Rc<str> = component.name.as_str().into();
        self.all.borrow_mut().entry(name).or_default().sockets = sockets;
        supervisor.announce(self.event(&component.name));
    }

    /// What a process of this component is to be given.
    pub fn given(&self, component: &Component) -> Given {
        let all = self.all.borrow();
        let Some(store) = all.get(component.name.as_str()) else { return Given::default() };
        let sockets = store.sockets.iter().map(|opened| (opened.fd.as_raw_fd(), &*opened.declared.name));
        let kept = store.kept.iter().map(|kept| (kept.fd.as_raw_fd(), &*kept.name));
        let (fds, names) = sockets.chain(kept).map(|(fd, name)| (fd, name.to_owned())).unzip();
        Given { fds, names }
    }

    /// An internet socket that a component's process was given in this place is another one at the same address now: hold
    /// that. The caller sees to it that this is not the last close of the one before.
    pub fn renew(&self, component: &Component, place: Option<usize>, fd: OwnedFd) -> io::Result<()> {
        let mut all = self.all.borrow_mut();
        let own = all.get_mut(component.name.as_str()).zip(place).and_then(|(store, place)| {
            let declared = store.sockets.len();
            match place.checked_sub(declared) {
                None => store.sockets.get_mut(place).map(|opened| &mut opened.fd),
                Some(place) => store.kept.get_mut(place).map(|kept| &mut kept.fd),
            }
        });
        let own = own.ok_or_else(|| io::Error::other("nothing is held in its place"))?;
        // Its process runs, and may have something else under that number by now.
        let address = |fd: &OwnedFd| getsockname::<SockaddrStorage>(fd.as_raw_fd());
        let kind = |fd: &OwnedFd| getsockopt(fd, sockopt::SockType);
        if kind(own)? != kind(&fd)? || address(own)? != address(&fd)? {
            return Err(io::Error::other("its process has another socket in its place"));
        }
        *own = fd;
        Ok(())
    }

    /// For the next process image.
    pub fn pass(&self) -> Vec<Passed> {
        let all = self.all.borrow();
        let passed = all.iter().map(|(component, store)| Passed {
            component: Rc::clone(component),
            sockets: store.sockets.iter().map(|one| (one.declared.clone(), one.fd.as_raw_fd())).collect(),
            kept: store.kept.iter().map(|kept| (Rc::clone(&kept.name), kept.fd.as_raw_fd())).collect(),
        });
        passed.collect()
    }

    /// From the process image before. A socket that was lost is opened again at the next start.
    pub fn take_over(&self, passed: Vec<Passed>, luggage: &mut Luggage) {
        for Passed { component, sockets, kept } in passed {
            let mut take = |name: &str, fd| {
                let lost = |error| error!("{component}: its descriptor {name} was lost on the way: {error}");
                luggage.any(fd).map_err(lost).ok()
            };
            let sockets = sockets.into_iter();
            let sockets =
                sockets.filter_map(|(declared, fd)| Some(Opened { fd: take(&declared.name, fd)?, declared }));
            let sockets = sockets.collect();
            let kept = kept.into_iter();
            let kept: Vec<_> =
                kept.filter_map(|(name, fd)| Some(Kept { fd: take(&name, fd)?, name })).collect();
            self.total.set(self.total.get() + kept.len());
            self.all.borrow_mut().insert(component, Store { sockets, kept, warned: false });
        }
    }

    /// Close some, which is nothing that may be waited for.
    fn let_go(&self, component: &str, kept: Vec<Kept>) {
        self.total.set(self.total.get() - kept.len());
        queue::close(kept.into_iter().map(|kept| kept.fd).collect(), HeldBy::Messages, &component);
    }

    fn event(&self, component: &str) -> Event {
        let all = self.all.borrow();
        let store = all.get(component);
        let sockets = store.into_iter().flat_map(|store| &store.sockets);
        let sockets = sockets.map(|opened| (Origin::Socket, &*opened.declared.name));
        let kept = store.into_iter().flat_map(|store| &store.kept).map(|kept| (Origin::Stored, &*kept.name));
        let held: Rc<[Held]> = counted(sockets.chain(kept));
        Event::Held(component.into(), held)
    }
}

/// Open the paths that a component declares, in one go with whatever has to be waited for.
pub async fn open_paths(supervisor: &Rc<Supervisor>, component: &Component) -> Result<(), NotOpen> {
    for wanted in &component.sockets {
        let Listen::Path(path) = &wanted.listen else { continue };
        let is_open = |opened: &Opened| opened.serves(wanted);
        let stores = &supervisor.stores;
        let open =
            stores.all.borrow().get(component.name.as_str()).is_some_and(|s| s.sockets.iter().any(is_open));
        if open {
            continue;
        }
        let fd =
            sockets::open_path(supervisor, wanted, path).await.map_err(|error| not_open(wanted, &error))?;
        let opened = Opened { declared: wanted.clone(), fd };
        let before = stores.all.borrow_mut().get_mut(component.name.as_str()).map(|s| take(&mut s.sockets));
        let all = before.into_iter().flatten().chain([opened]).collect();
        stores.set_sockets(supervisor, component, all);
    }
    Ok(())
}

fn open_addresses(component: &Component, open: &mut Vec<Opened>) -> Result<(), NotOpen> {
    for wanted in &component.sockets {
        if open.iter().any(|opened| opened.serves(wanted)) {
            continue;
        }
        if let Some(fd) = sockets::open(wanted).map_err(|error| not_open(wanted, &error))? {
            open.push(Opened { declared: wanted.clone(), fd });
        }
    }
    Ok(())
}

fn not_open(wanted: &Socket, error: &io::Error) -> NotOpen {
    (format!("listen on {}", wanted.listen).into(), error.raw_os_error().unwrap_or(libc::EIO))
}

fn close_sockets(supervisor: &Rc<Supervisor>, component: &str, sockets: Vec<Opened>) {
    let fds = sockets.into_iter().filter_map(|opened| opened.let_go(supervisor)).collect();
    queue::close(fds, HeldBy::Messages, &component);
}

impl Store {
    /// The limit that keeps one more of this name from being kept.
    fn limit_met(&self, component: &Component, name: &str, total: usize) -> Option<&'static str> {
        let names: usize = self.kept.iter().map(|kept| kept.name.len() + 1).sum();
        let most = component.hotswap.fd_store_max as usize;
        let limits = [
            (most == 0, "hotswap.fd_store_max is not declared"),
            (self.kept.len() >= most, "there are as many as hotswap.fd_store_max allows"),
            (names + name.len() >= NAMES_LIMIT, "their names are too long together"),
            (total >= TOTAL_LIMIT, "the supervisor holds as many as it can"),
        ];
        limits.into_iter().find(|(met, _)| *met).map(|(_, why)| why)
    }

    /// Said once until something is removed: a component may try again and again.
    fn warn(&mut self, component: &Component, why: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!("{}: a descriptor that it wants to store is closed: {why}", component.name);
        }
    }
}

/// Whether two descriptors stand for the same open file, by the kernel's word, which asks no file. It is asked in three
/// ways, for older kernels do not know the first, a filter of system calls may forbid the second, and only sockets have
/// the third. Where none tells, no two are the same.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    /// `F_DUPFD_QUERY` of the kernel's `linux/fcntl.h`, since Linux 6.10.
    const QUERY: libc::c_int = 1024 + 3;
    /// `KCMP_FILE` of the kernel's `linux/kcmp.h`.
    const FILE: libc::c_int = 0;
    let (first, second, own) = (one.as_raw_fd(), other.as_raw_fd(), std::process::id());
    // SAFETY: calls on numbers.
    let (queried, compared) = unsafe {
        (libc::fcntl(first, QUERY, second), libc::syscall(libc::SYS_kcmp, own, own, FILE, first, second))
    };
    match (queried, compared) {
        (0 | 1, _) => queried == 1,
        (_, 0..) => compared == 0,
        _ => cookie(one).is_some_and(|of_one| cookie(other) == Some(of_one)),
    }
}

/// What the kernel calls a socket for as long as it lives.
fn cookie(fd: &OwnedFd) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    let value = (&raw mut cookie).cast();
    // SAFETY: the pointers are to locals, one of the size that the other holds.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, value, &raw mut size) };
    (done == 0).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{LINGER, in_event_loop, lingering};
    use std::time::Instant;

    fn component(most: u32) -> Component {
        let text =
            format!("[component]\nname = \"a\"\nbinary = \"/bin/true\"\n[hotswap]\nfd_store_max = {most}\n");
        yakiros_core::component::parse(&text).component.expect("a component")
    }

    fn pipe() -> [OwnedFd; 2] {
        crate::sys::pipe().expect("a pipe").into()
    }

    /// What is told of the held, by name and count.
    fn told(event: Option<Event>) -> Vec<(String, u32)> {
        match event.expect("a change") {
            Event::Held(component, held) => {
                assert_eq!(&*component, "a");
                held.iter().map(|held| (held.name.to_string(), held.count)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn as_many_as_declared_are_kept_each_once_and_given_in_their_order() {
        let (stores, component) = (Stores::default(), component(3));
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let [one, other] = [one, other].map(OwnedFd::from);
        assert!(!is_same(&one, &other) && cookie(&one) != cookie(&other), "they are told apart");
        let numbers = [one.as_raw_fd(), other.as_raw_fd()];
        let copy = one.try_clone().expect("a copy");
        assert!(is_same(&one, &copy) && cookie(&one).is_some() && cookie(&one) == cookie(&copy));
        let event = stores.keep(&component, "x", vec![one, other, copy]);
        assert_eq!(told(event), [("x".to_owned(), 2)]);
        let [third, fourth] = pipe();
        let number = third.as_raw_fd();
        assert_eq!(told(stores.keep(&component, "y", vec![third, fourth])).len(), 2);
        assert!(stores.keep(&component, "z", pipe().into()).is_none(), "no more than declared");
        let given = stores.given(&component);
        assert_eq!(given.fds, [numbers[0], numbers[1], number]);
        assert_eq!(given.environment(), ["LISTEN_FDS=3", "LISTEN_FDNAMES=x:x:y"]);
        assert_eq!(stores.total.get(), 3);
    }

    #[test]
    fn who_declares_no_store_has_none() {
        let stores = Stores::default();
        assert!(stores.keep(&component(0), "x", pipe().into()).is_none());
        assert!(stores.given(&component(0)).environment().is_empty());
        assert_eq!(stores.total.get(), 0);
    }

    #[test]
    fn names_fit_into_one_variable() {
        let (stores, component) = (Stores::default(), component(4096));
        let name = "n".repeat(255);
        for _ in 0..300 {
            stores.keep(&component, &name, pipe().into());
        }
        let variables = stores.given(&component).environment();
        assert!((NAMES_LIMIT - 256..131_072).contains(&variables[1].len()), "{}", variables[1].len());
    }

    #[test]
    fn letting_go_of_what_hangs_holds_up_nobody() {
        in_event_loop(async || {
            let (stores, component) = (Stores::default(), component(8));
            let begun = Instant::now();
            for name in ["x", "y"] {
                let (stream, listener) = lingering();
                stores.keep(&component, name, vec![stream.into(), listener.into()]);
            }
            assert!(stores.remove("a", "nobody").is_none());
            assert_eq!(told(stores.remove("a", "x")), [("y".to_owned(), 2)]);
            let rest = stores.all.borrow_mut().remove("a").expect("a store");
            stores.let_go("a", rest.kept);
            assert!(stores.given(&component).fds.is_empty());
            assert_eq!(stores.total.get(), 0);
            assert!(begun.elapsed() < LINGER / 2, "{:?}", begun.elapsed());
        });
    }
}
