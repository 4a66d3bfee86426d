//! Wakes the engine when something is due.
//!
//! By a timer of the kernel: those of the runtime wake the event loop once more on the way to what is further off than
//! 64 ms, and half of all wake-ups of an idle machine with health probes were those.

use std::future::{Future, pending};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tracing::error;

use crate::supervisor::Supervisor;
use crate::sys;

/// How late what is due may be done, beyond what the engine allows, so that limits which end at nearly the same time wake
/// the supervisor once. Limits and intervals are declared in seconds.
const SLACK: Duration = Duration::from_millis(20);

/// A timer that is set to one moment at most.
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// The moment, until it has come.
    set_to: Option<Duration>,
}

impl Alarm {
    /// One that is not set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { timer: sys::watch(sys::timer()?)?, set_to: None })
    }

    /// Until the monotonic clock says `at`.
    async fn rings(&mut self, at: Duration) -> io::Result<()> {
        while self.set_to.is_none_or(|set_to| set_to != at) || sys::now() < at {
            if self.set_to != Some(at) {
                sys::set_timer(self.timer.get_ref(), at)?;
                self.set_to = Some(at);
            }
            self.timer.readable().await?.clear_ready();
        }
        self.set_to = None;
        Ok(())
    }
}

/// Wake the engine at its deadlines, for ever.
pub async fn serve(supervisor: Rc<Supervisor>, mut alarm: Alarm) {
    loop {
        let due = supervisor.wake_by().map(with_slack);
        let rings = async {
            let Some(at) = due else { return pending().await };
            if let Err(error) = alarm.rings(at).await {
                error!("failed to set the timer: {error}");
                tokio::time::sleep(at.saturating_sub(sys::now())).await;
            }
        };
        if is_first(rings, supervisor.wake_by_changed()).await {
            supervisor.tick();
        }
    }
}

/// Whether the one future is ready before the other.
async fn is_first(one: impl Future<Output = ()>, other: impl Future<Output = ()>) -> bool {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|context| {
        if other.as_mut().poll(context).is_ready() {
            return Poll::Ready(false);
        }
        one.as_mut().poll(context).map(|()| true)
    })
    .await
}

/// The next moment at which what is due by `at` is done, together with all that came due before it.
fn with_slack(at: Duration) -> Duration {
    let step = SLACK.as_millis();
    let millis = at.as_nanos().div_ceil(1_000_000).div_ceil(step) * step;
    u64::try_from(millis).map_or(Duration::MAX, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_within_the_slack_is_done_together_and_never_early() {
        let at = |millis| with_slack(Duration::from_millis(millis)).as_millis();
        assert_eq!([at(0), at(1), at(20), at(21), at(40)], [0, 20, 20, 40, 40]);
        assert_eq!(with_slack(Duration::from_nanos(20_000_001)).as_millis(), 40);
        assert_eq!(with_slack(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn it_rings_when_it_is_time_and_for_the_last_moment_it_was_set_to() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut alarm = Alarm::new().expect("an alarm");
            // What is past already, one after the other, and what never comes until something else does.
            alarm.rings(Duration::ZERO).await.expect("a moment");
            alarm.rings(sys::now()).await.expect("a moment");
            let never = tokio::time::timeout(Duration::from_millis(30), alarm.rings(Duration::MAX));
            assert!(never.await.is_err());
            let at = sys::now() + Duration::from_millis(30);
            // Given up on the way and set anew, later and sooner.
            for other in [at * 2, at] {
                let given_up = tokio::time::timeout(Duration::from_millis(1), alarm.rings(other));
                let _ = given_up.await;
            }
            alarm.rings(at).await.expect("a moment");
            assert!(sys::now() >= at);
        });
    }
}
