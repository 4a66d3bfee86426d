//! `log`: stamps, times, following, and components that flood.

use yakiros_core::journal::State;

use crate::guest::{Guest, until};

/// A shell script as a component.
fn script(name: &str, script: &str) -> String {
    format!("[component]\nname = {name:?}\nbinary = \"/bin/sh\"\nargs = [\"-c\", {script:?}]\n")
}

/// A component that copies what is written to a pipe of that name to its output.
pub(super) fn parrot(guest: &Guest, name: &str) -> std::fs::File {
    let pipe = guest.dir.path().join(format!("{name}.pipe"));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    guest.declare(&format!("{name}.toml"), &script(name, &format!("exec cat <> {}", pipe.display())));
    guest.wait(name, State::Active, None);
    std::fs::OpenOptions::new().read(true).write(true).open(pipe).expect("the pipe")
}

/// Write to a parrot and wait until it is in the log.
pub(super) fn say(guest: &Guest, mut pipe: &std::fs::File, name: &str, text: &str) {
    use std::io::Write as _;
    pipe.write_all(text.as_bytes()).expect("the pipe");
    until("the line", || guest.says(&["log", name, "1"]).contains(text.trim_end()).then_some(()));
}

fn texts(guest: &Guest, arguments: &[&str]) -> Vec<String> {
    let value = guest.json(arguments);
    let lines = value["lines"].as_array().expect("lines");
    lines.iter().map(|line| line["text"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn lines_have_times_and_can_be_chosen_by_them() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let pipe = parrot(&guest, "a");
    for text in ["one\n", "two\n", "three\n"] {
        say(&guest, &pipe, "a", text);
    }
    assert_eq!(texts(&guest, &["log", "a"]), ["one", "two", "three"]);
    for arguments in [&["log", "a", "2"][..], &["log", "a", "-n", "2"], &["log", "a", "-n2", "--since", "1h"]]
    {
        assert_eq!(texts(&guest, arguments), ["two", "three"], "{arguments:?}");
    }
    let value = guest.json(&["log", "a"]);
    let second = value["lines"][1]["time"].as_str().expect("a time");
    assert_eq!(texts(&guest, &["log", "a", "--since", second]), ["two", "three"]);
    assert_eq!(texts(&guest, &["log", "a", "--since", "2100-01-01T00:00:00Z"]), [""; 0]);
    assert!(guest.says(&["log", "a"]).starts_with("20"), "a time comes first");
    // The clock of the log is that of the events.
    let event = guest.says(&["events", "a"]);
    let first = value["lines"][0]["time"].as_str().expect("a time");
    let started = event.lines().last().and_then(|line| line.split_whitespace().nth(1)).expect("a time");
    assert!(started <= first, "{started} and {first}");

    let table: [(&[&str], i32, &str); 4] = [
        (&["log", "stedy"], 1, "did you mean \"steady\"?"),
        (&["log", "a", "--since", "yesterday"], 2, "write an age"),
        (&["log", "a", "2", "-n", "3"], 2, "cannot be used with"),
        (&["log", "kernel"], 1, "has no process"),
    ];
    for (arguments, expected, part) in table {
        let (code, message) = guest.fails(arguments);
        assert_eq!(code, Some(expected), "{arguments:?}: {message}");
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

#[test]
fn a_log_is_followed_through_rotations_restarts_and_to_its_end() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let pipe = parrot(&guest, "a");
    say(&guest, &pipe, "a", "first\n");
    let people = guest.follow(&["log", "a", "-f"]);
    let programs = guest.follow(&["log", "a", "-f", "--json", "--since", "1h"]);
    assert!(people.line().ends_with(" first"));
    assert!(programs.line().contains("\"first\""));
    guest.says(&["restart", "a"]);
    // Twice what the two files hold.
    for number in 0..130 {
        say(&guest, &pipe, "a", &format!("{number} {}\n", "x".repeat(8000)));
        let start = format!(" {number} x");
        let line = people.line();
        assert!(line.contains(&start), "{start:?} is not in {line:?}");
        assert!(programs.line().contains(&format!("\"{number} x")));
    }
    assert!(guest.dir.path().join("state/a.log.1").exists(), "it was rotated");
    guest.undeclare("a.toml");
    let mut people = people;
    assert_eq!(people.code(), Some(1), "a log that is gone ends it");
}

#[test]
fn a_character_that_is_written_in_two_parts_is_followed_as_one() {
    use std::io::Write as _;
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let mut pipe = parrot(&guest, "a");
    say(&guest, &pipe, "a", "before\n");
    let people = guest.follow(&["log", "a", "-f"]);
    assert!(people.line().ends_with(" before"));
    let log = guest.dir.path().join("state/a.log");
    let size = || std::fs::metadata(&log).expect("a log").len();
    let (first, second) = "€".as_bytes().split_at(2);
    let before = size();
    pipe.write_all(b"1 ").and_then(|()| pipe.write_all(first)).expect("the pipe");
    until("the first part", || (size() > before + 28).then_some(()));
    // What is whole is shown, to a new reader too.
    let shown = guest.says(&["log", "a", "1"]);
    assert!(shown.ends_with(" 1 "), "{shown:?}");
    pipe.write_all(second).and_then(|()| pipe.write_all(b"\n")).expect("the pipe");
    let line = people.line();
    assert!(line.ends_with(" 1 €"), "{line:?}");
    // The end of what writes it is the end of the wait for its rest.
    let before = size();
    pipe.write_all(first).expect("the pipe");
    until("the first part", || (size() > before).then_some(()));
    guest.says(&["stop", "a"]);
    let line = people.line();
    assert!(line.ends_with(" \u{fffd}"), "{line:?}");
}

#[test]
fn who_asks_for_what_is_no_longer_kept_is_told() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    let pipe = parrot(&guest, "a");
    let began = guest.json(&["log", "a", "--since", "1h"]);
    assert_eq!(began["lost"], false, "{began}");
    // More than the two files hold.
    for number in 0..80 {
        say(&guest, &pipe, "a", &format!("{number} {}\n", "x".repeat(8000)));
    }
    let kept = guest.json(&["log", "a", "--since", "1h"]);
    assert_eq!(kept["lost"], true);
    let lines = kept["lines"].as_array().expect("lines");
    assert!((30..80).contains(&lines.len()), "{} lines are kept", lines.len());
    let time = |line: usize| lines[line]["time"].as_str().expect("a time");
    let last = lines.len() - 1;
    for (arguments, lost) in [
        (&["log", "a", "--since", time(last)][..], false),
        (&["log", "a", "-n", "5", "--since", "1h"], false),
        (&["log", "a", "-n", "5"], false),
        (&["log", "a", "-n", "100"], true),
        (&["log", "a", "-n", "100", "--since", "1h"], true),
    ] {
        assert_eq!(guest.json(arguments)["lost"], lost, "{arguments:?}");
        let note = String::from_utf8_lossy(&guest.graphctl(arguments).stderr).into_owned();
        assert_eq!(note.contains("no longer kept"), lost, "{arguments:?}: {note}");
    }
    let programs = guest.follow(&["log", "a", "-f", "--json", "--since", "1h"]);
    assert_eq!(programs.line(), "{\"lost\":true}");
    // A name that is declared anew begins anew.
    guest.undeclare("a.toml");
    guest.wait("a", State::Removed, None);
    let again = script("a", "echo one; exec sleep 1000");
    guest.declare("a.toml", &again);
    until("a line", || guest.says(&["log", "a"]).contains("one").then_some(()));
    assert_eq!(guest.json(&["log", "a", "--since", "1h"])["lost"], false);
}

#[test]
fn the_control_socket_answers_while_components_flood() {
    let Some(guest) = Guest::start("live") else {
        return;
    };
    guest.settle();
    for number in 0..50 {
        let text = script(&format!("flood-{number}"), "exec yes a line of a component that floods");
        guest.declare(&format!("flood-{number}.toml"), &text);
    }
    guest.settle();
    // Each has filled its pipe several times when its log is rotated.
    until("the floods", || {
        let rotated = |number| guest.dir.path().join(format!("state/flood-{number}.log.1")).exists();
        (0..50).all(rotated).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(guest.json(&["status"])["summary"]["active"], 51);
        guest.says(&["restart", "steady"]);
    }
    let follower = guest.follow(&["log", "flood-7", "-f"]);
    (0..1000).for_each(|_| assert!(follower.line().ends_with("that floods")));
    guest.says(&["stop", "flood-7"]);
    for number in 0..50 {
        for name in [format!("flood-{number}.log"), format!("flood-{number}.log.1")] {
            let path = guest.dir.path().join("state").join(&name);
            // In the midst of a rotation there is none of that name.
            let size = until("a log", || std::fs::metadata(&path).ok()).len();
            assert!(size <= 256 * 1024, "{name} has {size} bytes");
        }
    }
}
