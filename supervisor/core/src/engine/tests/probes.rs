//! The start grace and the jitter of health probes.

use super::*;

#[test]
fn a_failure_within_the_start_grace_does_not_count() {
    let graced =
        format!("{PROBED}health_failures = 1\nhealth_restart_threshold = 2\nhealth_start_grace = 60");
    let mut bench = Bench::new(&[&service("a", &graced)]);
    bench.execute("a");
    let up = bench.now;
    while bench.now < up + 45 * SECOND {
        probed(&mut bench, false);
        assert_eq!(bench.engine.state("a"), State::Active);
    }
    let (health, detail) = health_of(&bench, "a");
    assert_eq!(health, crate::control::Health::Failing);
    assert!(detail.expect("a reason").starts_with("a health probe failed within the start grace: "));
    // A changed interval does not begin another grace, and what passes ends it.
    bench.declare("0.toml", &service("a", &graced.replace("interval = 10", "interval = 5")));
    probed(&mut bench, true);
    assert!(bench.now < up + 60 * SECOND, "{:?}", bench.now);
    probed(&mut bench, false);
    assert_eq!(bench.engine.state("a"), State::Degraded);
    probed(&mut bench, false);
    assert_eq!(bench.engine.state("a"), State::Stopping);
    // The next process has a grace of its own, and without a pass it ends by itself.
    bench.end("a");
    bench.execute("a");
    let up = bench.now;
    while bench.engine.state("a") == State::Active {
        probed(&mut bench, false);
    }
    let after = bench.now.saturating_sub(up);
    assert!((60 * SECOND..=70 * SECOND).contains(&after), "{after:?}");
}

#[test]
fn first_probes_are_spread_over_the_declared_jitter() {
    for (jitter, range) in [(0, 10..=10), (2, 8..=10), (10, 0..=10), (99, 0..=10)] {
        let mut firsts = Vec::new();
        for name in ["a", "b", "web", "database"] {
            let more = format!("{PROBED}health_jitter = {jitter}");
            let mut bench = Bench::new(&[&service(name, &more)]);
            bench.execute(name);
            let up = bench.now;
            next_probe(&mut bench);
            firsts.push(bench.now.saturating_sub(up));
        }
        let within = |first: &Duration| (*range.start() * SECOND..=*range.end() * SECOND).contains(first);
        assert!(firsts.iter().all(within), "{jitter}: {firsts:?}");
        firsts.dedup();
        assert_eq!(firsts.len(), if jitter == 0 { 1 } else { 4 }, "{jitter}: {firsts:?}");
    }
}
