//! Capabilities of Linux: the names and numbers of `include/uapi/linux/capability.h`, as of Linux 5.9, the last that
//! added one.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::keys::nearest;
use super::values::{Problem, list};
use crate::diagnostic::rules;

/// All of them; the position is the number.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a name may begin with.
const PREFIX: &str = "CAP_";

/// Some capabilities of Linux, as the kernel keeps them: a bit for each number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// All that have a name here.
    pub const ALL: Self = Self((1 << CAPABILITIES.len()) - 1);

    /// Whether the one of this number is in it.
    pub fn has(self, number: usize) -> bool {
        number < u64::BITS as usize && self.0 & (1 << number) != 0
    }

    /// None at all.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are here and not there.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names, in the order of the numbers.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        CAPABILITIES
            .into_iter()
            .enumerate()
            .filter(move |(number, _)| self.has(*number))
            .map(|(_, name)| name)
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names().collect();
        f.write_str(&names.join(" "))
    }
}

/// The number of a capability, by its name with or without `CAP_`, in any case.
pub fn capability_number(name: &str) -> Option<usize> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix(PREFIX).unwrap_or(&upper);
    CAPABILITIES.iter().position(|known| &known[PREFIX.len()..] == bare)
}

/// A list of names.
pub(super) fn capability_set(value: &DeValue<'_>) -> Result<CapabilitySet, Problem> {
    let mut bits = 0;
    for name in list(value)? {
        let number = capability_number(&name).ok_or_else(|| unknown(&name))?;
        bits |= 1 << number;
    }
    Ok(CapabilitySet(bits))
}

fn unknown(name: &str) -> Problem {
    let problem = Problem::new(&rules::UNKNOWN_CAPABILITY, format!("names an unknown capability {name:?}"));
    let upper = name.to_ascii_uppercase();
    let known = CAPABILITIES.iter().copied();
    let near = nearest(&upper, known.clone()).or_else(|| nearest(&format!("{PREFIX}{upper}"), known));
    problem.help(match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "capabilities(7) lists all".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_the_kernels_numbers() {
        for (name, number) in
            [("CAP_CHOWN", 0), ("sys_admin", 21), ("Cap_Syslog", 34), ("CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(capability_number(name), Some(number), "{name}");
        }
        assert_eq!(capability_number("CAP_"), None);
        // Those of a library that others keep.
        for known in caps::all() {
            assert_eq!(capability_number(&known.to_string()), Some(usize::from(known.index())), "{known}");
        }
        assert_eq!(caps::all().len(), CAPABILITIES.len());
        assert_eq!(CapabilitySet::ALL.names().count(), CAPABILITIES.len());
        assert_eq!(CapabilitySet((1 << 21) | 1).to_string(), "CAP_CHOWN CAP_SYS_ADMIN");
    }
}
