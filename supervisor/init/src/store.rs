//! Descriptors that are held for components (sd_notify(3): `FDSTORE=1`) and given to each of their processes.
//!
//! Guarantees:
//! * There are at most as many as the component declares, and at most [`TOTAL_LIMIT`] in all; one that is there already is
//!   not kept twice. What is not kept stays with the message that brought it, which a child closes (see
//!   [`crate::notify`]).
//! * This process asks none of them anything that a file system or a driver answers, and never does the last close of
//!   one: either may take for ever. A child holds what is let go until that is done here ([`queue::outlive`]).
//! * They go on through a re-execution.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;

use nix::libc;
use tracing::{error, warn};
use yakiros_core::component::Component;
use yakiros_core::descriptors::{Held, NAMES_LIMIT, Origin, counted};
use yakiros_core::engine::Event;

use crate::notify::queue::{self, Held as HeldBy};
use crate::reexec::Luggage;

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

/// What is held, for the next process image: names and numbers, by component.
pub type PassedStores = Vec<(Rc<str>, Vec<(Rc<str>, RawFd)>)>;

/// Names and numbers of what a process is given, in this order from 3 on.
#[derive(Debug, Default)]
pub struct Given {
    /// See [`crate::spawn::Descriptors::given`].
    pub fds: Vec<RawFd>,
    /// Their names.
    pub names: Vec<Rc<str>>,
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
            if store.kept.iter().any(|kept| is_same(kept.fd.as_raw_fd(), fd.as_raw_fd())) {
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
        if store.kept.is_empty() && !store.warned {
            all.remove(component.name.as_str());
        }
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
    pub fn forget(&self, component: &str) {
        let store = self.all.borrow_mut().remove(component);
        if let Some(store) = store {
            self.let_go(component, store.kept);
        }
    }

    /// What a process of this component is to be given.
    pub fn given(&self, component: &Component) -> Given {
        let all = self.all.borrow();
        let kept = all.get(component.name.as_str()).map_or(&[][..], |store| &store.kept);
        Given {
            fds: kept.iter().map(|kept| kept.fd.as_raw_fd()).collect(),
            names: kept.iter().map(|kept| Rc::clone(&kept.name)).collect(),
        }
    }

    /// For the next process image.
    pub fn pass(&self) -> PassedStores {
        let numbers = |store: &Store| {
            let kept = store.kept.iter();
            kept.map(|kept| (Rc::clone(&kept.name), kept.fd.as_raw_fd())).collect()
        };
        let all = self.all.borrow();
        all.iter().map(|(component, store)| (Rc::clone(component), numbers(store))).collect()
    }

    /// From the process image before.
    pub fn take_over(&self, passed: PassedStores, luggage: &mut Luggage) {
        for (component, numbers) in passed {
            let mut store = Store::default();
            for (name, fd) in numbers {
                match luggage.any(fd) {
                    Ok(fd) => store.kept.push(Kept { name, fd }),
                    Err(error) => error!("{component}: its descriptor {name} was lost on the way: {error}"),
                }
            }
            self.total.set(self.total.get() + store.kept.len());
            self.all.borrow_mut().insert(component, store);
        }
    }

    /// Close some, which is nothing that may be waited for.
    fn let_go(&self, component: &str, kept: Vec<Kept>) {
        self.total.set(self.total.get() - kept.len());
        queue::close(kept.into_iter().map(|kept| kept.fd).collect(), HeldBy::Messages, &component);
    }

    fn event(&self, component: &str) -> Event {
        let all = self.all.borrow();
        let kept = all.get(component).map_or(&[][..], |store| &store.kept);
        let held: Rc<[Held]> = counted(kept.iter().map(|kept| (Origin::Stored, &kept.name)));
        Event::Held(component.into(), held)
    }
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

/// Whether two descriptors stand for the same open file, by the kernel's word, which asks no file. Where it does not tell
/// (it was built without kcmp(2), or a filter forbids it), no two are.
fn is_same(one: RawFd, other: RawFd) -> bool {
    /// `KCMP_FILE` of the kernel's `linux/kcmp.h`.
    const FILE: libc::c_int = 0;
    let own = std::process::id();
    // SAFETY: a call on numbers.
    unsafe { libc::syscall(libc::SYS_kcmp, own, own, FILE, one, other) == 0 }
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
        let [one, other] = pipe();
        let numbers = [one.as_raw_fd(), other.as_raw_fd()];
        let copy = one.try_clone().expect("a copy");
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
            stores.forget("a");
            assert!(stores.given(&component).fds.is_empty());
            assert_eq!(stores.total.get(), 0);
            assert!(begun.elapsed() < LINGER / 2, "{:?}", begun.elapsed());
        });
    }
}
