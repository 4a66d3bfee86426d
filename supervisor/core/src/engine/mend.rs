//! Taking over: a restored engine learns what there really is, and brings in order what its
//! predecessor left half done.
//!
//! After an orderly hand-over the two agree and nothing happens. After a failure in the midst of
//! something, effects may never have been performed and events never been seen: then what is
//! there counts, and every component is led from where it stands by the ordinary table.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::lifecycle::word_of_end;
use super::timers::Due;
use super::unit::AfterStop;
use super::{ClientId, Effect, Engine, Input, ProbeId, RunId};
use crate::component::{KERNEL, Kind, Readiness};
use crate::control::Answer;
use crate::graph::NodeId;
use crate::journal::{Cause, Record, State};

/// How far a process has come, by what the performer saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Exec is under way.
    Created,
    /// Exec succeeded.
    Executed,
    /// It reported ready.
    Ready,
}

/// A process that is there.
#[derive(Clone, Copy, Debug)]
pub struct Alive {
    /// Its process id; `None` once it is reaped and only its group is waited for.
    pub pid: Option<i32>,
    /// How far it has come.
    pub stage: Stage,
}

/// What the performer really has.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How the performer before failed; `None` if it handed over in order.
    pub failure: Option<Rc<str>>,
    /// Processes whose end is not reported yet.
    pub processes: BTreeMap<RunId, Alive>,
    /// Probes under way that go on by themselves.
    pub probes: Vec<ProbeId>,
    /// Processes whose limits are being changed, where that goes on by itself.
    pub limits: Vec<RunId>,
    /// Slices whose limits are being changed, where that goes on by itself, by the paths of their groups.
    pub slices: Vec<Rc<str>>,
    /// Processes that are being frozen or thawed, where that goes on by itself.
    pub freezing: Vec<RunId>,
    /// Processes of which a checkpoint is being made, where that goes on by itself.
    pub checkpoints: Vec<RunId>,
    /// Clients that wait for an answer.
    pub clients: Vec<ClientId>,
}

impl Engine {
    /// Facts of a performer that has exactly what the engine counts on.
    pub(crate) fn agreeing_facts(&self) -> Facts {
        let units = self.units.iter().flatten();
        let processes = units.flat_map(|unit| {
            let second = unit.handover.second().map(|second| &second.process);
            unit.process.iter().chain(second)
        });
        let alive = |pid| Alive { pid, stage: Stage::Created };
        Facts {
            failure: None,
            processes: processes.map(|process| (process.run, alive(process.pid))).collect(),
            probes: self.probes.keys().copied().collect(),
            limits: self.limiting(),
            slices: self.limiting_slices(),
            freezing: self.freezing(),
            checkpoints: self.checkpointing(),
            clients: self.waiters.iter().map(|waiter| waiter.client).collect(),
        }
    }

    /// Compare with what there is.
    pub(super) fn resume(&mut self, facts: &Facts) {
        let known = self.runs.keys().chain(self.seconds.keys()).copied();
        let gone = known.filter(|run| !facts.processes.contains_key(run));
        let gone: Vec<_> = gone.collect();
        if let Some(failure) = &facts.failure {
            self.remark_on_kernel(Cause::TookOver { failure: Rc::clone(failure) });
        }
        self.ask_again(facts);
        self.limit_again(&facts.limits);
        self.limit_slices_again(&facts.slices);
        self.compare_clients(facts);
        if facts.failure.is_some() {
            self.mend(facts);
        }
        self.bury(facts, gone);
        // What was told to end again is thawed after that.
        self.freeze_again(&facts.freezing);
        // What is started in their place is not among the facts.
        self.give_up_checkpoints(facts);
        if let Some(halting) = self.halting.filter(|halting| halting.sent) {
            self.effects.push(Effect::Halt(halting.halt));
        }
    }

    /// Probes that did not survive are sent again under their old number and limit; a cancelled
    /// one is over. One whose outcome counts for nobody is ended.
    fn ask_again(&mut self, facts: &Facts) {
        let known: Vec<_> = self.probes.iter().map(|(probe, id)| (*probe, *id)).collect();
        for (probe, id) in known {
            let there = facts.probes.contains(&probe);
            let Some(unit) = self.unit_mut(id) else { continue };
            let run = unit.process.as_ref().map(|process| process.run);
            match (run.filter(|_| unit.watch.is_waiting()), there) {
                (Some(run), false) => {
                    let component = Rc::clone(&unit.component);
                    self.effects.push(Effect::Probe { probe, run, component });
                }
                (None, false) => {
                    unit.watch.forget_current();
                    self.probes.remove(&probe);
                }
                // It may not have been told.
                (None, true) if facts.failure.is_some() => self.effects.push(Effect::CancelProbe(probe)),
                (_, true) => {}
            }
        }
        let strange =
            facts.probes.iter().filter(|probe| facts.failure.is_some() && !self.probes.contains_key(probe));
        self.effects.extend(strange.map(|probe| Effect::CancelProbe(*probe)));
    }

    /// Who waits here but is gone is forgotten; who waits but is not known here gets an answer.
    fn compare_clients(&mut self, facts: &Facts) {
        let known: Vec<_> = self.waiters.iter().map(|waiter| waiter.client).collect();
        for client in known.iter().filter(|client| !facts.clients.contains(client)) {
            self.forget_waiter(*client);
        }
        for client in facts.clients.iter().filter(|client| !known.contains(client)) {
            let message = format!("the request was {}; look at the state and ask again", Cause::Interrupted);
            self.effects.push(Effect::Reply(*client, Answer::Refused { message, near: Vec::new() }));
        }
    }

    /// Processes that are not there have ended, however that was; those that nobody knows have to.
    fn bury(&mut self, facts: &Facts, gone: Vec<RunId>) {
        for run in gone {
            self.end_run(run, Input::Ended, Cause::Interrupted);
        }
        let strange = facts.processes.keys().filter(|run| !self.runs.contains_key(run));
        let strange = strange.filter(|run| !self.seconds.contains_key(run));
        self.effects.extend(strange.map(|run| Effect::Kill(*run)));
    }

    /// Write something down about the supervisor itself.
    pub(super) fn remark_on_kernel(&mut self, cause: Cause) {
        let time_ms = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        let (component, state) = (KERNEL.into(), State::Active);
        self.record(Record { revision: 0, time_ms, component, from: state, to: state, cause, after: None });
    }

    /// Lead every component on from where it was left.
    fn mend(&mut self, facts: &Facts) {
        for name in self.files.undeclared(self.names.keys()) {
            self.undeclare(&name);
        }
        self.settle_graph(&[]);
        for id in self.all_ids() {
            self.mend_process(id, facts);
            // After it: what a process waited for that is gone is started then, and is not among the facts.
            self.mend_handover(id, facts);
            self.mend_checkpoint(id, facts);
            self.mend_cycle(id);
            self.mend_timers(id);
            self.reconsider(id);
        }
        if self.halting.is_some() {
            self.timers.disarm_all(Due::Halt);
            self.timers.arm(self.now + super::lifecycle::HALT_LIMIT, Due::Halt);
        }
    }

    /// State and process agree, and what was seen of the process counts.
    fn mend_process(&mut self, id: NodeId, facts: &Facts) {
        let Some(unit) = self.unit_mut(id) else { return };
        let (state, doomed) = (unit.state, unit.doomed);
        let run = unit.process.as_ref().map(|process| process.run);
        let alive = run.and_then(|run| facts.processes.get(&run)).copied();
        if let (Some(process), Some(alive)) = (&mut unit.process, alive) {
            process.pid = alive.pid;
        }
        match (run, alive, state.has_process()) {
            (Some(run), None, true) => self.end_run(run, Input::Ended, Cause::Interrupted),
            // Chosen to start, and not started.
            (Some(run), None, false) => {
                self.runs.remove(&run);
                self.process_gone(id);
            }
            (None, _, true) => self.feed(id, Input::Ended, Cause::Interrupted),
            (Some(_), Some(_), false) => self.terminate(id, AfterStop::Rest, Cause::Interrupted),
            (None, _, false) if doomed => self.discard(id, Cause::Undeclared),
            (None, _, false) => {}
            (Some(run), Some(alive), true) => self.mend_stage(id, run, alive),
        }
    }

    fn mend_stage(&mut self, id: NodeId, run: RunId, alive: Alive) {
        let Some(unit) = self.unit(id) else { return };
        let process = unit.process.as_ref();
        let told = process.is_some_and(|process| process.told);
        let executed = alive.stage >= Stage::Executed && process.is_some_and(|p| p.since.is_none());
        match (unit.state, told) {
            // It may not have been sent.
            (State::Stopping, true) => {
                let word = word_of_end(unit, run);
                self.effects.push(word);
            }
            (State::Stopping, false) if unit.waits_for == 0 => self.tell(id),
            (State::Starting, _) if executed => {
                self.feed(id, Input::Executed, Cause::Executed);
            }
            _ => {}
        }
        if alive.stage == Stage::Ready {
            self.feed_run(run, Input::Ready, Cause::Ready);
        }
        let halting = self.halting.is_some() && !self.is_kept(id);
        if halting
            && self.unit(id).is_some_and(|unit| unit.state != State::Stopping && unit.process.is_some())
        {
            self.terminate(id, AfterStop::Rest, Cause::Shutdown);
        }
    }

    fn mend_cycle(&mut self, id: NodeId) {
        let Some(unit) = self.unit(id) else { return };
        match (self.graph.in_cycle(id), unit.state == State::Cycle) {
            (true, false) => self.feed(id, Input::CycleOn, self.cycle_cause(id, &[])),
            (false, true) => self.feed(id, Input::CycleOff, Cause::Cycle),
            _ => {}
        }
    }

    /// Whoever waits for a time has a timer; one that was lost begins anew.
    fn mend_timers(&mut self, id: NodeId) {
        let halting = self.halting.is_some();
        let away = self.is_away(id);
        let Some(unit) = self.unit_mut(id) else { return };
        let lifecycle = &unit.component.lifecycle;
        let told = unit.process.as_ref().filter(|process| process.told);
        let grace = told.map(|_| unit.component.hotswap.shutdown_grace);
        let ready_limit = (lifecycle.readiness != Readiness::None).then(|| unit.readiness_limit());
        let watched = lifecycle.health.is_some() && !unit.watch.is_armed() && unit.handover.is_over();
        let oneshot = unit.component.kind == Kind::Oneshot;
        let lost = unit.timer.is_none();
        let unwatched = unit.watchdog.timer.is_none() && unit.handover.is_over();
        let due = match unit.state {
            State::ReadyWait => ready_limit.map(|limit| (limit, Due::Readiness(id))),
            State::Stopping => grace.map(|grace| (grace, Due::Grace(id))),
            State::Active | State::Degraded if unit.has_announced_its_end() && !away => {
                Some((unit.component.hotswap.shutdown_grace, Due::Grace(id)))
            }
            State::Backoff if lost && !halting => Some((unit.next_pause(), Due::Pause(id))),
            State::Failed if !oneshot && lost && !halting => Some((unit.next_pause(), Due::Pause(id))),
            _ => None,
        };
        let up = matches!(unit.state, State::Active | State::Degraded);
        if let Some((after, due)) = due.filter(|_| lost) {
            self.arm_unit(id, after, due);
        }
        if up && unwatched {
            self.rearm_watchdog(id);
        }
        if up && watched {
            self.end_watch(id);
            self.begin_watch(id);
        }
    }
}
