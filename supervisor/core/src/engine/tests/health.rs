//! What the outcomes of health probes do to a component.

use super::*;

#[test]
fn thresholds_of_health_by_table() {
    use State::{Active, Degraded, Starting, Stopping};
    // Outcomes of probes one after the other (`+` passes), and the state after each.
    let cases: &[(&str, &str, &[State])] = &[
        ("3", "--+--+", &[Active, Active, Active, Active, Active, Active]),
        ("3", "---+", &[Active, Active, Degraded, Active]),
        ("3", "----+", &[Active, Active, Degraded, Degraded, Active]),
        ("3", "-----", &[Active, Active, Degraded, Degraded, Stopping]),
        ("1", "-+-+-", &[Degraded, Active, Degraded, Active, Degraded]),
        ("1", "-----", &[Degraded, Degraded, Degraded, Degraded, Stopping]),
        ("5", "-----", &[Active, Active, Active, Active, Stopping]),
    ];
    for (threshold, outcomes, states) in cases {
        let more = format!("{PROBED}health_fail_threshold = {threshold}");
        let mut bench = executed(&more);
        for (outcome, state) in outcomes.chars().zip(*states) {
            probed(&mut bench, outcome == '+');
            assert_eq!(bench.engine.state("a"), *state, "{outcomes} with threshold {threshold}");
        }
        if bench.engine.state("a") == Stopping {
            let before = bench.engine.journal().revision();
            bench.end("a");
            assert_eq!(bench.engine.state("a"), Starting, "restarted at once");
            assert!(bench.engine.journal().entered("a", State::Failed, before).is_some());
        }
    }
}

#[test]
fn degraded_keeps_dependents_running_and_marks_the_capability() {
    let base = format!("[provides]\ncapabilities = [\"base\"]\n{PROBED}health_failures = 1");
    let user = service("user", "[requires]\ncapabilities = [\"base\"]");
    let mut bench = Bench::new(&[&service("base", &base), &user]);
    bench.execute("base");
    bench.execute("user");
    probed(&mut bench, false);
    assert_eq!(bench.engine.state("base"), State::Degraded);
    assert_eq!(bench.engine.state("user"), State::Active);
    let page = bench.engine.graph_page(None);
    let node = page.components.iter().find(|node| &*node.name == "base").expect("base");
    assert_eq!(node.level, crate::control::CapabilityStatus::Degraded);
    assert!(!bench.has_told_anybody());
}

#[test]
fn status_says_which_probe_failed_and_how() {
    use crate::control::Health;
    let mut bench = executed(PROBED);
    assert_eq!(health_of(&bench, "a"), (Health::None, None), "not yet probed");
    probed(&mut bench, true);
    assert_eq!(health_of(&bench, "a"), (Health::Healthy, None));
    let probe = next_probe(&mut bench);
    bench.now += 4 * SECOND;
    bench.give(Event::Tick);
    assert!(bench.effects.iter().any(|e| matches!(e, Effect::CancelProbe(id) if *id == probe)));
    let (health, detail) = health_of(&bench, "a");
    assert_eq!(health, Health::Failing);
    let detail = detail.expect("a reason");
    assert_eq!(detail, "a health probe failed: health_tcp 127.0.0.1:80: no answer within 4s");
    // The answer comes too late and counts no more.
    bench.give(Event::Probed { probe, outcome: Ok(()) });
    assert_eq!(health_of(&bench, "a").0, Health::Failing);
}

#[test]
fn a_probe_that_cannot_be_ended_fails_again_and_again() {
    let mut bench = executed(&format!("{PROBED}health_fail_threshold = 2"));
    next_probe(&mut bench);
    let end = bench.now + 60 * SECOND;
    while bench.now < end && bench.engine.state("a") != State::Stopping {
        bench.now = bench.engine.deadline().expect("a deadline");
        bench.give(Event::Tick);
        assert_eq!(sent(&mut bench), None, "one at a time");
    }
    assert_eq!(bench.engine.state("a"), State::Stopping);
    assert!(bench.engine.journal().entered("a", State::Degraded, 0).is_some());
}

#[test]
fn a_changed_interval_keeps_the_process() {
    let mut bench = executed(&format!("{PROBED}health_failures = 1"));
    let run = bench.run("a");
    probed(&mut bench, false);
    assert_eq!(bench.engine.state("a"), State::Degraded);
    bench.declare("0.toml", &service("a", "[lifecycle]\nhealth_file = \"/a\"\nhealth_interval = 2"));
    assert_eq!(bench.engine.state("a"), State::Degraded, "until the new probe passes");
    let before = bench.now;
    probed(&mut bench, true);
    assert!(bench.now <= before + 2 * SECOND, "{:?}", bench.now);
    assert_eq!((bench.engine.state("a"), bench.run("a")), (State::Active, run));
    probed(&mut bench, false);
    bench.declare("0.toml", &service("a", ""));
    assert_eq!((bench.engine.state("a"), bench.run("a")), (State::Active, run));
    assert_eq!(health_of(&bench, "a"), (crate::control::Health::None, None));
    assert_eq!(bench.engine.deadline(), None, "nothing is probed any more");
}
