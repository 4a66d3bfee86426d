//! Warm starts: a service that declares it is written down when it is ready for the first time, and each later start with
//! the same declaration is made from that. What was spent to become ready is spent once.
//!
//! An image from which no process can be made is not tried again, nor one whose process fails soon after: the next start
//! is a new one. A first start that could not be written down has the next take its place, up to [`TRIES`]: the machine may
//! have been busy, or the service have been told to end meanwhile.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CHECKPOINT_LIMIT, Purpose};
use crate::checkpoint::{After, Origin};
use crate::component::{Component, Kind};
use crate::engine::unit::{AfterStop, Unit};
use crate::engine::{Engine, From};
use crate::graph::NodeId;
use crate::mutation::{Mutation, broken};

/// Starts with a declaration that are written down in vain. What is in the way then will not go away, and each attempt
/// costs a disk and a processor their time.
const TRIES: u32 = 3;

/// What there is of the first start with a declaration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::engine) struct Warm {
    /// The declaration.
    pub(in crate::engine) component: Rc<Component>,
    stage: Stage,
    /// How often it could not be written down.
    #[serde(default)]
    failed: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// It is being written down.
    Making,
    /// It could not be; the next start is.
    Failed,
    /// It is this checkpoint.
    Made(Rc<str>),
    /// It is of no use.
    Spent,
}

impl Engine {
    /// A component has become ready: write it down if that is the first time with its declaration.
    pub(in crate::engine) fn begin_warm(&mut self, id: NodeId) {
        let Some(unit) = self.unit(id) else { return };
        let policy = &unit.component.checkpoint;
        let wanted = policy.warm_start && policy.enabled && unit.component.kind == Kind::Service;
        let process =
            unit.process.as_ref().filter(|process| process.from == From::New && process.dump.is_none());
        let current = process.is_some_and(|process| process.component == unit.component);
        let warm = unit.warm.as_ref().filter(|warm| warm.component == unit.component);
        let known = warm.is_some_and(|warm| warm.stage != Stage::Failed);
        let failed = warm.map_or(0, |warm| warm.failed);
        if !wanted || !current || known || unit.handover.second().is_some() {
            return;
        }
        let component = Rc::clone(&unit.component);
        if let Some(unit) = self.unit_mut(id) {
            unit.warm = Some(Box::new(Warm { component, stage: Stage::Making, failed }));
        }
        self.begin_dump(id, After::Run, Purpose::Warm, CHECKPOINT_LIMIT);
    }

    /// What a start is made from.
    pub(super) fn warm_origin(&mut self, id: NodeId) -> Option<Origin> {
        let unit = self.unit_mut(id)?;
        let policy = &unit.component.checkpoint;
        let wanted = policy.warm_start && policy.enabled;
        let same = unit.warm.as_ref().is_some_and(|warm| warm.component == unit.component);
        if !wanted || !(same || broken(Mutation::WarmAnyDeclaration)) {
            unit.warm = None;
            return None;
        }
        match &unit.warm.as_ref()?.stage {
            Stage::Made(id) => Some(Origin { id: Some(Rc::clone(id)) }),
            Stage::Making | Stage::Failed | Stage::Spent => None,
        }
    }

    /// It is written down.
    pub(super) fn keep_warm(&mut self, id: NodeId, image: &Rc<str>) {
        if let Some(warm) = self.unit_mut(id).and_then(|unit| unit.warm.as_mut()) {
            warm.stage = Stage::Made(Rc::clone(image));
        }
    }

    /// It cannot be used, or could not be made.
    pub(super) fn spend_warm(&mut self, id: NodeId) {
        let Some(warm) = self.unit_mut(id).and_then(|unit| unit.warm.as_mut()) else { return };
        let again = warm.stage == Stage::Making && warm.failed + 1 < TRIES;
        warm.failed += u32::from(again);
        warm.stage = if again { Stage::Failed } else { Stage::Spent };
    }
}

impl Unit {
    /// Its process is gone: one that was made warm and fails within the window of restarts is not made so again.
    pub(in crate::engine) fn weigh_warm(&mut self, by_itself: bool, now: Duration) {
        let Some(process) = self.process.as_ref().filter(|process| process.from == From::Warm) else {
            return;
        };
        let fails = by_itself || self.after_stop != AfterStop::Rest;
        let age = process.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if fails
            && !broken(Mutation::RetryWarm)
            && age < self.component.lifecycle.restart_window
            && let Some(warm) = &mut self.warm
        {
            warm.stage = Stage::Spent;
        }
    }
}
