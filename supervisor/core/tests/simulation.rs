//! Seeds through the simulation, each twice. A failure prints the seed, everything that was drawn
//! from it, and the last events; `cargo xtask sim --seed SEED` shows it again.

use yakiros_core::sim;
use yakiros_core::sim::crash::{self, Fault, STEPS};

/// Seeds in an ordinary test run: a few seconds. `cargo xtask sim --seeds N` is for more.
const SEEDS: u64 = 500;

/// The same where the supervisor executes itself again now and then: every time its whole state
/// goes through bytes.
const TAKEOVER_SEEDS: u64 = 100;

/// After one event in so many.
const TAKEOVERS: u64 = 30;

/// Faults that are put in place in each cell of step × fault; `cargo xtask sim --crash-points --seeds N` is for more.
const CRASHES: usize = 2;

/// Seeds within which so many reach each cell: the fewest reach the ways back, one in five.
const CRASH_SEEDS: u64 = 100;

#[test]
fn a_fault_at_any_step_of_a_hot_swap_leaves_one_that_serves() {
    for step in STEPS {
        for fault in Fault::ALL {
            let seen = (0..CRASH_SEEDS).filter_map(|seed| match crash::run(step, fault, seed) {
                Ok(end) => end,
                Err(failure) => panic!("{failure}"),
            });
            assert_eq!(seen.take(CRASHES).count(), CRASHES, "{fault} at {step} is reached");
        }
    }
}

#[test]
fn every_seed_keeps_every_promise_twice() {
    for seed in 0..SEEDS {
        if let Err(failure) = sim::run(seed) {
            panic!("{failure}");
        }
    }
}

#[test]
fn an_orderly_takeover_cannot_be_seen() {
    for seed in 0..TAKEOVER_SEEDS {
        if let Err(failure) = sim::run_with_takeovers(seed, TAKEOVERS) {
            panic!("{failure}");
        }
    }
}

#[test]
fn everything_comes_up_after_failures_of_the_supervisor() {
    for seed in 0..TAKEOVER_SEEDS {
        if let Err(failure) = sim::run_with_failures(seed, TAKEOVERS) {
            panic!("{failure}");
        }
    }
}
