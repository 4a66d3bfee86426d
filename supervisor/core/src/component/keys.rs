//! Every section and key that a component file may have: the one table that the parser, the JSON
//! Schema and the reference in `docs/` are made from.
//!
//! A new key is one row in the table of its section and one `get` in `build`; a test sees to it that each row is read,
//! takes what its shape says, and has the default that it claims.

mod nearest;
mod resources;
mod sandbox;
mod service;
mod slice;

use std::time::Duration;

pub use self::nearest::nearest;
use self::resources::RESOURCES;
use self::sandbox::{ENVIRONMENT, ISOLATION, SECURITY};
use self::service::{CHECKPOINT, COMPONENT, HOTSWAP, LIFECYCLE, SOCKETS};
use self::slice::SLICE;

/// The shortest time after which something is done again and again: shorter ones would keep the supervisor busy for one
/// component, and a loaded machine is no more exact than a few milliseconds.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// A table of a component file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name, as in `[name]`.
    pub name: &'static str,
    /// What its keys are about.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// A file may have several, each as `[[name]]`.
    pub several: bool,
}

impl Section {
    const fn one(name: &'static str, about: &'static str, keys: &'static [Key]) -> Self {
        Self { name, about, keys, several: false }
    }

    /// How its head is written.
    pub fn head(&self) -> String {
        let name = self.name;
        if self.several { format!("[[{name}]]") } else { format!("[{name}]") }
    }
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Other names for it in the same section.
    pub aliases: &'static [&'static str],
    /// What values it takes.
    pub shape: Shape,
    /// What holds without it.
    pub fallback: Fallback,
    /// What it does.
    pub about: &'static str,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// The name of a component.
    Name,
    /// A host name.
    HostName,
    /// An absolute path.
    Path,
    /// A path below the supervisor's cgroup.
    CgroupPath,
    /// The name of a slice.
    SlicePath,
    /// `true` or `false`, or controllers of control groups.
    Controllers(fn() -> Vec<&'static str>),
    /// Any text that is not empty.
    Text,
    /// One of some words.
    Word(fn() -> Vec<&'static str>),
    /// An array of texts.
    Arguments,
    /// An array of names of capabilities.
    Capabilities,
    /// A line for the shell, or a program and its arguments in an array.
    Command,
    /// A signal.
    Signal,
    /// A signal that a component may send to the supervisor.
    FreeSignal,
    /// A time, in seconds or with a unit.
    Seconds,
    /// A time of more than zero.
    PositiveSeconds,
    /// A time of at least [`SHORTEST_INTERVAL`].
    Interval,
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// A size in bytes, or with K, M, G or T.
    Bytes,
    /// The same, or 0.
    Size,
    /// `"QUOTA PERIOD"` in microseconds.
    CpuMax,
    /// An array of `"DEVICE LIMIT…"`.
    IoMax,
    /// A list of numbers and ranges.
    Numbers,
    /// `"some STALL WINDOW"` or `"full STALL WINDOW"`.
    Pressure,
    /// An array of some words, or one text with commas.
    Words(fn() -> Vec<&'static str>),
    /// `true` or `false`.
    Truth,
    /// An array of texts or numbers, or one text with commas.
    List,
    /// The same, or `true` for all and `false` for none.
    ListOrTruth,
    /// An array of `NAME=VALUE` or `NAME`, a text with commas, or a table of values.
    Variables,
    /// `"ADDRESS:PORT"`.
    Address,
    /// `"http://ADDRESS[:PORT][/PATH]"`.
    Url,
    /// `"ADDRESS:PORT"`, or an absolute path.
    Listen,
    /// The name of a descriptor.
    DescriptorName,
    /// Permissions in octal.
    Mode,
    /// A whole number from the first to the second, which may be negative.
    Integer(i64, i64),
    /// A user or a group, by name or number.
    Account,
    /// Several of them.
    Accounts,
    /// Capabilities of Linux.
    CapabilitySet,
    /// An array of absolute paths.
    Paths,
    /// An array of `"/source:/target"`, with `:ro` behind or not.
    Binds,
    /// An array of `"/path"`, with `:size=BYTES` behind or not.
    Tmpfs,
    /// An array of `"INSIDE OUTSIDE COUNT"`.
    IdMaps,
    /// A table of seconds by clock.
    TimeOffsets,
    /// A table of bridge, address and gateway.
    Network,
    /// A table of absolute paths by name.
    Secrets,
    /// A table of limits by resource.
    Rlimits,
    /// `"POLICY"` or `"POLICY:PRIORITY"`.
    Scheduling,
    /// `"CLASS"` or `"CLASS:LEVEL"`.
    IoClass,
    /// Numbers of processors and ranges of them.
    Cpus,
    /// System calls and sets of them.
    Seccomp,
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// The file is refused.
    Required,
    /// As if this value, in TOML, had been written.
    Value(&'static str),
    /// Something that no value of the key says; in words.
    Words(&'static str),
}

/// Something that is written as one of some words.
pub(super) trait Word: Copy + 'static {
    /// What one of them is, for messages.
    const WHAT: &'static str = "word";

    /// The words and what they mean, the usual one first.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this one.
    fn name(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// All words for `T`.
fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

/// A key without other names.
const fn key(name: &'static str, shape: Shape, fallback: Fallback, about: &'static str) -> Key {
    Key { name, aliases: &[], shape, fallback, about }
}

impl Key {
    const fn or(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The name and the aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

const NO_LIMIT: Fallback = Fallback::Words("no limit");
const NONE: Fallback = Fallback::Words("none");
const EMPTY: Fallback = Fallback::Value("[]");
const FALSE: Fallback = Fallback::Value("false");
const OWN: Fallback = Fallback::Words("the supervisor's own");

/// All sections.
pub static SECTIONS: &[Section] = &[
    Section::one("component", "The program.", COMPONENT),
    Section::one(
        "provides",
        "What is up while the component is.",
        &[key(
            "capabilities",
            Shape::Capabilities,
            EMPTY,
            "Capabilities that are up while the component is ACTIVE or DONE, and degraded while it is \
             DEGRADED. Several components may provide the same one; it is up while one of them is.",
        )],
    ),
    Section::one(
        "requires",
        "What has to be up before the component is started.",
        &[key(
            "capabilities",
            Shape::Capabilities,
            EMPTY,
            "Capabilities that must all be up. When one is lost, the component is stopped, and comes \
             back with it. Degraded counts as up.",
        )],
    ),
    Section::one(
        "optional",
        "What the component likes to find up.",
        &[key(
            "capabilities",
            Shape::Capabilities,
            EMPTY,
            "Capabilities that are waited for when somebody provides them, and done without otherwise.",
        )],
    ),
    Section::one("lifecycle", "Readiness, health, restarts, upgrades.", LIFECYCLE),
    Section::one("resources", "The control group and its limits.", RESOURCES),
    Section::one("isolation", "Namespaces, and what is seen of the file system.", ISOLATION),
    Section::one(
        "security",
        "Whose processes they are, and what they may ask of the kernel. What cannot be set keeps the component from being \
         started, unless it is named in `optional`.",
        SECURITY,
    ),
    Section::one("environment", "What the program finds around it.", ENVIRONMENT),
    Section::one("checkpoint", "How checkpoints are kept.", CHECKPOINT),
    Section::one("hotswap", "Details of upgrades and of the way to stop.", HOTSWAP),
    Section {
        name: "sockets",
        about: "Sockets that the supervisor opens before the first start, keeps for as long as they are declared, and gives \
                to each process of the component from number 3 on (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`). One \
                table for each, in their order. Clients wait in them while no process runs.",
        keys: SOCKETS,
        several: true,
    },
    Section::one(
        "slice",
        "A control group that components share. A file with this section has no other one but `[resources]`, and in that one \
         `memory_max`, `memory_high`, `memory_swap_max`, `cpu_weight`, `cpu_max`, `cpuset`, `cpuset_mems`, `io_weight`, \
         `io_max` and `pids_max`: limits for all that is in the slice together, which change on what runs. A component lies \
         in it by `resources.slice`.",
        SLICE,
    ),
];

/// The section of that name.
pub(super) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// The row of a key, by its name or an alias.
pub(super) fn find(section_name: &str, name: &str) -> Option<&'static Key> {
    section(section_name)?.keys.iter().find(|key| key.names().any(|known| known == name))
}

/// The section that has `key`, when the key stands in the wrong one.
pub(super) fn home_of(key: &str) -> Option<&'static str> {
    let home = SECTIONS.iter().find(|section| find(section.name, key).is_some());
    home.map(|section| section.name)
}
