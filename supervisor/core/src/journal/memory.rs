//! What is told of processes that were killed for want of memory.

use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// Processes that the kernel has killed for want of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutOfMemory {
    /// How many, since the last look.
    pub kills: u64,
    /// `memory.max` of the component's group, in bytes, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `memory.current` of the group just after the kill, in bytes, when it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// Where there was no room, if that was not the component's own limit: a group, by its path, or the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Rc<str>>,
    /// The last one that was killed, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim: Option<Victim>,
    /// The component's own process is among them, and not only what that has started.
    pub main: bool,
    /// Other components run in the group too, and whose process it was is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// A process that was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Its number.
    pub pid: i32,
    /// Its name (`/proc/PID/comm`), by its own word; what is not plain text is escaped.
    pub name: Rc<str>,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")?;
        let mut gap = ": ";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let written = write!(f, "{gap}{text}");
            gap = ", ";
            written
        };
        match (&self.scope, self.limit) {
            (Some(scope), _) => part(f, format_args!("no room in {scope}"))?,
            (None, Some(limit)) => part(f, format_args!("memory.max {}", Bytes(limit)))?,
            (None, None) => {}
        }
        if let Some(usage) = self.usage {
            part(f, format_args!("usage {}", Bytes(usage)))?;
        }
        let other = if self.main { "" } else { ", not its first process" };
        match &self.victim {
            Some(Victim { pid, name }) => part(f, format_args!("victim {pid} ({name}){other}"))?,
            None if self.main => part(f, format_args!("victim its first process"))?,
            None => part(f, format_args!("victim one that it has started"))?,
        }
        if self.kills > 1 {
            part(f, format_args!("{} processes killed", self.kills))?;
        }
        if self.shared {
            part(f, format_args!("in a group that it shares"))?;
        }
        Ok(())
    }
}

/// A number of bytes as people write it, exactly where that is short.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        let Some((shift, unit)) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{}", self.0);
        };
        if self.0.trailing_zeros() >= shift {
            return write!(f, "{}{unit}", self.0 >> shift);
        }
        write!(f, "{:.1}{unit}", self.0 as f64 / (1_u64 << shift) as f64)
    }
}
