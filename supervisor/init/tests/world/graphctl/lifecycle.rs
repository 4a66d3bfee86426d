//! `readiness`, `upgrade` and `status --watch`.

use yakiros_core::journal::State;

use crate::guest::{Guest, sleeper};

#[test]
fn readiness_shows_the_method_and_how_far_it_is() {
    let Some(guest) = Guest::start("readiness") else {
        return;
    };
    guest.settle();
    let value = guest.json(&["readiness"]);
    let all = value["components"].as_array().expect("components");
    let seen: Vec<_> = all
        .iter()
        .map(|c| {
            [&c["name"], &c["method"], &c["readiness"]].map(|text| text.as_str().expect("text").to_owned())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ["by-command", "command", "ready"],
            ["by-fd", "notify", "ready"],
            ["by-file", "file", "ready"],
            ["by-signal", "signal", "ready"],
            ["never", "file", "down"],
        ]
    );
    assert_eq!(all[4]["timeout_ms"], 300);
    let slow = "[lifecycle]\nreadiness_file = \"/nowhere\"\nreadiness_timeout = 100";
    guest.declare("slow.toml", &sleeper("slow", slow));
    guest.wait("slow", State::ReadyWait, None);
    let text = guest.says(&["check-readiness", "slow"]);
    assert!(text.contains("waiting") && text.contains("100s") && text.contains("file /nowhere"), "{text}");
    assert!(text.ends_with("Total: 0 ready, 1 waiting, 0 down\n"), "{text}");
    let (code, message) = guest.fails(&["readiness", "slwo"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("did you mean \"slow\"?"), "{message}");
}

#[test]
fn an_upgrade_takes_the_way_there_is_and_says_so() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let swapped = "[provides]\ncapabilities = [\"web\"]\n[lifecycle]\nhandoff = \"fd-passing\"";
    guest.declare("web.toml", &sleeper("web", swapped));
    guest.wait("web", State::Active, None);
    let before = guest.component("web").pid;
    let (code, message) = guest.fails(&["upgrade", "web", "--no-fallback"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("fd-passing, which cannot be: its process has not said"), "{message}");
    assert_eq!(guest.component("web").pid, before, "a refusal changes nothing");

    let text = guest.says(&["upgrade", "web"]);
    let told = text.find("STARTING \u{2192} ACTIVE, executed\n").expect("the steps");
    assert!(text[told..].contains("web was upgraded by a restart\nnot by fd-passing: "), "{text}");
    assert_ne!(guest.component("web").pid, before);
    let value = guest.json(&["upgrade", "web"]);
    assert_eq!((&value["level"], &value["version"]), (&"restart".into(), &1.into()), "{value}");
    assert_eq!(value["passed_over"][0]["level"], "fd-passing", "{value}");
    assert!(value["gap_us"].as_u64().is_some_and(|gap| gap > 0), "{value}");
    // What declares nothing better gets what it declares.
    assert!(guest.json(&["upgrade", "steady", "--no-fallback"])["gap_us"].is_u64());
    let last = guest.json(&["why", "steady"]);
    let first = last["chain"].as_array().and_then(|chain| chain.last()).expect("a cause").clone();
    assert_eq!(first["cause"]["request"]["verb"], "upgrade", "{last}");

    let (code, message) = guest.fails(&["stop", "web-server"]);
    assert_eq!(code, Some(1), "{message}");
    guest.declare("web.toml", &sleeper("server", "[provides]\ncapabilities = [\"net.web\"]"));
    guest.wait("server", State::Active, None);
    let (code, message) = guest.fails(&["upgrade", "net.web"]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("is no component but a capability of server"), "{message}");
}

#[test]
fn several_upgrades_are_done_in_order_and_end_with_the_first_failure() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let provides = |name: &str| format!("[provides]\ncapabilities = [\"{name}\"]\n");
    let requires = |name: &str| format!("[requires]\ncapabilities = [\"{name}\"]\n");
    // It never says that it could hand over.
    let swapped = "[lifecycle]\nhandoff = \"fd-passing\"";
    guest.declare("db.toml", &sleeper("db", &provides("db")));
    guest.declare("api.toml", &sleeper("api", &(provides("api") + &requires("db") + swapped)));
    guest.declare("ui.toml", &sleeper("ui", &requires("api")));
    guest.wait("ui", State::Active, None);
    let before = guest.component("db").pid;
    let (code, message) = guest.fails(&["upgrade", "ui", "api", "db", "--no-fallback"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("api declares fd-passing, which cannot be"), "{message}");
    assert!(message.contains("upgraded: db; not tried: ui"), "{message}");
    assert_ne!(guest.component("db").pid, before);
    let value = guest.json(&["upgrade", "ui", "db"]);
    let names: Vec<_> = (0..2).map(|at| value["upgraded"][at]["component"].clone()).collect();
    assert_eq!(names, ["db", "ui"], "{value}");
    assert!(value["failed"].is_null() && value["left"] == serde_json::json!([]), "{value}");
    let (code, message) = guest.fails(&["upgrade", "db", "iu"]);
    assert!(code == Some(1) && message.contains("did you mean \"ui\"?"), "{message}");
    guest.wait("ui", State::Active, None);
    let all = guest.json(&["upgrade", "--all"]);
    assert_eq!(all["upgraded"].as_array().map(Vec::len), Some(4), "{all}");
}

#[test]
fn a_watched_status_comes_again_with_each_change() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    let people = guest.follow(&["status", "--watch"]);
    let programs = guest.follow(&["status", "steady", "--watch", "--json"]);
    let summary = people.line_with("Summary");
    assert!(summary.contains("1 active") && summary.contains("1 total"), "{summary}");
    assert_eq!(people.line(), "", "blocks are apart");
    assert!(programs.line().contains("ACTIVE"));
    // No line may come for another component's change: the next one is the stop.
    guest.declare("late.toml", &sleeper("late", ""));
    people.line_with("2 active");
    guest.says(&["stop", "steady"]);
    people.line_with("1 active");
    let line = programs.line();
    assert!(line.contains("STOPPING") || line.contains("INACTIVE"), "{line}");
    // With a time it comes again without a change.
    let again = guest.follow(&["status", "--watch", "0.1"]);
    (0..3).for_each(|_| drop(again.line_with("Summary")));
    let (code, message) = guest.fails(&["status", "--watch", "0"]);
    assert_eq!(code, Some(2), "{message}");
}

#[test]
fn json_has_the_documented_keys() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    let page = include_str!("../../../../../docs/reference/graphctl.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix("` |"));
    let mut seen = 0;
    for row in rows {
        let (command, keys) = row.split_once("` | `").expect("command and keys");
        let mut keys: Vec<_> = keys.split("` `").collect();
        keys.sort_unstable();
        let value = guest.json(&command.split(' ').collect::<Vec<_>>());
        let found: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(found, keys, "{command}");
        seen += 1;
    }
    assert!(seen > 20, "{seen} rows");
    let refusal = guest.graphctl(&["stop", "stedy", "--json"]);
    let refusal: serde_json::Value = serde_json::from_slice(&refusal.stdout).expect("JSON");
    assert_eq!(refusal["near"][0], "steady", "{refusal}");
}
