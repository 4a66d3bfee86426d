//! What `graphctl` and the supervisor say to each other: one JSON object a line, each with a
//! version.
//!
//! A request is [`RequestLine`], an answer [`AnswerLine`]; each request gets exactly one answer.
//! Long lists come in pages: a page holds about [`PAGE_BYTES`] and names the cursor of the next,
//! so neither side needs memory in proportion to the number of components, and no answer is cut.

use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{After, Made, Written};
use crate::component::Strategy;
use crate::descriptors::Held;
use crate::diagnostic::Diagnostic;
use crate::graph::Level;
use crate::journal::State;

mod causes;
mod declaration;
mod lifecycle;
mod log;
mod slices;

pub use causes::{EventsPage, WhyPage};
pub use declaration::Declaration;
pub use lifecycle::{
    ComponentReadiness, PassedOver, Readiness, ReadinessPage, UpgradeForm, UpgradeLevel, Upgraded,
};
pub use log::{LogPosition, LogText};
pub use slices::{SliceStatus, SlicesPage};

/// Version of the protocol. A supervisor answers a request of another version with a refusal that
/// names its own.
pub const VERSION: u32 = 1;

/// The socket of the supervisor, where nobody says otherwise: the one word for both sides.
pub const SOCKET: &str = "/run/graph-resolver.sock";

/// Longest request line in bytes. The longest legal one names a component and a file.
pub const REQUEST_LIMIT: usize = 16 * 1024;

/// A page is closed once its entries have this many bytes (estimated): a few hundred components.
pub const PAGE_BYTES: usize = 64 * 1024;

/// Longest answer line a client has to be ready for: a page and its largest entry, which is bound
/// by the size of a component file (escaped at worst six-fold).
pub const ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// A line from the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// What it wants.
    pub request: Request,
}

/// A line from the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerLine {
    /// [`VERSION`] of the supervisor.
    pub version: u32,
    /// What it says.
    pub answer: Answer,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// States of all components, or of one.
    Status {
        /// Only this one.
        name: Option<String>,
        /// Cursor from the page before.
        after: Option<String>,
    },
    /// Declared capabilities and dependencies of all components, the pseudo-component included.
    Graph {
        /// Cursor from the page before.
        after: Option<String>,
    },
    /// Let a component run, and answer when it does.
    Start {
        /// Component.
        name: String,
        /// Longest wait for the answer.
        timeout_ms: Option<u64>,
    },
    /// Stop a component until it is started again; answer when it is stopped.
    Stop {
        /// Component.
        name: String,
        /// Longest wait for the answer.
        timeout_ms: Option<u64>,
    },
    /// Stop and start; answer when it runs again.
    Restart {
        /// Component.
        name: String,
        /// Longest wait for the answer.
        timeout_ms: Option<u64>,
    },
    /// Replace a component's process in the best way that it declares; answer when the new one
    /// runs.
    Upgrade {
        /// Component.
        name: String,
        /// Whether a lesser way than the declared one will do.
        fallback: bool,
        /// Whether it waits for an upgrade that is under way, in place of being refused.
        #[serde(default)]
        queue: bool,
        /// How much the new process takes over at once, when it is not to be as declared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<Strategy>,
        /// Longest wait for the answer.
        timeout_ms: Option<u64>,
    },
    /// Keep everything of a component from running, and answer when the kernel says that all of it stands still.
    Freeze {
        /// Component.
        name: String,
        /// The time for that, not more than [`crate::engine::FREEZE_LIMIT`]; what takes longer is undone and refused.
        timeout_ms: Option<u64>,
    },
    /// Let it run again, and answer when it does.
    Thaw {
        /// Component.
        name: String,
    },
    /// Write a component's processes down, and answer when that is done.
    Checkpoint {
        /// Component.
        name: String,
        /// What becomes of them then. Who is held goes on by itself after [`crate::engine::HOLD_LIMIT`].
        #[serde(default)]
        after: After,
        /// Longest wait for the answer.
        timeout_ms: Option<u64>,
    },
    /// Make a component's processes from a checkpoint, in place of those that run; answer when they run.
    Restore {
        /// Component.
        name: String,
        /// The checkpoint; the newest without.
        id: Option<String>,
        /// Whether a new start will do if that cannot be.
        fallback: bool,
        /// Longest wait for the answer.
        timeout_ms: Option<u64>,
    },
    /// Let everything go on that a checkpoint has left held.
    Continue,
    /// How all components, or one, say that they are ready, and whether they have.
    Readiness {
        /// Only this one.
        name: Option<String>,
        /// Cursor from the page before.
        after: Option<String>,
    },
    /// What slices there are.
    Slices {
        /// Cursor from the page before.
        after: Option<String>,
    },
    /// What a component is declared as. It may have secrets in it.
    Declaration {
        /// Component.
        name: String,
    },
    /// Send a component its reload signal, and answer when it has reloaded, if it says so (see
    /// [`crate::engine::RELOAD_NOTICE`]); without a name read the declarations again.
    Reload {
        /// Component.
        name: Option<String>,
    },
    /// Derive the graph anew and try everything that waits or backs off.
    Resolve,
    /// What a component wrote: the last lines, or a piece from a position on.
    Log {
        /// Component.
        name: String,
        /// Number of lines, without a position.
        lines: u32,
        /// The position; [`LogText::next`] of the answer before.
        from: Option<LogPosition>,
    },
    /// Answer when a condition holds.
    Wait {
        /// The condition.
        until: Until,
        /// Longest wait.
        timeout_ms: Option<u64>,
    },
    /// Journal records newer than a revision.
    Events {
        /// Revision.
        since: u64,
    },
    /// The newest change of a component, what led to it, what led to that, and so on.
    Why {
        /// Component; may be one that is no longer declared.
        name: String,
        /// Revision at which to go on, from the page before.
        from: Option<u64>,
    },
    /// Execute the supervisor's program again, as it is on the disk now; everything runs on.
    Reexec,
    /// Stop everything, then power off (pid 1) or exit.
    Poweroff,
    /// Stop everything, then restart the machine (pid 1) or exit.
    Reboot,
    /// Stop everything that is not held by a checkpoint, then execute the kernel that is loaded (pid 1).
    Kexec,
}

impl Request {
    /// The command's name for messages and the journal.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Graph { .. } => "graph",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Upgrade { .. } => "upgrade",
            Self::Freeze { .. } => "freeze",
            Self::Thaw { .. } => "thaw",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Restore { .. } => "restore",
            Self::Continue => "continue",
            Self::Readiness { .. } => "readiness",
            Self::Slices { .. } => "slices",
            Self::Declaration { .. } => "declaration",
            Self::Reload { .. } => "reload",
            Self::Resolve => "resolve",
            Self::Log { .. } => "log",
            Self::Wait { .. } => "wait",
            Self::Events { .. } => "events",
            Self::Why { .. } => "why",
            Self::Reexec => "reexec",
            Self::Poweroff => "poweroff",
            Self::Reboot => "reboot",
            Self::Kexec => "kexec",
        }
    }

    /// Whether its answer may have to wait for something to happen.
    pub fn may_wait(&self) -> bool {
        matches!(
            self,
            Self::Start { .. }
                | Self::Stop { .. }
                | Self::Restart { .. }
                | Self::Upgrade { .. }
                | Self::Reload { name: Some(_) }
                | Self::Freeze { .. }
                | Self::Thaw { .. }
                | Self::Checkpoint { .. }
                | Self::Restore { .. }
                | Self::Wait { .. }
        )
    }

    /// Whether only the owner of the supervisor may ask for it: it changes something, or shows secrets.
    pub fn is_privileged(&self) -> bool {
        !matches!(
            self,
            Self::Status { .. }
                | Self::Graph { .. }
                | Self::Log { .. }
                | Self::Wait { .. }
                | Self::Events { .. }
                | Self::Why { .. }
                | Self::Readiness { .. }
                | Self::Slices { .. }
        )
    }
}

/// A condition to wait for. All are level-triggered: if it holds already, the answer comes at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// A component is in a state.
    State {
        /// Component; need not be declared yet.
        name: String,
        /// State; REMOVED when it is not declared.
        state: State,
        /// Only a journal record newer than this revision counts.
        since: Option<u64>,
    },
    /// A journal record is newer than a revision.
    Changed {
        /// Only a record of this component counts.
        name: Option<String>,
        /// The revision.
        since: u64,
    },
    /// A component's log goes on beyond a position.
    Log {
        /// Component.
        name: String,
        /// The position.
        beyond: LogPosition,
    },
    /// Every component rests and no change of declarations is pending.
    Settled,
    /// A file is in the list of rejected ones.
    Rejected {
        /// Its path, or its name alone.
        file: String,
    },
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To `status`.
    Status(StatusPage),
    /// To `graph`.
    Graph(GraphPage),
    /// To `events`.
    Events(EventsPage),
    /// To `why`.
    Why(WhyPage),
    /// To `readiness`.
    Readiness(ReadinessPage),
    /// To `slices`.
    Slices(SlicesPage),
    /// To `declaration`.
    Declaration(Box<Declaration>),
    /// To `upgrade`, when it was carried out.
    Upgraded(Upgraded),
    /// To `checkpoint`, when it is made.
    Checkpointed {
        /// Component.
        component: Rc<str>,
        /// What was made.
        written: Written,
        /// Journal revision at that time.
        revision: u64,
    },
    /// To `restore`, when the processes run.
    Restored {
        /// Component.
        component: Rc<str>,
        /// From what; `None` if it was started anew.
        made: Option<Made>,
        /// Why it was started anew.
        passed_over: Option<Rc<str>>,
        /// Its process.
        pid: Option<i32>,
        /// Journal revision at that time.
        revision: u64,
    },
    /// To `log`.
    Log(LogText),
    /// The request was carried out, or the condition holds.
    Done {
        /// What was done, in words.
        message: String,
        /// Journal revision at that time.
        revision: u64,
    },
    /// The request was refused or failed.
    Refused {
        /// Why, in words.
        message: String,
        /// Near names, when a name was not known.
        near: Vec<String>,
    },
    /// The condition did not hold in time.
    TimedOut {
        /// What holds instead, and why.
        message: String,
        /// Journal revision at that time.
        revision: u64,
        /// Near names, when what was waited for has a name that is not known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        near: Vec<String>,
    },
}

impl Answer {
    /// Fill in when the clock of the journal's records began, in milliseconds of Unix time. The
    /// engine has no clock; whoever sends the answer knows.
    pub fn set_origin(&mut self, origin_ms: i64) {
        match self {
            Self::Events(page) => page.origin_ms = origin_ms,
            Self::Why(page) => page.origin_ms = origin_ms,
            _ => {}
        }
    }
}

/// Components in one page of `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusPage {
    /// Journal revision.
    pub revision: u64,
    /// Sorted by name.
    pub components: Vec<ComponentStatus>,
    /// Counts over all components.
    pub summary: Summary,
    /// Files that are not used, after the components.
    pub rejected: Vec<RejectedFile>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// One component in `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// Name.
    pub name: Rc<str>,
    /// The slice that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Rc<str>>,
    /// The path of its control group below the supervisor's own, if that is not its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Rc<str>>,
    /// State.
    pub state: State,
    /// Process id while there is a process.
    pub pid: Option<i32>,
    /// Milliseconds since exec.
    pub uptime_ms: Option<u64>,
    /// Restarts after failures since the component was declared.
    pub restarts: u64,
    /// Processes of it that the kernel killed for want of memory since the component was declared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// What the kernel has held it up by since it was declared, by kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strains: Vec<Strain>,
    /// `none`, `healthy` or `failing`.
    pub health: Health,
    /// Why it is in this state, when that is worth saying.
    pub detail: Option<String>,
    /// What it says about itself (`STATUS=` of sd_notify).
    pub status_text: Option<String>,
    /// What it has announced and not yet completed (sd_notify).
    pub announced: Option<Announced>,
    /// Whether it is kept from running, by `freeze`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freezer: Option<Freezer>,
    /// What a checkpoint has to do with its process now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointMark>,
    /// Descriptors that the supervisor holds for it, of a hundred names at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<Held>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A limit that was reached, or a pressure, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strain {
    /// `memory.high`, `pids.max`, a pressure with what is declared of it, or the end of the room for its log.
    pub what: Rc<str>,
    /// Times.
    pub times: u64,
}

/// See [`ComponentStatus::announced`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Announced {
    /// It reads its configuration anew. Its capabilities stay up.
    Reloading,
    /// It is about to end by itself.
    Stopping,
}

/// Where a process stands that is kept from running, or was until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freezer {
    /// It was asked for, and the kernel does not say yet that everything stands still.
    Freezing,
    /// Everything stands still.
    Frozen,
    /// It is to run again, and the kernel does not say yet that it does.
    Thawing,
}

impl fmt::Display for Freezer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Freezing => "freezing",
            Self::Frozen => "frozen",
            Self::Thawing => "thawing",
        })
    }
}

/// See [`ComponentStatus::checkpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointMark {
    /// One is being made of it.
    Making,
    /// One was made, and it stands still until it is told to go on.
    Held,
    /// It is being made from one.
    Restoring,
}

impl CheckpointMark {
    /// What `status` says of the component.
    pub fn text(self) -> &'static str {
        match self {
            Self::Making => "a checkpoint is being made",
            Self::Held => "held by a checkpoint",
            Self::Restoring => "being made from a checkpoint",
        }
    }
}

impl fmt::Display for CheckpointMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Making => "making",
            Self::Held => "held",
            Self::Restoring => "restoring",
        })
    }
}

/// Outcome of health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// None declared, not running, or not yet probed.
    None,
    /// The last check passed.
    Healthy,
    /// The last check failed; with the declared number of failures in a row the state is DEGRADED.
    Failing,
}

/// Counts of components by what matters to a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// ACTIVE and DONE.
    pub active: u64,
    /// DEGRADED.
    pub degraded: u64,
    /// STARTING and `READY_WAIT`.
    pub starting: u64,
    /// FAILED, BACKOFF and CYCLE.
    pub failed: u64,
    /// All.
    pub total: u64,
}

/// A component file that is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedFile {
    /// Its path.
    pub file: String,
    /// What is wrong with it.
    pub diagnostics: Vec<Diagnostic>,
}

/// Components in one page of `graph`. Pages belong together if both numbers are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphPage {
    /// Journal revision.
    pub revision: u64,
    /// Changes of declarations so far; not each of them is in the journal.
    pub edits: u64,
    /// Sorted by name.
    pub components: Vec<GraphNode>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// One component in `graph`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphNode {
    /// Name.
    pub name: Rc<str>,
    /// State.
    pub state: State,
    /// What it grants now.
    pub level: CapabilityStatus,
    /// Whether a user has stopped it.
    pub held: bool,
    /// Capabilities it provides.
    pub provides: Vec<String>,
    /// Capabilities it requires.
    pub requires: Vec<String>,
    /// Capabilities it waits for when declared.
    pub optional: Vec<String>,
}

/// Whether a capability is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CapabilityStatus {
    /// No provider is up.
    Down,
    /// A provider is DEGRADED, none better.
    Degraded,
    /// A provider is up.
    Up,
}

impl From<Level> for CapabilityStatus {
    fn from(level: Level) -> Self {
        match level {
            Level::Down => Self::Down,
            Level::Degraded => Self::Degraded,
            Level::Up => Self::Up,
        }
    }
}

/// One line for the wire, newline included.
pub fn encode_answer(answer: Answer) -> Vec<u8> {
    let line = AnswerLine { version: VERSION, answer };
    let mut bytes = serde_json::to_vec(&line).unwrap_or_else(|error| {
        // Only a broken Serialize implementation gets here; the client still gets a line.
        format!("{{\"version\":{VERSION},\"answer\":{{\"refused\":{{\"message\":\"failed to encode the answer: {}\",\"near\":[]}}}}}}", error.classify() as u8).into_bytes()
    });
    bytes.push(b'\n');
    bytes
}

/// One line for the wire, newline included.
pub fn encode_request(request: Request) -> Result<Vec<u8>, serde_json::Error> {
    let line = RequestLine { version: VERSION, request };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Read a request line. The error is the answer to send.
pub fn decode_request(line: &[u8]) -> Result<Request, Answer> {
    /// The part that every version has.
    #[derive(Deserialize)]
    struct AnyVersion {
        version: u32,
    }
    let refuse = |message: String| Answer::Refused { message, near: Vec::new() };
    match serde_json::from_slice::<AnyVersion>(line) {
        Ok(line) if line.version == VERSION => {}
        Ok(line) => {
            return Err(refuse(format!(
                "protocol version {} is not spoken here; this supervisor speaks {VERSION}",
                line.version
            )));
        }
        Err(error) => return Err(refuse(format!("failed to read the request: {error}"))),
    }
    serde_json::from_slice::<RequestLine>(line)
        .map(|line| line.request)
        .map_err(|error| refuse(format!("failed to read the request: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_wire() {
        let request = Request::Wait {
            until: Until::State { name: "web".to_owned(), state: State::ReadyWait, since: Some(3) },
            timeout_ms: Some(1500),
        };
        let line = encode_request(request.clone()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&line),
            "{\"version\":1,\"request\":{\"wait\":{\"until\":{\"state\":{\"name\":\"web\",\
             \"state\":\"READY_WAIT\",\"since\":3}},\"timeout_ms\":1500}}}\n"
        );
        assert_eq!(decode_request(&line), Ok(request));
    }

    #[test]
    fn another_version_and_garbage_are_refused_with_a_reason() {
        for (line, part) in [
            ("{\"version\":7,\"request\":\"fly\"}", "this supervisor speaks 1"),
            ("{\"version\":1,\"request\":\"fly\"}", "unknown variant `fly`"),
            ("garbage", "failed to read the request"),
            ("", "failed to read the request"),
        ] {
            match decode_request(line.as_bytes()) {
                Err(Answer::Refused { message, .. }) => {
                    assert!(message.contains(part), "{message}");
                }
                other => panic!("{line:?} gave {other:?}"),
            }
        }
    }
}
