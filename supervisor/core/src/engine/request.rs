//! Requests of clients, and the clients that wait for something to become true.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checkpoint::Restore;
use super::interface::shown;
use super::timers::{Due, TimerKey};
use super::unit::{AfterStop, Unit};
use super::upgrade::{NextUpgrade, Upgrade, Wish};
use super::{ClientId, Effect, Engine, Halt, Input, Peer, RunId};
use crate::component::keys::nearest;
use crate::component::{KERNEL, Kind};
use crate::control::{Answer, Request, Until};
use crate::journal::{Cause, State};
use crate::mutation::{Mutation, broken};

/// The most clients that may wait at a time. Each costs a connection and a look at every change;
/// a machine with more than this has a client that leaks them.
pub const WAITER_LIMIT: usize = 256;

/// Places among them that only root and the owner may take: nobody else's waits lock them out.
pub const WAITERS_RESERVED: usize = 64;

/// The most that one other user may have, so that users do not lock each other out.
pub const WAITERS_PER_USER: usize = 16;

/// Time after a reload signal in which a component that has a `NOTIFY_SOCKET` may announce its
/// reload (`RELOADING=1`). One that does is answered for when it says `READY=1`, within its
/// readiness limit; for one that does not, the signal is all that can be told.
pub const RELOAD_NOTICE: Duration = Duration::from_secs(1);

/// The longest wait that can be asked for: a day. It keeps sums on the clock in range.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The same for users other than root and the owner, who also get it when they name no limit:
/// a place that somebody else's client forgot is free again within the hour.
const LONGEST_WAIT_OF_OTHERS: Duration = Duration::from_secs(3600);

/// Providers of a capability that are named to who took it for a component.
const PROVIDERS_SHOWN: usize = 4;

/// What a client waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Goal {
    Until(Until),
    /// It runs, with another process than this.
    Running {
        name: Rc<str>,
        not: Option<RunId>,
    },
    /// The same, as an upgrade.
    Upgraded(Upgrade),
    /// The upgrade before is over, and this one can begin.
    NextUpgrade(NextUpgrade),
    /// The hot swap to this process is over.
    HandedOver {
        name: Rc<str>,
        run: RunId,
    },
    /// The checkpoint of this process is made.
    Checkpointed {
        name: Rc<str>,
        run: RunId,
    },
    /// This process goes on, as another one if it was written down for that.
    Moved {
        name: Rc<str>,
        run: RunId,
    },
    /// It runs, with another process, made from a checkpoint if that can be.
    Restored(Restore),
    /// This process of it is gone, whether another has followed or not.
    Stopped {
        name: Rc<str>,
        run: Option<RunId>,
    },
    /// All of this process's component is frozen.
    Frozen {
        name: Rc<str>,
        run: RunId,
    },
    /// It is thawed, or gone.
    Thawed {
        name: Rc<str>,
        run: RunId,
    },
    /// This process of it, which got its reload signal then, has reloaded.
    Reloaded {
        name: Rc<str>,
        run: RunId,
        sent: Duration,
    },
}

impl Goal {
    /// Whether it waits for the hot swap to this process.
    pub(super) fn is_handover(&self, to: RunId) -> bool {
        matches!(self, Self::HandedOver { run, .. } if *run == to)
    }

    fn is_log_of(&self, component: &str) -> bool {
        matches!(self, Self::Until(Until::Log { name, .. }) if name == component)
    }

    /// No record up to this revision reaches it: only newer ones are looked at the next time.
    fn seen(&mut self, revision: u64) {
        if let Self::Until(Until::State { since: Some(since), .. } | Until::Changed { since, .. }) = self {
            *since = (*since).max(revision);
        }
    }
}

/// A client whose answer is due when its goal is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub(super) client: ClientId,
    pub(super) uid: u32,
    pub(super) goal: Goal,
    pub(super) timer: Option<TimerKey>,
    /// The state of the files in which it was not reached.
    #[serde(skip)]
    files: Option<u64>,
}

impl Engine {
    pub(super) fn take_request(&mut self, client: ClientId, peer: Peer, request: Request) {
        if request.is_privileged() && !self.config.is_privileged(peer.uid) {
            let message = format!("{} is only for root; you are uid {}", request.verb(), peer.uid);
            return self.refuse(client, message);
        }
        // Before anything is done: what was done must not be answered with a refusal.
        if request.may_wait()
            && let Err(message) = self.admit_waiter(peer.uid)
        {
            return self.refuse(client, message);
        }
        let comm = peer.comm.as_ref().map(shown);
        let cause = Cause::Request { verb: request.verb().into(), uid: peer.uid, pid: peer.pid, comm };
        match request {
            Request::Status { name, after } => self.show_status(client, name, after.as_deref()),
            Request::Graph { after } => {
                let page = self.graph_page(after.as_deref());
                self.reply(client, Answer::Graph(page));
            }
            Request::Events { since } => {
                let page = self.events_page(since);
                self.reply(client, Answer::Events(page));
            }
            Request::Why { name, from } => match self.why_page(&name, from) {
                Some(page) => self.reply(client, Answer::Why(page)),
                None => self.unknown(client, &name),
            },
            Request::Start { name, timeout_ms } => self.start(client, peer.uid, &name, timeout_ms, cause),
            Request::Stop { name, timeout_ms } => self.stop(client, peer.uid, &name, timeout_ms, cause),
            Request::Restart { name, timeout_ms } => {
                self.restart(client, peer.uid, &name, timeout_ms, cause);
            }
            Request::Upgrade { name, fallback, queue, strategy, timeout_ms } => {
                let wish = Wish { fallback, queue, strategy, timeout_ms };
                self.upgrade(client, peer.uid, &name, wish, cause);
            }
            Request::Freeze { name, timeout_ms } => {
                self.freeze(client, peer.uid, &name, timeout_ms, cause);
            }
            Request::Thaw { name } => self.thaw(client, peer.uid, &name, cause),
            Request::Readiness { name, after } => {
                self.show_readiness(client, name.as_deref(), after.as_deref());
            }
            Request::Slices { after } => {
                let page = self.slices_page(after.as_deref());
                self.reply(client, Answer::Slices(page));
            }
            Request::Declaration { name } => match self.declaration(&name) {
                Some(declaration) => self.reply(client, Answer::Declaration(Box::new(declaration))),
                None => self.unknown(client, &name),
            },
            Request::Reload { name: Some(name) } => self.reload(client, peer.uid, &name),
            Request::Reload { name: None } => {
                self.effects.push(Effect::ReadFiles);
                self.done(client, "declarations are read again");
            }
            Request::Resolve => {
                self.resolve(&cause);
                self.done(client, "resolved");
            }
            Request::Wait { until, timeout_ms } => {
                self.wait(client, peer.uid, Goal::Until(until), timeout_ms);
            }
            Request::Log { .. } => {
                // The performer answers this one: the core has no files.
                self.refuse(client, "the log is not kept here".to_owned());
            }
            Request::Checkpoint { name, after, timeout_ms } => {
                self.checkpoint(client, peer.uid, &name, after, timeout_ms, cause);
            }
            Request::Restore { name, id, fallback, timeout_ms } => {
                let what = (name.as_str(), id.as_deref());
                self.restore_request(client, peer.uid, what, fallback, timeout_ms, cause);
            }
            Request::Continue => self.continue_all(client, &cause),
            Request::Reexec if self.halting.is_some() => {
                self.refuse(client, "everything is being stopped".to_owned());
            }
            Request::Reexec => self.effects.push(Effect::Reexecute(client)),
            Request::Poweroff => self.halt_by_request(client, Halt::PowerOff, &cause),
            Request::Reboot => self.halt_by_request(client, Halt::Reboot, &cause),
            Request::Kexec => self.halt_by_request(client, Halt::Kexec, &cause),
        }
    }

    pub(super) fn reply(&mut self, client: ClientId, answer: Answer) {
        if broken(Mutation::LoseAnswer) && matches!(answer, Answer::TimedOut { .. }) {
            return;
        }
        if broken(Mutation::AnswerTwice) && matches!(answer, Answer::Refused { .. }) {
            self.effects.push(Effect::Reply(client, answer.clone()));
        }
        self.effects.push(Effect::Reply(client, answer));
    }

    pub(super) fn done(&mut self, client: ClientId, message: impl Into<String>) {
        let revision = self.journal.revision();
        let message = message.into();
        self.reply(client, Answer::Done { message, revision });
    }

    pub(super) fn refuse(&mut self, client: ClientId, message: String) {
        let near = Vec::new();
        self.reply(client, Answer::Refused { message, near });
    }

    fn halt_by_request(&mut self, client: ClientId, halt: Halt, cause: &Cause) {
        self.done(client, "stopping everything");
        self.begin_halt(halt, cause);
    }

    fn show_status(&mut self, client: ClientId, name: Option<String>, after: Option<&str>) {
        let page = match name {
            None => self.status_page(after),
            Some(name) => match self.find(&name) {
                Some(unit) => self.status_of(unit),
                None => return self.unknown(client, &name),
            },
        };
        self.reply(client, Answer::Status(page));
    }

    /// Refuse a name that is not declared, with the nearest that is.
    pub(super) fn unknown(&mut self, client: ClientId, name: &str) {
        let answer = self.unknown_component(name);
        self.reply(client, answer);
    }

    /// The refusal of a name that is not declared, with the nearest that is.
    pub fn unknown_component(&self, name: &str) -> Answer {
        if name == KERNEL {
            return Answer::Refused {
                message: "`kernel` stands for the kernel itself and has no process".to_owned(),
                near: Vec::new(),
            };
        }
        let providers = self.graph.cap(name).map_or(&[][..], |cap| self.graph.providers(cap));
        let providers = providers.iter().filter_map(|id| self.unit(*id));
        let providers: Vec<_> = providers.map(|unit| unit.name.to_string()).take(PROVIDERS_SHOWN).collect();
        if !providers.is_empty() {
            let message = format!("{name:?} is no component but a capability of {}", providers.join(", "));
            return Answer::Refused { message, near: providers };
        }
        let near = nearest(name, self.names.keys().map(|name| &**name));
        let near: Vec<_> = near.into_iter().map(str::to_owned).collect();
        let message = format!("no component is named {name:?}");
        Answer::Refused { message, near }
    }

    fn start(&mut self, client: ClientId, uid: u32, name: &str, timeout_ms: Option<u64>, cause: Cause) {
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        if self.halting.is_some() {
            return self.refuse(client, "everything is being stopped".to_owned());
        }
        if let Some(unit) = self.unit_mut(id) {
            unit.held = false;
            unit.forgive();
            // What is stopped for want of memory, and would stay so, is asked for by this.
            if matches!(unit.after_stop, AfterStop::Restart(Cause::OutOfMemory(_))) {
                unit.after_stop = AfterStop::Rest;
            }
        }
        self.allow_new_start(id);
        self.feed(id, Input::Start, cause);
        self.refresh_may_rise(id);
        let name = name.into();
        self.wait(client, uid, Goal::Running { name, not: None }, timeout_ms);
    }

    fn stop(&mut self, client: ClientId, uid: u32, name: &str, timeout_ms: Option<u64>, cause: Cause) {
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        unit.held = true;
        unit.wanted = None;
        let run = unit.process.as_ref().map(|process| process.run);
        self.feed(id, Input::Stop, cause);
        self.refresh_may_rise(id);
        let name = name.into();
        self.wait(client, uid, Goal::Stopped { name, run }, timeout_ms);
    }

    fn restart(&mut self, client: ClientId, uid: u32, name: &str, timeout_ms: Option<u64>, cause: Cause) {
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        if self.halting.is_some() {
            return self.refuse(client, "everything is being stopped".to_owned());
        }
        let not = self.renew(id, cause);
        let name = name.into();
        self.wait(client, uid, Goal::Running { name, not }, timeout_ms);
    }

    pub(super) fn refresh_may_rise(&mut self, id: crate::graph::NodeId) {
        let may_rise = self.unit(id).is_some_and(Unit::may_rise) && self.halting.is_none();
        self.graph.set_may_rise(id, may_rise);
    }

    fn reload(&mut self, client: ClientId, uid: u32, name: &str) {
        let Some(unit) = self.find(name) else {
            return self.unknown(client, name);
        };
        let Some(signal) = unit.component.lifecycle.reload_signal else {
            let message = format!("{name} declares no reload_signal; restart it instead");
            return self.refuse(client, message);
        };
        let Some(process) = &unit.process else {
            return self.refuse(client, format!("{name} is not running"));
        };
        if process.freezer.is_some() {
            return self.refuse(client, format!("{name} is frozen; thaw it first: graphctl thaw {name}"));
        }
        if let Some(message) = self.names.get(name).and_then(|id| self.dump_refusal(*id)) {
            return self.refuse(client, message);
        }
        let (run, tells) = (process.run, process.component.has_notify_socket());
        self.effects.push(Effect::Signal(run, signal));
        if !tells {
            return self.done(client, format!("sent {signal} to {name}"));
        }
        let goal = Goal::Reloaded { name: name.into(), run, sent: self.now };
        let timer = Some(self.timers.arm(self.now + RELOAD_NOTICE, Due::Client(client)));
        self.waiters.push(Waiter { client, uid, goal, timer, files: None });
    }

    /// Whether there is a place for one more wait of this user; if not, why.
    fn admit_waiter(&self, uid: u32) -> Result<(), String> {
        let waiting = self.waiters.len();
        if self.config.is_privileged(uid) {
            return if waiting < WAITER_LIMIT {
                Ok(())
            } else {
                Err(format!("{WAITER_LIMIT} clients wait already"))
            };
        }
        let own = self.waiters.iter().filter(|waiter| waiter.uid == uid).count();
        let others = self.waiters.iter().filter(|w| !self.config.is_privileged(w.uid)).count();
        if own >= WAITERS_PER_USER {
            Err(format!("{own} clients of uid {uid} wait already"))
        } else if others >= WAITER_LIMIT - WAITERS_RESERVED || waiting >= WAITER_LIMIT {
            Err(format!("{waiting} clients wait already"))
        } else {
            Ok(())
        }
    }

    pub(super) fn wait(&mut self, client: ClientId, uid: u32, goal: Goal, timeout_ms: Option<u64>) {
        let asked = timeout_ms.map(Duration::from_millis);
        let limit = if self.config.is_privileged(uid) {
            asked.map(|limit| limit.min(LONGEST_WAIT))
        } else {
            Some(asked.unwrap_or(LONGEST_WAIT_OF_OTHERS).min(LONGEST_WAIT_OF_OTHERS))
        };
        let timer = limit.map(|limit| self.timers.arm(self.now + limit, Due::Client(client)));
        self.waiters.push(Waiter { client, uid, goal, timer, files: None });
    }

    /// The client no longer waits.
    pub(super) fn forget_waiter(&mut self, client: ClientId) {
        if let Some(at) = self.waiters.iter().position(|w| w.client == client)
            && let Some(timer) = self.waiters.swap_remove(at).timer
        {
            self.timers.disarm(timer);
        }
    }

    /// Whether a client waits for something new in the log of a component.
    pub fn awaits_log(&self, component: &str) -> bool {
        self.waiters.iter().any(|waiter| waiter.goal.is_log_of(component))
    }

    /// Answer the clients that wait for something new in the log of a component.
    pub(super) fn answer_readers(&mut self, component: &str) {
        let readers = self.waiters.iter().filter(|waiter| waiter.goal.is_log_of(component));
        let readers: Vec<_> = readers.map(|waiter| waiter.client).collect();
        for client in readers.into_iter().filter(|_| !broken(Mutation::ForgetReaders)) {
            self.forget_waiter(client);
            self.done(client, "the log has grown");
        }
    }

    /// Refuse every client with such a goal.
    pub(super) fn refuse_all(&mut self, which: impl Fn(&Goal) -> bool, message: &str) {
        let asked = self.waiters.iter().filter(|waiter| which(&waiter.goal)).map(|waiter| waiter.client);
        for client in asked.collect::<Vec<_>>() {
            self.forget_waiter(client);
            self.refuse(client, message.to_owned());
        }
    }

    /// Answer every client with such a goal.
    pub(super) fn answer_all(&mut self, which: impl Fn(&Goal) -> bool, answer: &Answer) {
        let asked = self.waiters.iter().filter(|waiter| which(&waiter.goal)).map(|waiter| waiter.client);
        for client in asked.collect::<Vec<_>>() {
            self.forget_waiter(client);
            self.reply(client, answer.clone());
        }
    }

    /// Every client with such a goal waits for another one.
    pub(super) fn change_goals(&mut self, which: impl Fn(&Goal) -> bool, goal: &Goal) {
        for waiter in self.waiters.iter_mut().filter(|waiter| which(&waiter.goal)) {
            waiter.goal = goal.clone();
        }
    }

    /// Answer every client whose goal is reached, or out of reach.
    pub(super) fn answer_waiters(&mut self) {
        let (revision, files) = (self.journal.revision(), self.files.changes());
        let mut at = 0;
        while let Some(waiter) = self.waiters.get(at) {
            let answer = if self.may_be_reached(waiter) { self.judge(&waiter.goal) } else { None };
            if let Some(answer) = answer {
                let Waiter { client, timer, goal, .. } = self.waiters.remove(at);
                if let Some(timer) = timer {
                    self.timers.disarm(timer);
                }
                if let (Goal::Restored(restore), Answer::Refused { .. }) = (&goal, &answer) {
                    self.forget_wanted(&restore.name);
                }
                self.reply(client, answer);
            } else {
                let waiter = &mut self.waiters[at];
                waiter.goal.seen(revision);
                waiter.files = Some(files);
                at += 1;
            }
        }
    }

    /// Whether a goal can be reached that was not the last time. To look at all files for each that waits, with every
    /// event, would let anybody make all of them slow.
    pub(super) fn may_be_reached(&self, waiter: &Waiter) -> bool {
        match waiter.goal {
            Goal::Until(Until::Rejected { .. }) => waiter.files != Some(self.files.changes()),
            _ => true,
        }
    }

    /// A client has waited as long as it wanted.
    pub(super) fn expire_waiter(&mut self, client: ClientId) {
        let Some(at) = self.waiters.iter().position(|w| w.client == client) else {
            return;
        };
        if let Some(rest) = self.rest_of_reload(&self.waiters[at].goal) {
            let timer = self.timers.arm(self.now + rest, Due::Client(client));
            self.waiters[at].timer = Some(timer);
            return;
        }
        let waiter = self.waiters.swap_remove(at);
        let answer = self.judge(&waiter.goal).unwrap_or(Answer::TimedOut {
            message: format!("timed out: {}", self.standing(&waiter.goal)),
            revision: self.journal.revision(),
            near: self.near_goal(&waiter.goal),
        });
        self.reply(client, answer);
    }

    /// What may have been meant by the name of a component that never came.
    fn near_goal(&self, goal: &Goal) -> Vec<String> {
        match goal {
            Goal::Until(Until::State { name, .. }) if self.find(name).is_none() => {
                match self.unknown_component(name) {
                    Answer::Refused { near, .. } => near,
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    /// The time that an announced reload still has.
    fn rest_of_reload(&self, goal: &Goal) -> Option<Duration> {
        let Goal::Reloaded { name, sent, .. } = goal else {
            return None;
        };
        let unit = self.find(name)?;
        let began = unit.process.as_ref()?.said.reloading?;
        let end = sent.saturating_add(unit.component.lifecycle.readiness_timeout);
        let rest = end.saturating_sub(self.now);
        (began >= *sent && !rest.is_zero()).then_some(rest)
    }

    /// What holds instead of a goal.
    fn standing(&self, goal: &Goal) -> String {
        match goal {
            Goal::Until(Until::State { name, .. }) => self.describe(name),
            Goal::Upgraded(upgrade) => self.describe(&upgrade.name),
            Goal::NextUpgrade(next) => self.describe(&next.name),
            Goal::Restored(restore) => self.describe(&restore.name),
            Goal::HandedOver { name, .. }
                if self.find(name).is_some_and(|unit| unit.handover.is_on_probation()) =>
            {
                format!("the new process of {name} serves and is still on probation")
            }
            Goal::HandedOver { name, .. }
                if self.find(name).is_some_and(|unit| unit.handover.is_canary()) =>
            {
                format!("the new process of {name} serves new connections and is still a canary")
            }
            Goal::Running { name, .. }
            | Goal::HandedOver { name, .. }
            | Goal::Checkpointed { name, .. }
            | Goal::Moved { name, .. }
            | Goal::Stopped { name, .. }
            | Goal::Frozen { name, .. }
            | Goal::Thawed { name, .. }
            | Goal::Reloaded { name, .. } => self.describe(name),
            Goal::Until(Until::Rejected { file }) => format!("{file} is not rejected"),
            Goal::Until(Until::Log { name, .. }) => format!("{name} wrote nothing"),
            Goal::Until(Until::Changed { since, .. }) => format!("nothing is newer than revision {since}"),
            Goal::Until(Until::Settled) => {
                let mut moving = self.units.iter().flatten();
                let moving = moving.by_ref().filter(|unit| !unit.state.is_resting());
                let names: Vec<_> =
                    moving.take(4).map(|unit| format!("{} is {}", unit.name, unit.state)).collect();
                format!("{} not at rest: {}", self.moving(), names.join(", "))
            }
        }
    }

    /// A component's state and why, in words.
    pub(super) fn describe(&self, name: &str) -> String {
        let Some(unit) = self.find(name) else {
            return format!("{name} is not declared");
        };
        match self.detail(unit) {
            Some(detail) => format!("{name} is {}: {detail}", unit.state),
            None => format!("{name} is {}", unit.state),
        }
    }

    /// The answer to a waiting client, if it is time for one.
    fn judge(&self, goal: &Goal) -> Option<Answer> {
        let done = |message: String, revision| Some(Answer::Done { message, revision });
        let now = self.journal.revision();
        match goal {
            Goal::Until(Until::State { name, state, since: Some(since) }) => {
                let revision = self.journal.entered(name, *state, *since)?;
                done(format!("{name} became {state}"), revision)
            }
            Goal::Until(Until::State { name, state, .. }) => (self.state(name) == *state)
                .then(|| self.describe(name))
                .and_then(|message| done(message, now)),
            // The performer has the files, and sees when they grow.
            Goal::Until(Until::Log { name, .. }) => {
                self.find(name).is_none().then(|| self.unknown_component(name))
            }
            Goal::Until(Until::Changed { name, since }) => {
                let newest = name.as_ref().map_or(now, |name| self.newest_since(name, *since));
                let newer = newest > *since && !broken(Mutation::MissNews);
                newer.then(|| "changed".to_owned()).and_then(|message| done(message, newest))
            }
            Goal::Until(Until::Settled) => {
                (self.moving() == 0).then(|| "settled".to_owned()).and_then(|message| done(message, now))
            }
            Goal::Until(Until::Rejected { file }) => self
                .files
                .is_rejected(file)
                .then(|| format!("{file} is rejected"))
                .and_then(|message| done(message, now)),
            Goal::Running { name, not } => self.judge_running(name, *not),
            Goal::Upgraded(upgrade) => self.judge_upgrade(upgrade),
            // Answered where it ends.
            Goal::HandedOver { .. } | Goal::NextUpgrade(_) => None,
            Goal::Reloaded { name, run, sent } => self.judge_reloaded(name, *run, *sent),
            Goal::Frozen { name, run } => self.judge_frozen(name, *run),
            Goal::Thawed { name, run } => self.judge_thawed(name, *run),
            Goal::Checkpointed { name, run } => self.judge_checkpointed(name, *run),
            Goal::Moved { name, run } => self.judge_moved(name, *run),
            Goal::Restored(restore) => self.judge_restored(restore),
            Goal::Stopped { name, run } => {
                let process = self.find(name).and_then(|unit| unit.process.as_ref());
                let gone = process.is_none_or(|process| Some(process.run) != *run);
                let gone = gone || broken(Mutation::AnswerEarly);
                gone.then(|| format!("{name} is stopped")).and_then(|message| done(message, now))
            }
        }
    }

    /// The revision of a component's newest change; 0 when none is known.
    pub(super) fn newest_revision(&self, name: &str) -> u64 {
        match self.find(name) {
            Some(unit) => unit.revision,
            None => self.journal.newest_of(name).map_or(0, |record| record.revision),
        }
    }

    /// The same if it is newer than a revision; otherwise that, or an older one.
    fn newest_since(&self, name: &str, since: u64) -> u64 {
        if let Some(unit) = self.find(name) {
            return unit.revision;
        }
        // Of one that is gone only its records tell, and the old ones were looked at before.
        let own = self.journal.since(since).filter(|record| &*record.component == name);
        own.last().map_or(since, |record| record.revision)
    }

    fn judge_reloaded(&self, name: &str, run: RunId, sent: Duration) -> Option<Answer> {
        let unit = self.find(name);
        let process = unit.and_then(|unit| unit.process.as_ref()).filter(|process| process.run == run);
        let Some(process) = process else {
            let message = format!("{name} ended before it had reloaded");
            let near = Vec::new();
            return Some(Answer::Refused { message, near });
        };
        let said = &process.said;
        let since = |began: Option<Duration>| began.is_some_and(|began| began >= sent);
        let message = if since(said.reloaded) {
            format!("{name} has reloaded")
        } else if !since(said.reloading) && self.now.saturating_sub(sent) >= RELOAD_NOTICE {
            format!("{name} got its reload signal and announced no reload (RELOADING=1)")
        } else {
            return None;
        };
        Some(Answer::Done { message, revision: self.journal.revision() })
    }

    pub(super) fn judge_running(&self, name: &str, not: Option<RunId>) -> Option<Answer> {
        let refused = |message: String| {
            let near = Vec::new();
            Some(Answer::Refused { message, near })
        };
        let Some(unit) = self.find(name) else {
            return refused(format!("{name} is no longer declared"));
        };
        let run = unit.process.as_ref().map(|process| process.run);
        let renewed = not.is_none() || run != not;
        match unit.state {
            State::Active | State::Degraded | State::Done if renewed => Some(Answer::Done {
                message: match (unit.component.kind, run) {
                    (Kind::Oneshot, _) => format!("{name} is done"),
                    _ if unit.is_frozen() => format!("{name} runs and is frozen: graphctl thaw {name}"),
                    _ => format!("{name} is running"),
                },
                revision: self.journal.revision(),
            }),
            State::Failed | State::Backoff | State::Cycle if renewed => refused(self.describe(name)),
            State::Inactive if self.halting.is_some() => refused("everything is being stopped".to_owned()),
            State::Inactive => {
                let id = *self.names.get(name)?;
                // A ring of alternative providers may keep each other's hope (see `graph::places`): once everything rests,
                // nobody comes up by itself any more.
                let all_rest = self.moving() == 0 && self.seconds.is_empty();
                if self.graph.has_hope(id) && !all_rest {
                    return None;
                }
                refused(self.describe(name))
            }
            _ => None,
        }
    }
}
