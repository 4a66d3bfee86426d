//! Each request is answered once, within its limit, and a client that has gone gets nothing. What
//! is answered is true: a stopped process is gone, a started component is up, a restarted one has
//! another process.

use std::time::Duration;

use super::{Checker, Verdict};
use crate::control::{Answer, Request};
use crate::engine::{ClientId, Effect, Engine, Event, RELOAD_NOTICE, RunId};
use crate::sim::model::Model;

/// What `Answer::Done` to a request promises.
#[derive(Debug)]
enum Promise {
    Nothing,
    /// This process of the component is gone.
    Gone(usize, Option<RunId>),
    /// The component is up, with another process than this.
    Up(usize, Option<RunId>),
}

#[derive(Debug)]
struct Open {
    client: ClientId,
    due: Option<Duration>,
    promise: Promise,
    /// It asks for a condition that may never hold.
    waits: bool,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Replies {
    open: Vec<Open>,
}

impl Checker for Replies {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        match event {
            Event::Request { client, request, .. } => {
                let limit = limit(model, request);
                let due = limit.map(|limit| model.now + limit);
                let waits = matches!(request, Request::Wait { .. });
                self.open.push(Open { client: *client, due, promise: promise(model, request), waits });
            }
            Event::ClientGone(client) => self.open.retain(|open| open.client != *client),
            _ => {}
        }
        Ok(())
    }

    fn effect(&mut self, model: &Model, effect: &Effect) -> Verdict {
        let Effect::Reply(client, answer) = effect else { return Ok(()) };
        let Some(at) = self.open.iter().position(|open| open.client == *client) else {
            return Err(format!("client {} is answered twice, or was never there", client.0));
        };
        let open = self.open.swap_remove(at);
        let Answer::Done { message, .. } = answer else { return Ok(()) };
        let run_of = |number: usize| model.slots[number].process.as_ref().map(|process| process.run);
        let true_word = match open.promise {
            Promise::Nothing => true,
            Promise::Gone(number, run) => run.is_none() || run_of(number) != run,
            Promise::Up(number, not) => {
                model.slots[number].state.is_up() && (not.is_none() || run_of(number) != not)
            }
        };
        if true_word { Ok(()) } else { Err(format!("{message:?} is answered, which is not true")) }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        let late = self.open.iter().find(|open| open.due.is_some_and(|due| model.now > due));
        late.map_or(Ok(()), |open| Err(format!("client {} gets no answer within its limit", open.client.0)))
    }

    fn rest(&mut self, _model: &Model, _engine: &Engine) -> Verdict {
        let left = self.open.iter().find(|open| !open.waits);
        left.map_or(Ok(()), |open| Err(format!("client {} gets no answer", open.client.0)))
    }
}

fn limit(model: &Model, request: &Request) -> Option<Duration> {
    let timeout_ms = match request {
        Request::Reload { name: Some(name) } => return Some(reload_limit(model, name)),
        Request::Start { timeout_ms, .. }
        | Request::Stop { timeout_ms, .. }
        | Request::Restart { timeout_ms, .. }
        | Request::Upgrade { timeout_ms, .. }
        | Request::Wait { timeout_ms, .. } => *timeout_ms,
        // Everything else is answered at once.
        _ => Some(0),
    };
    timeout_ms.map(Duration::from_millis)
}

/// One that may announce its reload has the notice for that, and then its readiness limit.
fn reload_limit(model: &Model, name: &str) -> Duration {
    let process = model.number(name).and_then(|number| model.slots[number].process.as_ref());
    let component = process.map(|process| &process.declared.component);
    let tells = component.filter(|component| component.has_notify_socket());
    tells.map_or(Duration::ZERO, |component| component.lifecycle.readiness_timeout.max(RELOAD_NOTICE))
}

fn promise(model: &Model, request: &Request) -> Promise {
    let find = |name: &str| {
        let number = model.number(name)?;
        Some((number, model.slots[number].process.as_ref().map(|process| process.run)))
    };
    let made = match request {
        Request::Stop { name, .. } => find(name).map(|(number, run)| Promise::Gone(number, run)),
        Request::Start { name, .. } => find(name).map(|(number, _)| Promise::Up(number, None)),
        Request::Restart { name, .. } => find(name).map(|(number, run)| Promise::Up(number, run)),
        _ => None,
    };
    made.unwrap_or(Promise::Nothing)
}
