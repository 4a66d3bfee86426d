//! A checkpoint that a client wants restored, or nothing, is looked at before anything is stopped for it.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::timeout;
use yakiros_checkpoint::order::{Event as Said, Job};
use yakiros_checkpoint::store::Id;
use yakiros_core::control::{Answer, Request};
use yakiros_core::engine::{ClientId, Event, Peer};
use yakiros_core::journal::State;

use super::worker::Worker;
use crate::supervisor::Supervisor;

/// The time to read each of its bytes; what takes longer is refused.
const LIMIT: Duration = Duration::from_secs(50);

/// Whether a request has to wait until the checkpoint that it names was looked at. Then it goes on from here, or is refused.
pub fn begin(supervisor: &Rc<Supervisor>, client: ClientId, peer: Peer, request: &Request) -> bool {
    let Request::Restore { name, id, fallback: false, .. } = request else { return false };
    // What is refused in any case is refused by the engine.
    if !supervisor.config().is_privileged(peer.uid) || supervisor.state(name) == State::Removed {
        return false;
    }
    let (name, id, request) = (name.clone(), id.clone(), request.clone());
    let supervisor = Rc::clone(supervisor);
    let verifying = Rc::clone(&supervisor.checkpoints.verifying);
    verifying.set(verifying.get() + 1);
    spawn_local(async move {
        let looked = timeout(LIMIT, verify(&supervisor, &name, id)).await;
        verifying.set(verifying.get() - 1);
        let looked = looked.unwrap_or_else(|_| Err(format!("it was not read within {LIMIT:?}").into()));
        match looked {
            // It may have gone meanwhile.
            Ok(()) if supervisor.clients.borrow().contains_key(&client) => {
                supervisor.dispatch(Event::Request { client, peer, request });
            }
            Ok(()) => {}
            Err(why) => {
                let message = format!("{name} is not restored, and nothing was stopped for it: {why}");
                supervisor.reply(client, Answer::Refused { message, near: Vec::new() });
            }
        }
    });
    true
}

async fn verify(supervisor: &Rc<Supervisor>, name: &str, id: Option<String>) -> Result<(), Rc<str>> {
    let own = &supervisor.checkpoints;
    let id = id.map(|id| id.parse::<Id>()).transpose().map_err(|error| error.to_string())?;
    let _turn = own.turns.acquire().await.map_err(|error| error.to_string())?;
    let job = Job::Verify { component: name.to_owned(), id };
    let mut worker = Worker::start(supervisor, name, (own.places.store.clone(), job), &[])?;
    loop {
        match worker.next().await? {
            Said::Done { .. } => return Ok(()),
            Said::Failed { reason, .. } => return Err(reason.into()),
            _ => {}
        }
    }
}
