//! What goes into the engine and what comes out of it.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use yakiros_handoff::message::{Order, Part, Report};

use super::Facts;
use crate::checkpoint::{After, Made, Origin, Written};
use crate::component::Component;
use crate::control::{Answer, Request, Strain};
use crate::descriptors::Held;
use crate::diagnostic::Diagnostic;
use crate::journal::{Exit, OutOfMemory, Record};
use crate::notify::Notification;

/// One run of one component's process. Never used again, so that a late event finds no wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(pub u64);

/// One health probe. Never used again, so that a late outcome counts for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProbeId(pub u64);

/// A client that waits for an answer. The number is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// Who sent a request, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Process id.
    pub pid: i32,
    /// What the process calls itself, when that is known: any bytes, by its own word.
    pub comm: Option<Comm>,
}

impl Peer {
    /// A process without a name.
    pub fn new(uid: u32, pid: i32) -> Self {
        Self { uid, pid, comm: None }
    }
}

/// The command name of a process (`/proc/PID/comm`), with NUL bytes after it.
pub type Comm = [u8; COMM_BYTES];

/// The most that the kernel keeps of a command name (`TASK_COMM_LEN` without the NUL).
pub const COMM_BYTES: usize = 15;

/// A command name as it may be shown anywhere: nothing of it is taken for more than text.
pub(super) fn shown(comm: &Comm) -> Rc<str> {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_BYTES);
    let mut text = String::new();
    for chunk in comm[..end].utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(char::escape_debug));
        text.extend(
            chunk.invalid().iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from),
        );
    }
    text.into()
}

/// What is to happen once everything is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// Switch the machine off.
    PowerOff,
    /// Restart the machine.
    Reboot,
    /// Execute the kernel that is loaded. What is held by a checkpoint is not stopped: it goes on from there.
    Kexec,
}

/// What became of a file in the configuration directory.
#[derive(Clone, Debug)]
pub struct FileChange {
    /// Its path.
    pub file: String,
    /// What it holds now.
    pub content: FileContent,
}

/// See [`FileChange`].
#[derive(Clone, Debug)]
pub enum FileContent {
    /// A component.
    Component(Box<Component>),
    /// Nothing usable. What the file declared before stays in force.
    Rejected(Vec<Diagnostic>),
    /// The file is gone.
    Gone,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Files appeared, changed or went: one batch, acted on as one change.
    Files(Vec<FileChange>),
    /// The process exists; exec is under way.
    Created {
        /// Which.
        run: RunId,
        /// Its process id.
        pid: i32,
    },
    /// In place of a new process the one was taken that was found running. It may have been ready or
    /// not: that is not known any more, and it is taken for ready.
    Adopted {
        /// Which.
        run: RunId,
        /// Its process id.
        pid: i32,
    },
    /// The process was made from a checkpoint ([`Effect::Spawn`] with an origin): it is there, and as ready as it was.
    Restored {
        /// Which.
        run: RunId,
        /// Its process id.
        pid: i32,
        /// From what.
        made: Made,
    },
    /// It could not be made from a checkpoint, and is gone; and why.
    NotRestored(RunId, Rc<str>),
    /// What [`Effect::Checkpoint`] asked for is done, or why it could not be, and everything runs. If the process is ended
    /// for it, or ends meanwhile, [`Event::Ended`] comes after this.
    Checkpointed(RunId, Result<Written, Rc<str>>),
    /// These components were written down by a supervisor before this one, on a kernel before this one: the first process
    /// of each is to be made from that. Before the first [`Event::Files`].
    Carried(Vec<(Rc<str>, Origin)>),
    /// Exec succeeded.
    Executed(RunId),
    /// The process could not be created or brought to exec, and is gone.
    NotExecuted {
        /// Which.
        run: RunId,
        /// The step that failed, to complete "failed to …".
        step: Rc<str>,
        /// Error number of the operating system.
        errno: i32,
    },
    /// The process was not created, for its component asks for what the performer cannot do.
    Unsupported {
        /// Which.
        run: RunId,
        /// The key, to be followed by "is not supported by this version".
        what: Rc<str>,
    },
    /// The process said that it is ready, in the declared way. Comes after [`Event::Executed`].
    Ready(RunId),
    /// The readiness command has failed, for this reason.
    NotYetReady(RunId, Rc<str>),
    /// The process, or another of its component, said something about itself. Comes after
    /// [`Event::Executed`].
    Notified(RunId, Notification),
    /// What is held for the component of this name is now this.
    Held(Rc<str>, Rc<[Held]>),
    /// The process spoke on the channel of its hot swap.
    Reported(RunId, Report),
    /// What came on that channel makes no sense, or what was to go there did not; and why.
    Garbled(RunId, Rc<str>),
    /// The process is not ended by SIGUSR1, by what the kernel says of it. Comes before a request or a declaration that
    /// could be followed by an upgrade of it.
    Listens(RunId),
    /// What became of an [`Effect::Relay`] to this process.
    Relayed(RunId, Relayed),
    /// What [`Effect::Limit`] asked for is done, or why it could not be.
    Limited(RunId, Result<(), Rc<str>>),
    /// What [`Effect::LimitSlice`] asked for is done for the slice whose group has this path, or why it could not be.
    SliceLimited(Rc<str>, Result<(), Rc<str>>),
    /// What [`Effect::Freeze`] asked for is done, by the kernel's word; or why it could not be, and everything runs.
    Frozen(RunId, Result<(), Rc<str>>),
    /// What [`Effect::Thaw`] asked for is done, by the kernel's word; or why it could not be.
    Thawed(RunId, Result<(), Rc<str>>),
    /// The kernel has killed for want of memory, in the group of this process. If it was the process itself, this comes
    /// before [`Event::Ended`].
    OutOfMemory(RunId, OutOfMemory),
    /// The kernel has held the process up, or one that it has started, so often.
    Strained(RunId, Strain),
    /// A probe is over, cancelled ones included; nothing of it is left.
    Probed {
        /// Which.
        probe: ProbeId,
        /// Passed, or how it failed.
        outcome: Result<(), Rc<str>>,
    },
    /// The process and everything in its group are gone.
    Ended(RunId, Exit),
    /// The deadline has come.
    Tick,
    /// A client asks for something.
    Request {
        /// Who gets the answer.
        client: ClientId,
        /// Who asks.
        peer: Peer,
        /// What for.
        request: Request,
    },
    /// The client no longer waits.
    ClientGone(ClientId),
    /// A component's log has grown, and [`Engine::awaits_log`].
    LogGrew(Rc<str>),
    /// Everything is to stop (a signal; clients send a request).
    Halt(Halt),
    /// Derive the graph anew and try again what waits or backs off.
    Resolve,
    /// The performer is a new one and the engine a restored one: this is what is there.
    Resumed(Facts),
    /// The performer is a new one and so is the engine: what was known is lost. Before any other
    /// event.
    StateLost {
        /// Why.
        reason: Rc<str>,
        /// Processes of components that run.
        found: usize,
    },
}

/// What became of what one process was asked to give to another.
#[derive(Clone, Debug)]
pub enum Relayed {
    /// Everything was passed on: so many descriptors.
    Whole(u32),
    /// It was not given; and why.
    NotGiven(Rc<str>),
    /// It was not passed on, for which who gives is not to blame; and why.
    NotTaken(Rc<str>),
}

/// Which of a component's processes one is when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The only one.
    Alone,
    /// It is to take over from the one that serves, and finds that out on its channel.
    Successor,
    /// It begins as ever, beside the one that serves, and serves beside it.
    Beside,
    /// The same, and what it serves comes to it on its channel from the other (see [`Effect::Relay`]).
    Receiver,
}

/// What is to be done. The performer does it in this order.
#[derive(Debug)]
pub enum Effect {
    /// Start a process and report [`Event::Created`], then [`Event::Executed`] or
    /// [`Event::NotExecuted`]; watch for its readiness as declared. Or report [`Event::Adopted`].
    Spawn {
        /// The new run.
        run: RunId,
        /// What to start.
        component: Rc<Component>,
        /// Starts of this component so far, from 1.
        generation: u64,
        /// Which of the component's processes it is.
        place: Place,
        /// What it is made from in place of its program: report [`Event::Restored`] or [`Event::NotRestored`] then, and
        /// nothing else before [`Event::Ended`].
        origin: Option<Origin>,
    },
    /// Write the process and everything below it down, and report [`Event::Checkpointed`], once.
    Checkpoint {
        /// The process.
        run: RunId,
        /// The declaration that it was started with.
        component: Rc<Component>,
        /// What becomes of it.
        after: After,
        /// The time for all of it; what takes longer is undone.
        limit: Duration,
    },
    /// Let processes go on that were held by a checkpoint ([`After::Hold`]), or that one that failed may have left so.
    Continue(RunId),
    /// Connect two processes of a component: ask one to give, and the other to take.
    Connect {
        /// Who serves.
        giver: RunId,
        /// Who is to take over.
        taker: RunId,
        /// The taker's generation.
        generation: u64,
        /// The time until everything has to be over.
        limit: Duration,
        /// What is to be given.
        part: Part,
    },
    /// Ask a process by SIGUSR1 for what it serves, pass on what it says then on its channel to that of another one,
    /// and report [`Event::Relayed`], once, unless the other one ends first.
    Relay {
        /// Who serves.
        giver: RunId,
        /// Who begins beside it.
        taker: RunId,
        /// The time until everything has to be over.
        limit: Duration,
    },
    /// Tell a process on the channel of its hot swap.
    Order(RunId, Order),
    /// A process that was not started as [`Place::Alone`] is its component's from now on: what was kept from it in
    /// favour of the one before it is no longer.
    Unconfine(RunId),
    /// Give a running process the limits that are declared now, and report [`Event::Limited`],
    /// once, unless the process ends first.
    Limit {
        /// The process.
        run: RunId,
        /// The declaration in force.
        component: Rc<Component>,
    },
    /// Give the group of a slice, if there is one, the limits that are declared now, and report [`Event::SliceLimited`],
    /// once.
    LimitSlice(Rc<Component>),
    /// Keep everything of the process's component from running, and report [`Event::Frozen`], once, within the limit,
    /// unless the process ends first or it is to be thawed.
    Freeze {
        /// The process.
        run: RunId,
        /// The time for all of them to stop; what takes longer is undone.
        limit: Duration,
    },
    /// Let it run again, and report [`Event::Thawed`], once, unless the process ends first or it is to be frozen.
    Thaw(RunId),
    /// Ask whether the component is well, and report [`Event::Probed`], once.
    Probe {
        /// The new probe.
        probe: ProbeId,
        /// The process it asks about.
        run: RunId,
        /// The declaration in force.
        component: Rc<Component>,
    },
    /// End a probe at once. Its outcome no longer counts, but its end is reported all the same.
    CancelProbe(ProbeId),
    /// Ask the process to end.
    Terminate(RunId),
    /// End the process and everything in its group, at once.
    Kill(RunId),
    /// Send the process a signal.
    Signal(RunId, crate::component::Signal),
    /// Nothing is to be kept for this name: its file is gone and so is its process.
    Forget(Rc<str>),
    /// Answer a client. Each request gets one.
    Reply(ClientId, Answer),
    /// Read the declarations again and report all of them.
    ReadFiles,
    /// Execute the program again with a snapshot of this engine, and answer the client then; or
    /// answer why not.
    Reexecute(ClientId),
    /// A state changed; for the log.
    Changed(Record),
    /// Everything is stopped.
    Halt(Halt),
}
