//! Descriptors that the supervisor holds for a component and gives to each of its processes
//! (`LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` of sd_listen_fds(3)): sockets that are declared, then what
//! the component has stored by `FDSTORE=1` of sd_notify(3).

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: systemd's own limit (`FDNAME_MAX`).
pub const NAME_LIMIT: usize = 255;

/// The name of what is stored without one.
pub const UNNAMED: &str = "stored";

/// The most descriptors that a component may have stored: about as many as the largest user of systemd's store
/// asks for (4,224). Connections by the thousand move without the supervisor, by the hand-over protocol.
pub const STORE_LIMIT: u64 = 4096;

/// The most bytes of all names of what a component has stored, with a separator each: the kernel takes no variable of
/// more than 128 KiB (`MAX_ARG_STRLEN`), and `LISTEN_FDNAMES` is one, with the names of [`SOCKETS_LIMIT`] sockets before.
pub const NAMES_LIMIT: usize = 110_000;

/// The most sockets of a component: a server with more ports opens them itself.
pub const SOCKETS_LIMIT: usize = 64;

/// Whether it may name a descriptor: ASCII without control characters and without the colon, which separates names.
pub fn is_name(name: &[u8]) -> bool {
    let fits = (1..=NAME_LIMIT).contains(&name.len());
    fits && name.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b':')
}

/// Where a held descriptor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A declared socket.
    Socket,
    /// The component has stored it.
    Stored,
}

/// Held descriptors of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Their name.
    pub name: Rc<str>,
    /// Where they come from.
    pub origin: Origin,
    /// How many.
    pub count: u32,
}

/// Names with their origins, counted: sockets first, each by name.
pub fn counted<'a>(names: impl IntoIterator<Item = (Origin, &'a str)>) -> Rc<[Held]> {
    let mut counts: BTreeMap<(Origin, &str), u32> = BTreeMap::new();
    for key in names {
        *counts.entry(key).or_default() += 1;
    }
    let held = counts.into_iter();
    held.map(|((origin, name), count)| Held { name: name.into(), origin, count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_systemd() {
        for name in ["http", "a b", "~", "x.1-2_3"] {
            assert!(is_name(name.as_bytes()), "{name:?}");
        }
        for name in ["", "a:b", "a\n", "\u{7f}", "ä"] {
            assert!(!is_name(name.as_bytes()), "{name:?}");
        }
        assert!(is_name(&[b'x'; NAME_LIMIT]) && !is_name(&[b'x'; NAME_LIMIT + 1]));
    }

    #[test]
    fn what_is_held_is_counted_by_origin_and_name() {
        let held = counted([
            (Origin::Stored, "b"),
            (Origin::Stored, "a"),
            (Origin::Socket, "b"),
            (Origin::Stored, "b"),
        ]);
        let told: Vec<_> = held.iter().map(|held| (&*held.name, held.origin, held.count)).collect();
        assert_eq!(told, [("b", Origin::Socket, 1), ("a", Origin::Stored, 1), ("b", Origin::Stored, 2)]);
    }
}
