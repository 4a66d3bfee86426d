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
        let (process, environment) = (&self.resources.process, &self.environment);
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
            (security.user.is_some(), "security", "user", "security.user"),
            (security.group.is_some(), "security", "group", "security.group"),
            (!security.groups.is_empty(), "security", "groups", "security.groups"),
            (security.no_new_privs == Some(true), "security", "no_new_privs", "security.no_new_privs"),
            (security.capabilities.is_some(), "security", "capabilities", "security.capabilities"),
            (
                !security.ambient_capabilities.is_empty(),
                "security",
                "ambient_capabilities",
                "security.ambient_capabilities",
            ),
            (!security.securebits.is_empty(), "security", "securebits", "security.securebits"),
            (!security.seccomp.is_empty(), "security", "seccomp", "security.seccomp"),
            (!security.landlock_read.is_empty(), "security", "landlock_read", "security.landlock_read"),
            (!security.landlock_write.is_empty(), "security", "landlock_write", "security.landlock_write"),
            (
                !security.landlock_execute.is_empty(),
                "security",
                "landlock_execute",
                "security.landlock_execute",
            ),
            (!process.rlimits.is_empty(), "resources", "rlimits", "resources.rlimits"),
            (process.nice.is_some(), "resources", "nice", "resources.nice"),
            (process.scheduling.is_some(), "resources", "scheduling", "resources.scheduling"),
            (process.io_class.is_some(), "resources", "io_class", "resources.io_class"),
            (!process.cpu_affinity.is_empty(), "resources", "cpu_affinity", "resources.cpu_affinity"),
            (
                process.oom_score_adjust.is_some(),
                "resources",
                "oom_score_adjust",
                "resources.oom_score_adjust",
            ),
            (!environment.variables.is_empty(), "environment", "variables", "environment.variables"),
            (
                environment.working_directory.is_some(),
                "environment",
                "working_directory",
                "environment.working_directory",
            ),
            (environment.umask.is_some(), "environment", "umask", "environment.umask"),
        ];
        let wish =
            |(wished, section, key, what): (bool, _, _, _)| wished.then_some(Wish { section, key, what });
        wishes.into_iter().filter_map(wish)
    }
}
