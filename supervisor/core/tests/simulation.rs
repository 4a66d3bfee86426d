//! Seeds through the simulation. A failure prints the seed; `sim::run(SEED)` shows it again.

use yakiros_core::sim;

/// Seeds in an ordinary test run: a few seconds.
const SEEDS: u64 = 2_000;

/// Names another number of seeds, for a long run.
const SEEDS_VARIABLE: &str = "YAKIROS_SIM_SEEDS";

#[test]
fn every_seed_keeps_every_promise() {
    let given = std::env::var(SEEDS_VARIABLE).ok();
    let seeds = given.and_then(|number| number.parse().ok());
    for seed in 0..seeds.unwrap_or(SEEDS) {
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
