//! The way into another kernel, in seven phases: what is done is undone again in reverse order if a later step fails, and
//! after a trial.
//!
//! What the steps are made of is a [`Work`]; here is only their order. A step is noted before it is begun, so that one that
//! was done by half is undone as well.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::machine::Check;
use crate::manifest::Entry;

/// How many processes are written down at once: as many as the supervisor has workers for.
pub const TOGETHER: usize = 2;

/// One part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Whether it can be done at all.
    Validation,
    /// What there is now, and what is to go on.
    Information,
    /// The processes are written down.
    Checkpoint,
    /// What was written is compared with what was to be.
    Verification,
    /// What the next kernel has to know is on the disk.
    Persistence,
    /// The kernel is loaded.
    Loading,
    /// It is executed.
    Execution,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Validation,
        Self::Information,
        Self::Checkpoint,
        Self::Verification,
        Self::Persistence,
        Self::Loading,
        Self::Execution,
    ];

    /// From 1.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|phase| *phase == self).map_or(0, |at| at + 1)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Validation => "validation",
            Self::Information => "information",
            Self::Checkpoint => "checkpoint",
            Self::Verification => "verification",
            Self::Persistence => "persistence",
            Self::Loading => "loading",
            Self::Execution => "execution",
        })
    }
}

/// A process that is to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its component.
    pub component: String,
    /// Its number.
    pub pid: i32,
    /// As in [`Entry::restore_priority`].
    pub priority: u32,
}

/// What has to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Processes stand still for their checkpoints.
    Held,
    /// A checkpoint.
    Checkpoint(Entry),
    /// Manifest and information.
    Records,
    /// A loaded kernel.
    Kernel,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("let everything go on"),
            Self::Checkpoint(entry) => {
                write!(f, "remove checkpoint {} of {}", entry.checkpoint_id, entry.component_name)
            }
            Self::Records => f.write_str("remove manifest and information"),
            Self::Kernel => f.write_str("unload the kernel"),
        }
    }
}

/// What the steps are made of. Each says what it found in `notes`, and why it failed in its error.
pub trait Work {
    /// Look whether everything is there. Nothing may be changed.
    ///
    /// # Errors
    /// What is missing.
    fn validate(&mut self, notes: &mut Notes) -> Result<(), String>;

    /// Look what there is now; gives what is to go on, in the order in which it is to be written down.
    ///
    /// # Errors
    /// Why that is not known.
    fn inform(&mut self, notes: &mut Notes) -> Result<Vec<Service>, String>;

    /// Ask whether it is really to be done, unless it is a trial.
    ///
    /// # Errors
    /// Why not.
    fn agree(&mut self, services: &[Service]) -> Result<(), String>;

    /// Write processes down, all at once: [`TOGETHER`] at most. Held ones stand still from then on. One that fails leaves no
    /// checkpoint. Gives for each the checkpoint, or why there is none.
    fn checkpoint(
        &mut self,
        services: &[Service],
        hold: bool,
        notes: &mut Notes,
    ) -> Vec<Result<Entry, String>>;

    /// Compare a checkpoint with what was written.
    ///
    /// # Errors
    /// What is wrong with it.
    fn verify(&mut self, entry: &Entry, notes: &mut Notes) -> Result<(), String>;

    /// Write manifest and information to the disk.
    ///
    /// # Errors
    /// Why that failed.
    fn persist(&mut self, entries: &[Entry], notes: &mut Notes) -> Result<(), String>;

    /// Load the kernel, with all that it is to find.
    ///
    /// # Errors
    /// Why that failed.
    fn load(&mut self, entries: &[Entry], notes: &mut Notes) -> Result<(), String>;

    /// Execute it. Once that is under way, nothing fails any more.
    ///
    /// # Errors
    /// Why it is not executed.
    fn execute(&mut self, notes: &mut Notes) -> Result<(), String>;

    /// Take back what was done; what was not done after all is no error.
    ///
    /// # Errors
    /// Why it is still there.
    fn take_back(&mut self, trace: &Trace) -> Result<(), String>;

    /// Whether somebody wants it to end.
    fn is_interrupted(&self) -> bool;
}

/// What a phase found.
#[derive(Debug, Default)]
pub struct Notes {
    /// In a line.
    pub detail: String,
    /// One by one.
    pub items: Vec<Note>,
}

/// One thing that a phase found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What it is about.
    pub name: String,
    /// It is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What would help, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Notes {
    /// Something is as it should be.
    pub fn good(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.items.push(Note { name: name.into(), ok: true, detail: detail.into(), fix: None });
    }

    /// Something was looked at.
    pub fn check(&mut self, check: Check) {
        let Check { name, ok, detail, fix } = check;
        self.items.push(Note { name: name.to_owned(), ok, detail, fix: fix.map(str::to_owned) });
    }

    /// An error that names all that is not as it should be; none if everything is.
    pub fn verdict(&self) -> Result<(), String> {
        let bad: Vec<_> = self.items.iter().filter(|note| !note.ok).collect();
        if bad.is_empty() {
            return Ok(());
        }
        let said = |note: &&Note| {
            let fix = note.fix.as_ref().map(|fix| format!(" ({fix})")).unwrap_or_default();
            format!("{}: {}{fix}", note.name, note.detail)
        };
        Err(bad.iter().map(said).collect::<Vec<_>>().join("; "))
    }
}

/// A phase that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// Which, from 1.
    pub number: usize,
    /// Which.
    pub name: Phase,
    /// It has done what it should.
    pub ok: bool,
    /// What it found, or why it failed.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it found, one by one.
    pub notes: Vec<Note>,
}

/// Something that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TakenBack {
    /// What was to be done.
    pub what: String,
    /// Why it could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Every phase that was begun.
    pub phases: Vec<Done>,
    /// What was taken back, in that order.
    pub taken_back: Vec<TakenBack>,
    /// How long taking back took, in milliseconds.
    pub taking_back_ms: u64,
    /// How long all of it took, in milliseconds.
    pub took_ms: u64,
}

impl Outcome {
    /// Every phase has done what it should, and everything that had to be is taken back.
    pub fn is_good(&self) -> bool {
        self.phases.iter().all(|phase| phase.ok) && self.taken_back.iter().all(|back| back.error.is_none())
    }
}

/// Go the way: up to the jump, or with `trial` up to it and back. `watch` hears of each phase when it has ended.
pub fn carry_out(work: &mut dyn Work, trial: bool, watch: &mut dyn FnMut(&Done)) -> Outcome {
    let begun = Instant::now();
    let mut way = Way { work, trial, watch, traces: Vec::new(), phases: Vec::new() };
    let arrived = way.go().is_some();
    let back = Instant::now();
    let taken_back = if trial || !arrived { way.back() } else { Vec::new() };
    Outcome {
        phases: way.phases,
        taken_back,
        taking_back_ms: ms(back.elapsed()),
        took_ms: ms(begun.elapsed()),
    }
}

struct Way<'a> {
    work: &'a mut dyn Work,
    trial: bool,
    watch: &'a mut dyn FnMut(&Done),
    /// What has been done, the latest last.
    traces: Vec<Trace>,
    phases: Vec<Done>,
}

impl Way<'_> {
    /// `None` where a phase has failed.
    fn go(&mut self) -> Option<()> {
        let trial = self.trial;
        self.phase(Phase::Validation, |way, notes| way.work.validate(notes))?;
        let services = self.phase(Phase::Information, |way, notes| {
            let services = way.work.inform(notes)?;
            if !trial {
                way.work.agree(&services)?;
            }
            Ok(services)
        })?;
        let entries = self.phase(Phase::Checkpoint, |way, notes| way.checkpoint(&services, notes))?;
        self.phase(Phase::Verification, |way, notes| {
            for entry in &entries {
                way.go_on()?;
                way.work.verify(entry, notes)?;
            }
            Ok(())
        })?;
        self.phase(Phase::Persistence, |way, notes| {
            way.traces.push(Trace::Records);
            way.work.persist(&entries, notes)
        })?;
        self.phase(Phase::Loading, |way, notes| {
            way.traces.push(Trace::Kernel);
            way.work.load(&entries, notes)
        })?;
        if trial {
            return Some(());
        }
        self.phase(Phase::Execution, |way, notes| way.work.execute(notes))
    }

    fn checkpoint(&mut self, services: &[Service], notes: &mut Notes) -> Result<Vec<Entry>, String> {
        let hold = !self.trial;
        if hold {
            self.traces.push(Trace::Held);
        }
        let mut entries = Vec::new();
        // Those of one step do not need each other.
        let steps = services.chunk_by(|one, other| one.priority == other.priority);
        for together in steps.flat_map(|step| step.chunks(TOGETHER)) {
            self.go_on()?;
            let mut failed = None;
            for written in self.work.checkpoint(together, hold, notes) {
                match written {
                    Ok(entry) => {
                        self.traces.push(Trace::Checkpoint(entry.clone()));
                        entries.push(entry);
                    }
                    Err(why) => drop(failed.get_or_insert(why)),
                }
            }
            if let Some(why) = failed {
                return Err(why);
            }
        }
        Ok(entries)
    }

    fn go_on(&self) -> Result<(), String> {
        if self.work.is_interrupted() { Err("it was interrupted".to_owned()) } else { Ok(()) }
    }

    fn phase<T>(
        &mut self,
        phase: Phase,
        act: impl FnOnce(&mut Self, &mut Notes) -> Result<T, String>,
    ) -> Option<T> {
        let begun = Instant::now();
        let mut notes = Notes::default();
        let result = self.go_on().and_then(|()| act(self, &mut notes));
        let Notes { detail, items } = notes;
        let detail = result.as_ref().err().cloned().unwrap_or(detail);
        let took_ms = ms(begun.elapsed());
        let done =
            Done { number: phase.number(), name: phase, ok: result.is_ok(), detail, took_ms, notes: items };
        (self.watch)(&done);
        self.phases.push(done);
        result.ok()
    }

    /// Everything, the latest first. What cannot be taken back holds nothing else up.
    fn back(&mut self) -> Vec<TakenBack> {
        let mut taken = Vec::new();
        while let Some(trace) = self.traces.pop() {
            let error = self.work.take_back(&trace).err();
            taken.push(TakenBack { what: trace.to_string(), error });
        }
        taken
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
