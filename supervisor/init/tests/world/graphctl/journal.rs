//! `why`, `events` and `wait`.

use yakiros_core::journal::State;

use crate::guest::{Guest, sleeper};

/// The lines of `why`, without revisions and times.
fn chain(guest: &Guest, name: &str) -> Vec<String> {
    let text = guest.says(&["why", name]);
    let lines = text.lines().skip(1);
    lines.map(|line| line.split_once("Z ").expect("a time").1.to_owned()).collect()
}

#[test]
fn why_leads_back_to_a_request_a_signal_or_a_file() {
    let Some(guest) = Guest::start("requirement-lost") else {
        return;
    };
    let revision = guest.wait("top", State::Active, None);
    let file = guest.config().join("base.toml").display().to_string();
    let boot = chain(&guest, "top");
    assert_eq!(boot[0], "top: STARTING → ACTIVE, executed");
    assert_eq!(boot.last(), Some(&format!("base: REMOVED → INACTIVE, declared by {file}")));

    guest.kill(guest.component("base").pid.expect("running"), "KILL");
    guest.wait("top", State::Active, Some(revision));
    guest.settle();
    let value = guest.json(&["why", "top"]);
    let causes = value["chain"].as_array().expect("a chain");
    let first = causes.last().expect("a cause");
    // Down with base, and up again with it: both go back to the signal.
    assert_eq!(first["component"], "base", "{value}");
    assert_eq!(first["cause"]["ended"]["signal"], 9, "{value}");
    assert!(value["lost"].is_null(), "{value}");

    guest.says(&["stop", "middle"]);
    guest.settle();
    let stopped = chain(&guest, "top");
    let first = stopped.last().expect("a cause");
    assert!(first.starts_with("middle: ACTIVE → STOPPING, stop requested by uid 0, pid "), "{stopped:?}");
    let text = guest.says(&["why", "top"]);
    assert!(
        text.starts_with("top is INACTIVE: waits for middle (its provider middle was stopped)"),
        "{text}"
    );

    let (code, message) = guest.fails(&["why", "tpo"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("did you mean \"top\"?"), "{message}");
}

#[test]
fn events_are_followed_as_they_come() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let revision = guest.wait("steady", State::Active, None);
    guest.settle();
    let everything = guest.follow(&["events", "-f", "--since", &revision.to_string()]);
    let own = guest.follow(&["events", "-f", "late", "--json"]);
    guest.declare("late.toml", &sleeper("late", ""));
    for part in ["late: REMOVED → INACTIVE", "late: INACTIVE → STARTING", "late: STARTING → ACTIVE"] {
        let line = everything.line();
        assert!(line.contains(part), "{line}");
    }
    guest.says(&["restart", "steady"]);
    guest.undeclare("late.toml");
    everything.line_with("steady: INACTIVE → STARTING");
    everything.line_with("late: STOPPING → REMOVED, no longer declared");
    for to in ["INACTIVE", "STARTING", "ACTIVE", "STOPPING", "REMOVED"] {
        let record: serde_json::Value = serde_json::from_str(&own.line()).expect("a record");
        assert_eq!((&record["component"], &record["to"]), (&"late".into(), &to.into()), "{record}");
        let time = record["time"].as_str().expect("a time");
        assert!(time.ends_with('Z') && time.starts_with("20"), "{time}");
    }
}

#[test]
fn waits_end_with_their_documented_codes() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let revision = guest.wait("steady", State::Active, None).to_string();
    assert_eq!(guest.says(&["wait", "steady", "--state", "active"]), "steady is ACTIVE\n");
    assert!(guest.json(&["wait", "--settled"])["revision"].is_u64());
    let since = ["wait", "steady", "--state", "ACTIVE", "--since", &revision, "--timeout", "0.05"];
    let table: [(&[&str], i32, &str); 6] = [
        (&["wait", "steady", "--state", "FAILED", "--timeout", "0.05"], 1, "timed out: steady is ACTIVE"),
        (&since, 1, "timed out: steady is ACTIVE"),
        (&["wait", "nobody", "--state", "ACTIVE", "--timeout", "0.05"], 1, "nobody is not declared"),
        (&["wait", "stedy", "--state", "ACTIVE", "--timeout", "0.05"], 1, "did you mean \"steady\"?"),
        (&["wait", "steady", "--state", "RUNNING"], 2, "\"RUNNING\" is no state"),
        (&["wait"], 2, "give NAME --state STATE"),
    ];
    for (arguments, expected, part) in table {
        let (code, message) = guest.fails(arguments);
        assert_eq!(code, Some(expected), "{arguments:?}: {message}");
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
    let (code, message) = guest.fails(&["--socket", "/nowhere", "status"]);
    assert_eq!(code, Some(3), "{message}");
}
