//! Component files: the declaration of one program the supervisor looks after.
//!
//! [`parse`] takes the text of a file and gives a typed [`Component`] and every finding of one
//! pass: syntax errors, wrong types, bad values and unknown keys, each with its place. A file with
//! an error gives no component; warnings never stop one. All keys of the interface are accepted
//! and checked here; which part of the supervisor acts on them is not this module's business.
//!
//! Limits: a file may have [`FILE_LIMIT`] bytes. Nothing else is limited but what the file system
//! demands of a name (see [`NAME_LIMIT`]).

mod build;
mod capability;
mod environment;
mod isolation;
pub mod keys;
mod network;
mod process;
mod reader;
mod resources;
pub mod schema;
pub mod seccomp;
mod security;
pub mod slice;
mod sockets;
mod syntax;
mod together;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::diagnostic::Diagnostic;
use crate::diagnostic::rules::{self, Rule};

pub use capability::{CAPABILITIES, CapabilitySet, capability_number};
pub use environment::Environment;
pub use isolation::{Bind, IdMap, Isolation, Namespace, TimeOffsets, Tmpfs};
pub use network::Network;
pub use process::{
    IoClass, IoClassKind, ProcessLimits, Rlimit, RlimitResource, Scheduling, SchedulingPolicy,
};
pub use resources::{Controller, CpuMax, IoMax, OnOom, Pressure, Resources};
pub use seccomp::SeccompAction;
pub use security::{Account, Restriction, SecureBit, Security};
pub use sockets::{Listen, Socket, SocketKind};
pub use together::{Declared, check_together};
pub use values::{Signal, size};

/// The largest component file, in bytes. One describes one program; a larger one is not a
/// component file, and reading it would let a user of `/etc/graph.d` grow the supervisor.
pub const FILE_LIMIT: u64 = 1024 * 1024;

/// The longest component name, in bytes. The name becomes a cgroup and a log file (`NAME.log.1`),
/// and a file name has at most 255 bytes.
pub const NAME_LIMIT: usize = 200;

/// The name of the pseudo-component that stands for the kernel and the early mounts.
pub const KERNEL: &str = "kernel";

/// What the kernel and the early mounts provide.
pub const KERNEL_CAPABILITIES: &[&str] = &[
    "kernel.syscalls",
    "kernel.memory",
    "kernel.scheduling",
    "filesystem.proc",
    "filesystem.sys",
    "filesystem.dev",
    "filesystem.run",
    "filesystem.devpts",
];

/// What one component file declares. Its [`Default`] is a blank, not what a file that says nothing declares.
///
/// Most components declare the same in most sections, which they can share: see [`Component::share_with`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Component {
    /// Unique name.
    pub name: String,
    /// The program, executed directly. Empty only for an extension of [`KERNEL`].
    pub binary: String,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Long-running or run once.
    pub kind: Kind,
    /// Capabilities that are up while this component is.
    pub provides: Vec<String>,
    /// Capabilities that must all be up.
    pub requires: Vec<String>,
    /// Capabilities waited for when a provider is declared.
    pub optional: Vec<String>,
    /// Readiness, health, restart, reload and hand-over.
    pub lifecycle: Rc<Lifecycle>,
    /// cgroup and limits.
    pub resources: Rc<Resources>,
    /// Namespaces and root.
    pub isolation: Rc<Isolation>,
    /// User, capabilities, and what may be asked of the kernel.
    pub security: Rc<Security>,
    /// What the program finds around it.
    pub environment: Rc<Environment>,
    /// Storage policy of checkpoints.
    pub checkpoint: Rc<CheckpointPolicy>,
    /// Details of the hand-over.
    pub hotswap: Rc<HotSwap>,
    /// What is opened for its processes.
    pub sockets: Vec<Socket>,
    /// What a slice is for, in words.
    pub description: Option<Box<str>>,
}

impl Component {
    /// Whether a running process of `self` would have been started just the same for `other`:
    /// only what the process itself can see counts, not what the supervisor watches or restarts by,
    /// and not limits, which change on what runs.
    /// (How it reports ready counts only until it has: then it takes effect with the next start.)
    pub fn same_process(&self, other: &Self) -> bool {
        self.restart_key(other).is_none()
    }

    /// The first key for which a running process of `other` has to be started anew for `self`.
    pub fn restart_key(&self, other: &Self) -> Option<&'static str> {
        let (hotswap, lifecycle) = (&self.hotswap, &self.lifecycle);
        let differs = [
            (self.name != other.name, "component.name"),
            (self.binary != other.binary, "component.binary"),
            (self.args != other.args, "component.args"),
            (self.kind != other.kind, "component.type"),
            (self.resources.slice != other.resources.slice, "resources.slice"),
            (self.cgroup() != other.cgroup(), "resources.cgroup"),
            (self.resources.delegate != other.resources.delegate, "resources.delegate"),
            (self.isolation != other.isolation, "isolation"),
            (self.security != other.security, "security"),
            (self.environment != other.environment, "environment"),
            (self.sockets != other.sockets, "sockets"),
            (hotswap.env_vars != other.hotswap.env_vars, "hotswap.env_vars"),
            (lifecycle.handoff != other.lifecycle.handoff, "lifecycle.handoff"),
            (lifecycle.watchdog != other.lifecycle.watchdog, "lifecycle.watchdog_interval"),
        ];
        let first = differs.into_iter().find(|(differs, _)| *differs).map(|(_, key)| key);
        first.or_else(|| self.resources.process.differing(&other.resources.process))
    }

    /// Hold each section that is equal to the other's together with it, so that it is kept once.
    pub fn share_with(&mut self, other: &Self) {
        share(&mut self.lifecycle, &other.lifecycle);
        share(&mut self.resources, &other.resources);
        share(&mut self.isolation, &other.isolation);
        share(&mut self.security, &other.security);
        share(&mut self.environment, &other.environment);
        share(&mut self.checkpoint, &other.checkpoint);
        share(&mut self.hotswap, &other.hotswap);
    }

    /// Whether the process gets a `NOTIFY_SOCKET`.
    pub fn has_notify_socket(&self) -> bool {
        let lifecycle = &self.lifecycle;
        let speaks = lifecycle.readiness == Readiness::Notify || lifecycle.watchdog.is_some();
        speaks || self.hotswap.fd_store_max > 0
    }

    /// Whether its processes have a channel for hot swaps: it passes descriptors on, if nothing better
    /// is possible.
    pub fn hands_over(&self) -> bool {
        self.kind == Kind::Service && self.lifecycle.handoff.passes_descriptors()
    }

    /// The cgroup below the supervisor's own, as a relative path.
    pub fn cgroup(&self) -> Cow<'_, str> {
        let own = self.resources.cgroup.as_deref().unwrap_or(&self.name);
        self.slice().map_or(Cow::Borrowed(own), |slice| format!("{slice}/{own}").into())
    }
}

fn share<T: PartialEq>(own: &mut Rc<T>, other: &Rc<T>) {
    if own == other {
        *own = Rc::clone(other);
    }
}

/// How a component runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Runs until stopped; an exit is a failure.
    #[default]
    Service,
    /// Runs to its end; exit status 0 means DONE.
    Oneshot,
    /// Does not run: a control group that components share (see [`slice`]).
    Slice,
}

/// How state passes from an old generation to a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handoff {
    /// Not at all.
    #[default]
    None,
    /// Descriptors over a unix socket.
    FdPassing,
    /// A process image.
    Checkpoint,
    /// A file that the program itself writes and reads.
    StateFile,
}

impl Handoff {
    /// Whether descriptors are passed on, if nothing better is possible.
    pub fn passes_descriptors(self) -> bool {
        matches!(self, Self::FdPassing | Self::Checkpoint)
    }

    /// The key's value in a component file.
    pub fn name(self) -> &'static str {
        <Self as keys::Word>::name(self)
    }
}

/// How much a new process takes over at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Everything.
    #[default]
    AllAtOnce,
    /// New connections first, and everything else when it has served those for the time of its probation.
    Canary,
}

impl Strategy {
    /// The key's value in a component file.
    pub fn name(self) -> &'static str {
        <Self as keys::Word>::name(self)
    }
}

/// A command of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments, executed directly.
    Direct(Vec<String>),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(line) => f.write_str(line),
            Self::Direct(words) => f.write_str(&words.join(" ")),
        }
    }
}

/// How a component says that it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// Ready once exec has succeeded.
    #[default]
    None,
    /// Ready when this file appears after the start.
    File(String),
    /// Ready when this command exits with 0.
    Command(Command),
    /// Ready when it sends this signal to the supervisor.
    Signal(Signal),
    /// Ready when it writes a newline to `NOTIFY_FD` or `READY=1` to `NOTIFY_SOCKET`.
    Notify,
}

impl Readiness {
    /// The key's value in a component file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::File(_) => "file",
            Self::Command(_) => "command",
            Self::Signal(_) => "signal",
            Self::Notify => "notify",
        }
    }
}

/// What is asked to learn whether a component is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// Healthy when this command exits with 0.
    Command(Command),
    /// Healthy when a connection to this address is accepted.
    Tcp(SocketAddr),
    /// Healthy when the answer to a GET is 2xx.
    Http(HttpTarget),
    /// Healthy when a connection to this stream socket is accepted.
    Unix(String),
    /// Healthy while this file exists.
    File(String),
    /// Healthy when the component has sent the supervisor this signal since the last probe.
    Signal(Signal),
}

/// Where an HTTP probe goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTarget {
    /// What is connected to.
    pub address: SocketAddr,
    /// The `Host` header: the address as it is written in the file.
    pub host: String,
    /// Path and query, from the first `/`.
    pub path: String,
}

impl Check {
    /// The key that declares it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Command(_) => "health_check",
            Self::Tcp(_) => "health_tcp",
            Self::Http(_) => "health_http",
            Self::Unix(_) => "health_unix",
            Self::File(_) => "health_file",
            Self::Signal(_) => "health_signal",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.key())?;
        match self {
            Self::Command(command) => write!(f, "{:?}", command.to_string()),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Http(target) => write!(f, "http://{}{}", target.host, target.path),
            Self::Unix(path) | Self::File(path) => f.write_str(path),
            Self::Signal(signal) => write!(f, "{signal}"),
        }
    }
}

/// Periodic question whether a component is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The probe.
    pub check: Check,
    /// Time between probes.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// Consecutive failures until DEGRADED.
    pub fail_threshold: u32,
    /// Consecutive failures until FAILED and restart.
    pub restart_threshold: u32,
    /// Time after it is up in which failures do not count; the first pass ends it.
    pub start_grace: Duration,
    /// How far first probes of many components are spread; `None` is half of the interval. Never
    /// more than the interval.
    pub jitter: Option<Duration>,
}

/// `[lifecycle]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// Way of handing over at an upgrade.
    pub handoff: Handoff,
    /// Sent by `graphctl reload NAME`.
    pub reload_signal: Option<Signal>,
    /// Sent in place of SIGTERM.
    pub stop_signal: Option<Signal>,
    /// How the component says that it is ready.
    pub readiness: Readiness,
    /// Longest time from exec to ready.
    pub readiness_timeout: Duration,
    /// Time between two runs of a readiness command.
    pub readiness_interval: Duration,
    /// Health probe, when one is declared.
    pub health: Option<Health>,
    /// Longest time between two `WATCHDOG=1` of the component, when it is to send them.
    pub watchdog: Option<Duration>,
    /// Restarts allowed within [`Lifecycle::restart_window`] before backing off.
    pub restart_max: u32,
    /// See [`Lifecycle::restart_max`]; also the healthy time after which failures are forgotten.
    pub restart_window: Duration,
}

/// `[checkpoint]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointPolicy {
    /// Whether checkpoints are kept for this component.
    pub enabled: bool,
    /// Noted with each checkpoint; everything open is kept anyway.
    pub preserve_fds: Vec<String>,
    /// Decides nothing.
    pub leave_running: bool,
    /// In bytes. Decides nothing.
    pub memory_estimate: Option<u64>,
    /// Most copies of memory that are made while the process runs.
    pub rounds: u32,
    /// Age at which a checkpoint is removed.
    pub max_age: Option<Duration>,
    /// Whether starts are made from what the first one has come to.
    pub warm_start: bool,
}

/// [`CheckpointPolicy::rounds`] when nothing is said: the first copies everything, and what changes faster than three
/// more can copy it will not get less.
const DEFAULT_ROUNDS: u32 = 4;

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            enabled: false,
            preserve_fds: Vec::new(),
            leave_running: false,
            memory_estimate: None,
            rounds: DEFAULT_ROUNDS,
            max_age: None,
            warm_start: false,
        }
    }
}

/// `[hotswap]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HotSwap {
    /// Descriptors to transfer, by name; `None` means all that are offered.
    pub transfer_fds: Option<Vec<String>>,
    /// Variables for the process, as `NAME=VALUE`, or `NAME` to pass the supervisor's own on.
    pub env_vars: Vec<String>,
    /// Time between SIGTERM and SIGKILL.
    pub shutdown_grace: Duration,
    /// Time after a hot swap in which the old process is kept as a reserve; zero for none.
    pub probation: Duration,
    /// How much a new process takes over at once.
    pub strategy: Strategy,
    /// Whether application state is handed over along with descriptors.
    pub preserve_state: bool,
    /// The most descriptors that the component may have stored; 0 for none.
    pub fd_store_max: u32,
}

/// The outcome of reading one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The component, unless there was an error.
    pub component: Option<Component>,
    /// Every finding, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Read the text of one component file.
pub fn parse(source: &str) -> Parsed {
    if source.len() as u64 > FILE_LIMIT {
        return refused(
            &rules::TOO_LARGE,
            format!("the file has {} bytes", source.len()),
            format!("a component file has at most {FILE_LIMIT} bytes"),
        );
    }
    let (root, errors) = DeTable::parse_recoverable(source);
    if errors.is_empty() {
        return check(source, root.get_ref(), Vec::new());
    }
    let mended = syntax::mend(source);
    let (root, _) = DeTable::parse_recoverable(&mended.text);
    check(source, root.get_ref(), mended.errors)
}

fn check<'s>(source: &'s str, root: &'s DeTable<'s>, errors: Vec<syntax::SyntaxError>) -> Parsed {
    let mut reader = reader::Reader::new(source, root, errors);
    let component = build::component(&mut reader);
    let mut diagnostics = reader.finish();
    diagnostics.sort_by_key(|d| (d.line, d.column));
    let failed = diagnostics.iter().any(Diagnostic::is_error);
    Parsed { component: component.filter(|_| !failed), diagnostics }
}

/// The place of a key's value in a file, or of the item of its array that is `item`.
pub fn place(source: &str, section: &str, key: &str, item: Option<&str>) -> Option<Range<usize>> {
    let (root, _) = DeTable::parse_recoverable(source);
    let table = root.get_ref().get(section)?.get_ref().as_table()?;
    let value = keys::find(section, key)?.names().find_map(|name| table.get(name))?;
    let Some(item) = item else {
        return Some(value.span());
    };
    let items = value.get_ref().as_array()?;
    let found = items.iter().find(|value| value.get_ref().as_str() == Some(item))?;
    Some(found.span())
}

/// Read the bytes of one component file; text that is not UTF-8 is an error with its place.
pub fn parse_bytes(bytes: &[u8]) -> Parsed {
    match str::from_utf8(bytes) {
        Ok(source) => parse(source),
        Err(error) => {
            let valid = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n');
            let line = valid.count();
            let help = "component files are UTF-8 text".to_owned();
            refused(&rules::NOT_UTF8, format!("line {line} is not valid UTF-8"), help)
        }
    }
}

/// The outcome of a file that is not even looked into.
fn refused(rule: &Rule, message: String, help: String) -> Parsed {
    Parsed { component: None, diagnostics: vec![Diagnostic::whole_file(rule, message).with_help(help)] }
}
