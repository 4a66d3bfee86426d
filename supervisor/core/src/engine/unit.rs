//! What the engine knows about one component.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RunId;
use super::checkpoint::{Dump, From, Restoring, Wanted, Warm};
use super::handover::{Greeting, Handover, Heir};
use super::health::Watch;
use super::limits::Limits;
use super::notify::{Said, Watchdog};
use super::strain::Strains;
use super::timers::TimerKey;
use crate::component::Component;
use crate::control::Freezer;
use crate::descriptors::Held;
use crate::graph::NodeId;
use crate::journal::{Cause, OutOfMemory, State};

/// Pauses before the next attempt, one after the other; the last one repeats.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(60), Duration::from_secs(120), Duration::from_secs(300)];

/// The most times of restarts that are kept of a component: 16 KiB. Of a rule that allows more, one
/// restart in several stands for all of them, so that what never stops failing does not grow.
pub(super) const RECENT_LIMIT: usize = 1024;

/// A process that exists, or is being created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) run: RunId,
    pub(super) pid: Option<i32>,
    /// The declaration it was started with. Left out of a snapshot when it is the one in force.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub(super) component: Rc<Component>,
    /// When exec succeeded.
    pub(super) since: Option<Duration>,
    /// SIGTERM was sent.
    pub(super) told: bool,
    /// What it said about itself so far.
    pub(super) said: Said,
    /// How its readiness command failed the last time.
    #[serde(default)]
    pub(super) answer: Option<Rc<str>>,
    /// Limits that are changed while it runs.
    #[serde(default)]
    pub(super) limits: Limits,
    /// Whether it is kept from running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) freezer: Option<Freezer>,
    /// Where it has come from.
    #[serde(default, skip_serializing_if = "From::is_new")]
    pub(super) from: From,
    /// It is being made from a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) restoring: Option<Box<Restoring>>,
    /// A checkpoint of it is being made, or has left it held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dump: Option<Box<Dump>>,
    /// Whether it has said that it can hand over.
    #[serde(default)]
    pub(super) greeting: Greeting,
    /// It can give, and take, its listeners first and the rest later.
    #[serde(default)]
    pub(super) splits: bool,
    /// It took over from one that was gone before it served.
    #[serde(default)]
    pub(super) heir: Option<Heir>,
    /// The kernel has killed it for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) starved: Option<Rc<OutOfMemory>>,
}

impl Process {
    pub(super) fn new(run: RunId, component: Rc<Component>) -> Self {
        Self {
            run,
            pid: None,
            component,
            since: None,
            told: false,
            said: Said::default(),
            answer: None,
            limits: Limits::default(),
            freezer: None,
            from: From::New,
            restoring: None,
            dump: None,
            greeting: Greeting::None,
            splits: false,
            heir: None,
            starved: None,
        }
    }
}

/// What follows a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AfterStop {
    /// INACTIVE; a start follows if nothing forbids it.
    Rest,
    /// FAILED for this cause, with a pause.
    Fail(Cause),
    /// FAILED for this cause, then again by the restart rule.
    Restart(Cause),
}

/// A component and where it stands. Part of the snapshot: a field that is added needs
/// `#[serde(default)]`, so that snapshots of versions before it can be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) name: Rc<str>,
    /// The declaration in force. Left out of a snapshot when a file has it.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub(super) component: Rc<Component>,
    pub(super) state: State,
    /// What `status` says about the state.
    pub(super) detail: Option<String>,
    pub(super) process: Option<Process>,
    /// Hot swaps of it.
    #[serde(default)]
    pub(super) handover: Handover,
    /// Its next process is to be made from a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<Box<Wanted>>,
    /// What its starts are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warm: Option<Box<Warm>>,
    /// Descriptors that are held for it.
    #[serde(default)]
    pub(super) held_descriptors: Option<Rc<[Held]>>,
    /// A user stopped it.
    pub(super) held: bool,
    /// Its file is gone; it goes when its process does.
    pub(super) doomed: bool,
    pub(super) after_stop: AfterStop,
    /// Dependents that must be gone before this one is told to stop.
    pub(super) waits_for: u32,
    /// Those that wait for this one's process to be gone, and which process of theirs does:
    /// it may end by itself, and the next one waits for nobody.
    pub(super) blocks: Vec<(NodeId, RunId)>,
    pub(super) timer: Option<TimerKey>,
    /// Health: probes under way and what they found.
    pub(super) watch: Watch,
    /// Its watchdog, while it is watched.
    pub(super) watchdog: Watchdog,
    /// What its last process said that belongs to its end.
    pub(super) last_words: Option<String>,
    /// Starts so far.
    pub(super) generation: u64,
    /// Restarts after failures.
    pub(super) restarts: u64,
    /// Processes that the kernel has killed for want of memory, since the component was declared.
    #[serde(default)]
    pub(super) oom_kills: u64,
    /// What it was held up by.
    #[serde(default)]
    pub(super) strains: Strains,
    /// Times of the restarts within the window, or of one in several: see [`RECENT_LIMIT`].
    pub(super) recent: VecDeque<Duration>,
    /// Pauses taken since the last healthy window.
    pub(super) pauses: usize,
    /// Revision of the last change.
    pub(super) revision: u64,
    /// Revision of the last change that brought its capabilities up or down; 0 before the first.
    pub(super) turned: u64,
    /// When that was.
    #[serde(default)]
    pub(super) turned_at: Duration,
}

impl Unit {
    pub(super) fn new(component: Rc<Component>) -> Self {
        Self {
            name: component.name.as_str().into(),
            component,
            state: State::Inactive,
            detail: None,
            process: None,
            handover: Handover::default(),
            wanted: None,
            warm: None,
            held_descriptors: None,
            held: false,
            doomed: false,
            after_stop: AfterStop::Rest,
            waits_for: 0,
            blocks: Vec::new(),
            timer: None,
            watch: Watch::default(),
            watchdog: Watchdog::default(),
            last_words: None,
            generation: 0,
            restarts: 0,
            oom_kills: 0,
            strains: Strains::default(),
            recent: VecDeque::new(),
            pauses: 0,
            revision: 0,
            turned: 0,
            turned_at: Duration::ZERO,
        }
    }

    /// The time that the process has to become ready, with what it asked for beyond the declared.
    pub(super) fn readiness_limit(&self) -> Duration {
        let extended = self.process.as_ref().map_or(Duration::ZERO, |process| process.said.extended);
        self.component.lifecycle.readiness_timeout.saturating_add(extended)
    }

    /// Whether its process is kept from running, or was until now.
    pub(super) fn is_frozen(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.freezer.is_some())
    }

    /// A cause, and what the process said about its end.
    pub(super) fn explain(&self, cause: &Cause) -> String {
        match &self.last_words {
            Some(words) => format!("{cause} ({words})"),
            None => cause.to_string(),
        }
    }

    /// Whether the component may come up by itself.
    pub(super) fn may_rise(&self) -> bool {
        !self.held && !self.doomed && !matches!(self.state, State::Failed | State::Backoff | State::Cycle)
    }

    /// Failures are forgotten after a window without one, counted from exec.
    pub(super) fn forget_failures(&mut self, started: Option<Duration>, now: Duration) {
        let window = self.component.lifecycle.restart_window;
        if started.is_some_and(|since| now.saturating_sub(since) >= window) {
            self.pauses = 0;
            self.recent.clear();
        }
    }

    /// The restart rule: `None` means at once (and counts it), otherwise the pause to take.
    pub(super) fn restart_pause(&mut self, now: Duration) -> Option<Duration> {
        let lifecycle = &self.component.lifecycle;
        let (most, window) = (lifecycle.restart_max as usize, lifecycle.restart_window);
        while let Some(first) = self.recent.front()
            && now.saturating_sub(*first) > window
        {
            self.recent.pop_front();
        }
        let stride = most.div_ceil(RECENT_LIMIT).max(1);
        if self.pauses == 0 && self.recent.len() < most.div_ceil(stride) {
            if self.restarts.is_multiple_of(stride as u64) {
                self.recent.push_back(now);
            }
            return None;
        }
        Some(self.next_pause())
    }

    /// The next pause of the ladder.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = PAUSES[self.pauses.min(PAUSES.len() - 1)];
        self.pauses += 1;
        self.recent.clear();
        pause
    }

    /// A user's word wipes the slate.
    pub(super) fn forgive(&mut self) {
        self.pauses = 0;
        self.recent.clear();
    }
}

/// Whether a declaration is left out of a snapshot: every real one has a name.
fn is_blank(component: &Rc<Component>) -> bool {
    component.name.is_empty()
}
