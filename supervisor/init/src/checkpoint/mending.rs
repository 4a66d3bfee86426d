//! After a worker that did not come to its end: what it has left is put right by another one, before the process is told to
//! go on with what it had.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::warn;
use yakiros_checkpoint::order::Job;

use super::worker::Worker;
use crate::supervisor::Supervisor;

/// For others to end what they do, and for the disk to remove images.
const LIMIT: Duration = Duration::from_secs(60);

/// What is waited for it. It is first about the sockets that stand in repair, which takes less than a second even on an
/// emulated processor; images may take longer, and are in nobody's way.
const WAIT: Duration = Duration::from_secs(5);

/// If one at work for this component was killed, by whomever: until what it has left is put right, or that takes too long.
pub async fn after(supervisor: &Rc<Supervisor>, component: &str) {
    let (supervisor, component) = (Rc::clone(supervisor), component.to_owned());
    let work = spawn_local(async move {
        // Work that was called off drops its worker at its next turn.
        tokio::task::yield_now().await;
        if !supervisor.checkpoints.workers.was_lost(&component) {
            return;
        }
        let mended = timeout(LIMIT, mend(&supervisor, &component)).await;
        let mended = mended.unwrap_or_else(|_| Err(format!("that was not done within {LIMIT:?}").into()));
        if let Err(why) = mended {
            warn!("{component}: what a checkpoint that was cut off has left is not put right: {why}");
        }
        // Another attempt would come to the same; the next checkpoint makes it.
        let _ = supervisor.checkpoints.workers.was_lost(&component);
    });
    // It goes on when nobody waits for it any more.
    let _ = timeout(WAIT, work).await;
}

async fn mend(supervisor: &Rc<Supervisor>, component: &str) -> Result<(), Rc<str>> {
    let own = &supervisor.checkpoints;
    let _turn = own.turns.acquire().await.map_err(|error| error.to_string())?;
    let job = Job::Mend { component: component.to_owned(), work: Some(supervisor.state_dir.clone()) };
    Worker::start(supervisor, component, (own.places.store.clone(), job), &[])?.finish().await
}
