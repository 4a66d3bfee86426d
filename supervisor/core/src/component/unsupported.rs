//! What a component file can ask for and this version does not give.
//!
//! Such a component is not started at all: a program that counts on an isolation must never run without it.

use super::{Component, Namespace};

/// A wish that is not fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The section of the key that asks.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// The wish in words.
    pub what: &'static str,
}

impl Component {
    /// What it asks for and is not given.
    pub fn unsupported(&self) -> impl Iterator<Item = Wish> {
        let (isolation, security) = (&self.isolation, &self.security);
        let wishes = [
            (isolation.has(Namespace::User), "isolation", "namespaces", "isolation.namespaces with \"user\""),
            (isolation.has(Namespace::Time), "isolation", "namespaces", "isolation.namespaces with \"time\""),
            (isolation.root.is_some(), "isolation", "root", "isolation.root"),
            (
                isolation.private_tmp,
                "isolation",
                "private_tmp",
                "isolation.private_tmp (on by itself with the namespace \"mount\")",
            ),
            (!isolation.read_only.is_empty(), "isolation", "read_only", "isolation.read_only"),
            (!isolation.inaccessible.is_empty(), "isolation", "inaccessible", "isolation.inaccessible"),
            (!isolation.binds.is_empty(), "isolation", "binds", "isolation.binds"),
            (!isolation.tmpfs.is_empty(), "isolation", "tmpfs", "isolation.tmpfs"),
            (isolation.hidepid, "isolation", "hidepid", "isolation.hidepid"),
            (isolation.init, "isolation", "init", "isolation.init"),
            (!isolation.secrets.is_empty(), "isolation", "secrets", "isolation.secrets"),
            (!security.seccomp.is_empty(), "security", "seccomp", "security.seccomp"),
            (!security.landlock_read.is_empty(), "security", "landlock_read", "security.landlock_read"),
            (!security.landlock_write.is_empty(), "security", "landlock_write", "security.landlock_write"),
            (
                !security.landlock_execute.is_empty(),
                "security",
                "landlock_execute",
                "security.landlock_execute",
            ),
        ];
        let wish =
            |(wished, section, key, what): (bool, _, _, _)| wished.then_some(Wish { section, key, what });
        wishes.into_iter().filter_map(wish)
    }
}
