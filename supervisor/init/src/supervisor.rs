//! The one owner of everything: the engine, the processes, the clients.
//!
//! [`Supervisor::dispatch`] gives the engine an event and performs the effects, which may make
//! further events; all of it happens in one go, without a wait. What waits (pipes, sockets,
//! timers) are small tasks on the same thread that call `dispatch` when something has come.

mod words;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Notify;
use tracing::{error, info, warn};
use yakiros_core::component::{Component, Readiness};
use yakiros_core::control::{Answer, LogPosition, Request, Until};
use yakiros_core::engine::Config;
use yakiros_core::engine::{ClientId, Effect, Engine, Event, FileContent, Halt, Peer, RunId, Snapshot};
use yakiros_core::journal::{Record, State};
use yakiros_core::notify::Store;
use yakiros_handoff::message::Order;

use crate::cgroup::Cgroups;
use crate::checkpoint::{self, Checkpoints};
use crate::control::{Connections, Pending};
use crate::declarations::Declarations;
use crate::freezer::{self, Freezers};
use crate::handover::relay::{self, Relays};
use crate::handover::{Handovers, released};
use crate::health::{self, Probes};
use crate::limits::{self, Changes};
use crate::lookup::Lookups;
use crate::machine;
use crate::output::{self, Logs};
use crate::processes::{Processes, Start};
use crate::reexec::{self, Reexec};
use crate::spawn::Common;
use crate::store::Stores;
use crate::sys;

/// Events for which room is kept when none waits. Starting many components makes one for each, once.
const EVENTS_KEPT: usize = 16;

/// Everything that outlives a single event.
pub struct Supervisor {
    engine: RefCell<Engine>,
    /// Events made while effects are performed.
    queue: RefCell<VecDeque<Event>>,
    dispatching: Cell<bool>,
    /// Processes and what belongs to them.
    pub processes: RefCell<Processes>,
    /// Health probes under way.
    pub probes: RefCell<Probes>,
    /// Limits that are changed on what runs.
    pub changes: Changes,
    /// What is being frozen or thawed.
    pub freezers: Freezers,
    /// Channels of hot swaps.
    pub handovers: Handovers,
    /// What is passed on there from one process to another.
    pub relays: Relays,
    /// Processes that are written, held and made again.
    pub checkpoints: Checkpoints,
    /// What is held for components.
    pub stores: Stores,
    /// Looks at what lies on file systems.
    pub lookups: Lookups,
    /// Component files.
    pub declarations: RefCell<Declarations>,
    /// Clients whose answer is due.
    pub clients: RefCell<HashMap<ClientId, Rc<Pending>>>,
    /// The number of the last client.
    pub last_client: Cell<u64>,
    /// Connections of clients.
    pub connections: RefCell<Connections>,
    /// Where clients connect.
    pub listener: Rc<UnixListener>,
    /// The next process image.
    pub reexec: Reexec,
    /// The engine's deadline may have changed.
    timer: Notify,
    halt: Cell<Option<Halt>>,
    halted: Notify,
    /// Where logs and readiness sockets are.
    pub state_dir: PathBuf,
}

impl Supervisor {
    /// A supervisor of what the engine knows.
    pub fn new(
        engine: Engine,
        state_dir: PathBuf,
        (declarations, places): (Declarations, checkpoint::Places),
        (cgroups, common, logs): (Cgroups, Common, Rc<Logs>),
        listener: Rc<UnixListener>,
    ) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(engine),
            queue: RefCell::default(),
            dispatching: Cell::new(false),
            processes: RefCell::new(Processes::new(cgroups, common, logs)),
            probes: RefCell::default(),
            changes: Changes::default(),
            freezers: Freezers::default(),
            handovers: Handovers::default(),
            relays: Relays::default(),
            checkpoints: Checkpoints::new(places),
            stores: Stores::default(),
            lookups: Lookups::default(),
            declarations: RefCell::new(declarations),
            clients: RefCell::default(),
            last_client: Cell::new(0),
            connections: RefCell::default(),
            listener,
            reexec: Reexec::default(),
            timer: Notify::new(),
            halt: Cell::new(None),
            halted: Notify::new(),
            state_dir,
        })
    }

    /// Who may change things.
    pub fn config(&self) -> Config {
        self.engine.borrow().config()
    }

    /// Give the engine an event and perform what follows, to the end.
    pub fn dispatch(self: &Rc<Self>, event: Event) {
        if self.work_off(event) {
            self.timer.notify_one();
        }
    }

    /// The same. Whether the time at which the engine wants to be woken has changed.
    fn work_off(self: &Rc<Self>, event: Event) -> bool {
        self.queue.borrow_mut().push_back(event);
        if self.dispatching.replace(true) {
            return false;
        }
        let wake_by = self.engine.borrow().wake_by();
        loop {
            let next = self.queue.borrow_mut().pop_front();
            let Some(event) = next else { break };
            if catch_unwind(AssertUnwindSafe(|| self.act(event))).is_err() {
                // Nothing is borrowed any more, and nobody else has run: a new process image takes
                // over from here.
                reexec::after_failure(self);
            }
        }
        self.dispatching.set(false);
        let mut queue = self.queue.borrow_mut();
        if queue.capacity() > EVENTS_KEPT {
            *queue = VecDeque::new();
        }
        self.engine.borrow().wake_by() != wake_by
    }

    fn act(self: &Rc<Self>, event: Event) {
        let now = sys::now();
        let events = self.with_what_was_said(now, event);
        for run in events.iter().filter_map(|event| self.reports_ready(event)) {
            self.processes.borrow_mut().is_ready(run);
        }
        let effects = self.engine.borrow_mut().handle_all(now, events);
        #[cfg(any(debug_assertions, feature = "fault-injection"))]
        self.reexec.injected.fail_if_asked_to();
        // A line may have to wait for a slow console; what was decided does not wait for the line.
        let (lines, effects): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|effect| matches!(effect, Effect::Changed(_)));
        for effect in effects.into_iter().chain(lines) {
            self.perform(effect);
        }
    }

    /// Have the engine know with the next event.
    pub fn announce(&self, event: Event) {
        self.queue.borrow_mut().push_back(event);
    }

    /// A process wants something done about what is stored for its component, with what came along. The engine learns of
    /// it with the next event.
    pub fn store(&self, run: RunId, store: &Store, fds: Vec<OwnedFd>) {
        let Some(component) = self.started_with(run) else { return };
        let changed = match store {
            Store::Keep(name) => self.stores.keep(&component, name, fds),
            Store::Remove(name) => self.stores.remove(&component.name, name),
        };
        self.queue.borrow_mut().extend(changed);
    }

    /// The process that is ready, by what was seen of it, or by what it says if it is declared to say so.
    fn reports_ready(&self, event: &Event) -> Option<RunId> {
        match event {
            Event::Ready(run) => Some(*run),
            Event::Notified(run, said) if said.ready => {
                let component = self.started_with(*run)?;
                (component.lifecycle.readiness == Readiness::Notify).then_some(*run)
            }
            _ => None,
        }
    }

    fn perform(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Spawn { run, component, generation, place, origin: Some(origin) } => {
                checkpoint::begin_restore(self, run, component, Start { generation, place }, origin);
            }
            Effect::Spawn { run, component, generation, place, origin: None } => {
                #[cfg(any(debug_assertions, feature = "fault-injection"))]
                reexec::Injected::leak_if_asked_to();
                checkpoint::forget_move(self, &component.name);
                let event = Processes::spawn(self, run, component, Start { generation, place });
                self.queue.borrow_mut().extend(event);
            }
            Effect::Connect { giver, taker, generation, limit, part } => {
                let failed = self.handovers.connect(giver, taker, generation, limit, part);
                self.queue.borrow_mut().extend(failed);
            }
            Effect::Relay { giver, taker, limit } => {
                let failed = relay::begin(self, giver, taker, limit);
                self.queue.borrow_mut().extend(failed);
            }
            Effect::Order(run, order) => {
                if order == Order::Release
                    && let Some(pid) = self.processes.borrow().number(run)
                {
                    released::note(&self.state_dir, pid);
                }
                let failed = self.handovers.order(run, &order);
                self.queue.borrow_mut().extend(failed);
            }
            Effect::Unconfine(run) => self.processes.borrow().unconfine(run),
            Effect::Probe { probe, run, component } => health::begin(self, probe, run, &component),
            Effect::Limit { run, component } => limits::begin(self, run, &component),
            Effect::LimitSlice(slice) => limits::begin_slice(self, &slice),
            Effect::Freeze { run, limit } => freezer::begin(self, run, true, limit),
            Effect::Thaw(run) => freezer::thaw(self, run),
            Effect::Checkpoint { run, component, after, limit } => {
                checkpoint::begin(self, run, component, after, limit);
            }
            Effect::Continue(run) => checkpoint::go_on(self, run),
            Effect::CancelProbe(probe) => health::cancel(self, probe),
            Effect::Terminate(run) => {
                let declared = self.started_with(run).and_then(|component| component.lifecycle.stop_signal);
                let signal = declared.map_or(nix::libc::SIGTERM, |signal| signal.0);
                if checkpoint::give_up_restore(self, run) {
                    return;
                }
                let given_up = self.processes.borrow_mut().terminate(run, signal);
                self.queue.borrow_mut().extend(given_up);
            }
            Effect::Kill(run) => {
                if checkpoint::give_up_restore(self, run) {
                    return;
                }
                checkpoint::call_off(self, run, "its process is being ended");
                let given_up = self.processes.borrow_mut().kill(run);
                self.queue.borrow_mut().extend(given_up);
            }
            Effect::Signal(run, signal) => self.processes.borrow().signal(run, signal.0),
            Effect::Forget(name) => {
                self.processes.borrow_mut().forget(&name);
                self.stores.forget(self, &name);
                output::remove(&self.state_dir, &name);
            }
            Effect::Reply(client, answer) => self.reply(client, answer),
            Effect::Reexecute(client) => self.reexec.ask(client),
            Effect::ReadFiles => {
                let changes = self.declarations.borrow_mut().read_all();
                self.queue.borrow_mut().push_back(Event::Files(changes));
            }
            Effect::Changed(record) => log_change(&record),
            Effect::Halt(halt) => {
                self.halt.set(Some(halt));
                self.halted.notify_one();
            }
        }
    }

    /// Answer a client, unless it went away in the meantime.
    pub fn reply(&self, client: ClientId, mut answer: Answer) {
        answer.set_origin(sys::origin_ms());
        if let Some(pending) = self.clients.borrow_mut().remove(&client) {
            pending.give(answer);
        }
    }

    /// The state of a component.
    pub fn state(&self, name: &str) -> State {
        self.engine.borrow().state(name)
    }

    /// The engine as data.
    pub fn snapshot(&self) -> Option<Snapshot> {
        Some(self.engine.try_borrow().ok()?.snapshot())
    }

    /// The declaration that a process was started with.
    pub fn started_with(&self, run: RunId) -> Option<Rc<Component>> {
        self.engine.borrow().started_with(run)
    }

    /// Components that start as soon as the one of this run is up; not more than `most` of them.
    pub fn followers(&self, run: RunId, most: usize) -> Vec<Rc<Component>> {
        self.engine.borrow().followers(run, most)
    }

    /// The slices that a component lies in, the outermost first.
    pub fn slices_around(&self, component: &Component) -> Vec<Rc<Component>> {
        self.engine.borrow().slices_around(component)
    }

    /// Whether nothing starts, stops or waits to become ready.
    pub fn is_settled(&self) -> bool {
        self.engine.borrow().is_settled()
    }

    /// See [`Engine::is_halting`].
    pub fn is_halting(&self) -> bool {
        self.engine.borrow().is_halting()
    }

    /// The journal's revision.
    pub fn revision(&self) -> u64 {
        self.engine.borrow().journal().revision()
    }

    /// A number for a client, and where its answer will be.
    pub fn next_client(&self) -> (ClientId, Rc<Pending>) {
        let client = ClientId(self.last_client.get() + 1);
        self.last_client.set(client.0);
        (client, Rc::default())
    }

    /// Ask on behalf of a client.
    pub fn request(self: &Rc<Self>, client: ClientId, pending: Rc<Pending>, peer: Peer, request: Request) {
        // What was written to a file before the request was sent counts for its answer.
        self.take_file_changes();
        if let Some(answer) = self.answer_from_here(peer, &request) {
            return pending.give(answer);
        }
        self.clients.borrow_mut().insert(client, pending);
        if checkpoint::verify_first(self, client, peer, &request) {
            return;
        }
        self.dispatch(Event::Request { client, peer, request });
    }

    /// The client is gone.
    pub fn forget_client(self: &Rc<Self>, client: ClientId) {
        if self.clients.borrow_mut().remove(&client).is_some() {
            self.dispatch(Event::ClientGone(client));
        }
    }

    /// The answer to a request that the engine has nothing to do with, unless it has to wait.
    fn answer_from_here(&self, peer: Peer, request: &Request) -> Option<Answer> {
        match request {
            Request::Log { name, lines, from } => Some(self.read_log(name, *lines, *from)),
            // Who may not ask for it is told so by the engine.
            Request::Kexec if self.config().is_privileged(peer.uid) => {
                let message = machine::kexec_refusal()?.to_owned();
                Some(Answer::Refused { message, near: Vec::new() })
            }
            Request::Wait { until: Until::Log { name, beyond }, .. } => {
                let engine = self.engine.borrow();
                let known = engine.state(name) != State::Removed;
                let grown = known && output::end(&self.state_dir, name).is_ok_and(|end| end != *beyond);
                let (message, revision) = ("the log goes on".to_owned(), engine.journal().revision());
                grown.then_some(Answer::Done { message, revision })
            }
            _ => None,
        }
    }

    fn read_log(&self, name: &str, lines: u32, from: Option<LogPosition>) -> Answer {
        let engine = self.engine.borrow();
        if engine.state(name) == State::Removed {
            return engine.unknown_component(name);
        }
        match output::read(&self.state_dir, name, lines, from) {
            Ok(text) => Answer::Log(text),
            Err(error) => Answer::Refused {
                message: format!("failed to read the log of {name}: {error}"),
                near: Vec::new(),
            },
        }
    }

    /// A component has written something; tell who waits for it.
    pub fn log_grew(self: &Rc<Self>, name: &Rc<str>) {
        if self.engine.borrow().awaits_log(name) {
            self.dispatch(Event::LogGrew(Rc::clone(name)));
        }
    }

    /// Act on the component files that changed since the last look. Whether there are more.
    pub fn take_file_changes(self: &Rc<Self>) -> bool {
        let polled = self.declarations.borrow_mut().poll();
        if !polled.changes.is_empty() {
            self.dispatch(Event::Files(polled.changes));
        }
        polled.more
    }

    /// Act on component files that came without an event.
    pub fn look_for_files_again(self: &Rc<Self>) {
        let changes = self.declarations.borrow_mut().look_again();
        if !changes.is_empty() {
            self.dispatch(Event::Files(changes));
        }
    }

    /// Read all component files again after a take-over.
    pub fn take_files_over(self: &Rc<Self>, known: &[String]) {
        let changes = self.declarations.borrow_mut().take_over(known);
        self.dispatch(Event::Files(changes));
    }

    /// Read all component files again.
    pub fn read_files(self: &Rc<Self>) {
        let changes = self.declarations.borrow_mut().read_all();
        self.dispatch(Event::Files(changes));
    }

    /// Write all states to the log.
    pub fn dump(&self) {
        let engine = self.engine.borrow();
        let mut after = None;
        loop {
            let page = engine.status_page(after.as_deref());
            for c in &page.components {
                let detail = c.detail.as_deref().unwrap_or("");
                info!("{} {} pid {:?} {detail}", c.name, c.state, c.pid);
            }
            after = page.next;
            if after.is_none() {
                let s = page.summary;
                info!(
                    "{} active, {} degraded, {} starting, {} failed, {} total",
                    s.active, s.degraded, s.starting, s.failed, s.total
                );
                return;
            }
        }
    }

    /// When the engine wants to be woken; never without a moment.
    pub fn wake_by(&self) -> Option<Duration> {
        self.engine.borrow().wake_by()
    }

    /// Until [`Self::wake_by`] may say something else.
    pub async fn wake_by_changed(&self) {
        self.timer.notified().await;
    }

    /// Have the engine do what is due. What that changes about the next moment is not told.
    pub fn tick(self: &Rc<Self>) {
        self.work_off(Event::Tick);
    }

    /// Until everything is stopped.
    pub async fn halted(&self) -> Halt {
        loop {
            if let Some(halt) = self.halt.get() {
                return halt;
            }
            self.halted.notified().await;
        }
    }
}

/// The components that may be upgraded because of an event.
fn upgraded_by(event: &Event) -> impl Iterator<Item = &str> {
    let (name, changes) = match event {
        Event::Request { request: Request::Upgrade { name, .. }, .. } => (Some(name.as_str()), &[][..]),
        Event::Files(changes) => (None, changes.as_slice()),
        _ => (None, &[][..]),
    };
    let declared = changes.iter().filter_map(|change| match &change.content {
        FileContent::Component(component) if component.hands_over() => Some(component.name.as_str()),
        _ => None,
    });
    name.into_iter().chain(declared)
}

/// What an operator reads in the log: failures, and what follows from them. The rest is in the
/// journal.
fn log_change(record: &Record) {
    let (name, cause) = (&record.component, &record.cause);
    match record.to {
        State::Degraded => warn!("{name} DEGRADED: {cause}"),
        State::Active if record.from == State::Degraded => info!("{name} ACTIVE: {cause}"),
        State::Failed => warn!("{name} FAILED: {cause}"),
        State::Backoff => error!("{name}: {cause}"),
        State::Cycle => error!("{name} can never start: {cause}"),
        State::Removed => info!("{name} removed"),
        _ => {}
    }
}
