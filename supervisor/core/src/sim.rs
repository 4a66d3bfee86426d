//! The engine under a fake world: processes, clock, files, users and faults, all from one seed.
//!
//! A run has a *safety phase*, in which anything may fail and anybody may ask for anything, and
//! a *liveness phase*, in which nothing fails any more and everything must come up that can. Then
//! everything is shut down. Checkers that know nothing of the engine's inside watch every effect;
//! a violation carries the seed that shows it again.

mod check;
mod health;
mod random;
mod world;

use std::fmt;
use std::time::Duration;

use crate::journal::Record;

pub use random::Random;

use world::World;

/// Every choice of a run. Drawn from the seed, so that a swarm of seeds covers the corners.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of components at the start.
    pub components: usize,
    /// Capabilities to choose from; fewer mean more alternative providers and more cycles.
    pub capabilities: usize,
    /// Requirements of a component, at most.
    pub requirements: usize,
    /// Whether a component may require what those after it provide, so that cycles appear.
    pub cycles: bool,
    /// Percent of components that are oneshots.
    pub oneshots: u64,
    /// Percent of services that report ready.
    pub readiness: u64,
    /// Percent of starts that fail before exec, while faults last.
    pub exec_failures: u64,
    /// Percent of processes that do not hear SIGTERM.
    pub deaf: u64,
    /// Percent of services that are probed.
    pub probed: u64,
    /// Percent of probes that fail, while faults last.
    pub probe_failures: u64,
    /// Percent of probes that never end by themselves, while faults last.
    pub probe_hangs: u64,
    /// Faults and requests in the safety phase.
    pub faults: usize,
    /// Longest time between two of them.
    pub fault_pause: Duration,
}

impl Options {
    /// The options of a seed.
    pub fn draw(random: &mut Random) -> Self {
        Self {
            components: 2 + random.below(24) as usize,
            capabilities: 2 + random.below(24) as usize,
            requirements: random.below(4) as usize,
            cycles: random.percent(30),
            oneshots: random.below(40),
            readiness: random.below(60),
            exec_failures: random.below(20),
            deaf: random.below(30),
            probed: random.below(60),
            probe_failures: random.below(90),
            probe_hangs: random.below(30),
            faults: random.below(60) as usize,
            fault_pause: Duration::from_millis(1 << random.below(15)),
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Events handled by the engine.
    pub steps: u64,
    /// Every change of state, in order.
    pub records: Vec<Record>,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Shows it again.
    pub seed: u64,
    /// Events handled until then.
    pub step: u64,
    /// Which promise, and how.
    pub message: String,
    /// The last changes of state before it.
    pub history: Vec<Record>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.message)?;
        for record in &self.history {
            let Record { revision, time_ms, component, from, to, cause, .. } = record;
            writeln!(f, "{revision:>6} {time_ms:>8} {component} {from} -> {to}: {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// Run one seed through all phases.
pub fn run(seed: u64) -> Result<Report, Box<Violation>> {
    let mut random = Random::new(seed);
    let options = Options::draw(&mut random);
    let mut world = World::new(options, random);
    world.live().map_err(|message| {
        Box::new(Violation { seed, step: world.steps(), message, history: world.last_records(40) })
    })?;
    Ok(world.report())
}
