//! The actions of the table, and what carries a change on to others.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use super::checkpoint::{From, Restoring};
use super::timers::Due;
use super::unit::{AfterStop, Process, Unit};
use super::{Action, Effect, Engine, Halt, Halting, Input, Place, RunId, decide};
use crate::checkpoint::Origin;
use crate::component::{KERNEL, Kind, Readiness, Signal};
use crate::graph::{CapId, Level, NodeId};
use crate::journal::{Cause, Record, State};
use crate::mutation::{Mutation, broken};

/// After a kill, the time until it is tried again. A process that outlives it hangs in the
/// kernel; nothing else is started in its place, and it is killed again now and then.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// The longest that an orderly shutdown may take before everything left is killed: several
/// layers of the default grace, and less than what people wait for before they cut the power.
pub(super) const HALT_LIMIT: Duration = Duration::from_secs(60);

/// After the kill at the end of [`HALT_LIMIT`], the time until the machine goes down regardless.
const HALT_PATIENCE: Duration = Duration::from_secs(5);

/// How a process is told to end. One that its watchdog has given up may hang and not hear SIGTERM, and what it
/// hangs in is worth a core: it is aborted. SIGTERM as well would cut a handler short that writes down where.
pub(super) fn word_of_end(unit: &Unit, run: RunId) -> Effect {
    match unit.after_stop {
        AfterStop::Restart(Cause::WatchdogExpired { .. } | Cause::WatchdogTriggered) => {
            Effect::Signal(run, Signal::ABORT)
        }
        _ => Effect::Terminate(run),
    }
}

/// What a component in a state grants.
pub(super) fn level_of(state: State) -> Level {
    match state {
        State::Active | State::Done => Level::Up,
        State::Degraded => Level::Degraded,
        _ => Level::Down,
    }
}

impl Engine {
    /// Look an input up in the table and act.
    pub(super) fn feed(&mut self, id: NodeId, input: Input, cause: Cause) {
        let Some(unit) = self.unit(id) else {
            return;
        };
        match decide(unit.state, input) {
            Action::Keep => {}
            Action::Degrade | Action::Condemn if unit.handover.blames_new(&cause) => {
                self.fail_probation(id, &cause);
            }
            Action::Launch => self.launch(id, cause),
            Action::Advance => self.advance(id, cause),
            Action::Activate => self.activate(id, cause),
            Action::Refuse => self.fail_with_pause(id, cause),
            Action::Overdue => self.terminate(id, AfterStop::Fail(cause.clone()), cause),
            Action::Finish => self.finish(id, cause),
            Action::Terminate if input == Input::Renew && broken(Mutation::StartBeforeEnd) => {
                self.launch(id, cause);
            }
            Action::Terminate => self.terminate(id, AfterStop::Rest, cause),
            Action::Kill => self.kill(id),
            Action::Settle => self.settle_stop(id, cause),
            Action::Rest => self.rest(id, cause),
            Action::Probe => self.probe(id),
            Action::Recover => self.enter(id, State::Active, cause, None),
            Action::Degrade => self.enter(id, State::Degraded, cause, None),
            Action::Condemn => self.terminate(id, AfterStop::Restart(cause.clone()), cause),
            Action::Bar => self.enter(id, State::Cycle, cause, Some(self.cycle_text(id))),
        }
    }

    /// Something a component depends on has changed: does it have to stop, may it start?
    pub(super) fn reconsider(&mut self, id: NodeId) {
        if self.unit(id).is_none() {
            return;
        }
        if !self.graph.requirements_up(id) && !self.is_kept(id) {
            let cause = self.lost_cause(id);
            self.feed(id, Input::Lost, cause);
        }
        let Some(unit) = self.unit(id) else { return };
        let free = (!unit.held || broken(Mutation::StartHeld))
            && !unit.doomed
            && (self.halting.is_none() || broken(Mutation::StartInShutdown));
        let may_start = self.graph.may_start(id) || broken(Mutation::SkipRequirements);
        let alone = unit.handover.second().is_none();
        if free && alone && unit.state == State::Inactive && may_start {
            self.feed(id, Input::Met, Cause::RequirementsUp);
        }
    }

    /// The readiness command of a process has failed; it tells why should the process be late.
    pub(super) fn note_answer(&mut self, run: RunId, answer: Rc<str>) {
        let id = self.runs.get(&run).copied();
        let process = id.and_then(|id| self.unit_mut(id)?.process.as_mut());
        if let Some(process) = process {
            process.answer = Some(answer);
        }
    }

    fn lost_cause(&self, id: NodeId) -> Cause {
        let mut missing = self.graph.missing(id);
        match missing.next() {
            Some(cap) => Cause::RequirementLost { capability: self.graph.cap_name(cap).into() },
            None => Cause::Cycle,
        }
    }

    /// The record that leads to a change: see [`Record::after`].
    fn antecedent(&self, id: NodeId, to: State, cause: &Cause) -> Option<u64> {
        let unit = self.unit(id)?;
        let own = Some(unit.revision);
        match cause {
            // What ends with a stop follows from what began it.
            _ if unit.state == State::Stopping => own,
            Cause::RequirementsUp => {
                let required = self.graph.required(id).iter().copied();
                let waited_for = required.chain(self.graph.optional(id));
                waited_for.filter_map(|cap| self.last_turn(cap)).max().max(own)
            }
            Cause::RequirementLost { capability } => {
                let mut lost = self.graph.required(id).iter();
                let lost = lost.find(|cap| self.graph.cap_name(**cap) == &**capability);
                lost.and_then(|cap| self.last_turn(*cap)).max(self.undeclared)
            }
            Cause::Ended(_) if to == State::Done => own,
            // A process of its own that is gone was told of before.
            Cause::OutOfMemory(what) => own.filter(|_| what.main),
            Cause::Cycle if to == State::Cycle => self.last_barred(id).max(own),
            Cause::Declared { .. }
            | Cause::CycleClosed { file: Some(_), .. }
            | Cause::Redeclared { .. }
            | Cause::LimitsNotSet { .. }
            | Cause::Strained { .. }
            | Cause::Undeclared
            | Cause::Request { .. }
            | Cause::Ended(_)
            | Cause::Unhealthy { .. }
            | Cause::WatchdogExpired { .. }
            | Cause::WatchdogTriggered
            | Cause::NotEnded
            | Cause::NotServing { .. }
            | Cause::Shutdown
            | Cause::TookOver { .. }
            | Cause::StateLost { .. } => None,
            Cause::Interrupted | Cause::Adopted => {
                self.journal.newest_of(KERNEL).map(|record| record.revision)
            }
            Cause::Executed
            | Cause::NotExecuted { .. }
            | Cause::Unsupported { .. }
            | Cause::Ready
            | Cause::NotReady { .. }
            | Cause::Healthy
            | Cause::Restart
            | Cause::TooManyRestarts { .. }
            | Cause::CycleClosed { file: None, .. }
            | Cause::Handover { .. }
            | Cause::Frozen
            | Cause::NotFrozen { .. }
            | Cause::NotThawed { .. }
            | Cause::Checkpoint(_)
            | Cause::Restored { .. }
            | Cause::NotRestored { .. }
            | Cause::Cycle => own,
        }
    }

    /// The newest record with which a provider of what a component requires was barred by a cycle.
    fn last_barred(&self, id: NodeId) -> Option<u64> {
        let required = self.graph.required(id).iter();
        let providers = required.flat_map(|cap| self.graph.providers(*cap));
        let barred = providers.filter(|id| self.graph.in_cycle(**id)).filter_map(|id| self.unit(*id));
        let barred = barred.filter(|unit| matches!(unit.state, State::Cycle | State::Stopping));
        barred.map(|unit| unit.revision).max()
    }

    /// The newest record with which a provider of a capability came up or went down.
    fn last_turn(&self, cap: CapId) -> Option<u64> {
        let providers = self.graph.providers(cap).iter();
        let turns = providers.filter_map(|provider| Some(self.unit(*provider)?.turned));
        turns.max().filter(|revision| *revision > 0)
    }

    /// Every change of state goes through here: journal, graph, counters, detail.
    pub(super) fn enter(&mut self, id: NodeId, to: State, cause: Cause, detail: Option<String>) {
        let after = self.antecedent(id, to, &cause);
        let after = if broken(Mutation::NameWrongCause) { after.map(|after| after + 1) } else { after };
        let time_ms = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        let Some(unit) = self.units.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        let from = unit.state;
        unit.state = to;
        unit.detail = detail;
        let may_rise = unit.may_rise();
        let component = Rc::clone(&unit.name);
        let probed = |state| matches!(state, State::Active | State::Degraded);
        match (probed(from), probed(to)) {
            (false, true) => {
                self.begin_watch(id);
                self.arm_watchdog(id);
                self.await_announced_end(id);
            }
            (true, false) => {
                self.end_watch(id);
                self.end_watchdog(id);
            }
            _ => {}
        }
        if from != to {
            let revision = self.record(Record { revision: 0, time_ms, component, from, to, cause, after });
            let now = self.now;
            if let Some(unit) = self.unit_mut(id) {
                unit.revision = revision;
                if from.is_up() != to.is_up() {
                    unit.turned = revision;
                    unit.turned_at = now;
                }
            }
            self.count(from, to);
            self.old_waits &= self.moving() > 0;
            if to == State::Active && !probed(from) {
                self.begin_warm(id);
            }
        }
        let level = match to {
            State::Stopping if broken(Mutation::KeepLevel) => self.graph.level(id),
            State::Degraded if broken(Mutation::HideDegraded) => Level::Up,
            _ => level_of(to),
        };
        self.graph.set_level(id, level);
        self.graph.set_may_rise(id, may_rise && self.halting.is_none());
    }

    /// Write a record and report it.
    pub(super) fn record(&mut self, mut record: Record) -> u64 {
        record.cause.shorten();
        let revision = self.journal.push(record.clone());
        record.revision = revision;
        self.effects.push(Effect::Changed(record));
        revision
    }

    fn launch(&mut self, id: NodeId, cause: Cause) {
        let origin = self.next_origin(id);
        self.launch_from(id, origin, cause);
    }

    /// Create the process from its program, whatever else there is.
    pub(super) fn launch_anew(&mut self, id: NodeId, cause: Cause) {
        self.launch_from(id, None, cause);
    }

    fn launch_from(&mut self, id: NodeId, origin: Option<(Origin, From, Restoring)>, cause: Cause) {
        self.last_run += 1;
        let run = RunId(self.last_run);
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        unit.generation += 1;
        let component = Rc::clone(&unit.component);
        unit.last_words = None;
        let mut process = Process::new(run, Rc::clone(&component));
        let origin = origin.map(|(origin, from, restoring)| {
            process.from = from;
            process.restoring = Some(Box::new(restoring));
            origin
        });
        unit.process = Some(process);
        let generation = unit.generation;
        self.runs.insert(run, id);
        self.disarm_unit(id);
        self.enter(id, State::Starting, cause, None);
        self.effects.push(Effect::Spawn { run, component, generation, place: Place::Alone, origin });
    }

    fn advance(&mut self, id: NodeId, cause: Cause) {
        let now = self.now;
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        if let Some(process) = &mut unit.process {
            process.since = Some(now);
        }
        let component = Rc::clone(&unit.component);
        let limit = component.lifecycle.readiness_timeout;
        match (component.kind, &component.lifecycle.readiness) {
            // It is ready when it has ended; a slice has no process.
            (Kind::Oneshot | Kind::Slice, _) => {}
            (Kind::Service, Readiness::None) => self.enter(id, State::Active, cause, None),
            (Kind::Service, _) if broken(Mutation::ReadyAtOnce) => {
                self.enter(id, State::Active, cause, None);
            }
            (Kind::Service, _) => {
                self.enter(id, State::ReadyWait, cause, None);
                if !broken(Mutation::DropReadiness) {
                    self.arm_unit(id, limit, Due::Readiness(id));
                }
            }
        }
    }

    fn activate(&mut self, id: NodeId, cause: Cause) {
        let now = self.now;
        if let Some(unit) = self.unit_mut(id) {
            if unit.component.kind == Kind::Oneshot {
                return;
            }
            if let Some(process) = &mut unit.process {
                process.since.get_or_insert(now);
            }
        }
        self.disarm_unit(id);
        self.enter(id, State::Active, cause, None);
    }

    /// The process ended by itself; `process_gone` has already run.
    fn finish(&mut self, id: NodeId, cause: Cause) {
        self.disarm_unit(id);
        let oneshot = self.unit(id).is_some_and(|unit| unit.component.kind == Kind::Oneshot);
        if oneshot {
            let well = cause == Cause::Ended(crate::journal::Exit::Code(0));
            let state = if well { State::Done } else { State::Failed };
            let detail = self.unit(id).filter(|_| !well).map(|unit| unit.explain(&cause));
            return self.enter(id, state, cause, detail);
        }
        self.fail_and_restart(id, cause);
    }

    /// FAILED, and nothing more until it is asked for.
    pub(super) fn stay_failed(&mut self, id: NodeId, cause: Cause) {
        let Some(unit) = self.unit(id) else { return };
        let detail = format!("{}; not started again until it is asked for", unit.explain(&cause));
        self.enter(id, State::Failed, cause, Some(detail));
    }

    /// FAILED, and again by the restart rule: at once, or after a pause.
    fn fail_and_restart(&mut self, id: NodeId, cause: Cause) {
        if self.stays_failed(id, &cause) {
            return self.stay_failed(id, cause);
        }
        let now = self.now;
        let halting = self.halting.is_some();
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let last = unit.explain(&cause);
        let pause = if halting { None } else { unit.restart_pause(now) };
        self.enter(id, State::Failed, cause, Some(last.clone()));
        if halting {
            return;
        }
        if let Some(unit) = self.unit_mut(id) {
            unit.restarts += 1;
        }
        match pause {
            None if broken(Mutation::ForgetRestart) => {}
            None => self.rest(id, Cause::Restart),
            Some(pause) => {
                let pause_s = pause.as_secs();
                let cause = Cause::TooManyRestarts { pause_s };
                let detail = format!("{cause}; last: {last}");
                self.enter(id, State::Backoff, cause, Some(detail));
                if !broken(Mutation::DropPause) {
                    self.arm_unit(id, pause, Due::Pause(id));
                }
            }
        }
    }

    /// A start that another attempt would not mend at once: FAILED, and try again later.
    fn fail_with_pause(&mut self, id: NodeId, cause: Cause) {
        let halting = self.halting.is_some();
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let text = unit.explain(&cause);
        if halting {
            let detail = Some(text);
            return self.enter(id, State::Failed, cause, detail);
        }
        let pause = unit.next_pause();
        let detail = format!("{text}; next attempt in {} s", pause.as_secs());
        self.enter(id, State::Failed, cause, Some(detail));
        self.arm_unit(id, pause, Due::Pause(id));
    }

    /// INACTIVE, from where a start follows at once if nothing forbids it; CYCLE if that does.
    pub(super) fn rest(&mut self, id: NodeId, cause: Cause) {
        self.disarm_unit(id);
        if self.graph.in_cycle(id) {
            let detail = Some(self.cycle_text(id));
            return self.enter(id, State::Cycle, Cause::Cycle, detail);
        }
        let Some(unit) = self.unit(id) else { return };
        let detail = unit.held.then(|| "stopped by request".to_owned());
        let free = !unit.held && !unit.doomed && self.halting.is_none();
        let named = matches!(cause, Cause::Restart | Cause::Request { .. });
        // What is up may be met by its own capability, which goes down with it.
        let down = !unit.state.is_up();
        let alone = unit.handover.second().is_none();
        if free && alone && named && down && self.graph.may_start(id) {
            return self.launch(id, cause);
        }
        self.enter(id, State::Inactive, cause, detail);
        self.reconsider(id);
    }

    /// Begin to stop a process: its capabilities go down now, it is told when those that depend
    /// on it are gone.
    pub(super) fn terminate(&mut self, id: NodeId, after_stop: AfterStop, cause: Cause) {
        self.disarm_unit(id);
        self.call_off_handover(id, &cause.to_string());
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        unit.after_stop = after_stop;
        let detail = Some(cause.to_string());
        self.enter(id, State::Stopping, cause, detail);
        let blockers = self.blockers(id);
        if let Some(unit) = self.unit_mut(id) {
            unit.waits_for = blockers.len() as u32;
        }
        if blockers.is_empty() {
            return self.tell(id);
        }
        let Some(run) = self.run_of(id) else { return };
        for blocker in blockers {
            if let Some(unit) = self.unit_mut(blocker) {
                unit.blocks.push((id, run));
            }
        }
    }

    /// Running components that have to be gone before `id`'s process is told to end: those that
    /// stand on it, need one of its capabilities and have no other provider of it. When everything
    /// stops, other providers and optional needs count too.
    fn blockers(&self, id: NodeId) -> Vec<NodeId> {
        if broken(Mutation::ForgetDependents) {
            return Vec::new();
        }
        let halting = self.halting.is_some();
        // Where the graph has no order, on a cycle, what was started later stands on the earlier.
        let place = |id| (self.graph.rank(id), self.run_of(id));
        let wide_place = |id| (self.graph.wide_rank(id), self.run_of(id));
        let mut found = Vec::new();
        for cap in self.graph.provided(id) {
            if halting || self.graph.cap_level(*cap) == Level::Down {
                let users = self.graph.requirers(*cap).iter().copied();
                found.extend(users.filter(|user| place(*user) > place(id)));
            }
            if halting {
                let users = self.graph.waiters(*cap);
                found.extend(users.filter(|user| wide_place(*user) > wide_place(id)));
            }
        }
        found.retain(|user| self.run_of(*user).is_some() && !self.is_kept(*user));
        // Never wait in a ring. In the order of one graph nobody can: who waits does so for what comes
        // later. Where edges have changed since, it takes one that waits already; to look for it
        // everywhere would make a long chain quadratic.
        let waits = |user: &NodeId| self.unit(*user).is_some_and(|unit| unit.waits_for > 0);
        if self.old_waits && found.iter().any(waits) {
            let waiting = self.waiting_for(id);
            found.retain(|user| !waiting.contains(user));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Everything that waits, directly or not, for `id` to be gone.
    fn waiting_for(&self, id: NodeId) -> HashSet<NodeId> {
        let mut found = HashSet::new();
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            let blocked = self.unit(next).map_or(&[][..], |unit| &unit.blocks);
            let blocked = blocked.iter().filter(|(id, run)| self.run_of(*id) == Some(*run));
            open.extend(blocked.map(|(id, _)| *id).filter(|id| found.insert(*id)));
        }
        found
    }

    pub(super) fn run_of(&self, id: NodeId) -> Option<RunId> {
        Some(self.unit(id)?.process.as_ref()?.run)
    }

    pub(super) fn tell(&mut self, id: NodeId) {
        let Some(process) = self.unit_mut(id).and_then(|unit| unit.process.as_mut()) else {
            return;
        };
        // One that is not there yet is told as soon as it is.
        if process.restoring.is_some() || std::mem::replace(&mut process.told, true) {
            return;
        }
        let run = process.run;
        let Some(unit) = self.unit(id) else { return };
        // By the declaration in force: a grace that was changed holds for what runs already.
        let grace = unit.component.hotswap.shutdown_grace;
        let word = word_of_end(unit, run);
        let aborted = matches!(word, Effect::Signal(..));
        if broken(Mutation::ThawEarly) {
            self.thaw_told(run);
        }
        self.effects.push(word);
        self.thaw_told(run);
        self.continue_told(run);
        if aborted && broken(Mutation::TerminateTheAborted) {
            self.effects.push(Effect::Terminate(run));
        }
        if broken(Mutation::KillAtOnce) {
            self.effects.push(Effect::Kill(run));
        }
        if !broken(Mutation::DropGrace) {
            self.arm_unit(id, grace, Due::Grace(id));
        }
    }

    fn kill(&mut self, id: NodeId) {
        let Some(run) = self.run_of(id) else { return };
        self.effects.push(Effect::Kill(run));
        self.arm_unit(id, KILL_PATIENCE, Due::Grace(id));
    }

    /// The process is gone, whatever comes of it: those that waited for that go on.
    pub(super) fn process_gone(&mut self, id: NodeId) {
        let now = self.now;
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let by_itself = unit.state != State::Stopping;
        unit.weigh_warm(by_itself, now);
        let process = unit.process.take();
        unit.last_words = process.as_ref().and_then(|process| process.said.last_words(by_itself));
        let started = process.as_ref().and_then(|process| process.since);
        let (heir, dump, restoring) =
            process.map_or((None, None, None), |process| (process.heir, process.dump, process.restoring));
        unit.forget_failures(started, now);
        unit.waits_for = 0;
        let blocks = std::mem::take(&mut unit.blocks);
        let timers = [
            heir.and_then(|heir| heir.timer),
            dump.and_then(|dump| dump.timer),
            restoring.and_then(|restoring| restoring.timer),
        ];
        for timer in timers.into_iter().flatten() {
            self.timers.disarm(timer);
        }
        self.unblock(blocks);
    }

    /// Once declarations have changed and every consequence is carried out: what does not stop
    /// keeps nothing else from stopping, for it no longer needs that, or finds it elsewhere.
    pub(super) fn release_stops(&mut self) {
        for id in self.all_ids() {
            if let Some(unit) = self.unit_mut(id)
                && unit.state != State::Stopping
            {
                let blocks = std::mem::take(&mut unit.blocks);
                self.unblock(blocks);
            }
        }
    }

    /// These wait for one process less.
    fn unblock(&mut self, blocks: Vec<(NodeId, RunId)>) {
        for (waiting, run) in blocks {
            if self.run_of(waiting) != Some(run) {
                continue;
            }
            let Some(unit) = self.unit_mut(waiting) else {
                continue;
            };
            unit.waits_for = unit.waits_for.saturating_sub(1);
            if unit.waits_for == 0 && unit.state == State::Stopping {
                self.tell(waiting);
            }
        }
    }

    pub(super) fn settle_stop(&mut self, id: NodeId, cause: Cause) {
        self.disarm_unit(id);
        if self.second_lives(id) {
            // Called again when it is gone.
            return;
        }
        let in_cycle = self.graph.in_cycle(id);
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        if unit.doomed {
            return self.discard(id, Cause::Undeclared);
        }
        let after = std::mem::replace(&mut unit.after_stop, AfterStop::Rest);
        match after {
            AfterStop::Fail(reason) if !unit.held && !in_cycle => self.fail_with_pause(id, reason),
            AfterStop::Restart(reason) if !unit.held && !in_cycle => self.fail_and_restart(id, reason),
            _ => self.rest(id, cause),
        }
    }

    /// What `status` says about a component in a cycle: the others on it, or what it needs.
    fn cycle_text(&self, id: NodeId) -> String {
        /// Names shown of a long cycle.
        const SHOWN: usize = 8;
        let name = |id: &NodeId| self.unit(*id).map_or("kernel", |unit| &unit.name);
        if let Some(cycle) = self.cycle_of.get(&id) {
            let mut names: Vec<_> = cycle.iter().map(name).take(SHOWN).collect();
            if cycle.len() > SHOWN {
                names.push("…");
            }
            return format!("dependency cycle of {}", names.join(", "));
        }
        let required = self.graph.required(id).iter();
        let mut stuck = required.filter(|cap| {
            let providers = self.graph.providers(**cap);
            !providers.is_empty() && providers.iter().all(|p| self.graph.in_cycle(*p))
        });
        match stuck.next() {
            Some(cap) => format!("needs {}, which depends on a cycle", self.graph.cap_name(*cap)),
            None => "dependency cycle".to_owned(),
        }
    }

    /// Stop everything, dependents first.
    pub(super) fn begin_halt(&mut self, halt: Halt, cause: &Cause) {
        if self.halting.is_some() {
            return;
        }
        self.halting = Some(Halting { halt, forced: false, sent: false });
        self.timers.arm(self.now + HALT_LIMIT, Due::Halt);
        self.keep_held();
        for id in self.all_ids() {
            let Some(unit) = self.unit(id).filter(|_| !self.is_kept(id)) else { continue };
            if unit.process.is_none() {
                self.disarm_unit(id);
            } else if unit.state != State::Stopping {
                self.terminate(id, AfterStop::Rest, cause.clone());
            }
        }
    }

    /// The shutdown's limit has passed: kill what is left; the second time, go down regardless.
    pub(super) fn force_halt(&mut self) {
        let Some(halting) = &mut self.halting else {
            return;
        };
        if std::mem::replace(&mut halting.forced, true) {
            return self.send_halt();
        }
        let firsts = self.runs.iter().filter(|(_, id)| !self.is_kept(**id)).map(|(run, _)| run);
        let kills: Vec<_> = firsts.chain(self.seconds.keys()).map(|run| Effect::Kill(*run)).collect();
        self.effects.extend(kills);
        self.timers.arm(self.now + HALT_PATIENCE, Due::Halt);
    }

    /// Once no process is left but what is kept for another kernel, the machine may go down.
    pub(super) fn finish_halt(&mut self) {
        if self.halting.is_none_or(|halting| halting.sent) {
            return;
        }
        let left = self.runs.values().any(|id| !self.is_kept(*id));
        if (!left && self.seconds.is_empty()) || broken(Mutation::HaltEarly) {
            self.send_halt();
        }
    }

    fn send_halt(&mut self) {
        if let Some(halting) = &mut self.halting
            && !std::mem::replace(&mut halting.sent, true)
        {
            self.effects.push(Effect::Halt(halting.halt));
        }
    }

    pub(super) fn all_ids(&self) -> Vec<NodeId> {
        self.names.values().copied().collect()
    }
}
