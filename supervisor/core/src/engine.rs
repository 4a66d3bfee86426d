//! The life of every component, decided without touching the system.
//!
//! [`Engine::handle`] takes the time and one event and returns the effects to perform. What
//! happens to one component is decided by one table, [`TABLE`]: its state × what happened.
//!
//! Guarantees, checked by [`crate::sim`]:
//! * No process is started before everything it requires is up.
//! * A component never has two processes: a new one is started only after [`Event::Ended`] of the
//!   old one, which the performer sends when the process *and its group* are gone.
//! * What depends on a component is stopped before it. A stop is SIGTERM, the grace, then the end
//!   of the whole group.
//! * A component that a user stopped stays stopped until a user starts it.
//! * An exit is followed by a restart or a named pause, whatever else goes on.
//! * A component with a watchdog that falls silent, or says that it is broken, is aborted (SIGABRT in
//!   place of SIGTERM) and started again by the restart rule.
//! * A component that loses a process to want of memory is stopped and started again, left FAILED or let run on, as it
//!   declares.
//! * Of a component that is frozen, written down or made from a checkpoint nothing is expected: it is neither probed nor
//!   watched.
//! * Health is probed only while a component is up, one probe at a time. DEGRADED follows exactly
//!   when its threshold of consecutive failures is reached, ACTIVE when a probe passes again, a
//!   restart when the second threshold is reached.
//!
//! The time is a [`Duration`] on a monotonic clock whose origin does not matter. When
//! [`Engine::deadline`] is reached, the caller sends [`Event::Tick`].

mod checkpoint;
mod declare;
mod followers;
mod freezer;
mod handover;
mod health;
mod interface;
mod lifecycle;
mod limits;
mod memory;
mod mend;
mod notify;
mod ready;
mod report;
mod request;
mod snapshot;
mod strain;
mod timers;
mod unit;
mod upgrade;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Origin;
use crate::component::{Component, Kind};
use crate::descriptors::Held;
use crate::graph::{Graph, Level, NodeId};
use crate::journal::{Cause, Journal, State};
use crate::mutation::{Mutation, broken};

use checkpoint::From;
use declare::Files;
use limits::Limits;
use request::Waiter;
use timers::Timers;
use unit::Unit;

/// The longest time for which processes stand still that a checkpoint has left held: a kernel is loaded meanwhile, which
/// takes seconds. Whoever asked for it may have gone, so they go on by themselves then.
pub const HOLD_LIMIT: Duration = Duration::from_secs(60);

pub use checkpoint::{CHECKPOINT_LIMIT, RESTORE_LIMIT};
pub use freezer::FREEZE_LIMIT;
pub use handover::LIMIT as HANDOVER_LIMIT;
pub use interface::{
    COMM_BYTES, ClientId, Comm, Effect, Event, FileChange, FileContent, Halt, Peer, Place, ProbeId, Relayed,
    RunId,
};
pub use mend::{Alive, Facts, Stage};
pub use request::{RELOAD_NOTICE, WAITER_LIMIT, WAITERS_PER_USER, WAITERS_RESERVED};
pub use snapshot::{RestoreError, Snapshot};

/// What can happen to one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// Everything it waits for is up, and nothing forbids a start.
    Met,
    /// A requirement is down.
    Lost,
    Executed,
    NotExecuted,
    Ready,
    /// The readiness limit passed.
    Late,
    Ended,
    /// The grace after SIGTERM passed, or that of an end which the process announced.
    GraceOver,
    /// The pause before the next attempt passed.
    PauseOver,
    Start,
    Stop,
    /// Stop the process now and start a new one (restart, changed declaration).
    Renew,
    CycleOn,
    CycleOff,
    /// The next health probe is due.
    ProbeDue,
    /// A health probe passed.
    Healthy,
    /// As many in a row have failed as make it DEGRADED.
    Unhealthy,
    /// As many in a row have failed as make a restart, or its watchdog has given it up.
    Hopeless,
    /// The kernel has killed one of its processes, not the first, for want of memory.
    OutOfMemory,
}

/// What is done about it. Each is a function in `lifecycle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Nothing.
    Keep,
    /// Create the process.
    Launch,
    /// Exec succeeded: go on by kind and readiness.
    Advance,
    /// Ready: ACTIVE.
    Activate,
    /// Exec failed: FAILED, next attempt after a pause.
    Refuse,
    /// Not ready in time: end it, then FAILED with a pause.
    Overdue,
    /// The process ended by itself: DONE, restart, or pause.
    Finish,
    /// Stop the process, dependents first.
    Terminate,
    /// The grace is over: end the group.
    Kill,
    /// The stop is complete.
    Settle,
    /// Go (back) to INACTIVE and see what that allows.
    Rest,
    /// To CYCLE.
    Bar,
    /// Send a health probe.
    Probe,
    /// ACTIVE again.
    Recover,
    /// To DEGRADED: it runs on, its capabilities are marked.
    Degrade,
    /// Stop it, dependents first, then restart it by the restart rule.
    Condemn,
}

const STATES: usize = 10;
const INPUTS: usize = 19;

/// State × input → action. Rows in the order of [`State::ALL`] (without REMOVED), columns in the
/// order of [`Input`].
#[rustfmt::skip]
const TABLE: [[Action; INPUTS]; STATES] = {
    use Action::{
        Activate, Advance, Bar, Condemn, Degrade, Finish, Keep, Kill, Launch, Overdue, Probe, Recover, Refuse,
        Rest, Settle, Terminate,
    };
    [
        //               Met     Lost       Executed NotExec  Ready     Late     Ended   Grace PauseOver Start  Stop       Renew      CycleOn    CycleOff  ProbeDue  Healthy  Unhealthy  Hopeless  OutOfMemory
        /* INACTIVE   */ [Launch, Keep,      Keep,    Keep,    Keep,     Keep,    Keep,   Keep, Keep,     Rest,  Rest,      Rest,      Bar,       Keep,     Keep,     Keep,    Keep,      Keep,      Keep],
        /* STARTING   */ [Keep,   Terminate, Advance, Refuse,  Activate, Overdue, Finish, Keep, Keep,     Keep,  Terminate, Terminate, Terminate, Keep,     Keep,     Keep,    Keep,      Keep,      Condemn],
        /* READY_WAIT */ [Keep,   Terminate, Keep,    Refuse,  Activate, Overdue, Finish, Keep, Keep,     Keep,  Terminate, Terminate, Terminate, Keep,     Keep,     Keep,    Keep,      Condemn,   Condemn],
        /* ACTIVE     */ [Keep,   Terminate, Keep,    Refuse,  Keep,     Keep,    Finish, Condemn, Keep,  Keep,  Terminate, Terminate, Terminate, Keep,     Probe,    Keep,    Degrade,   Condemn,   Condemn],
        /* DEGRADED   */ [Keep,   Terminate, Keep,    Refuse,  Keep,     Keep,    Finish, Condemn, Keep,     Keep,  Terminate, Terminate, Terminate, Keep,     Probe,    Recover, Keep,      Condemn,   Condemn],
        /* FAILED     */ [Keep,   Rest,      Keep,    Keep,    Keep,     Keep,    Keep,   Keep, Rest,     Rest,  Rest,      Rest,      Bar,       Keep,     Keep,     Keep,    Keep,      Keep,      Keep],
        /* DONE       */ [Keep,   Keep,      Keep,    Keep,    Keep,     Keep,    Keep,   Keep, Keep,     Keep,  Rest,      Rest,      Bar,       Keep,     Keep,     Keep,    Keep,      Keep,      Keep],
        /* CYCLE      */ [Keep,   Keep,      Keep,    Keep,    Keep,     Keep,    Keep,   Keep, Keep,     Keep,  Keep,      Keep,      Keep,      Rest,     Keep,     Keep,    Keep,      Keep,      Keep],
        /* BACKOFF    */ [Keep,   Keep,      Keep,    Keep,    Keep,     Keep,    Keep,   Keep, Rest,     Rest,  Rest,      Rest,      Bar,       Keep,     Keep,     Keep,    Keep,      Keep,      Keep],
        /* STOPPING   */ [Keep,   Keep,      Keep,    Settle,  Keep,     Keep,    Settle, Kill, Keep,     Keep,  Keep,      Keep,      Keep,      Keep,     Keep,     Keep,    Keep,      Keep,      Keep],
    ]
};

/// What to do about `input` in `state`.
fn decide(state: State, input: Input) -> Action {
    match TABLE.get(state as usize) {
        Some(row) => row[input as usize],
        None => Action::Keep,
    }
}

/// How the engine is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// User that may change things besides root: the one the supervisor runs as.
    pub owner: u32,
}

impl Config {
    /// Whether this user may change things.
    pub fn is_privileged(self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }
}

/// How much an engine holds of what could grow, by count. See [`Engine::sizes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Armed timers.
    pub timers: usize,
    /// Clients whose answer is still due.
    pub waiters: usize,
    /// Processes.
    pub runs: usize,
    /// Probes under way, or cancelled and not yet over.
    pub probes: usize,
    /// Journal records.
    pub records: usize,
}

/// See the module documentation.
pub struct Engine {
    config: Config,
    graph: Graph,
    /// By node index; `None` where the graph has no node, or the pseudo-component's.
    units: Vec<Option<Box<Unit>>>,
    names: BTreeMap<Rc<str>, NodeId>,
    runs: BTreeMap<RunId, NodeId>,
    /// Second processes, of hot swaps: see [`handover`].
    seconds: BTreeMap<RunId, NodeId>,
    /// Whose probes are under way, or cancelled and not yet over.
    probes: BTreeMap<ProbeId, NodeId>,
    kernel: NodeId,
    files: Files,
    journal: Journal,
    timers: Timers,
    waiters: Vec<Waiter>,
    effects: Vec<Effect>,
    now: Duration,
    last_run: u64,
    last_probe: u64,
    /// How many units are in each state.
    census: [usize; STATES],
    /// The cycle that each component on one is part of; derived with the graph.
    cycle_of: HashMap<NodeId, Rc<[NodeId]>>,
    /// Somebody may wait for others to be gone since before the graph was derived anew, against the
    /// order that it has now.
    old_waits: bool,
    halting: Option<Halting>,
    /// The newest record of a component that is no longer declared: the cause of what depended on
    /// it, for which it can no longer be found.
    undeclared: Option<u64>,
    /// Limits of slices that were ever changed, by the path of the slice's group.
    slices: BTreeMap<Rc<str>, Limits>,
    /// What the first process of a component is to be made from, by its name: see [`Event::Carried`].
    carried: BTreeMap<Rc<str>, Origin>,
}

/// A shutdown under way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Halting {
    halt: Halt,
    /// Its limit has passed and everything left was killed.
    forced: bool,
    /// The last effect was sent.
    sent: bool,
}

impl Engine {
    /// The same for a performer that may find what another has started: no run gets a number up to
    /// `last_run`.
    pub fn numbering_from(config: Config, last_run: RunId) -> Self {
        Self { last_run: last_run.0, ..Self::new(config) }
    }

    /// An engine that knows nothing but the pseudo-component `kernel`.
    pub fn new(config: Config) -> Self {
        let mut graph = Graph::default();
        let files = Files::default();
        let kernel = declare::insert_kernel(&mut graph, &files.provided_by_kernel());
        Self {
            config,
            graph,
            units: vec![None],
            names: BTreeMap::new(),
            runs: BTreeMap::new(),
            seconds: BTreeMap::new(),
            probes: BTreeMap::new(),
            kernel,
            files,
            journal: Journal::default(),
            timers: Timers::default(),
            waiters: Vec::new(),
            effects: Vec::new(),
            now: Duration::ZERO,
            last_run: 0,
            last_probe: 0,
            census: [0; STATES],
            cycle_of: HashMap::new(),
            old_waits: false,
            halting: None,
            undeclared: None,
            slices: BTreeMap::new(),
            carried: BTreeMap::new(),
        }
    }

    /// Take one event at the time `now` (which never goes back) and return what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        self.handle_all(now, [event])
    }

    /// Take events that came together, in their order, before what is due at the time `now`.
    pub fn handle_all(&mut self, now: Duration, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        self.now = self.now.max(now);
        for event in events {
            self.take(event);
        }
        self.run_timers();
        self.begin_free_upgrades();
        self.propagate();
        self.finish_halt();
        self.answer_waiters();
        std::mem::take(&mut self.effects)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Files(changes) => {
                self.take_files(changes);
                self.propagate();
                self.release_stops();
            }
            Event::Created { run, pid } => {
                self.note_pid(run, pid);
                self.note_limits_of_slices(run);
            }
            Event::Adopted { run, pid } => {
                self.note_pid(run, pid);
                self.note_found(run);
                self.feed_run(run, Input::Executed, Cause::Adopted);
                // What runs to its end is ready when it has ended.
                if self.started_with(run).is_some_and(|component| component.kind == Kind::Service) {
                    self.feed_run(run, Input::Ready, Cause::Adopted);
                }
            }
            Event::Executed(run) => self.feed_run(run, Input::Executed, Cause::Executed),
            Event::Unsupported { run, what } => {
                self.end_run(run, Input::NotExecuted, Cause::Unsupported { what });
            }
            Event::Probed { probe, outcome } => self.take_outcome(probe, outcome),
            Event::NotExecuted { run, step, errno } => {
                let cause = Cause::NotExecuted { step, errno };
                self.end_run(run, Input::NotExecuted, cause);
            }
            Event::Reported(run, report) => self.take_report(run, report),
            Event::Garbled(run, why) => self.take_garbage(run, &why),
            Event::OutOfMemory(run, what) => self.take_out_of_memory(run, what),
            Event::Strained(run, strain) => self.take_strain(run, strain),
            Event::Limited(run, outcome) => self.take_limited(run, outcome),
            Event::SliceLimited(slice, outcome) => self.take_slice_limited(&slice, outcome),
            Event::Frozen(run, outcome) => self.take_frozen(run, outcome),
            Event::Thawed(run, outcome) => self.take_thawed(run, outcome),
            Event::Notified(run, said) => self.take_notification(run, said),
            Event::Held(name, held) => self.take_held(&name, &held),
            Event::Listens(run) => self.note_listens(run),
            Event::Relayed(run, outcome) => self.take_relayed(run, outcome),
            Event::NotYetReady(run, answer) => self.note_answer(run, answer),
            Event::Ready(run) => self.feed_run(run, Input::Ready, Cause::Ready),
            Event::Ended(run, exit) => self.end_run(run, Input::Ended, self.cause_of_end(run, exit)),
            Event::Restored { run, pid, made } => self.take_restored(run, pid, &made),
            Event::NotRestored(run, reason) => self.take_not_restored(run, &reason),
            Event::Checkpointed(run, outcome) => self.take_checkpointed(run, outcome),
            Event::Carried(origins) => self.take_carried(origins),
            Event::Tick => {}
            Event::Request { client, peer, request } => self.take_request(client, peer, request),
            Event::ClientGone(client) => self.forget_waiter(client),
            Event::LogGrew(name) => self.answer_readers(&name),
            Event::Halt(halt) => self.begin_halt(halt, &Cause::Shutdown),
            Event::Resolve => self.resolve(&Cause::Restart),
            Event::Resumed(facts) => self.resume(&facts),
            Event::StateLost { reason, found } => self.remark_on_kernel(Cause::StateLost { reason, found }),
        }
    }

    /// When [`Event::Tick`] is due; `None` while nothing is.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.first()
    }

    /// Until when [`Event::Tick`] may be put off, so that what is due until then is done together: health probes can
    /// wait for a small part of their interval, everything else cannot. `None` while nothing is due.
    pub fn wake_by(&self) -> Option<Duration> {
        let mut latest = None;
        for (at, due) in self.timers.all() {
            if latest.is_some_and(|latest| at >= latest) {
                break;
            }
            let by = at.saturating_add(self.slack(due));
            latest = Some(latest.map_or(by, |latest: Duration| latest.min(by)));
        }
        latest
    }

    /// The process of a component.
    pub fn process_of(&self, name: &str) -> Option<RunId> {
        Some(self.find(name)?.process.as_ref()?.run)
    }

    /// The declaration that a process was started with.
    pub fn started_with(&self, run: RunId) -> Option<Rc<Component>> {
        let process = match self.runs.get(&run) {
            Some(id) => self.unit(*id)?.process.as_ref()?,
            None => self.second(run)?,
        };
        Some(Rc::clone(&process.component))
    }

    /// How it was set up.
    pub fn config(&self) -> Config {
        self.config
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Names of all declared components, sorted.
    pub fn names(&self) -> impl Iterator<Item = &Rc<str>> {
        self.names.keys()
    }

    /// State of a component; [`State::Removed`] when it is not declared.
    pub fn state(&self, name: &str) -> State {
        self.find(name).map_or(State::Removed, |unit| unit.state)
    }

    /// Process id of a component's process.
    pub fn pid(&self, name: &str) -> Option<i32> {
        self.find(name)?.process.as_ref()?.pid
    }

    /// Whether every component rests: nothing starts, stops or waits to become ready.
    pub fn is_settled(&self) -> bool {
        self.moving() == 0
    }

    /// Units in a state that is not resting.
    fn moving(&self) -> usize {
        let counted = State::ALL.iter().zip(self.census);
        counted.filter(|(state, _)| !state.is_resting()).map(|(_, count)| count).sum()
    }

    /// A unit has changed its state; who comes, comes from REMOVED, which nobody is in.
    fn count(&mut self, from: State, to: State) {
        if let Some(count) = self.census.get_mut(from as usize) {
            *count -= 1;
        }
        if let Some(count) = self.census.get_mut(to as usize) {
            *count += 1;
        }
    }

    /// Whether the engine is stopping everything.
    pub fn is_halting(&self) -> bool {
        self.halting.is_some()
    }

    /// How well a capability is; [`Level::Down`] when nobody provides it.
    pub fn level(&self, capability: &str) -> Level {
        self.graph.cap(capability).map_or(Level::Down, |cap| self.graph.cap_level(cap))
    }

    /// How much it holds of what could grow.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            timers: self.timers.len(),
            waiters: self.waiters.len(),
            runs: self.runs.len() + self.seconds.len(),
            probes: self.probes.len(),
            records: self.journal.len(),
        }
    }

    fn find(&self, name: &str) -> Option<&Unit> {
        self.unit(*self.names.get(name)?)
    }

    fn unit(&self, id: NodeId) -> Option<&Unit> {
        self.units.get(id.index())?.as_deref()
    }

    fn unit_mut(&mut self, id: NodeId) -> Option<&mut Unit> {
        self.units.get_mut(id.index())?.as_deref_mut()
    }

    /// What is held for a component has changed. It changes nothing but what is shown, and what an upgrade can do.
    fn take_held(&mut self, name: &str, held: &Rc<[Held]>) {
        let id = self.names.get(name).copied();
        if let Some(unit) = id.and_then(|id| self.unit_mut(id)) {
            unit.held_descriptors = Some(Rc::clone(held)).filter(|held| !held.is_empty());
        }
    }

    fn note_pid(&mut self, run: RunId, pid: i32) {
        let process = match self.runs.get(&run).copied() {
            Some(id) => self.unit_mut(id).and_then(|unit| unit.process.as_mut()),
            None => self.second_mut(run),
        };
        if let Some(process) = process {
            process.pid = Some(pid);
        }
    }

    /// It was found running, and is not as its program begins.
    fn note_found(&mut self, run: RunId) {
        let id = self.runs.get(&run).copied();
        if let Some(process) = id.and_then(|id| self.unit_mut(id)?.process.as_mut()) {
            process.from = From::Found;
        }
    }

    /// Give an event of a process to its component; a process that is gone has none.
    fn feed_run(&mut self, run: RunId, input: Input, cause: Cause) {
        if let Some(id) = self.runs.get(&run).copied() {
            self.feed(id, input, cause);
        } else if input == Input::Executed {
            self.second_executed(run);
        } else if input == Input::Ready {
            self.second_ready(run);
        }
    }

    /// The same for an event that ends the process.
    fn end_run(&mut self, run: RunId, input: Input, cause: Cause) {
        let Some(id) = self.runs.get(&run).copied() else {
            return self.second_gone(run, &cause);
        };
        if self.ended_unmade(id, run, &cause) || self.moves_on(id) {
            return;
        }
        if !self.first_gone(id, run, &cause) {
            self.runs.remove(&run);
            self.process_gone(id);
            self.feed(id, input, cause);
        }
    }

    /// Carry every consequence through until nothing changes any more. It ends: a component is
    /// launched at most once here, for its next step needs an event from outside.
    fn propagate(&mut self) {
        loop {
            let touched = self.graph.take_touched();
            if touched.is_empty() {
                return;
            }
            let touched = if broken(Mutation::HashOrder) { shuffled(touched) } else { touched };
            for id in touched {
                self.reconsider(id);
            }
        }
    }
}

/// In the order of a hash map, another one each time. See [`Mutation::HashOrder`].
fn shuffled(ids: Vec<NodeId>) -> Vec<NodeId> {
    ids.into_iter().collect::<HashSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
