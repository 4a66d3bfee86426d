//! Probes: they fail, take long, and hang.

use crate::engine::{Event, ProbeId};
use crate::sim::world::{Plan, Step, World};

/// While calm a probe takes half of the shortest limit that is drawn.
const CALM_MS: u64 = 500;

impl World {
    /// What becomes of a probe that was just sent.
    pub(in crate::sim) fn plan_answer(&mut self, probe: ProbeId) {
        if self.model.calm {
            return self.plan(CALM_MS, Plan::Answer(probe, true));
        }
        if self.random.percent(self.options.probe_hangs) {
            return;
        }
        let passes = !self.random.percent(self.options.probe_failures);
        self.plan(self.options.probe_ms, Plan::Answer(probe, passes));
    }

    /// A probe ends by itself. One that was cancelled meanwhile is over when its plan to vanish is.
    pub(in crate::sim) fn answer_probe(&mut self, probe: ProbeId, passes: bool) -> Step {
        let outcome = if passes { Ok(()) } else { Err("it failed".into()) };
        self.give(Event::Probed { probe, outcome })
    }
}
