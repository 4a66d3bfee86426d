//! Changes of the configuration directory while the supervisor runs.

use yakiros_core::control::Until;
use yakiros_core::journal::State;

use crate::guest::{Guest, sleeper};

#[test]
fn files_act_live() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.wait("steady", State::Active, None);
    let steady = guest.component("steady").pid;
    // Added.
    guest.declare("late.toml", &sleeper("late", ""));
    let added = guest.wait("late", State::Active, None);
    let first = guest.component("late").pid;
    // A change that the process cannot see.
    let health = "[lifecycle]\nrestart_max = 7";
    guest.declare("late.toml", &sleeper("late", health));
    guest.settle();
    assert_eq!(guest.component("late").pid, first);
    // One that it can.
    let other = sleeper("late", health).replace("100000", "200000");
    guest.declare("late.toml", &other);
    let changed = guest.wait("late", State::Active, Some(added));
    assert_ne!(guest.component("late").pid, first);
    // Moved to another file: the same component.
    let second = guest.component("late").pid;
    std::fs::rename(guest.config().join("late.toml"), guest.config().join("later.toml")).expect("rename");
    guest.settle();
    assert_eq!(guest.component("late").pid, second);
    // Removed.
    guest.undeclare("later.toml");
    guest.wait("late", State::Removed, Some(changed));
    assert_eq!(guest.status().0.len(), 1);
    assert_eq!(guest.component("steady").pid, steady);
}

#[test]
fn a_malformed_file_harms_nobody() {
    let Some(guest) = Guest::start("malformed") else {
        return;
    };
    guest.wait("good", State::Active, None);
    let (components, rejected) = guest.status();
    assert_eq!(components.len(), 1);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].file, guest.config().join("broken.toml").to_string_lossy());
    let finding = &rejected[0].diagnostics[0];
    assert_eq!(finding.line, 3, "{finding:?}");
    // A running component whose file breaks runs on.
    let pid = guest.component("good").pid;
    guest.declare("good.toml", "[component\n");
    guest.wait_until(Until::Rejected { file: "good.toml".to_owned() });
    assert_eq!(guest.component("good").pid, pid);
    // Mended.
    guest.declare("broken.toml", &sleeper("mended", ""));
    guest.wait("mended", State::Active, None);
}

#[test]
fn a_duplicate_name_names_both_files() {
    let Some(guest) = Guest::start("duplicate") else {
        return;
    };
    guest.wait("twin", State::Active, None);
    let (components, rejected) = guest.status();
    assert_eq!(components.len(), 1);
    assert_eq!(rejected.len(), 1);
    let message = &rejected[0].diagnostics[0].message;
    for file in ["one.toml", "two.toml"] {
        assert!(message.contains(file), "{message}");
    }
    // The first one goes: the second takes its place.
    let before = guest.component("twin").pid;
    guest.undeclare("one.toml");
    guest.settle();
    assert_eq!(guest.status().1, []);
    assert_eq!(guest.component("twin").state, State::Active);
    assert_ne!(guest.component("twin").pid, before, "its arguments differ");
}

#[test]
fn a_cycle_blocks_only_itself() {
    let Some(guest) = Guest::start("cycle") else {
        return;
    };
    guest.settle();
    for name in ["ring-1", "ring-2", "hanger-on"] {
        assert_eq!(guest.component(name).state, State::Cycle, "{name}");
    }
    let detail = guest.component("ring-1").detail.expect("a reason");
    assert!(detail.contains("ring-1, ring-2"), "{detail}");
    assert_eq!(guest.component("free").state, State::Active);
    // Broken live, everything runs.
    guest.declare("ring-1.toml", &sleeper("ring-1", "[provides]\ncapabilities = [\"r1\"]"));
    guest.wait("hanger-on", State::Active, None);
}

#[test]
fn an_optional_capability_is_waited_for_only_while_it_may_come() {
    let Some(guest) = Guest::start("optional") else {
        return;
    };
    guest.settle();
    let order = guest.entered(State::Active, 0);
    assert!(order.contains(&"logger".to_owned()));
    let place = |name: &str| order.iter().position(|n| n == name).expect("active");
    assert!(place("logger") < place("app"), "{order:?}");
    // Its provider cannot start, or is not declared: not waited for.
    assert_eq!(guest.component("loner").state, State::Active);
}
