use serde_json::json;

use super::*;

/// An hour with a sample each half minute and a restart each ten seconds. Process 1 has so many KiB more after each of
/// them, and so much for the samples that come in turn.
fn hour(leak_kib: f64, turns: &[i64]) -> Boot {
    let mut boot = Boot::default();
    boot.take(&json!({ "k": "start", "kernel": "6.1", "left_out": [], "failed": null }).to_string());
    for second in (0..=3600_u64).step_by(10) {
        if second % 30 == 0 {
            let restarts = second as f64 / 10.0;
            let turn = turns[(second / 30) as usize % turns.len()];
            let kib = ((1500.0 + restarts * leak_kib) / 4.0).floor() as i64 * 4 + turn;
            let values = json!({ "pid1_anonymous_kib": kib, "guest_available_kib": 500_000 - kib, "zombies": 0,
                "load_replies": second, "load_failures": 0 });
            boot.take(&json!({ "k": "sample", "t": second * 1000, "v": values, "lost": [] }).to_string());
        }
        boot.take(&event(second, "restart", None));
    }
    boot.take(&json!({ "k": "end", "t": 3_600_500, "ill": [], "failed": null }).to_string());
    boot
}

fn event(second: u64, kind: &str, failed: Option<&str>) -> String {
    json!({ "k": "event", "t": second * 1000, "n": 1, "kind": kind, "target": "x", "us": 50_000, "failed": failed,
        "detail": null, "next": { "kind": "kill", "t": 0 } })
    .to_string()
}

fn outcome(boots: &[Boot], name: &str) -> Outcome {
    let all = checks(boots, boots, true);
    all.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name} in {all:#?}")).outcome
}

#[test]
fn a_clean_hour_passes() {
    let boots = [hour(0.0, &[0, 8, 4, 24, 12])];
    for check in checks(&boots, &boots, true) {
        let fine = check.outcome == Outcome::Passed
            || (check.outcome == Outcome::Skipped && check.seen.contains("samples"));
        assert!(fine, "{check:?}");
    }
    assert_eq!(outcome(&boots, "pid1_anonymous_kib_stays"), Outcome::Passed);
    assert_eq!(outcome(&boots, "every_restart_ends_well"), Outcome::Passed);
}

#[test]
fn a_kib_for_each_restart_is_a_leak() {
    let boots = [hour(1.0, &[0, 8, 4, 24, 12])];
    assert_eq!(outcome(&boots, "pid1_anonymous_kib_stays"), Outcome::Failed);
    // For the machine as a whole that is little.
    assert_eq!(outcome(&boots, "guest_available_kib_stays"), Outcome::Passed);
    let large = [hour(16.0, &[0])];
    assert_eq!(outcome(&large, "guest_available_kib_stays"), Outcome::Failed);
}

#[test]
fn each_boot_is_judged_by_itself() {
    // The second begins higher: that is no rise.
    let mut second = hour(0.0, &[0, 4]);
    for sample in &mut second.samples {
        sample.values.entry("pid1_anonymous_kib".into()).and_modify(|kib| *kib += 1000);
    }
    assert_eq!(outcome(&[hour(0.0, &[0, 4]), second], "pid1_anonymous_kib_stays"), Outcome::Passed);
    let leaking = [hour(0.0, &[0, 4]), hour(1.0, &[0, 4])];
    assert_eq!(outcome(&leaking, "pid1_anonymous_kib_stays"), Outcome::Failed);
}

#[test]
fn one_that_ends_badly_is_told() {
    let mut boot = hour(0.0, &[0]);
    boot.take(&event(3600, "upgrade", Some("the old one ran on")));
    let boots = [boot];
    let all = checks(&boots, &boots, true);
    let upgrades = all.iter().find(|check| check.name == "every_upgrade_ends_well").unwrap();
    let reason = upgrades.reason.as_deref().unwrap();
    assert_eq!(reason, "1 of 1 went wrong: after 3600 s x: the old one ran on");
}

#[test]
fn a_request_without_an_answer_is_told() {
    let mut boot = hour(0.0, &[0]);
    let last = boot.samples.last_mut().unwrap();
    last.lost.push("echo: gone".into());
    assert_eq!(outcome(&[boot], "clients_lose_nothing"), Outcome::Failed);
}

#[test]
fn a_torn_journal_and_an_ill_end_are_told() {
    let mut boot = hour(0.0, &[0]);
    boot.take(&json!({ "k": "journal", "t": 1, "record": { "lost": 3 } }).to_string());
    boot.end.as_mut().unwrap().ill.push("echo is DEGRADED".into());
    let boots = [boot];
    assert_eq!(outcome(&boots, "the_journal_is_whole"), Outcome::Failed);
    assert_eq!(outcome(&boots, "all_are_well_at_the_end"), Outcome::Failed);
}

#[test]
fn what_the_machine_cannot_do_is_skipped_with_the_reason() {
    let mut boot = hour(0.0, &[0]);
    let left = json!({ "k": "start", "kernel": "", "left_out": [{ "kind": "move", "why": "no CRIU" }], "failed": null });
    boot.take(&left.to_string());
    assert_eq!(outcome(&[boot], "every_move_ends_well"), Outcome::Skipped);
}

#[test]
fn a_guest_that_said_nothing_has_not_come_up() {
    assert_eq!(outcome(&[Boot::default()], "the_machine_comes_up"), Outcome::Failed);
}
