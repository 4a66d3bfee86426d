//! `upgrade`: the best way that a component declares and this version can do.
//!
//! Ladder: checkpoint, then passing descriptors, then a restart; a component starts on the step
//! that its `handoff` names. Only the last one is part of this version; the answer says so, and
//! nothing is called what it is not.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::request::Goal;
use super::{ClientId, Engine, Input, RunId};
use crate::component::Handoff;
use crate::control::{Answer, PassedOver, UpgradeLevel, Upgraded};
use crate::graph::NodeId;
use crate::journal::Cause;
use crate::mutation::{Mutation, broken};

/// Why a way above the restart is not taken.
const NOT_YET: &str = "not part of this version";

/// The ways that a component declares, the highest first.
fn ladder(handoff: Handoff) -> &'static [UpgradeLevel] {
    use UpgradeLevel::{Checkpoint, FdPassing, Restart};
    match handoff {
        Handoff::Checkpoint => &[Checkpoint, FdPassing, Restart],
        Handoff::FdPassing => &[FdPassing, Restart],
        Handoff::None | Handoff::StateFile => &[Restart],
    }
}

fn passed_over(handoff: Handoff) -> Vec<PassedOver> {
    let above = ladder(handoff).iter().filter(|level| **level > UpgradeLevel::Restart);
    above.map(|level| PassedOver { level: *level, reason: NOT_YET.to_owned() }).collect()
}

/// An upgrade by restart that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upgrade {
    pub(super) name: Rc<str>,
    /// The process that is replaced.
    pub(super) not: Option<RunId>,
    /// When the component's capabilities went down.
    down: Option<Duration>,
    passed_over: Vec<PassedOver>,
}

impl Engine {
    pub(super) fn upgrade(
        &mut self,
        client: ClientId,
        uid: u32,
        name: &str,
        (fallback, timeout_ms): (bool, Option<u64>),
        cause: Cause,
    ) {
        let Some(id) = self.names.get(name).copied() else {
            return self.unknown(client, name);
        };
        if self.halting.is_some() {
            return self.refuse(client, "everything is being stopped".to_owned());
        }
        let Some(unit) = self.unit(id) else { return };
        let passed_over = passed_over(unit.component.lifecycle.handoff);
        if let Some(first) = passed_over.first().filter(|_| !fallback) {
            let message = format!(
                "{name} declares {}, which is {}; without --no-fallback it would be restarted",
                first.level, first.reason
            );
            return self.refuse(client, message);
        }
        let down = unit.state.is_up().then_some(self.now);
        let in_place = broken(Mutation::UpgradeInPlace);
        let not = if in_place { None } else { self.renew(id, cause) };
        let upgrade = Upgrade { name: name.into(), not, down, passed_over };
        self.wait(client, uid, Goal::Upgraded(upgrade), timeout_ms);
    }

    /// Stop and start a component, whatever kept it down; returns the process that goes.
    pub(super) fn renew(&mut self, id: NodeId, cause: Cause) -> Option<RunId> {
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
        let gap = upgrade.down.map(|down| self.now.saturating_sub(down));
        Some(Answer::Upgraded(Upgraded {
            component: Rc::clone(&upgrade.name),
            level: UpgradeLevel::Restart,
            passed_over: upgrade.passed_over.clone(),
            gap_us: gap.map(|gap| u64::try_from(gap.as_micros()).unwrap_or(u64::MAX)),
            revision,
        }))
    }
}
