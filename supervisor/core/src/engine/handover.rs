//! Hot swap: the next generation of a component takes over from the one that serves.
//!
//! For a while a component has two processes: the *first*, which is its process to all the rest
//! of the engine, and the *second*, which is known only here. What is done about either is decided
//! by the [`table`]: the step × what happened. When the second serves, the two change places.
//!
//! Guarantees, checked by [`crate::sim`]:
//! * By the protocol, the second serves only after it has said that it got exactly what the first gave, and that it
//!   is ready. The first, once it has stopped to serve for that, is told either to end or to go on,
//!   never both; to go on only while the second has not served, and never will.
//! * Until the second serves, any failure of it leaves the first serving.
//! * The component's state does not change by a hot swap, whether it succeeds or not.
//! * There is never a third process: the next start waits for the second to be gone.
//!
//! Programs that do not speak the protocol serve side by side: see [`beside`]. Of those that do two serve at once for
//! the time of a canary only: see [`canary`].
//!
//! What stops the component, for whatever reason, first calls the hot swap off.

mod beside;
mod canary;
mod ending;
mod reports;
mod steps;
mod table;

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use yakiros_handoff::message::{Summary, VERSION};

pub(super) use self::canary::Manner;
use self::table::{Step, Turn};
use super::timers::{Due, TimerKey};
use super::unit::{Process, Unit};
use super::{Engine, RunId};
use crate::component::Strategy;
use crate::control::{PassedOver, UpgradeForm};
use crate::graph::NodeId;
use crate::journal::{Cause, Progress};

/// From the question to the first process until the second one serves: nobody serves meanwhile,
/// and clients that wait longer than this have given up (the prototype's limit).
pub const LIMIT: Duration = Duration::from_secs(10);

/// What the first is told to need at most for giving. It has to speak before [`LIMIT`] is over: of one
/// that says nothing nobody knows whether it is the other one that does not take.
const GIVE_LIMIT: Duration = Duration::from_secs(8);

/// Whether a process has said that it can hand over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Greeting {
    /// It has not.
    #[default]
    None,
    /// It has not, and listens for the signal that asks for its descriptors.
    Signal,
    /// By this version of the protocol.
    Understood,
    /// By another one.
    Foreign,
}

impl Greeting {
    fn of(version: u32) -> Self {
        if version == VERSION { Self::Understood } else { Self::Foreign }
    }
}

/// What there is of a hot swap in a process that took the place of one which died, until it serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Heir {
    /// It has not been told to serve, for it is not ready yet.
    untold: bool,
    /// It has the listeners only, and is to be told that there is no more.
    #[serde(default)]
    alone: bool,
    /// What is left of [`LIMIT`].
    pub(super) timer: Option<TimerKey>,
}

/// The second process of a component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Second {
    pub(super) process: Process,
    pub(super) step: Step,
    pub(super) timer: Option<TimerKey>,
    /// In which form it takes the place of the first.
    #[serde(default)]
    form: UpgradeForm,
    /// Its generation.
    generation: u64,
    /// When the first was asked to give.
    asked: Option<Duration>,
    /// What the first said that it gave.
    #[serde(with = "summary")]
    offered: Option<Summary>,
    /// What the second said that it got.
    #[serde(with = "summary")]
    taken: Option<Summary>,
    /// It has said that it is ready.
    #[serde(default)]
    ready: bool,
    /// How long nobody served, in microseconds.
    #[serde(default)]
    gap_us: Option<u64>,
    /// The time for which the old one is kept, in milliseconds.
    #[serde(default)]
    probation_ms: Option<u64>,
    /// Why it was killed after it was told to serve.
    #[serde(default)]
    failure: Option<Rc<str>>,
    /// At which step.
    #[serde(default)]
    failed_at: Option<Step>,
    /// How much it takes at once.
    #[serde(default)]
    strategy: Strategy,
    /// When its sign of life is due, while it is a canary. The first has its own.
    #[serde(default)]
    pub(super) watchdog: Option<TimerKey>,
    /// A restart follows when the first does not give.
    fallback: bool,
    /// How it ended.
    #[serde(default)]
    end: Option<Cause>,
    /// Why all this.
    cause: Cause,
    passed_over: Vec<PassedOver>,
}

/// Hot swaps of one component. Most have none, now or ever, and it takes them no more than a pointer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Handover(Option<Box<Open>>);

/// What there is of a hot swap.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Open {
    second: Option<Second>,
    /// The declaration changed while one was under way: another follows.
    again: Option<Cause>,
}

impl Handover {
    pub(super) fn second(&self) -> Option<&Second> {
        self.0.as_ref()?.second.as_ref()
    }

    pub(super) fn second_mut(&mut self) -> Option<&mut Second> {
        self.0.as_mut()?.second.as_mut()
    }

    fn begin(&mut self, second: Second) {
        self.0.get_or_insert_default().second = Some(second);
    }

    fn repeat(&mut self, cause: Cause) {
        self.0.get_or_insert_default().again = Some(cause);
    }

    fn take_second(&mut self) -> Option<Second> {
        let second = self.0.as_mut()?.second.take();
        self.tidy();
        second
    }

    fn take_again(&mut self) -> Option<Cause> {
        let again = self.0.as_mut()?.again.take();
        self.tidy();
        again
    }

    fn tidy(&mut self) {
        self.0.take_if(|open| open.second.is_none() && open.again.is_none());
    }

    /// Whether the second is only what remains of a hot swap.
    pub(super) fn is_leaving(&self) -> bool {
        self.second().is_some_and(|second| second.step == Step::Leave)
    }

    /// Whether the first is new and the old one is kept in case it fails.
    pub(super) fn is_on_probation(&self) -> bool {
        self.second().is_some_and(|second| second.step == Step::Probation)
    }

    /// Whether the second serves new connections for a time, and the first those that it has.
    pub(super) fn is_canary(&self) -> bool {
        self.second().is_some_and(|second| second.step == Step::Canary)
    }

    /// Whether it is the new process that does badly, and the old one is still there.
    pub(super) fn blames_new(&self, cause: &Cause) -> bool {
        // A probe of a canary meets who accepts. Everything else is about the first itself.
        self.is_on_probation() || (self.is_canary() && matches!(cause, Cause::Unhealthy { .. }))
    }

    /// Whether the first serves, and is to be looked after.
    pub(super) fn is_over(&self) -> bool {
        let looked_after = [Step::Prepare, Step::Beside, Step::Probation, Step::Leave, Step::Canary];
        self.second().is_none_or(|second| looked_after.contains(&second.step))
    }
}

impl Engine {
    /// From whom a process is to take over.
    pub fn giver_of(&self, taker: RunId) -> Option<RunId> {
        self.run_of(*self.seconds.get(&taker)?)
    }

    /// The other process of a hot swap.
    pub fn other_of(&self, run: RunId) -> Option<RunId> {
        let taker = || Some(self.unit(*self.runs.get(&run)?)?.handover.second()?.process.run);
        self.giver_of(run).or_else(taker)
    }

    /// Whether a process was told to serve in the place of another, and has not said that it does.
    pub fn is_about_to_serve(&self, run: RunId) -> bool {
        let unit = self.seconds.get(&run).and_then(|id| self.unit(*id));
        unit.and_then(|unit| unit.handover.second()).is_some_and(|second| second.step.is_commit())
    }

    /// The processes of hot swaps with a step whose time is over at the time `now`. What has come
    /// from them and was not read yet is to be given to [`Engine::handle_all`] before the event that
    /// is next.
    pub fn handovers_due(&self, now: Duration) -> Vec<RunId> {
        let due = self.timers.due(now).filter_map(|due| match due {
            Due::Handover(id) => self.unit(id),
            _ => None,
        });
        let both = |unit: &Unit| {
            let second = unit.handover.second().map(|second| second.process.run);
            unit.process.as_ref().map(|process| process.run).into_iter().chain(second).collect::<Vec<_>>()
        };
        due.flat_map(both).collect()
    }

    /// At which step the hot swap of a component stands, for who tests that: `prepare`, `move`, `ready`, `commit`,
    /// `withdraw`, `probation`, `revert`, `leave`; of a canary `lend`, `lend-ready`, `lend-commit`, `canary`, `rest`,
    /// `rest-ready`, `rest-commit`, `recall`.
    pub fn handover_step(&self, name: &str) -> Option<&'static str> {
        let second = self.find(name)?.handover.second()?;
        let recalled = second.step == Step::Revert && second.strategy == Strategy::Canary;
        Some(if recalled { "recall" } else { second.step.own_name() })
    }

    /// A second process was executed, if it is one.
    pub(super) fn second_executed(&mut self, run: RunId) {
        let now = self.now;
        if let Some(process) = self.second_mut(run) {
            process.since = Some(now);
        }
        self.begin_relay(run);
        self.ready_by_exec(run);
    }

    /// A process that is a component's second.
    pub(super) fn second(&self, run: RunId) -> Option<&Process> {
        let unit = self.unit(*self.seconds.get(&run)?)?;
        Some(&unit.handover.second()?.process)
    }

    pub(super) fn second_mut(&mut self, run: RunId) -> Option<&mut Process> {
        let id = self.seconds.get(&run).copied()?;
        Some(&mut self.second_of(id)?.process)
    }

    pub(super) fn handover_due(&mut self, id: NodeId, key: TimerKey) {
        if self.second_of(id).is_some_and(|second| second.watchdog == Some(key)) {
            return self.canary_silent(id);
        }
        if let Some(second) = self.second_of(id).filter(|second| second.timer == Some(key)) {
            second.timer = None;
            let step = second.step;
            let text = ending::late_text(step, self.owes_offer(id));
            return self.turn(id, Turn::Late, &text);
        }
        if let Some(heir) = self.heir_of(id).filter(|heir| heir.timer == Some(key)) {
            heir.timer = None;
            self.disown(id, "the new process does not serve within its time");
        }
    }

    fn arm_second(&mut self, id: NodeId, after: Duration) -> TimerKey {
        if let Some(timer) = self.second_of(id).and_then(|second| second.timer.take()) {
            self.timers.disarm(timer);
        }
        self.timers.arm(self.now.saturating_add(after), Due::Handover(id))
    }

    fn second_of(&mut self, id: NodeId) -> Option<&mut Second> {
        self.unit_mut(id)?.handover.second_mut()
    }

    fn heir_of(&mut self, id: NodeId) -> Option<&mut Heir> {
        self.unit_mut(id)?.process.as_mut()?.heir.as_mut()
    }

    /// Whether a process of the component is left that a start has to wait for.
    pub(super) fn second_lives(&self, id: NodeId) -> bool {
        self.unit(id).is_some_and(|unit| unit.handover.second().is_some())
    }

    fn progress(&mut self, id: NodeId, generation: u64, progress: Progress) -> u64 {
        let after = self.unit(id).map(|unit| unit.revision);
        self.remark(id, Cause::Handover { generation, progress }, after);
        self.unit(id).map_or(0, |unit| unit.revision)
    }
}

/// A summary as three numbers.
mod summary {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use yakiros_handoff::message::Summary;

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(super) fn serialize<S: Serializer>(summary: &Option<Summary>, to: S) -> Result<S::Ok, S::Error> {
        summary.map(|summary| (summary.descriptors, summary.state, summary.digest)).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Summary>, D::Error> {
        let numbers = Option::<(u32, u64, u64)>::deserialize(from)?;
        Ok(numbers.map(|(descriptors, state, digest)| Summary { descriptors, state, digest }))
    }
}
