//! Clients: they start and stop what others want, ask, wait, go away, and some may not at all.

use crate::component::Strategy;
use crate::control::{LogPosition, Request, Until};
use crate::engine::{ClientId, Event, Halt, Peer};
use crate::journal::State;
use crate::sim::world::{Step, World};

/// Clients of root that wait at the same time, at most: below the engine's limit, so that a change
/// that root asks for is never refused for want of a place.
const OPEN_LIMIT: usize = 120;

/// The first user id of those who may not change anything, and how many there are.
const STRANGER: u32 = 1000;
const STRANGERS: u64 = 3;

/// Revisions before and after the newest from which news are asked for, at most.
const NEWS_BEHIND: u64 = 6;
const NEWS_AHEAD: u64 = 4;

/// A place in a log. The fake world has no files: a log has grown when it says so.
const BEYOND: LogPosition = LogPosition { inode: 1, born_ns: 1, offset: 1 };

/// Clients that have no answer yet.
#[derive(Debug, Default)]
pub(in crate::sim) struct Clients {
    last: u64,
    open: Vec<ClientId>,
}

impl Clients {
    /// Those that have no answer yet.
    pub(in crate::sim) fn open(&self) -> impl Iterator<Item = ClientId> {
        self.open.iter().copied()
    }

    /// A client has its answer, or has gone.
    pub(in crate::sim) fn leave(&mut self, client: ClientId) {
        self.open.retain(|open| *open != client);
    }
}

impl World {
    /// Send a request.
    pub(in crate::sim) fn ask(&mut self, uid: u32, request: Request) -> Step {
        if self.clients.open.len() >= OPEN_LIMIT {
            self.hang_up()?;
        }
        self.clients.last += 1;
        let client = ClientId(self.clients.last);
        self.clients.open.push(client);
        if uid == 0 {
            self.foresee(&request);
        }
        self.give(Event::Request { client, peer: Peer::new(uid, 1), request })
    }

    /// What a request will have changed, whatever is answered.
    fn foresee(&mut self, request: &Request) {
        let (name, held) = match request {
            Request::Stop { name, .. } => (name, true),
            Request::Start { name, .. } | Request::Restart { name, .. } | Request::Restore { name, .. }
                if self.model.halting.is_none() =>
            {
                (name, false)
            }
            // One that is refused for its way changes nothing.
            Request::Upgrade { name, fallback, strategy, .. }
                if self.model.halting.is_none()
                    && (*fallback || !self.model.hands_over(name))
                    && self.model.may_be(name, *strategy) =>
            {
                (name, false)
            }
            Request::Poweroff => return self.model.begin_halt(Halt::PowerOff),
            Request::Reboot => return self.model.begin_halt(Halt::Reboot),
            Request::Kexec => return self.model.begin_halt(Halt::Kexec),
            _ => return,
        };
        let number = self.model.number(name);
        if let Some(slot) = number.map(|number| &mut self.model.slots[number])
            && slot.state != State::Removed
        {
            slot.held = held;
        }
    }

    fn some_name(&mut self) -> String {
        let number = self.random.below(self.model.slots.len() as u64) as usize;
        self.model.slots[number].name.to_string()
    }

    fn some_limit(&mut self) -> Option<u64> {
        self.random.percent(50).then(|| 1 << self.random.below(15))
    }

    /// Start, stop, restart and the like.
    pub(super) fn ask_for_change(&mut self) -> Step {
        let stranger = self.random.percent(self.options.strangers);
        let uid = if stranger { STRANGER + self.random.below(STRANGERS) as u32 } else { 0 };
        let (name, timeout_ms) = (self.some_name(), self.some_limit());
        let request = match self.random.below(12) {
            0..3 => Request::Stop { name, timeout_ms },
            3..6 => Request::Start { name, timeout_ms },
            6..8 => Request::Restart { name, timeout_ms },
            8 => Request::Reload { name: Some(name) },
            9..11 => Request::Upgrade {
                name,
                fallback: self.random.percent(70),
                queue: self.random.percent(30),
                strategy: self.some_strategy(),
                timeout_ms,
            },
            _ => Request::Resolve,
        };
        self.ask(uid, request)
    }

    /// Upgrade a component that runs and can hand over.
    pub(super) fn ask_for_upgrade(&mut self) -> Step {
        let able = self.model.processes().filter(|(_, process)| process.declared.component.hands_over());
        let able: Vec<usize> = able.map(|(number, _)| number).collect();
        let Some(number) = able.get(self.random.below(able.len() as u64) as usize) else { return Ok(()) };
        let name = self.model.slots[*number].name.to_string();
        let (fallback, queue) = (self.random.percent(50), self.random.percent(50));
        let (strategy, timeout_ms) = (self.some_strategy(), self.some_limit());
        self.ask(0, Request::Upgrade { name, fallback, queue, strategy, timeout_ms })
    }

    fn some_strategy(&mut self) -> Option<Strategy> {
        let canary = self.random.percent(self.options.canaries);
        let chosen = if canary { Strategy::Canary } else { Strategy::AllAtOnce };
        self.random.percent(50).then_some(chosen)
    }

    /// Look at something.
    pub(super) fn ask_a_question(&mut self) -> Step {
        let uid = STRANGER + self.random.below(STRANGERS) as u32;
        let request = match self.random.below(7) {
            0 => Request::Status { name: None, after: None },
            4 => Request::Why { name: self.some_name(), from: None },
            1 => Request::Status { name: Some(self.some_name()), after: None },
            2 => Request::Graph { after: None },
            5 => Request::Readiness { name: None, after: None },
            6 => Request::Readiness { name: Some(self.some_name()), after: None },
            _ => Request::Events { since: self.random.below(200) },
        };
        self.ask(uid, request)
    }

    /// Wait for something that may never come.
    pub(super) fn ask_to_wait(&mut self) -> Step {
        let strange = self.random.percent(50);
        let uid = if strange { STRANGER + self.random.below(STRANGERS) as u32 } else { 0 };
        let until = match self.random.below(7) {
            0 => Until::Settled,
            1 => Until::Rejected { file: format!("{}.toml", self.some_name()) },
            2 => Until::Log { name: self.some_name(), beyond: BEYOND },
            3 | 4 => self.some_news(),
            _ => Until::State {
                name: self.some_name(),
                state: State::ALL[self.random.below(State::ALL.len() as u64) as usize],
                since: self.random.percent(30).then(|| self.random.below(100)),
            },
        };
        let timeout_ms = self.some_limit();
        self.ask(uid, Request::Wait { until, timeout_ms })
    }

    /// News from about now on: the next, the last, or one that is long to come.
    fn some_news(&mut self) -> Until {
        let name = self.random.percent(60).then(|| self.some_name());
        let newest = self.engine.journal().revision();
        let since = (newest + self.random.below(NEWS_AHEAD)).saturating_sub(self.random.below(NEWS_BEHIND));
        Until::Changed { name, since }
    }

    /// A component writes something.
    pub(super) fn write_to_a_log(&mut self) -> Step {
        let name = self.some_name();
        self.give(Event::LogGrew(name.into()))
    }

    /// A client that waits goes away.
    pub(super) fn hang_up(&mut self) -> Step {
        let at = self.random.below(self.clients.open.len() as u64) as usize;
        let Some(client) = self.clients.open.get(at).copied() else { return Ok(()) };
        self.clients.leave(client);
        self.give(Event::ClientGone(client))
    }
}
