//! `upgrade`: the best way that a component declares and its process can go.
//!
//! Ladder: checkpoint, then passing descriptors, then a restart; a component starts on the step
//! that its `handoff` names. A step is passed over when it cannot be gone, and the answer says why.
//! A next version that fails on a step ends the upgrade instead: the one before serves on, and a
//! restart would only put it out of service.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handover::Manner;
use super::request::{Goal, Waiter};
use super::{ClientId, Engine, Input, RunId};
use crate::component::{Handoff, Strategy};
use crate::control::{Answer, PassedOver, UpgradeLevel, Upgraded};
use crate::graph::NodeId;
use crate::journal::{Cause, State};
use crate::mutation::{Mutation, broken};

/// The ways that a component declares, the highest first.
fn ladder(handoff: Handoff) -> &'static [UpgradeLevel] {
    use UpgradeLevel::{Checkpoint, FdPassing, Restart};
    match handoff {
        Handoff::Checkpoint => &[Checkpoint, FdPassing, Restart],
        Handoff::FdPassing => &[FdPassing, Restart],
        Handoff::None | Handoff::StateFile => &[Restart],
    }
}

/// The most upgrades of one component that wait for one that is under way. Each is the whole of an upgrade; whoever
/// asks for more has lost sight of those.
const QUEUE_LIMIT: usize = 8;

/// How an upgrade is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// A lesser way will do.
    pub(super) fallback: bool,
    /// It waits for one that is under way.
    pub(super) queue: bool,
    /// How much the new process takes over at once, when it is not to be as declared.
    pub(super) strategy: Option<Strategy>,
    pub(super) timeout_ms: Option<u64>,
}

/// An upgrade by restart that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upgrade {
    pub(super) name: Rc<str>,
    /// The process that is replaced.
    pub(super) not: Option<RunId>,
    /// When the component's capabilities went down.
    pub(super) down: Option<Duration>,
    pub(super) passed_over: Vec<PassedOver>,
}

/// An upgrade that waits for what is left of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NextUpgrade {
    pub(super) name: Rc<str>,
    fallback: bool,
    #[serde(default)]
    queue: bool,
    #[serde(default)]
    strategy: Option<Strategy>,
    cause: Cause,
}

impl Engine {
    pub(super) fn upgrade(&mut self, client: ClientId, uid: u32, name: &str, wish: Wish, cause: Cause) {
        let Wish { queue, timeout_ms, .. } = wish;
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        if self.halting.is_some() {
            return self.refuse(client, "everything is being stopped".to_owned());
        }
        let Some(unit) = self.unit(id) else { return };
        let handoff = unit.component.lifecycle.handoff;
        if unit.is_frozen() && unit.state != State::Stopping {
            return self.refuse(client, format!("{name} is frozen; thaw it first: graphctl thaw {name}"));
        }
        if let Some(message) = self.dump_refusal(id).filter(|_| unit.state != State::Stopping) {
            if !queue {
                return self.refuse(client, format!("{message}; --queue waits for that"));
            }
            return self.queue_upgrade(client, uid, name, wish, cause);
        }
        if unit.state.is_up() && unit.process.as_ref().is_some_and(|process| process.heir.is_some()) {
            let message = format!("the process of {name} has taken over and does not serve yet");
            return self.refuse(client, message);
        }
        if unit.state.is_up() && unit.handover.second().is_some() {
            let stage = match &unit.handover {
                handover if handover.is_on_probation() => ": it is on probation",
                handover if handover.is_canary() => ": it is a canary",
                _ => "",
            };
            if !queue && !unit.handover.is_leaving() {
                let message =
                    format!("the upgrade of {name} before is not over{stage}; --queue waits for it");
                return self.refuse(client, message);
            }
            return self.queue_upgrade(client, uid, name, wish, cause);
        }
        if let Some(message) = self.canary_refusal(id, wish) {
            return self.refuse(client, message);
        }
        match self.climb(id, ladder(handoff), wish, Vec::new(), cause) {
            Ok(goal) => self.wait(client, uid, goal, timeout_ms),
            Err(message) => self.refuse(client, message),
        }
    }

    /// It is to begin when what is under way is over.
    fn queue_upgrade(&mut self, client: ClientId, uid: u32, name: &str, wish: Wish, cause: Cause) {
        let waiting = self.queued_upgrades(name);
        if waiting >= QUEUE_LIMIT {
            return self.refuse(client, format!("{waiting} upgrades of {name} wait already"));
        }
        let Wish { fallback, queue, strategy, timeout_ms } = wish;
        let goal = Goal::NextUpgrade(NextUpgrade { name: name.into(), fallback, queue, strategy, cause });
        self.wait(client, uid, goal, timeout_ms);
    }

    /// Begin upgrades that wait for nothing any more: a checkpoint is over with whatever ends it.
    pub(super) fn begin_free_upgrades(&mut self) {
        let waiting = self.waiters.iter().filter_map(|waiter| match &waiter.goal {
            Goal::NextUpgrade(next) => Some(Rc::clone(&next.name)),
            _ => None,
        });
        let names: BTreeSet<_> = waiting.collect();
        for name in names {
            let busy = self.names.get(&name).is_some_and(|id| {
                let stopping = self.unit(*id).is_some_and(|unit| unit.state == State::Stopping);
                self.second_lives(*id) || (self.dump_refusal(*id).is_some() && !stopping)
            });
            if !busy {
                self.begin_next_upgrades(&name);
            }
        }
    }

    /// Go the first of these ways that can be gone, and say what is to be waited for then; or why none may be.
    pub(super) fn climb(
        &mut self,
        id: NodeId,
        levels: &[UpgradeLevel],
        wish: Wish,
        mut passed_over: Vec<PassedOver>,
        cause: Cause,
    ) -> Result<Goal, String> {
        let unit = self.unit(id).ok_or("it is not declared")?;
        let name = Rc::clone(&unit.name);
        let strategy = wish.strategy.unwrap_or(unit.component.hotswap.strategy);
        for level in levels {
            let reason = match level {
                UpgradeLevel::Restart => break,
                UpgradeLevel::Checkpoint => {
                    match self.begin_move(id, wish, passed_over.clone(), cause.clone()) {
                        Ok(run) => return Ok(Goal::Moved { name, run }),
                        Err(reason) => reason,
                    }
                }
                UpgradeLevel::FdPassing => {
                    let manner =
                        Manner { fallback: wish.fallback, strategy, passed_over: passed_over.clone() };
                    match self.begin_handover(id, cause.clone(), manner) {
                        Ok(run) => return Ok(Goal::HandedOver { name, run }),
                        Err(reason) => reason,
                    }
                }
            };
            if !wish.fallback {
                return Err(format!(
                    "{name} declares {level}, which cannot be: {reason}; without --no-fallback it would be \
                     restarted"
                ));
            }
            passed_over.push(PassedOver { level: *level, strategy: None, reason });
        }
        self.restart_as_upgrade(id, passed_over, cause).ok_or_else(|| "it is not declared".to_owned())
    }

    /// How many upgrades of a component wait for one that is under way.
    pub(super) fn queued_upgrades(&self, name: &str) -> usize {
        let of = |waiter: &&Waiter| matches!(&waiter.goal, Goal::NextUpgrade(next) if &*next.name == name);
        self.waiters.iter().filter(of).count()
    }

    /// What was left of an upgrade is gone: begin those that wait for that. The first of them is under way then, and
    /// the others wait on if they queue, or else are told so.
    pub(super) fn begin_next_upgrades(&mut self, name: &str) {
        let next = |waiter: &Waiter| match &waiter.goal {
            Goal::NextUpgrade(next) if &*next.name == name => {
                Some((waiter.client, waiter.uid, waiter.timer, next.clone()))
            }
            _ => None,
        };
        let mut all: Vec<_> = self.waiters.iter().filter_map(next).collect();
        all.sort_by_key(|(client, ..)| *client);
        for (client, uid, timer, next) in all {
            let end = timer.and_then(|timer| self.timers.get(timer)).map(|(at, _)| at);
            let left = end.map(|end| end.saturating_sub(self.now).as_millis());
            let left = left.map(|left| u64::try_from(left).unwrap_or(u64::MAX));
            self.forget_waiter(client);
            if self.find(name).is_some_and(|unit| unit.held) {
                // The later word counts.
                self.refuse(client, format!("{name} was stopped by request before its upgrade began"));
                continue;
            }
            let wish = Wish {
                fallback: next.fallback,
                queue: next.queue,
                strategy: next.strategy,
                timeout_ms: left,
            };
            self.upgrade(client, uid, name, wish, next.cause);
        }
    }

    /// The lowest step; returns what is to be waited for.
    pub(super) fn restart_as_upgrade(
        &mut self,
        id: NodeId,
        passed_over: Vec<PassedOver>,
        cause: Cause,
    ) -> Option<Goal> {
        let unit = self.unit(id)?;
        let name = Rc::clone(&unit.name);
        let down = unit.state.is_up().then_some(self.now);
        let in_place = broken(Mutation::UpgradeInPlace);
        let not = if in_place { None } else { self.renew(id, cause) };
        Some(Goal::Upgraded(Upgrade { name, not, down, passed_over }))
    }

    /// Stop and start a component, whatever kept it down; returns the process that goes.
    pub(super) fn renew(&mut self, id: NodeId, cause: Cause) -> Option<RunId> {
        // The later word counts.
        self.unit_mut(id)?.wanted = None;
        self.renew_as_wanted(id, cause)
    }

    /// The same where the new process may be made from a checkpoint.
    pub(super) fn renew_as_wanted(&mut self, id: NodeId, cause: Cause) -> Option<RunId> {
        let unit = self.unit_mut(id)?;
        unit.held = false;
        unit.forgive();
        let not = unit.process.as_ref().map(|process| process.run);
        self.feed(id, Input::Renew, cause);
        self.refresh_may_rise(id);
        not
    }

    /// The answer once the new process runs, or can not.
    pub(super) fn judge_upgrade(&self, upgrade: &Upgrade) -> Option<Answer> {
        let answer = self.judge_running(&upgrade.name, upgrade.not)?;
        let Answer::Done { revision, .. } = answer else {
            return Some(answer);
        };
        let generation = self.find(&upgrade.name)?.generation;
        let gap = upgrade.down.map(|down| self.now.saturating_sub(down));
        Some(Answer::Upgraded(Upgraded {
            component: Rc::clone(&upgrade.name),
            level: UpgradeLevel::Restart,
            form: None,
            strategy: Strategy::AllAtOnce,
            passed_over: upgrade.passed_over.clone(),
            gap_us: gap.map(|gap| u64::try_from(gap.as_micros()).unwrap_or(u64::MAX)),
            generation,
            descriptors: None,
            state_bytes: None,
            probation_ms: None,
            revision,
        }))
    }
}
