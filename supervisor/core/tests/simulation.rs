//! Seeds through the simulation, each twice. A failure prints the seed, everything that was drawn
//! from it, and the last events; `cargo xtask sim --seed SEED` shows it again.

use yakiros_core::sim;

/// Seeds in an ordinary test run: a few seconds. `cargo xtask sim --seeds N` is for more.
const SEEDS: u64 = 500;

#[test]
fn every_seed_keeps_every_promise_twice() {
    for seed in 0..SEEDS {
        if let Err(failure) = sim::run(seed) {
            panic!("{failure}");
        }
    }
}
