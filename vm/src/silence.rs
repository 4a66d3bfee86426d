//! The clock of silence: a guest that answers nothing at all, while its QEMU runs on and its console says nothing of it.
//!
//! The agent stands beside process 1 and does next to nothing to tell the time, so a guest whose agent does not for half a
//! minute is stuck as a whole: stopped, starved, or in a loop with its interrupts off. Who waits for something in it would
//! otherwise wait for as long as that may take.

use std::time::{Duration, Instant};

use crate::error::{VmError, VmErrorKind};
use crate::machine::Guest;

/// The agent is asked for the time so often within the limit: one question that is lost, as when another host greets the
/// agent, is no silence.
const QUESTIONS: u32 = 5;
/// Console lines shown with a silence.
const EXCERPT_LINES: usize = 15;

/// Ends when the guest has answered nothing for `limit`, with how it looked then; never while it answers or
/// [may be silent](Guest::may_be_silent), nor once it has ended: that is told by whatever waits for it.
pub async fn silence(guest: &Guest, limit: Duration) -> VmError {
    let pause = limit / QUESTIONS;
    let mut answered = Instant::now();
    while answered.elapsed() < limit {
        let (asked, asked_at) = (tokio::time::timeout(pause, guest.agent.clock(None)).await, Instant::now());
        match asked {
            // That it cannot do what it is asked is an answer, too.
            Ok(Ok(_) | Err(VmErrorKind::Guest(_))) => answered = asked_at,
            Err(_) | Ok(Err(VmErrorKind::TimedOut { .. })) => {}
            Ok(Err(_)) => return std::future::pending().await,
        }
        if guest.has_ended() {
            return std::future::pending().await;
        }
        if guest.may_be_silent() {
            answered = asked_at;
        }
        if answered == asked_at {
            tokio::time::sleep(pause).await;
        }
    }
    VmError::new(
        "hear from the guest",
        VmErrorKind::Silent { limit, console: guest.console.tail(EXCERPT_LINES) },
    )
}
