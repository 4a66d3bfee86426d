//! Seeds through the simulation. A failure prints the seed; `sim::run(SEED)` shows it again.

use yakiros_core::sim;

/// Seeds in an ordinary test run: a second or two.
const SEEDS: u64 = 20_000;

#[test]
fn every_seed_keeps_every_promise() {
    for seed in 0..SEEDS {
        if let Err(violation) = sim::run(seed) {
            panic!("{violation}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..20 {
        let report = || sim::run(seed).unwrap_or_else(|violation| panic!("{violation}"));
        assert!(report() == report(), "seed {seed} gave two different runs");
    }
}
