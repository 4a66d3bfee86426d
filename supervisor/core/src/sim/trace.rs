//! Events and effects in words, for the history of a run that failed.

use crate::control::{Answer, Request};
use crate::engine::{Effect, Event, FileContent, Place};
use crate::journal::Record;

/// An event, in a line.
pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Files(changes) => {
            let change = |change: &crate::engine::FileChange| match &change.content {
                FileContent::Component(c) => {
                    let (provides, requires, optional) = (&c.provides, &c.requires, &c.optional);
                    format!("{} ({:?} {provides:?} < {requires:?} ? {optional:?})", change.file, c.kind)
                }
                FileContent::Rejected(_) => format!("{} (unusable)", change.file),
                FileContent::Gone => format!("{} (gone)", change.file),
            };
            let changes: Vec<_> = changes.iter().map(change).collect();
            format!("files: {}", changes.join(", "))
        }
        Event::Request { client, peer, request } => {
            format!("client {} of uid {} asks: {}", client.0, peer.uid, request_text(request))
        }
        other => format!("{other:?}"),
    }
}

fn request_text(request: &Request) -> String {
    format!("{request:?}")
}

/// An effect, in a line.
pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Spawn { run, component, generation, place, .. } => {
            let how = match place {
                Place::Alone => "",
                Place::Successor => "to take over ",
                Place::Beside | Place::Receiver => "beside ",
            };
            format!("spawn {} {how}as run {}, generation {generation}", component.name, run.0)
        }
        Effect::Probe { probe, run, component } => {
            format!("probe {} of {}, run {}", probe.0, component.name, run.0)
        }
        Effect::Changed(record) => {
            let Record { revision, component, from, to, cause, after, .. } = record;
            let after = after.map_or_else(String::new, |after| format!(", after {after}"));
            format!("{revision}: {component} {from} -> {to}: {cause}{after}")
        }
        Effect::Reply(client, Answer::Status(_) | Answer::Graph(_) | Answer::Events(_) | Answer::Why(_)) => {
            format!("answer to client {}: a page", client.0)
        }
        other => format!("{other:?}"),
    }
}
