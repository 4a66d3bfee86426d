//! Maps of user namespaces (user_namespaces(7)): the supervisor writes them, which may name any user, and tells the child.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use yakiros_core::component::{IdMap, Isolation, Namespace};

use crate::sys;

/// Who is who inside when nothing is said: everybody whom a machine commonly has is who he is outside.
const AS_THEY_ARE: IdMap = IdMap { inside: 0, outside: 0, count: 65536 };

/// What is written of users and groups.
pub struct Maps {
    users: String,
    groups: String,
}

impl Maps {
    /// Those of a component; `None` without a user namespace.
    pub fn of(isolation: &Isolation) -> Option<Self> {
        let text = |map: &[IdMap]| {
            let map = if map.is_empty() { &[AS_THEY_ARE] } else { map };
            map.iter().fold(String::new(), |mut text, IdMap { inside, outside, count }| {
                // Writing to a text cannot fail.
                let _ = writeln!(text, "{inside} {outside} {count}");
                text
            })
        };
        let maps = || Self { users: text(&isolation.uid_map), groups: text(&isolation.gid_map) };
        isolation.has(Namespace::User).then(maps)
    }

    /// Give a new child its maps, and let it go on. One that does not get them is ended.
    pub fn write(&self, pid: i32, word: OwnedFd) -> io::Result<()> {
        let file = |name: &str| format!("/proc/{pid}/{name}");
        let written = fs::write(file("gid_map"), &self.groups)
            .and_then(|()| fs::write(file("uid_map"), &self.users))
            .and_then(|()| fs::File::from(word).write_all(b"\n"));
        if written.is_err() {
            sys::end_child(Pid::from_raw(pid));
        }
        written
    }
}
