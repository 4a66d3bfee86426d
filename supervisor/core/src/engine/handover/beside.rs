//! The form for programs that speak no protocol of ours: two of them serve side by side.
//!
//! What they listen on is held by the supervisor (declared sockets, or what they have stored), so both have it. The second
//! starts as ever and takes the place of the first as soon as it is ready in the way that it declares; the first is told
//! to end as it would be for a stop, and finishes what it has begun. Until then a failure of the second costs nothing but
//! the second.

use super::table::{Step, Turn};
use super::{Greeting, Second};
use crate::component::Readiness;
use crate::control::UpgradeForm;
use crate::engine::unit::Unit;
use crate::engine::{Effect, Engine, RunId};
use crate::mutation::{Mutation, broken};
use crate::notify::Notification;
use yakiros_handoff::message::Order;

/// In which form a component's process can be replaced, or why in none.
pub(super) fn form_of(unit: &Unit, greeting: Greeting) -> Result<UpgradeForm, String> {
    match greeting {
        Greeting::Understood => Ok(UpgradeForm::Protocol),
        Greeting::Foreign => Err("its process speaks another version of the protocol".to_owned()),
        Greeting::None if unit.held_descriptors.is_some() => Ok(UpgradeForm::Listeners),
        Greeting::None => Err("its process has not said that it can hand over (HELLO)".to_owned()),
    }
}

impl Second {
    /// Where it begins.
    pub(super) fn first_step(form: UpgradeForm) -> Step {
        match form {
            UpgradeForm::Protocol => Step::Prepare,
            UpgradeForm::Listeners => Step::Beside,
        }
    }

    /// How the one that goes is told to.
    pub(super) fn farewell(&self, goes: RunId) -> Effect {
        match self.form {
            UpgradeForm::Protocol => Effect::Order(goes, Order::Release),
            UpgradeForm::Listeners => Effect::Terminate(goes),
        }
    }
}

impl Engine {
    /// A second process that serves beside the first is ready, as it declares.
    pub(in crate::engine) fn second_ready(&mut self, run: RunId) {
        let Some(id) = self.seconds.get(&run).copied() else { return };
        if self.second_of(id).is_some_and(|second| second.step == Step::Beside) {
            self.turn(id, Turn::Ready, "READY");
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
    /// serves.
    pub(in crate::engine) fn take_notification_of_second(&mut self, run: RunId, said: Notification) {
        let now = self.now;
        let Some(id) = self.seconds.get(&run).copied() else { return };
        let Some(second) = self.second_of(id).filter(|second| second.step == Step::Beside) else { return };
        let declared = second.process.component.lifecycle.readiness == Readiness::Notify;
        let ready = said.ready && declared;
        second.process.said.take(said, now);
        if ready {
            self.second_ready(run);
        }
    }
}
