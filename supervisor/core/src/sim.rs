//! The engine under a fake world: processes, clock, files, clients and faults, all from one seed.
//!
//! A run has a *safety phase*, in which anything may fail and anybody may ask for anything; a
//! *liveness phase*, in which nothing fails any more and everything must come up that can; then
//! everything is shut down. [`checkers`] that know nothing of the engine's inside watch every
//! event and every effect. Each seed is run twice: the same seed gives the same effects.
//!
//! * [`options`]: what is drawn from the seed. Printed first when a run fails.
//! * [`world`]: performs the engine's effects and drives the phases.
//! * [`crash`]: a fault at each step of a hot swap, one by one.
//! * [`faults`]: what goes wrong; a table, and a file for each domain.
//! * [`takeover`]: the supervisor executes itself again; everything goes on as before.
//! * [`model`]: what an onlooker knows: declarations, states, processes.
//! * [`checkers`]: what must hold; a table, and a file for each promise.

mod checkers;
pub mod crash;
mod digest;
mod faults;
mod model;
mod options;
mod outcome;
mod random;
mod takeover;
mod trace;
mod world;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

pub use checkers::names as checker_names;
pub use options::Options;
pub use outcome::{Failure, Phase, Reason, Report};
pub use random::Random;
pub use takeover::Takeovers;

use world::World;

/// Events and effects shown of a run that failed.
const HISTORY: usize = 120;

/// How often a run that failed is run again until it fails again.
const REPLAYS: usize = 20;

/// Run one seed twice through all phases, and compare the two runs.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let first = run_once(seed, &Watch::default())?;
    let watch = Watch { expected: Some(Rc::clone(&first.digests)), ..Watch::default() };
    run_once(seed, &watch)?;
    Ok(first)
}

/// Run one seed without and with a supervisor that executes itself again, after one event in so
/// many, and compare the two runs.
pub fn run_with_takeovers(seed: u64, one_in: u64) -> Result<Report, Box<Failure>> {
    let first = run_once(seed, &Watch::default())?;
    let expected = Some(Rc::clone(&first.digests));
    run_once(seed, &Watch { expected, takeovers: Takeovers::Orderly(one_in), ..Watch::default() })?;
    Ok(first)
}

/// Run one seed with a supervisor that fails over one event in so many and executes itself again.
/// Only what holds in spite of that is looked at.
pub fn run_with_failures(seed: u64, one_in: u64) -> Result<Report, Box<Failure>> {
    run_once(seed, &Watch { unchecked: true, takeovers: Takeovers::Failing(one_in), ..Watch::default() })
}

/// Run one seed once, with no checker looking: for measuring the engine alone.
pub fn run_unchecked(seed: u64) -> Result<Report, Box<Failure>> {
    run_once(seed, &Watch { unchecked: true, ..Watch::default() })
}

/// Everything that goes into the engine and comes out of it in a run of one seed, a line each; if
/// the run fails, the last line says why.
pub fn trace(seed: u64) -> Vec<String> {
    let mut random = Random::new(seed);
    let options = Options::draw(&mut random);
    let mut world = World::new(options, random, &Watch { traced: true, ..Watch::default() });
    let outcome = world.live();
    let mut lines = world.history(usize::MAX);
    lines.extend(outcome.err().map(|reason| format!("{}: {reason}", reason.name())));
    lines
}

/// What is looked at during a run.
#[derive(Clone, Default)]
struct Watch {
    unchecked: bool,
    takeovers: Takeovers,
    /// Events and effects are written down.
    traced: bool,
    /// Digests of an earlier run of the same seed.
    expected: Option<Rc<[u64]>>,
}

/// A run that fails is run again to write down how: that costs good runs nothing. One that is not
/// deterministic may not fail each time.
fn run_once(seed: u64, watch: &Watch) -> Result<Report, Box<Failure>> {
    attempt(seed, watch).map_err(|failure| {
        let traced = Watch { traced: true, ..watch.clone() };
        (0..REPLAYS).find_map(|_| attempt(seed, &traced).err()).unwrap_or(failure)
    })
}

fn attempt(seed: u64, watch: &Watch) -> Result<Report, Box<Failure>> {
    let mut random = Random::new(seed);
    let options = Options::draw(&mut random);
    let mut world = World::new(options.clone(), random, watch);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let reason = match outcome {
        Ok(Ok(())) => return Ok(world.report()),
        Ok(Err(reason)) => reason,
        Err(panic) => Reason::Panicked { message: panic_text(&*panic) },
    };
    let (phase, step, time) = world.place();
    let history = world.history(HISTORY);
    Err(Box::new(Failure { seed, options, phase, step, time, reason, history }))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
