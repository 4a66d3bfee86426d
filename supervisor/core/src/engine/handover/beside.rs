//! The form for programs that speak no protocol of ours: two of them serve side by side.
//!
//! What they listen on is held by the supervisor (declared sockets, or what they have stored), so both have it; or the
//! first is asked by a signal to give it, and it is passed on to the second. The second starts as ever and takes the place
//! of the first as soon as it is ready in the way that it declares; the first is told to end as it would be for a stop,
//! and finishes what it has begun. Until then a failure of the second costs nothing but the second.

use yakiros_handoff::message::{Order, Summary};

use super::ending::Failure;
use super::table::{Step, Turn};
use super::{Greeting, LIMIT, Second};
use crate::component::Readiness;
use crate::control::UpgradeForm;
use crate::engine::unit::Unit;
use crate::engine::{Effect, Engine, Place, Relayed, RunId};
use crate::graph::NodeId;
use crate::journal::Progress;
use crate::mutation::{Mutation, broken};
use crate::notify::Notification;

/// In which form a component's process can be replaced, or why in none.
pub(super) fn form_of(unit: &Unit, greeting: Greeting) -> Result<UpgradeForm, String> {
    match greeting {
        Greeting::Understood => Ok(UpgradeForm::Protocol),
        Greeting::Foreign => Err("its process speaks another version of the protocol".to_owned()),
        Greeting::None | Greeting::Signal if unit.held_descriptors.is_some() => Ok(UpgradeForm::Listeners),
        Greeting::Signal => Ok(UpgradeForm::Signal),
        Greeting::None => {
            Err("its process has not said that it can hand over (HELLO) and does not listen for SIGUSR1"
                .to_owned())
        }
    }
}

impl Second {
    /// Where it begins.
    pub(super) fn first_step(form: UpgradeForm) -> Step {
        match form {
            UpgradeForm::Protocol => Step::Prepare,
            UpgradeForm::Listeners | UpgradeForm::Signal => Step::Beside,
        }
    }

    /// As what it starts.
    pub(super) fn place(form: UpgradeForm) -> Place {
        match form {
            UpgradeForm::Protocol => Place::Successor,
            UpgradeForm::Listeners => Place::Beside,
            UpgradeForm::Signal => Place::Receiver,
        }
    }

    /// Whether the first is owed a verdict: it has given, or is about to.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.is_some() || (self.form == UpgradeForm::Signal && self.process.since.is_some())
    }

    /// How the one that goes is told to.
    pub(super) fn farewell(&self, goes: RunId) -> Effect {
        match self.form {
            // A canary serves, and has to finish what it has begun.
            UpgradeForm::Protocol if self.step == Step::Canary => Effect::Terminate(goes),
            UpgradeForm::Protocol => Effect::Order(goes, Order::Release),
            UpgradeForm::Listeners | UpgradeForm::Signal => Effect::Terminate(goes),
        }
    }
}

impl Engine {
    /// A second process that serves beside the first is ready, as it declares.
    pub(in crate::engine) fn second_ready(&mut self, run: RunId) {
        let Some(id) = self.seconds.get(&run).copied() else { return };
        let Some(second) = self.second_of(id).filter(|second| second.step == Step::Beside) else { return };
        second.ready = true;
        let has_all = second.form != UpgradeForm::Signal || second.offered.is_some();
        if has_all || broken(Mutation::PromoteEmpty) {
            self.turn(id, Turn::Ready, "READY");
        }
    }

    /// A process listens for the signal that asks for its descriptors.
    pub(in crate::engine) fn note_listens(&mut self, run: RunId) {
        let process = match self.runs.get(&run).copied() {
            Some(id) => self.unit_mut(id).and_then(|unit| unit.process.as_mut()),
            None => self.second_mut(run),
        };
        if let Some(process) = process.filter(|process| process.greeting == Greeting::None) {
            process.greeting = Greeting::Signal;
        }
    }

    /// Who received what was asked for by a signal can be asked by one itself, as far as is known before it is looked at.
    pub(super) fn note_heir_of_signal(&mut self, id: NodeId) {
        let Some(unit) = self.unit_mut(id) else { return };
        let by_signal = unit.handover.second().is_some_and(|second| second.form == UpgradeForm::Signal);
        if let Some(process) =
            unit.process.as_mut().filter(|process| by_signal && process.greeting == Greeting::None)
        {
            process.greeting = Greeting::Signal;
        }
    }

    /// The second runs: have the first give to it, if it is asked by a signal.
    pub(super) fn begin_relay(&mut self, run: RunId) {
        let Some(id) = self.seconds.get(&run).copied() else { return };
        let Some(giver) = self.run_of(id) else { return };
        let Some(second) = self.second_of(id) else { return };
        if second.form == UpgradeForm::Signal && second.step == Step::Beside {
            self.effects.push(Effect::Relay { giver, taker: run, limit: LIMIT });
        }
    }

    /// What the first gave has reached the second, or has not.
    pub(in crate::engine) fn take_relayed(&mut self, run: RunId, outcome: Relayed) {
        let Some(id) = self.seconds.get(&run).copied() else { return };
        let Some(second) = self.second_of(id).filter(|second| second.step == Step::Beside) else { return };
        let descriptors = match outcome {
            Relayed::Whole(descriptors) => descriptors,
            Relayed::NotTaken(why) => return self.turn(id, Turn::Failed, &why),
            Relayed::NotGiven(why) => {
                let reason = format!("the old process: {why}").into();
                let failure = Failure { step: Step::Beside, reason, by_first: true };
                return self.abort(id, &failure, Turn::Failed);
            }
        };
        second.offered = Some(Summary { descriptors, ..Summary::default() });
        let (generation, ready) = (second.generation, second.ready);
        self.progress(id, generation, Progress::Moved { descriptors, state_bytes: 0 });
        if ready {
            self.second_ready(run);
        }
    }

    /// The same may be so because its program runs, and has nothing more to say.
    pub(super) fn ready_by_exec(&mut self, run: RunId) {
        let readiness = self.second(run).map(|second| &second.component.lifecycle.readiness);
        if readiness == Some(&Readiness::None) || broken(Mutation::PromoteUnready) {
            self.second_ready(run);
        }
    }

    /// A second process has said something about itself. What takes over by the protocol has nothing to say before it
    /// serves, if only new connections.
    pub(in crate::engine) fn take_notification_of_second(&mut self, run: RunId, said: Notification) {
        let now = self.now;
        let Some(id) = self.seconds.get(&run).copied() else { return };
        if self.second_of(id).is_some_and(|second| second.step.is_canary()) {
            return self.take_notification_of_canary(id, said);
        }
        let Some(second) = self.second_of(id).filter(|second| second.step == Step::Beside) else { return };
        let declared = second.process.component.lifecycle.readiness == Readiness::Notify;
        let ready = said.ready && declared;
        second.process.said.take(said, now);
        if ready {
            self.second_ready(run);
        }
    }
}
