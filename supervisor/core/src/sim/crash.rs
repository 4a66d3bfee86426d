//! Crash points: a hot swap, or a process that is moved by a checkpoint, meets a fault at each of its steps, each many times.
//!
//! The other seeds draw what happens; here every cell of step × fault is visited on purpose. Nothing else goes wrong.
//! Each run must end with one process that serves: the new one, the old one, or, where the table says so, one that the
//! restart rule has started because nobody was left. At no time may two serve, and every checker looks on.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::model::Process;
use super::world::{Step as Outcome, World};
use super::{Options, Random, Takeovers, Watch};
use crate::component::Strategy;
use crate::control::Request;
use crate::descriptors::{Origin, counted};
use crate::engine::{Event, RunId};
use crate::journal::{Exit, State};

/// Within this time the swap must have come to the step, or the seed does not reach it.
const REACH: Duration = Duration::from_secs(60);

/// Between two looks at where the swap stands.
const LOOK: Duration = Duration::from_millis(1);

/// After the step has begun, the fault comes within so many milliseconds.
const WITHIN_MS: u64 = 40;

/// After the fault, the time until one must serve for good: the limits of the swap, its probation, the patience with a
/// kill and a restart, one after the other.
const SETTLED: Duration = Duration::from_secs(200);

/// How often it is looked whether two serve meanwhile.
const WATCH: Duration = Duration::from_millis(10);

/// For so long nobody says anything when a limit is to pass: longer than each.
const SLOW: Duration = Duration::from_secs(11);

/// The steps of a hot swap, by the names that the supervisor gives them. `withdraw` and `revert` are on the way back from
/// `commit` and `probation`. Those of [`CANARY`] are of a canary; `recall` is the way back from `canary`. At `start` and `asked`
/// two serve side by side: with descriptors that the supervisor holds, and with those that the old process is asked for by a
/// signal. Those of [`MOVE`] are of a process that goes on as another one.
pub const STEPS: [&str; 22] = [
    "prepare",
    "move",
    "ready",
    "commit",
    "withdraw",
    "probation",
    "revert",
    "leave",
    "lend",
    "lend-ready",
    "lend-commit",
    "canary",
    "recall",
    "rest",
    "rest-ready",
    "rest-commit",
    "start",
    "asked",
    "dump",
    "dumped",
    "restore",
    "restored",
];

/// See [`STEPS`].
const CANARY: Range<usize> = 8..16;

/// See [`STEPS`].
const MOVE: Range<usize> = 18..22;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The old process dies.
    OldDies,
    /// The new process dies.
    NewDies,
    /// The old process does and says nothing any more.
    OldHangs,
    /// The new process does and says nothing any more.
    NewHangs,
    /// The supervisor executes itself again.
    Reexec,
    /// The supervisor does so after an internal error.
    InternalError,
    /// The old process says what nobody can read.
    OldGarbage,
    /// The new process says what nobody can read.
    NewGarbage,
    /// Somebody stops the component.
    Stop,
    /// Nobody says anything until the step's limit has passed, then they go on.
    Late,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OldDies,
        Self::NewDies,
        Self::OldHangs,
        Self::NewHangs,
        Self::Reexec,
        Self::InternalError,
        Self::OldGarbage,
        Self::NewGarbage,
        Self::Stop,
        Self::Late,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OldDies => "old dies",
            Self::NewDies => "new dies",
            Self::OldHangs => "old hangs",
            Self::NewHangs => "new hangs",
            Self::Reexec => "re-exec",
            Self::InternalError => "internal error",
            Self::OldGarbage => "old garbage",
            Self::NewGarbage => "new garbage",
            Self::Stop => "stop",
            Self::Late => "late",
        })
    }
}

/// Who serves in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The process that took over.
    New,
    /// The process that was to give.
    Old,
    /// Another one, started by the restart rule because neither of the two was left to serve.
    Restarted,
    /// Nobody: it was stopped.
    Stopped,
}

impl End {
    fn letter(self) -> char {
        match self {
            Self::New => 'n',
            Self::Old => 'o',
            Self::Restarted => 'r',
            Self::Stopped => 's',
        }
    }
}

/// Step × fault → how it may end, by letters. Where both are named it depends on what was said before.
#[rustfmt::skip]
const MAY_END: [[&str; Fault::ALL.len()]; STEPS.len()] = [
    //               old dies new dies old hangs new hangs reexec internal old garbage new garbage stop late
    /* prepare   */ ["r",     "o",     "r",      "o",      "n",   "o",     "n",        "o",        "s", "o"],
    /* move      */ ["r",     "o",     "rn",     "o",      "n",   "o",     "o",        "o",        "s", "o"],
    /* ready     */ ["n",     "o",     "n",      "o",      "n",   "o",     "o",        "o",        "s", "o"],
    /* commit    */ ["n",     "o",     "n",      "o",      "n",   "o",     "n",        "o",        "s", "o"],
    /* withdraw  */ ["r",     "o",     "r",      "o",      "o",   "o",     "o",        "o",        "s", "o"],
    /* probation */ ["n",     "o",     "n",      "o",      "n",   "n",     "n",        "o",        "s", "n"],
    /* revert    */ ["r",     "o",     "r",      "o",      "o",   "o",     "o",        "o",        "s", "o"],
    /* leave     */ ["n",     "r",     "n",      "r",      "n",   "n",     "n",        "n",        "s", "n"],
    /* lend      */ ["r",     "o",     "rn",     "o",      "n",   "o",     "o",        "o",        "s", "o"],
    /* l. ready  */ ["n",     "o",     "r",      "o",      "n",   "o",     "o",        "o",        "s", "o"],
    /* l. commit */ ["n",     "o",     "r",      "o",      "n",   "o",     "n",        "o",        "s", "o"],
    /* canary    */ ["n",     "o",     "r",      "o",      "n",   "n",     "n",        "o",        "s", "n"],
    /* recall    */ ["r",     "o",     "r",      "o",      "o",   "o",     "o",        "o",        "s", "o"],
    /* rest      */ ["r",     "o",     "rn",     "o",      "n",   "o",     "o",        "o",        "s", "o"],
    /* r. ready  */ ["n",     "o",     "n",      "o",      "n",   "o",     "o",        "o",        "s", "o"],
    /* r. commit */ ["n",     "o",     "n",      "o",      "n",   "o",     "n",        "o",        "s", "o"],
    /* start     */ ["r",     "o",     "n",      "o",      "n",   "o",     "n",        "o",        "s", "n"],
    /* asked     */ ["r",     "o",     "r",      "o",      "no",  "o",     "n",        "o",        "s", "n"],
    // Whoever is not there at a step has no fault at it, but one who will be does nothing then.
    /* dump      */ ["r",     "n",     "n",      "r",      "n",   "o",     "n",        "n",        "s", "n"],
    /* dumped    */ ["n",     "n",     "n",      "r",      "n",   "n",     "n",        "n",        "s", "n"],
    /* restore   */ ["n",     "r",     "n",      "r",      "n",   "n",     "n",        "n",        "s", "n"],
    /* restored  */ ["n",     "r",     "n",      "r",      "n",   "n",     "n",        "n",        "s", "n"],
];

/// Processes that do nothing, and a time in which nobody says anything.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    hung: Vec<RunId>,
    /// Until then.
    silent: Duration,
}

impl Frozen {
    pub(super) fn is_hung(&self, run: RunId) -> bool {
        self.hung.contains(&run)
    }

    /// For how long nobody says anything yet.
    pub(super) fn silence(&self, now: Duration) -> Option<Duration> {
        self.silent.checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// One cell, one seed: how it ended, or `None` when the fault found the swap beyond the step. An error says what is
/// wrong, with the last events before it.
pub fn run(step: &str, fault: Fault, seed: u64) -> Result<Option<End>, String> {
    attempt(step, fault, seed, false).map_err(|(reason, _)| {
        let history = attempt(step, fault, seed, true).err().map_or_else(Vec::new, |(_, history)| history);
        format!("{}\nstep {step}, fault {fault}, seed {seed}: {reason}", history.join("\n"))
    })
}

fn attempt(step: &str, fault: Fault, seed: u64, traced: bool) -> Result<Option<End>, (String, Vec<String>)> {
    // After an internal error the checkers have nothing to go by.
    let failing = fault == Fault::InternalError;
    let takeovers = if failing { Takeovers::Failing(u64::MAX) } else { Takeovers::Never };
    let mut random = Random::new(seed);
    let mute = if is_foreign(step) { 100 } else { 0 };
    let options = Options { components: 1, mute, ..Options::calm(&mut random) };
    let mut world =
        World::new(options, random, &Watch { unchecked: failing, takeovers, traced, ..Watch::default() });
    world.meet(step, fault).map_err(|reason| (reason, world.history(super::HISTORY)))
}

impl World {
    fn meet(&mut self, step: &str, fault: Fault) -> Result<Option<End>, String> {
        let Some((old, new)) = self.come_to(step)? else { return Ok(None) };
        let pause = Duration::from_millis(self.random.below(WITHIN_MS));
        self.pass(pause)?;
        if self.step_now() != Some(name_of(step)) {
            return Ok(None);
        }
        said(self.strike(fault, old, new))?;
        self.pass(SETTLED)?;
        let end = self.end_of_swap(old, new)?;
        let row = STEPS.iter().position(|name| *name == step).ok_or("no such step")?;
        let column = Fault::ALL.iter().position(|one| *one == fault).ok_or("no such fault")?;
        let may = MAY_END[row][column];
        if may.contains(end.letter()) {
            return Ok(Some(end));
        }
        Err(format!("it ends with {end:?}, where one of {may:?} is right"))
    }

    /// A swap of the only component, led to the step.
    fn come_to(&mut self, step: &str) -> Result<Option<(RunId, RunId)>, String> {
        self.model.calm = true;
        let moves = is_move(step);
        said(self.declare_one_that_hands_over(moves))?;
        self.pass(Duration::from_secs(2))?;
        let name = self.model.slots[0].name.to_string();
        let old =
            self.model.slots[0].process.as_ref().map(|process| process.run).ok_or("nothing was started")?;
        match step {
            "start" => {
                let held = counted([(Origin::Socket, "port")]);
                said(self.give(Event::Held(name.as_str().into(), held)))?;
            }
            "asked" => said(self.give(Event::Listens(old)))?,
            _ => {}
        }
        let strategy = STEPS[CANARY].contains(&step).then_some(Strategy::Canary);
        let request = Request::Upgrade {
            name: name.clone(),
            fallback: false,
            queue: false,
            strategy,
            timeout_ms: None,
        };
        said(self.ask(0, request))?;
        // Of a process that is moved the next one comes later.
        let next = moves.then_some(RunId(old.0 + 1));
        let second = || self.model.slots[0].second.as_ref().map(|process| process.run);
        let new = next.or_else(second).ok_or("no swap was begun")?;
        let end = self.model.now + REACH;
        while self.model.now < end {
            let now = self.step_now();
            if now == Some(name_of(step)) {
                return Ok(Some((old, new)));
            }
            // The ways back begin with a failure.
            if matches!(
                (now, step),
                (Some("commit"), "withdraw") | (Some("probation"), "revert") | (Some("canary"), "recall")
            ) {
                said(self.give(Event::Garbled(new, "no message".into())))?;
                continue;
            }
            self.pass(LOOK)?;
        }
        Ok(None)
    }

    /// Where the upgrade of the only component stands.
    fn step_now(&self) -> Option<&'static str> {
        let name = &self.model.slots[0].name;
        self.engine.handover_step(name).or_else(|| self.engine.move_step(name))
    }

    fn strike(&mut self, fault: Fault, old: RunId, new: RunId) -> Outcome {
        let garbage = |run| Event::Garbled(run, "no message".into());
        match fault {
            Fault::OldDies => self.end(old, Exit::Signal(11)),
            Fault::NewDies => self.end(new, Exit::Signal(11)),
            Fault::OldHangs | Fault::NewHangs => {
                self.frozen.hung.push(if fault == Fault::OldHangs { old } else { new });
                Ok(())
            }
            Fault::Reexec => {
                self.takeover.images += 1;
                self.execute_again()
            }
            Fault::InternalError => self.take_over_after_failure(),
            Fault::OldGarbage => self.give(garbage(old)),
            Fault::NewGarbage => self.give(garbage(new)),
            Fault::Stop => {
                let name = self.model.slots[0].name.to_string();
                self.ask(0, Request::Stop { name, timeout_ms: None })
            }
            Fault::Late => {
                self.frozen.silent = self.model.now + SLOW;
                Ok(())
            }
        }
    }

    /// Let time pass, and see that never two serve.
    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.model.now + time;
        while self.model.now < end {
            let next = (self.model.now + WATCH).min(end);
            said(self.run_until(next))?;
            let slot = &self.model.slots[0];
            if let Some(wrong) = slot.disagree() {
                return Err(wrong.to_owned());
            }
        }
        Ok(())
    }

    fn end_of_swap(&self, old: RunId, new: RunId) -> Result<End, String> {
        let slot = &self.model.slots[0];
        if slot.second.is_some() {
            return Err("the swap is not over".to_owned());
        }
        match &slot.process {
            None if slot.state == State::Inactive && slot.held => Ok(End::Stopped),
            Some(process) if slot.state == State::Active && serves(process) => Ok(match process.run {
                run if run == old => End::Old,
                run if run == new && (process.remade || !self.model.moves(0)) => End::New,
                _ => End::Restarted,
            }),
            process => Err(format!("nobody serves: it is {}, its process {process:?}", slot.state)),
        }
    }
}

/// Whether it is a step of programs that speak no protocol.
fn is_foreign(step: &str) -> bool {
    matches!(step, "start" | "asked")
}

/// Whether it is a step of a process that is moved.
fn is_move(step: &str) -> bool {
    STEPS[MOVE].contains(&step)
}

/// What the supervisor calls a step.
fn name_of(step: &str) -> &str {
    if is_foreign(step) { "start" } else { step }
}

/// Whether a process that lives serves, or would if it did not hang.
fn serves(process: &Process) -> bool {
    process.accepts() && process.holds()
}

fn said(outcome: Outcome) -> Result<(), String> {
    outcome.map_err(|reason| format!("{}: {reason}", reason.name()))
}
