//! When health probes are sent: rhythm, jitter, start grace, and not at all.

use super::*;

/// Two hundred probed services, all up.
fn two_hundred_probed() -> Bench {
    let names: Vec<_> = (0..200).map(|n| format!("c{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| service(name, PROBED)).collect();
    let mut bench = Bench::new(&files.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        bench.execute(name);
    }
    bench
}

#[test]
fn a_failure_within_the_start_grace_does_not_count() {
    let graced =
        format!("{PROBED}health_failures = 1\nhealth_restart_threshold = 2\nhealth_start_grace = 60");
    let mut bench = executed(&graced);
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

#[test]
fn probes_keep_their_rhythm_and_are_spread() {
    let mut bench = two_hundred_probed();
    let start = bench.now;
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    while bench.now < start + 60 * SECOND {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
        let sent = all_sent(&mut bench);
        assert!(sent.len() <= 5, "{} probes at once", sent.len());
        for (probe, name) in sent {
            times.entry(name).or_default().push(bench.now.saturating_sub(start));
            bench.give(Event::Probed { probe, outcome: Ok(()) });
        }
    }
    for (name, times) in times {
        assert!((5 * SECOND..=10 * SECOND).contains(&times[0]), "{name}: {times:?}");
        assert!(times.windows(2).all(|pair| pair[1] == pair[0] + 10 * SECOND), "{name}: {times:?}");
    }
}

/// Wake it as late as it allows: what is asked, and when it was due.
#[test]
fn probes_that_are_due_within_the_slack_are_asked_together() {
    let mut bench = two_hundred_probed();
    let start = bench.now;
    let (mut wakes, mut probes) = (0, 0);
    while bench.now < start + 60 * SECOND {
        let due = bench.engine.deadline().expect("a deadline");
        let wake_by = bench.engine.wake_by().expect("a time to wake at");
        assert!((due..=due + SECOND).contains(&wake_by), "{due:?} is put off to {wake_by:?}");
        bench.now = wake_by;
        bench.give(Event::Tick);
        wakes += 1;
        let sent = all_sent(&mut bench);
        probes += sent.len();
        for (probe, _) in sent {
            bench.give(Event::Probed { probe, outcome: Ok(()) });
        }
    }
    // First probes come five to ten seconds after the start, then one every ten seconds each: none is left out.
    assert!((1000..=1200).contains(&probes), "{probes} probes");
    assert!(wakes <= 60, "{wakes} wake-ups");
}

#[test]
fn nothing_but_probes_is_put_off() {
    let slow = service("slow", "[lifecycle]\nreadiness = \"notify\"\nreadiness_timeout = 8");
    let mut bench = Bench::new(&[&service("a", PROBED), &slow]);
    bench.execute("a");
    bench.execute("slow");
    let late = bench.now + 8 * SECOND;
    while bench.engine.state("slow") == State::ReadyWait {
        bench.now = bench.engine.wake_by().expect("a time to wake at");
        assert!(bench.now <= late, "the limit of readiness is put off to {:?}", bench.now);
        bench.give(Event::Tick);
        if let Some(probe) = sent(&mut bench) {
            bench.give(Event::Probed { probe, outcome: Ok(()) });
        }
    }
    assert_eq!(bench.now, late);
}

#[test]
fn a_long_pause_is_not_made_up_for() {
    let mut bench = executed(PROBED);
    probed(&mut bench, true);
    let rhythm = bench.now;
    bench.now += 95 * SECOND;
    bench.give(Event::Tick);
    let probe = sent(&mut bench).expect("one probe");
    bench.give(Event::Probed { probe, outcome: Ok(()) });
    assert_eq!(sent(&mut bench), None);
    next_probe(&mut bench);
    assert_eq!(bench.now, rhythm + 100 * SECOND);
}

#[test]
fn nothing_is_probed_before_it_is_ready_or_after_it_is_told_to_stop() {
    let mut bench = executed(&format!("{PROBED}readiness = \"notify\""));
    bench.now += 20 * SECOND;
    bench.give(Event::Tick);
    assert_eq!(sent(&mut bench), None);
    let run = bench.run("a");
    bench.give(Event::Ready(run));
    let probe = next_probe(&mut bench);
    bench.stop("a");
    assert!(bench.effects.iter().any(|e| matches!(e, Effect::CancelProbe(id) if *id == probe)));
    bench.give(Event::Probed { probe, outcome: Err("cancelled".into()) });
    assert_eq!(bench.engine.state("a"), State::Stopping);
}
