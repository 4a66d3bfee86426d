//! What `graph-checkpoint` is told to do, and what it tells of it: JSON, one object in each line.
//!
//! Whoever starts it sees each step begin and end, and at the end what came of it, or which step failed and why. Before it
//! makes processes it waits for another word if the order says so.

mod ear;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::criu::{DumpFigures, Figures, Known, Options};
use crate::preflight::Verdict;
use crate::store::{Id, Policy, Role};

pub use ear::Ear;

/// The version of this protocol.
pub const VERSION: u32 = 1;
/// Longest order, in bytes: a component's names and paths with room.
pub const ORDER_LIMIT: u64 = 1 << 20;

/// What is read from the standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// The store's directory.
    pub base: PathBuf,
    /// What CRIU was heard to be before: see [`Event::Known`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
    /// What to do in it.
    pub job: Job,
}

/// What there is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// Find out what would make a dump fail.
    Preflight {
        /// CRIU, as a path or a name: it depends on its version.
        criu: PathBuf,
        /// The first process of the tree.
        pid: i32,
    },
    /// Make a checkpoint.
    Dump(Dump),
    /// Make a checkpoint that ends the processes, and processes again from it, while clients find the same listening
    /// sockets all along.
    Move(Move),
    /// Make processes again from one.
    Restore(Restore),
    /// Compare a checkpoint with what was written.
    Verify {
        /// Whose.
        component: String,
        /// Which; the newest without.
        id: Option<Id>,
    },
    /// Remove one.
    Remove {
        /// Whose.
        component: String,
        /// Which.
        id: Id,
    },
    /// Put right what a worker has left that was killed at work for a component.
    Mend {
        /// Whose.
        component: String,
        /// Where it may have made processes: see [`Remake::work`].
        #[serde(default)]
        work: Option<PathBuf>,
    },
    /// Have nothing arrive on connections whose processes are about to be made again, until [`Go`] or the end of who gave
    /// the order: see [`crate::barrier`].
    Raise {
        /// The file that names them.
        list: PathBuf,
        /// For how long at most.
        limit: Duration,
    },
    /// Let arrive what was left closed on a way into another kernel that came to nothing.
    Lower {
        /// The directory that is locked by who is on such a way: then nothing is done.
        on_the_way: PathBuf,
    },
    /// Remove what was left half made, and what is more than a policy allows.
    Cleanup {
        /// What is allowed.
        policy: Policy,
        /// Of one component only.
        component: Option<String>,
    },
    /// Write one as an archive.
    Export {
        /// Whose.
        component: String,
        /// Which; the newest without.
        id: Option<Id>,
        /// Where to; nothing may be there.
        to: PathBuf,
    },
    /// Take one in from an archive.
    Import {
        /// The archive.
        from: PathBuf,
        /// Bytes that it may have.
        quota: Option<u64>,
    },
}

/// Make a checkpoint of a process and all below it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dump {
    /// Whose it is.
    pub component: String,
    /// The first process.
    pub pid: i32,
    /// The file that the first process is to be executing still: where another is in its place, there is no checkpoint.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// CRIU, as a path or a name.
    pub criu: PathBuf,
    /// What CRIU is told, beside what the tree is seen to need.
    pub options: Options,
    /// Most rounds of memory before it.
    pub rounds: u32,
    /// What becomes of the processes.
    pub after: After,
    /// What the component provides.
    pub capabilities: Vec<String>,
    /// See [`crate::store::Metadata::preserve_fds`].
    pub preserve_fds: Vec<String>,
    /// What they were given by who gives the order, as far as they still have it.
    #[serde(default)]
    pub given: Vec<Given>,
    /// For each call of CRIU.
    pub limit: Duration,
    /// Bytes that it may have with all others: the oldest of these go to make room.
    pub quota: Option<u64>,
    /// What is kept of the component's checkpoints once this one is made; without it, all.
    #[serde(default)]
    pub keep: Option<Policy>,
}

/// What becomes of processes that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// They run on.
    Run,
    /// They stay stopped, as by SIGSTOP.
    Hold,
    /// They are ended once the checkpoint is in its place.
    End,
}

/// Something that processes were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// What it is for, and what the kernel calls it.
    pub role: Role,
    /// It is one end of a pair of unix sockets, and the other is outside of the processes.
    pub is_end: bool,
}

/// Make a checkpoint and processes again from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Move {
    /// The first part. Processes are ended whatever it says.
    pub dump: Dump,
    /// The second.
    pub restore: Remake,
}

/// How processes are made again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remake {
    /// Where CRIU may write its log while it works.
    pub work: PathBuf,
    /// Descriptors of the worker's own that take the place of what the processes were given, by its role.
    pub given: Vec<(String, i32)>,
    /// The time to wait for [`Go`]; without it nothing is waited for.
    pub wait: Option<Duration>,
    /// For CRIU.
    pub limit: Duration,
}

/// The word to make processes now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// The control group in which they are to be born; that of the worker without.
    pub group: Option<PathBuf>,
}

/// Make processes again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restore {
    /// Whose.
    pub component: String,
    /// Which; the newest without.
    pub id: Option<Id>,
    /// CRIU, as a path or a name.
    pub criu: PathBuf,
    /// How.
    pub how: Remake,
}

/// What takes its time, or can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The store is opened.
    Open,
    /// What is left half made is removed.
    Sweep,
    /// What is more than allowed is removed.
    Retain,
    /// A checkpoint is found.
    Find,
    /// Every byte of it is compared.
    Verify,
    /// It is removed.
    Remove,
    /// An archive is written.
    Export,
    /// An archive is taken in.
    Import,
    /// CRIU is looked for.
    Criu,
    /// What would be in the way is found out.
    Preflight,
    /// Memory is copied while the processes run.
    PreDump,
    /// They are frozen and written.
    Dump,
    /// What was written is hashed, written to the disk and put in its place; what is made again at once is put in its place
    /// only.
    Commit,
    /// They are ended, if that was ordered: not before the checkpoint is in its place.
    End,
    /// Connections are closed to what comes for them, or opened again.
    Barrier,
    /// The word to make them again is waited for.
    Wait,
    /// They are made again.
    Restore,
    /// What they were made from is written to the disk.
    Sync,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// [`VERSION`].
    pub version: u32,
    /// What it tells.
    pub event: Event,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A step begins.
    Begun {
        /// Which.
        step: Step,
    },
    /// It has done its work.
    Ended {
        /// Which.
        step: Step,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// CRIU was asked what it is: for the next order.
    Known {
        /// Its answer.
        known: Known,
    },
    /// What was seen of a process tree.
    Judged {
        /// All of it.
        verdict: Verdict,
    },
    /// What CRIU counted at a step.
    Counted {
        /// Which.
        step: Step,
        /// All of it.
        figures: Figures,
    },
    /// A checkpoint is in its place, and the processes are as was ordered.
    Written {
        /// Which.
        id: Id,
        /// The size of its images.
        bytes: u64,
        /// What CRIU counted, if it did.
        figures: Option<DumpFigures>,
        /// How long all of it took, in microseconds.
        micros: u64,
    },
    /// All is ready for processes to be made; [`Go`] is waited for.
    Waiting {
        /// From what.
        id: Id,
        /// The paths that they were given.
        roles: Vec<Role>,
    },
    /// Connections are closed; [`Go`] is waited for.
    Closed {
        /// How many.
        count: usize,
    },
    /// An internet socket that whoever gave the order holds, too, was made anew: it is to be taken from there. Comes before
    /// what follows.
    Anew {
        /// For what it is.
        role: String,
        /// A process that has it.
        pid: i32,
        /// Its number there.
        number: i32,
    },
    /// The first process is there again.
    Restored {
        /// Its number.
        pid: i32,
    },
    /// Everything is done: the last line.
    Done {
        /// In words.
        message: String,
        /// Which checkpoint it was about, if about one.
        checkpoint: Option<Name>,
    },
    /// It cannot be done: the last line.
    Failed {
        /// At which step.
        step: Step,
        /// Why, and what would help.
        reason: String,
    },
}

/// Of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Whose.
    pub component: String,
    /// Which.
    pub id: Id,
}

/// Which step did not succeed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// For people.
    pub reason: String,
}

/// Tells of steps.
pub struct Teller<W> {
    to: W,
}

impl<W: Write> Teller<W> {
    /// Each line is written at once.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// Take a step.
    pub fn step<T, E: std::fmt::Display>(
        &mut self,
        step: Step,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Failure> {
        let begun = self.begin(step)?;
        let result = work().map_err(|error| Failure { step, reason: error.to_string() })?;
        self.end(step, begun)?;
        Ok(result)
    }

    /// Begin a step that ends elsewhere.
    pub fn begin(&mut self, step: Step) -> Result<Instant, Failure> {
        self.found(step, Event::Begun { step })?;
        Ok(Instant::now())
    }

    /// End one that began then.
    pub fn end(&mut self, step: Step, begun: Instant) -> Result<(), Failure> {
        self.found(step, Event::Ended { step, micros: micros(begun.elapsed()) })
    }

    /// Tell what a step found.
    pub fn found(&mut self, step: Step, event: Event) -> Result<(), Failure> {
        self.tell(event).map_err(|error| Failure { step, reason: format!("nobody listens: {error}") })
    }

    /// Write one line.
    pub fn tell(&mut self, event: Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line { version: VERSION, event })?;
        line.push(b'\n');
        self.to.write_all(&line)?;
        self.to.flush()
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
