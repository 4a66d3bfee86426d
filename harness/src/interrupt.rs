//! Work that ends in order when the user or the system wants it to.

use std::io;
use std::task::Poll;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

/// The exit code of what was interrupted, as shells report SIGINT.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Does the work on this thread, or gives `None` when SIGINT, SIGTERM or SIGHUP came first. Either way guests are gone
/// afterwards, and destructors have run.
///
/// One thread, and this one: QEMU is bound to the life of the thread that starts it, see `yakiros_vm::qemu`.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let local = LocalSet::new();
        tokio::select! {
            outcome = local.run_until(work) => Some(outcome),
            () = interruption() => None,
        }
    });
    // A thread may still wait for the keyboard or for a download; both end with this process.
    runtime.shutdown_background();
    Ok(outcome)
}

async fn interruption() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    std::future::poll_fn(|context| {
        let arrived = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if arrived { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
