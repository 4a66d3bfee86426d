//! What an onlooker knows: the declarations in force, the states that were reported, the
//! processes that live. Made from what goes into the engine and what comes out of it, never from
//! its inside, so that checkers have an opinion of their own.

mod checkpoint;

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use crate::checkpoint::After;
use crate::component::{Component, Readiness, Signal, Strategy};
use crate::control::Freezer;
use crate::engine::{Effect, Place, RunId};
use crate::journal::{Cause, Progress, Record, State};
use crate::notify::Notification;
use yakiros_handoff::message::{Order, Part};

/// The most components and the most capabilities of a run: sets of them are one word.
pub(super) const SLOTS: usize = 64;

/// Slices that files may declare, in which components may lie.
pub(super) const SLICES: [&str; 4] = ["s0", "s0/s1", "s2", "s2/s3"];

/// The number of the capability that stands for the first slice: of the last ones, which no component provides.
pub(super) const FIRST_SLICE: usize = SLOTS - SLICES.len();

/// Names of the capabilities, with those that stand for slices.
pub(super) static CAPABILITIES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let slices = SLICES.iter().map(|slice| format!("slice {slice}"));
    (0..FIRST_SLICE).map(|number| format!("cap.{number}")).chain(slices).collect()
});

/// How often a process that outlives its kill is killed again.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(10);

/// The most that a process may put its limits off, all in all.
const EXTENSION_LIMIT: Duration = Duration::from_secs(3600);

/// Components or capabilities, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) fn one(number: usize) -> Self {
        Self(1 << number)
    }

    pub(super) fn has(self, number: usize) -> bool {
        self.0 & (1 << number) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn insert(&mut self, number: usize) {
        self.0 |= 1 << number;
    }

    /// The numbers in it, in order.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let number = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            (number < SLOTS).then_some(number)
        })
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut set = Self::default();
        numbers.into_iter().for_each(|number| set.insert(number));
        set
    }
}

/// A declaration, with its capabilities by number.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) component: Rc<Component>,
    pub(super) provides: Set,
    pub(super) requires: Set,
    pub(super) optional: Set,
}

impl Declared {
    pub(super) fn new(component: Component) -> Self {
        let set = |names: &[String]| -> Set { names.iter().filter_map(|name| capability(name)).collect() };
        Self {
            provides: set(&component.provides),
            requires: set(&component.requires).or(slices_around(&component)),
            optional: set(&component.optional),
            component: Rc::new(component),
        }
    }
}

/// The process that an effect tells to end, by SIGTERM or by SIGABRT.
pub(super) fn told_to_end(effect: &Effect) -> Option<RunId> {
    match effect {
        Effect::Terminate(run) | Effect::Signal(run, Signal::ABORT) => Some(*run),
        _ => None,
    }
}

/// The capabilities that stand for the slices that a component lies in.
pub(super) fn slices_around(component: &Component) -> Set {
    let Some(inner) = component.resources.slice.as_deref() else { return Set::default() };
    let is_around =
        |name: &str| inner.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (0..SLICES.len()).filter(|number| is_around(SLICES[*number])).map(|number| FIRST_SLICE + number).collect()
}

/// The number in `cap.7`; none in the kernel's own names.
pub(super) fn capability(name: &str) -> Option<usize> {
    name.strip_prefix("cap.")?.parse().ok()
}

/// How far a checkpoint of a process has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dumped {
    /// It is being made, since then, and this follows.
    Making(Duration, After),
    /// It is made, and the process stands still since then.
    Held(Duration),
    /// It is this one, and the process ends.
    Leaving(Rc<str>),
}

/// A process of the fake world.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that come in any order")]
pub(super) struct Process {
    pub(super) run: RunId,
    pub(super) generation: u64,
    /// What it was started with.
    pub(super) declared: Declared,
    /// Components that were up when it was started, and whose processes have lived since.
    pub(super) stands_on: Set,
    /// Capabilities that nobody else granted when its stop began.
    pub(super) sole: Set,
    /// When exec succeeded.
    pub(super) executed: Option<Duration>,
    /// It has said that it is ready.
    pub(super) ready: bool,
    /// When it was told to end.
    pub(super) told: Option<Duration>,
    /// When it was last killed.
    pub(super) killed: Option<Duration>,
    /// When the limit under way is over: to become ready, to end (told to, or as announced), or until
    /// it is killed again.
    pub(super) due: Option<Duration>,
    /// By how much it has put its limits off so far.
    pub(super) extended: Duration,
    /// It has announced its end.
    pub(super) announced: bool,
    /// It stands still, or is on the way to or from that.
    pub(super) freezer: Option<Freezer>,
    /// It is being written down, or was.
    pub(super) dump: Option<Dumped>,
    /// Since when it is being made from a checkpoint.
    pub(super) restoring: Option<Duration>,
    /// The checkpoint that it is made from.
    pub(super) image: Option<Rc<str>>,
    /// It was not started from its program.
    pub(super) remade: bool,
    /// It does not hear SIGTERM.
    pub(super) deaf: bool,
    /// It was asked to give to this process, and does not serve meanwhile.
    pub(super) gives_to: Option<RunId>,
    /// It was asked to give its listeners to this process, and accepts nothing meanwhile.
    pub(super) lends_to: Option<RunId>,
    /// The generation for which it was asked last.
    pub(super) offer: u64,
    /// It has given everything for that.
    pub(super) offered: bool,
    /// It was told to take from this one.
    pub(super) takes_from: Option<RunId>,
    /// What.
    pub(super) takes: Part,
    /// It serves no connection but those that it has accepted.
    pub(super) canary: bool,
    /// Which of the component's processes it was when it started.
    pub(super) place: Place,
    /// It serves, or was told to.
    pub(super) serves: bool,
    /// What it serves has come to it from another.
    pub(super) given: bool,
    /// It has said that it does, or need not.
    pub(super) said_serving: bool,
    /// Since when another serves in its place.
    pub(super) released: Option<Duration>,
    /// Nobody could take over from it, so it runs on with the declaration it has.
    pub(super) stays: bool,
}

impl Process {
    /// Whether it serves new connections.
    pub(super) fn accepts(&self) -> bool {
        self.serves && self.gives_to.is_none() && self.lends_to.is_none() && self.released.is_none()
    }

    /// Whether it serves the connections that were there before it.
    pub(super) fn holds(&self) -> bool {
        self.serves && self.gives_to.is_none() && !self.canary && self.released.is_none()
    }

    /// Whether it runs and has a socket to say something about itself.
    pub(super) fn can_notify(&self) -> bool {
        self.executed.is_some()
            && self.restoring.is_none()
            && !matches!(self.dump, Some(Dumped::Held(_)))
            && self.declared.component.has_notify_socket()
    }

    /// Whether `READY=1` means that it is ready.
    pub(super) fn reports_itself(&self) -> bool {
        self.declared.component.lifecycle.readiness == Readiness::Notify
    }
}

/// A component, declared or not.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) name: Rc<str>,
    /// The declaration in force.
    pub(super) declared: Option<Declared>,
    /// The last declaration, by which it hands over while it still runs without one.
    last: Option<Rc<Component>>,
    pub(super) state: State,
    /// When it came into this state.
    pub(super) since: Duration,
    pub(super) process: Option<Process>,
    /// The other process of a hot swap: who is to take over, or who was released.
    pub(super) second: Option<Process>,
    /// The process that was written down and ended, until it is made again.
    pub(super) moved: Option<Process>,
    /// The second serves new connections, and the first those that it has.
    pub(super) canary: bool,
    /// A user has stopped it.
    pub(super) held: bool,
    /// It is FAILED until somebody asks for it.
    pub(super) stays_failed: bool,
}

impl Slot {
    /// The process that a probe meets, for it connects anew.
    pub(super) fn probed(&self) -> Option<&Process> {
        if self.canary { self.second.as_ref() } else { self.process.as_ref() }
    }

    /// Whether two processes by the protocol serve the same connections, or in a canary nobody does.
    pub(super) fn disagree(&self) -> Option<&'static str> {
        let (one, other) = (self.process.as_ref()?, self.second.as_ref()?);
        let related = one.takes_from == Some(other.run) || other.takes_from == Some(one.run);
        if !related || self.state == State::Stopping {
            return None;
        }
        let count = |does: fn(&Process) -> bool| usize::from(does(one)) + usize::from(does(other));
        match (count(Process::accepts), count(Process::holds)) {
            (2, _) => Some("two processes accept"),
            (_, 2) => Some("two processes serve the same connections"),
            (0, _) if self.canary => Some("nobody accepts"),
            (_, 0) if self.canary => Some("nobody serves the connections that were there"),
            _ => None,
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) now: Duration,
    /// Nothing fails any more.
    pub(super) calm: bool,
    /// Since when everything is being stopped.
    pub(super) halting: Option<Duration>,
    /// To execute another kernel.
    pub(super) jumping: bool,
    /// The machine may go down.
    pub(super) halted: bool,
    pub(super) slots: Vec<Slot>,
    /// Capabilities that the kernel's own file grants, and those that stand for the slices that are declared.
    pub(super) kernel: Set,
    /// What is declared of each slice.
    pub(super) slices: [Option<Rc<Component>>; SLICES.len()],
    /// Capabilities that are up.
    pub(super) up: Set,
    /// Capabilities that somebody grants in full health.
    pub(super) healthy: Set,
    /// Who declares each capability.
    providers: [Set; SLOTS],
    /// Whom each component needs, directly or not.
    needs: [Set; SLOTS],
    /// Whose run each was, by its number.
    runs: Vec<u8>,
}

impl Model {
    pub(super) fn new(components: usize) -> Self {
        let slot = |number| Slot {
            name: format!("c{number}").into(),
            declared: None,
            last: None,
            state: State::Removed,
            since: Duration::ZERO,
            process: None,
            second: None,
            moved: None,
            canary: false,
            held: false,
            stays_failed: false,
        };
        Self {
            now: Duration::ZERO,
            calm: false,
            halting: None,
            jumping: false,
            halted: false,
            slots: (0..components.min(SLOTS)).map(slot).collect(),
            kernel: Set::default(),
            slices: Default::default(),
            up: Set::default(),
            healthy: Set::default(),
            providers: [Set::default(); SLOTS],
            needs: [Set::default(); SLOTS],
            runs: Vec::new(),
        }
    }

    /// The number in `c7`, if it is one of this run's components.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        let digits = name.strip_prefix('c')?;
        let number = digits.bytes().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
        (number < self.slots.len()).then_some(number)
    }

    /// Whose process a run is or was.
    pub(super) fn owner(&self, run: RunId) -> Option<usize> {
        let number = self.runs.get(run.0 as usize).map(|number| usize::from(*number))?;
        (number < self.slots.len()).then_some(number)
    }

    /// A process that lives.
    pub(super) fn process(&self, run: RunId) -> Option<&Process> {
        let slot = &self.slots[self.owner(run)?];
        slot.process.iter().chain(&slot.second).find(|process| process.run == run)
    }

    pub(super) fn process_mut(&mut self, run: RunId) -> Option<&mut Process> {
        let owner = self.owner(run)?;
        let slot = &mut self.slots[owner];
        slot.process.iter_mut().chain(&mut slot.second).find(|process| process.run == run)
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = (usize, &Process)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| Some((number, slot.process.as_ref()?)))
    }

    /// Whether a component declares a way of handing over that is more than a restart.
    pub(super) fn hands_over(&self, name: &str) -> bool {
        self.last(name).is_some_and(|component| component.lifecycle.handoff.passes_descriptors())
    }

    fn last(&self, name: &str) -> Option<&Component> {
        self.slots[self.number(name)?].last.as_deref()
    }

    /// Whether a component can be upgraded so by what it declares.
    pub(super) fn may_be(&self, name: &str, asked: Option<Strategy>) -> bool {
        let Some(component) = self.last(name) else { return true };
        match asked.unwrap_or(component.hotswap.strategy) {
            Strategy::AllAtOnce => true,
            Strategy::Canary if self.hands_over(name) => !component.hotswap.probation.is_zero(),
            Strategy::Canary => asked.is_none(),
        }
    }

    /// The same, with the second ones of hot swaps.
    pub(super) fn all_processes(&self) -> impl Iterator<Item = (usize, &Process)> {
        let slots = self.slots.iter().enumerate();
        slots.flat_map(|(number, slot)| {
            let both = slot.process.iter().chain(&slot.second);
            both.map(move |process| (number, process))
        })
    }

    /// Whether `one` needs `other`, directly or not, by what is declared.
    pub(super) fn needs(&self, one: usize, other: usize) -> bool {
        self.needs[one].has(other)
    }

    /// Who declares a capability.
    pub(super) fn providers(&self, cap: usize) -> Set {
        self.providers[cap]
    }

    /// Capabilities that somebody declares, or the kernel's file grants.
    pub(super) fn provided(&self) -> Set {
        let declared = (0..SLOTS).filter(|cap| !self.providers[*cap].is_empty()).collect();
        self.kernel.or(declared)
    }

    /// Capabilities that components other than this one, or the kernel, grant.
    fn granted_without(&self, without: usize) -> Set {
        let others = self.slots.iter().enumerate().filter(|(n, slot)| *n != without && slot.state.is_up());
        let provided = others.filter_map(|(_, slot)| slot.declared.as_ref()).map(|d| d.provides);
        provided.fold(self.kernel, Set::or)
    }

    /// Put a declaration in force, or none.
    pub(super) fn declare(&mut self, number: usize, declared: Option<Declared>) {
        if let Some(declared) = &declared {
            self.slots[number].last = Some(Rc::clone(&declared.component));
        }
        self.slots[number].declared = declared;
        // The new one may let go of what the process stood on and take it up again later, or
        // close a cycle for a while: from then on no order is expected.
        if let Some(process) = &mut self.slots[number].process {
            process.stands_on = Set::default();
        }
        self.forget_ground(number);
    }

    /// To be called when declarations have changed.
    pub(super) fn derive(&mut self) {
        self.providers = [Set::default(); SLOTS];
        for (number, slot) in self.slots.iter().enumerate() {
            if let Some(declared) = &slot.declared {
                declared.provides.iter().for_each(|cap| self.providers[cap].insert(number));
            }
        }
        for (number, slot) in self.slots.iter().enumerate() {
            let requires = slot.declared.as_ref().map(|d| d.requires).unwrap_or_default();
            self.needs[number] = requires.iter().map(|cap| self.providers[cap]).fold(Set::default(), Set::or);
        }
        for middle in 0..self.slots.len() {
            for number in 0..self.slots.len() {
                if self.needs[number].has(middle) {
                    self.needs[number] = self.needs[number].or(self.needs[middle]);
                }
            }
        }
        self.count_levels();
    }

    fn count_levels(&mut self) {
        self.up = self.kernel;
        self.healthy = self.kernel;
        for slot in &self.slots {
            if let Some(declared) = slot.declared.as_ref().filter(|_| slot.state.is_up()) {
                self.up = self.up.or(declared.provides);
                if slot.state != State::Degraded {
                    self.healthy = self.healthy.or(declared.provides);
                }
            }
        }
    }

    /// An effect comes about.
    pub(super) fn apply(&mut self, effect: &Effect) {
        let now = self.now;
        if let Some(run) = told_to_end(effect) {
            self.tell(run);
        }
        match effect {
            Effect::Spawn { run, component, place, generation, origin } => {
                self.begin(*run, component, *place, *generation);
                if origin.is_some() {
                    self.begin_again(*run);
                }
            }
            Effect::Checkpoint { run, after, .. } => self.begin_checkpoint(*run, *after),
            Effect::Continue(run) => self.go_on(*run),
            Effect::Connect { giver, taker, generation, part, .. } => {
                if let Some(process) = self.process_mut(*giver) {
                    match part {
                        Part::Listeners => process.lends_to = Some(*taker),
                        Part::All | Part::Rest => process.gives_to = Some(*taker),
                    }
                    (process.offer, process.offered) = (*generation, false);
                }
                if let Some(process) = self.process_mut(*taker) {
                    process.takes_from = Some(*giver);
                    process.takes = *part;
                    process.canary |= *part == Part::Listeners;
                }
            }
            Effect::Order(run, Order::Commit) => {
                if let Some(process) = self.process_mut(*run) {
                    process.serves = true;
                    process.canary &= process.takes == Part::Listeners;
                }
            }
            Effect::Order(run, Order::Abort(_)) => {
                if let Some(process) = self.process_mut(*run) {
                    (process.gives_to, process.lends_to) = (None, None);
                }
            }
            Effect::Order(run, Order::Release) => {
                let now = self.now;
                if let Some(process) = self.process_mut(*run) {
                    process.released = Some(now);
                }
            }
            Effect::Kill(run) => {
                if let Some(process) = self.process_mut(*run) {
                    process.killed = Some(now);
                    process.due = Some(now + KILL_AGAIN);
                }
            }
            Effect::Freeze { run, .. } => self.freeze(*run),
            Effect::Thaw(run) => {
                if let Some(process) = self.process_mut(*run) {
                    process.freezer = Some(Freezer::Thawing);
                }
            }
            Effect::Changed(record) => self.change(record),
            Effect::Halt(_) => self.halted = true,
            _ => {}
        }
    }

    fn begin(&mut self, run: RunId, component: &Rc<Component>, place: Place, generation: u64) {
        let Some(number) = self.number(&component.name) else { return };
        self.runs.resize(self.runs.len().max(run.0 as usize + 1), u8::MAX);
        self.runs[run.0 as usize] = number as u8;
        let up = self.slots.iter().enumerate();
        let up = up.filter(|(_, slot)| slot.process.is_some() && slot.state.is_up());
        let stands_on = up.map(|(number, _)| number).collect();
        let slot = &mut self.slots[number];
        let current = slot.declared.as_ref();
        let declared = current.cloned().unwrap_or_else(|| Declared::new(Component::clone(component)));
        let process = if place == Place::Alone { &mut slot.process } else { &mut slot.second };
        *process = Some(Process {
            run,
            generation,
            declared,
            stands_on,
            sole: Set::default(),
            executed: None,
            ready: false,
            told: None,
            killed: None,
            due: None,
            extended: Duration::ZERO,
            announced: false,
            freezer: None,
            dump: None,
            restoring: None,
            image: None,
            remade: false,
            deaf: false,
            gives_to: None,
            lends_to: None,
            offer: 0,
            offered: false,
            takes_from: None,
            takes: Part::All,
            canary: false,
            place,
            serves: place != Place::Successor,
            given: false,
            said_serving: place != Place::Successor,
            released: None,
            stays: false,
        });
    }

    /// A process is told to end: from now on it has its grace. After a failure of the supervisor it may
    /// be told again, and keeps what it has asked for since.
    fn tell(&mut self, run: RunId) {
        let now = self.now;
        let Some(number) = self.owner(run) else { return };
        let Slot { declared, process, second, .. } = &mut self.slots[number];
        // One beside which the next serves is released so.
        if let Some(leaving) = second.as_mut().filter(|second| second.run == run) {
            leaving.released.get_or_insert(now);
        }
        let untold = |process: &&mut Process| process.run == run && process.told.is_none();
        if let Some(process) = process.as_mut().filter(untold) {
            let declared = declared.as_ref().unwrap_or(&process.declared);
            process.told = Some(now);
            process.due = Some(now + declared.component.hotswap.shutdown_grace);
        }
    }

    /// A process is to stand still: what it has announced need not come meanwhile.
    fn freeze(&mut self, run: RunId) {
        let Some(number) = self.owner(run) else { return };
        let up = self.slots[number].state.is_up();
        let Some(process) = self.process_mut(run) else { return };
        process.freezer = Some(Freezer::Freezing);
        if up {
            process.due = None;
        }
    }

    /// The kernel has done what it was asked for with a process, or not. Whether that was asked for.
    pub(super) fn mark(&mut self, run: RunId, asked: Freezer, mark: Option<Freezer>) -> bool {
        let now = self.now;
        let Some(number) = self.owner(run) else { return false };
        let Slot { declared, process, state, .. } = &mut self.slots[number];
        let asked = |process: &&mut Process| process.run == run && process.freezer == Some(asked);
        let Some(process) = process.as_mut().filter(asked) else { return false };
        process.freezer = mark;
        if mark.is_none() && state.is_up() && process.announced {
            let declared = declared.as_ref().unwrap_or(&process.declared);
            process.due = Some(now + declared.component.hotswap.shutdown_grace);
        }
        true
    }

    /// A process says something about itself: that it is about to end, or that the limit under way
    /// is not to be over before so much time has passed.
    pub(super) fn hear(&mut self, run: RunId, said: &Notification) {
        let now = self.now;
        let Some(number) = self.owner(run) else { return };
        let up = self.slots[number].state.is_up();
        let Some(process) = self.process_mut(run) else { return };
        let expected = up && process.freezer.is_none() && !process.is_away();
        if said.stopping && !std::mem::replace(&mut process.announced, true) && expected {
            process.due = Some(now + process.declared.component.hotswap.shutdown_grace);
        }
        if let (Some(due), Some(by)) = (&mut process.due, said.extend_timeout) {
            let left = EXTENSION_LIMIT.saturating_sub(process.extended);
            let more = (now + by).saturating_sub(*due).min(left);
            *due += more;
            process.extended += more;
        }
    }

    /// The limit that begins for a process with a change of state; `None` where none does.
    fn limit(&self, slot: &Slot, record: &Record) -> Option<Duration> {
        let process = slot.process.as_ref()?;
        let declared = &slot.declared.as_ref().unwrap_or(&process.declared).component;
        match record.to {
            State::ReadyWait => Some(self.now + declared.lifecycle.readiness_timeout),
            to if to.is_up() && record.from.is_up() => process.due,
            to if to.is_up() && process.announced => Some(self.now + declared.hotswap.shutdown_grace),
            _ => None,
        }
    }

    fn change(&mut self, record: &Record) {
        let Some(number) = self.number(&record.component) else { return };
        // A remark on a component that stays where it is begins and ends no limit.
        if record.from != record.to {
            let due = self.limit(&self.slots[number], record);
            if let Some(process) = &mut self.slots[number].process {
                process.due = due;
            }
        }
        if record.to == State::Stopping {
            let granted = self.granted_without(number);
            if let Some(process) = &mut self.slots[number].process {
                process.sole = process.declared.provides.without(granted);
            }
        }
        let stays_failed = record.to == State::Failed && self.stays_failed(number, &record.cause);
        let slot = &mut self.slots[number];
        if let Cause::Handover { progress, .. } = &record.cause {
            slot.canary = matches!(progress, Progress::Canary { .. });
        }
        let back = matches!(record.cause, Cause::Handover { progress: Progress::Reverting { .. }, .. });
        match &record.cause {
            Cause::Handover { progress: Progress::Committed { .. } | Progress::Reverting { .. }, .. } => {
                std::mem::swap(&mut slot.process, &mut slot.second);
                // What there was before is served by it, or gone.
                slot.process.iter_mut().for_each(|process| process.canary = false);
                // Who had announced its end has its grace anew when it is told to serve on.
                slot.process.iter_mut().filter(|_| back).for_each(|process| process.due = None);
            }
            Cause::Handover { progress: Progress::Failed { step, .. }, .. } => {
                if let Some(process) = &mut slot.process {
                    process.stays = true;
                    if process.announced && &**step == "probation" {
                        process.due = Some(self.now + process.declared.component.hotswap.shutdown_grace);
                    }
                }
            }
            _ => {}
        }
        if record.from == record.to {
            return;
        }
        slot.stays_failed = stays_failed;
        slot.state = record.to;
        slot.since = self.now;
        if record.to == State::Removed {
            slot.held = false;
        }
        self.count_levels();
    }

    /// A process is gone. Returns whether it lived.
    pub(super) fn end(&mut self, run: RunId) -> bool {
        let lives = self.process(run).is_some();
        if let Some(number) = self.owner(run)
            && self.slots[number].second.take_if(|second| second.run == run).is_some()
        {
            return true;
        }
        if let Some(number) = self.owner(run).filter(|_| lives) {
            let slot = &mut self.slots[number];
            let leaves = |process: &Process| matches!(process.dump, Some(Dumped::Leaving(_)));
            slot.moved = slot.process.take().filter(|process| leaves(process) && slot.state.is_up());
            self.forget_ground(number);
        }
        lives
    }

    /// Nobody stands on this component's process any more.
    fn forget_ground(&mut self, number: usize) {
        for process in self.slots.iter_mut().filter_map(|slot| slot.process.as_mut()) {
            process.stands_on = process.stands_on.without(Set::one(number));
        }
    }

    /// Components that can start, by the plainest of fixpoints. If `missing_counts_as_up`, what
    /// nobody provides is no obstacle: then what is left out is in a cycle.
    pub(super) fn rises(&self, missing_counts_as_up: bool) -> Set {
        let declared =
            || self.slots.iter().enumerate().filter_map(|(n, s)| Some((n, s.declared.as_ref()?, s)));
        let mut up = Set::default();
        let mut caps = self.kernel;
        if missing_counts_as_up {
            caps = caps.or(Set(u64::MAX).without(self.provided()));
        } else {
            // A oneshot that is done stays so, whatever becomes of what it needed.
            for (number, declared, _) in declared().filter(|(.., slot)| slot.state == State::Done) {
                up.insert(number);
                caps = caps.or(declared.provides);
            }
        }
        loop {
            let before = up;
            for (number, declared, _) in declared() {
                if declared.requires.without(caps).is_empty() {
                    up.insert(number);
                    caps = caps.or(declared.provides);
                }
            }
            if up == before {
                return up;
            }
        }
    }

    /// Everything that a component needs, directly or not, and how that stands.
    pub(super) fn surroundings(&self, number: usize) -> String {
        let mut text = String::new();
        for (other, slot) in self.slots.iter().enumerate() {
            if other == number || self.needs(number, other) {
                let (provides, requires, optional) = slot.declared.as_ref().map_or_else(
                    || (&[][..], &[][..], &[][..]),
                    |d| (&d.component.provides[..], &d.component.requires[..], &d.component.optional[..]),
                );
                let _infallible = write!(
                    text,
                    "\n  {} {}{}: provides {provides:?}, requires {requires:?}, optional {optional:?}",
                    slot.name,
                    slot.state,
                    if slot.held { " (held)" } else { "" },
                );
            }
        }
        text
    }
}
