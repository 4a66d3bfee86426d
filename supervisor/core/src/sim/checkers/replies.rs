//! Each request is answered once, within its limit, and a client that has gone gets nothing. What
//! is answered is true: a stopped process is gone, a started component is up, a restarted one and an
//! upgraded one have another process. Who waits for news or for a log is told as soon as there is
//! something, and not before.

use std::rc::Rc;
use std::time::Duration;

use super::{Checker, Verdict};
use crate::control::{Answer, Request, Until, UpgradeLevel};
use crate::engine::{CHECKPOINT_LIMIT, ClientId, Effect, Engine, Event, FREEZE_LIMIT, RELOAD_NOTICE, RunId};
use crate::journal::{CAPACITY, State};
use crate::sim::model::{Model, Process, SLOTS};

/// What the good answer to a request promises.
#[derive(Debug)]
enum Promise {
    Nothing,
    /// This process of the component is gone.
    Gone(usize, Option<RunId>),
    /// The component is up, with another process than this.
    Up(usize, Option<RunId>),
    /// The same, and that it was down for as long as is said: since then, if it was up.
    Upgraded(usize, Option<RunId>, Down),
    /// A record is newer than this: any, or one of the component.
    News(Option<usize>, u64),
    /// The log of the component has grown.
    Log(String),
}

/// How an upgrade puts a component out of service that is done by a restart at once.
#[derive(Debug)]
struct Down {
    /// Since when, if it was up.
    since: Option<Duration>,
    /// Something is left of the upgrade before, or of a checkpoint, for which it may have to wait.
    waits: bool,
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
pub(super) struct Replies {
    open: Vec<Open>,
    /// The newest record, and that of each component.
    last: u64,
    newest: [u64; SLOTS],
    /// Whose log has grown with this event.
    grown: Option<Rc<str>>,
}

impl Default for Replies {
    fn default() -> Self {
        Self { open: Vec::new(), last: 0, newest: [0; SLOTS], grown: None }
    }
}

impl Checker for Replies {
    fn event(&mut self, model: &Model, event: &Event) -> Verdict {
        self.grown = None;
        match event {
            Event::LogGrew(name) => self.grown = Some(Rc::clone(name)),
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
        match effect {
            Effect::Changed(record) => {
                self.last = record.revision;
                if let Some(number) = model.number(&record.component) {
                    self.newest[number] = record.revision;
                }
                Ok(())
            }
            Effect::Reply(client, answer) => self.judge(model, *client, answer),
            _ => Ok(()),
        }
    }

    fn step(&mut self, model: &Model, _engine: &Engine) -> Verdict {
        for open in &self.open {
            let number = open.client.0;
            if open.due.is_some_and(|due| model.now > due) {
                return Err(format!("client {number} gets no answer within its limit"));
            }
            let missed = match &open.promise {
                Promise::News(of, since) => self.news(model, *of) > *since,
                Promise::Log(name) => self.grown.as_deref() == Some(name.as_str()),
                _ => false,
            };
            if missed {
                return Err(format!("client {number} waits for news and is not told"));
            }
        }
        Ok(())
    }

    fn rest(&mut self, _model: &Model, _engine: &Engine) -> Verdict {
        let left = self.open.iter().find(|open| !open.waits);
        left.map_or(Ok(()), |open| Err(format!("client {} gets no answer", open.client.0)))
    }
}

impl Replies {
    /// The newest revision that can be told of: what is no longer declared is known to the journal
    /// alone, and not for ever.
    fn news(&self, model: &Model, of: Option<usize>) -> u64 {
        let Some(number) = of else { return self.last };
        let newest = self.newest[number];
        let known = model.slots[number].state != State::Removed || newest + CAPACITY as u64 > self.last;
        if known { newest } else { 0 }
    }

    fn judge(&mut self, model: &Model, client: ClientId, answer: &Answer) -> Verdict {
        let Some(at) = self.open.iter().position(|open| open.client == client) else {
            return Err(format!("client {} is answered twice, or was never there", client.0));
        };
        let Open { promise, .. } = self.open.swap_remove(at);
        let run_of = |number: usize| model.slots[number].process.as_ref().map(|process| process.run);
        let up = |number: usize, not: Option<RunId>| {
            model.slots[number].state.is_up() && (not.is_none() || run_of(number) != not)
        };
        let true_word = match (answer, promise) {
            (Answer::Done { .. }, Promise::Nothing) => true,
            (Answer::Done { .. }, Promise::Gone(number, run)) => run.is_none() || run_of(number) != run,
            (Answer::Done { .. } | Answer::Restored { .. }, Promise::Up(number, not)) => up(number, not),
            (Answer::Done { revision, .. }, Promise::News(of, since)) => {
                *revision > since && *revision == self.news(model, of)
            }
            (Answer::TimedOut { .. }, Promise::News(of, since)) => self.news(model, of) <= since,
            (Answer::Done { .. }, Promise::Log(name)) => self.grown.as_deref() == Some(name.as_str()),
            (Answer::Upgraded(done), Promise::Upgraded(number, not, down)) => {
                let gap = done.gap_us.map(Duration::from_micros);
                let most = down.since.map(|since| model.now.saturating_sub(since));
                // A hot swap, or what follows from one that failed, puts the component out of service later, or not.
                let at_once = done.passed_over.is_empty() && !down.waits;
                let right = if at_once && done.level == UpgradeLevel::Restart {
                    gap == most
                } else {
                    gap.is_none_or(|gap| most.is_none_or(|most| gap <= most))
                };
                up(number, not) && right
            }
            (Answer::Done { .. } | Answer::Upgraded(_) | Answer::Restored { .. }, _) => false,
            _ => true,
        };
        if true_word { Ok(()) } else { Err(format!("{answer:?} is answered, which is not true")) }
    }
}

fn limit(model: &Model, request: &Request) -> Option<Duration> {
    let timeout_ms = match request {
        Request::Reload { name: Some(name) } => return Some(reload_limit(model, name)),
        Request::Start { timeout_ms, .. }
        | Request::Stop { timeout_ms, .. }
        | Request::Restart { timeout_ms, .. }
        | Request::Upgrade { timeout_ms, .. }
        | Request::Restore { timeout_ms, .. }
        | Request::Wait { timeout_ms, .. } => *timeout_ms,
        Request::Freeze { .. } | Request::Thaw { .. } => return Some(FREEZE_LIMIT),
        Request::Checkpoint { .. } => return Some(CHECKPOINT_LIMIT),
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
        Request::Restart { name, .. } | Request::Restore { name, .. } => {
            find(name).map(|(number, run)| Promise::Up(number, run))
        }
        Request::Upgrade { name, .. } => find(name).map(|(number, run)| {
            let slot = &model.slots[number];
            let down = slot.state.is_up().then_some(model.now);
            let away = slot.process.as_ref().is_some_and(Process::is_away);
            Promise::Upgraded(number, run, Down { since: down, waits: slot.second.is_some() || away })
        }),
        Request::Wait { until: Until::Changed { name, since }, .. } => match name {
            None => Some(Promise::News(None, *since)),
            Some(name) => model.number(name).map(|number| Promise::News(Some(number), *since)),
        },
        Request::Wait { until: Until::Log { name, .. }, .. } => Some(Promise::Log(name.clone())),
        _ => None,
    };
    made.unwrap_or(Promise::Nothing)
}
