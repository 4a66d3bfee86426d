//! What `readiness` shows, in pages.

use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::time::Duration;

use super::unit::Unit;
use super::{ClientId, Engine};
use crate::component::{Kind, Readiness as Declared};
use crate::control::{Answer, ComponentReadiness, PAGE_BYTES, Readiness, ReadinessPage};
use crate::journal::State;
use crate::mutation::{Mutation, broken};

/// Estimated bytes of an entry besides its texts.
const ENTRY_BYTES: usize = 180;

impl Engine {
    pub(super) fn show_readiness(&mut self, client: ClientId, name: Option<&str>, after: Option<&str>) {
        let page = match name {
            None => self.readiness_page(after),
            Some(name) => match self.find(name) {
                None => return self.unknown(client, name),
                Some(unit) => ReadinessPage {
                    components: vec![self.readiness_of(unit)],
                    next: None,
                    revision: self.journal.revision(),
                },
            },
        };
        self.reply(client, Answer::Readiness(page));
    }

    fn readiness_page(&self, after: Option<&str>) -> ReadinessPage {
        let revision = self.journal.revision();
        let mut page = ReadinessPage { components: Vec::new(), next: None, revision };
        let mut bytes = 0;
        for (name, id) in self.names.range::<str, _>((Excluded(after.unwrap_or("")), Unbounded)) {
            if bytes >= PAGE_BYTES {
                page.next = page.components.last().map(|entry| entry.name.to_string());
                break;
            }
            if let Some(unit) = self.unit(*id) {
                let entry = self.readiness_of(unit);
                bytes += ENTRY_BYTES + name.len() + entry.what.as_ref().map_or(0, String::len);
                page.components.push(entry);
            }
        }
        page
    }

    fn readiness_of(&self, unit: &Unit) -> ComponentReadiness {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let lifecycle = &unit.component.lifecycle;
        let declared = &lifecycle.readiness;
        let oneshot = unit.component.kind == Kind::Oneshot;
        let waits = !oneshot && *declared != Declared::None;
        let executed = unit.process.as_ref().and_then(|process| process.since);
        let (readiness, begun) = match unit.state {
            state if state.is_up() && !broken(Mutation::TellUnready) => {
                (Readiness::Ready, Some(unit.turned_at))
            }
            State::Starting | State::ReadyWait => (Readiness::Waiting, executed),
            _ => (Readiness::Down, None),
        };
        ComponentReadiness {
            name: Rc::clone(&unit.name),
            state: unit.state,
            method: if oneshot { "exit" } else { declared.name() }.to_owned(),
            what: if oneshot { None } else { what(declared) },
            timeout_ms: waits.then(|| ms(lifecycle.readiness_timeout)),
            interval_ms: (waits && matches!(declared, Declared::Command(_)))
                .then(|| ms(lifecycle.readiness_interval)),
            readiness,
            for_ms: begun.map(|begun| ms(self.now.saturating_sub(begun))),
        }
    }
}

/// The object of a method.
fn what(declared: &Declared) -> Option<String> {
    match declared {
        Declared::None | Declared::Notify => None,
        Declared::File(path) => Some(path.clone()),
        Declared::Command(command) => Some(command.to_string()),
        Declared::Signal(signal) => Some(signal.to_string()),
    }
}
