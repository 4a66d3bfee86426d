//! `inspect` and `audit` of real processes.

use yakiros_core::journal::State;

use crate::guest::{Guest, sleeper, until};

const ISOLATED: &str = "[isolation]\nnamespaces = [\"uts\", \"pid\", \"mount\", \"ipc\"]\nhostname = \"asked\"\n\
    private_tmp = false\n[resources]\nfiles_max = 512\n";

fn verdict(guest: &Guest, what: &str) -> (bool, String) {
    let output = guest.graphctl(&["inspect", "sandboxed", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let aspects = value["aspects"].as_array().expect("aspects");
    let found = aspects.iter().find(|aspect| aspect["what"] == what);
    let found = found.unwrap_or_else(|| panic!("{what} is not in {value}"));
    (output.status.success(), found["verdict"].as_str().expect("a verdict").to_owned())
}

#[test]
fn what_a_process_really_has_is_compared_with_what_its_file_asks_for() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    std::fs::write(dir.path().join("graph.d/sandboxed.toml"), sleeper("sandboxed", ISOLATED)).expect("file");
    let Some(guest) = Guest::start_in(dir) else { return };
    guest.wait("sandboxed", State::Active, None);
    let holds = |what: &str| assert_eq!(verdict(&guest, what), (true, "holds".to_owned()), "{what}");
    for what in
        ["namespace uts", "namespace pid", "namespace ipc", "resources.files_max", "mount propagation"]
    {
        holds(what);
    }
    assert_eq!(verdict(&guest, "namespace net"), (true, "not-asked".to_owned()));
    // Somebody with the right to changes it from outside.
    let name = ["nsenter", "-t", "PID", "--uts", "hostname", "other"];
    let pid = guest.component("sandboxed").pid.expect("a process").to_string();
    let (_, before) = verdict(&guest, "isolation.hostname");
    assert!(guest.inside(&name.map(|word| if word == "PID" { pid.as_str() } else { word })).success());
    let (success, after) = verdict(&guest, "isolation.hostname");
    // Only root may look at another's host name.
    match before.as_str() {
        "holds" => assert_eq!((success, after.as_str()), (false, "differs")),
        other => assert_eq!(other, "not-shown"),
    }
    let text = String::from_utf8(guest.graphctl(&["inspect", "sandboxed"]).stdout).expect("text");
    assert!(text.contains("namespace uts") && text.contains("own ("), "{text}");
    // Without a process there is nothing to look at.
    guest.says(&["stop", "sandboxed"]);
    let (code, message) = guest.fails(&["inspect", "sandboxed"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("sandboxed has no process to inspect: it is INACTIVE"), "{message}");
}

#[test]
fn the_most_exposed_come_first_and_a_threshold_fails() {
    let Some(guest) = Guest::start("reexec") else { return };
    guest.declare("sandboxed.toml", &sleeper("sandboxed", ISOLATED));
    guest.declare("open.toml", &sleeper("open", ""));
    let (first, second, all) = until("both", || {
        let all = guest.json(&["audit"])["components"].clone();
        let place = |name: &str| all.as_array()?.iter().position(|entry| entry["component"] == name);
        Some((place("open")?, place("sandboxed")?, all.clone()))
    });
    assert!(first < second, "{all}");
    assert_eq!(guest.fails(&["audit", "--threshold", "9.9"]).0, Some(1));
    guest.says(&["audit", "sandboxed", "--threshold", "9.9"]);
    let text = guest.says(&["audit", "open"]);
    assert!(text.starts_with("open: exposure 10.0 of 10, open\n"), "{text}");
    assert!(text.contains("[security] seccomp"), "{text}");
}
