//! Seeds through the simulation, each twice. A failure prints the seed, everything that was drawn
//! from it, and the last events; `cargo xtask sim --seed SEED` shows it again.

use yakiros_core::sim;

/// Seeds in an ordinary test run: a few seconds. `cargo xtask sim --seeds N` is for more.
const SEEDS: u64 = 500;

/// The same where the supervisor executes itself again now and then: every time its whole state
/// goes through bytes.
const TAKEOVER_SEEDS: u64 = 100;

/// After one event in so many.
const TAKEOVERS: u64 = 30;

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
