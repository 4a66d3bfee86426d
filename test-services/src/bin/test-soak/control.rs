//! The supervisor, as a user commands it.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use yakiros_core::control::{Request, SOCKET, encode_request};
use yakiros_test_services::control::Conversation;

use crate::plan::{Kind, PASSING, STATEFUL};

/// Of what a command says about a failure.
const SAID_BYTES: usize = 300;
/// Restarted to fill the journal: on the first nobody depends, the second takes another one down with it.
const FILLERS: [&str; 2] = ["test-networking", "test-health-demo"];

/// What is wrong, in words.
pub type Done<T> = Result<T, String>;

/// A command that succeeds; what it prints.
pub fn run(arguments: &[&str]) -> Done<String> {
    let output = Command::new("graphctl").args(arguments).output();
    let output = output.map_err(|error| format!("graphctl: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Err(short(&format!("graphctl {}: {}: {}", arguments.join(" "), output.status, said.trim())))
}

/// The same with JSON.
pub fn ask(arguments: &[&str]) -> Done<Value> {
    let text = run(&[arguments, &["--json"]].concat())?;
    serde_json::from_str(&text)
        .map_err(|error| short(&format!("graphctl {arguments:?} printed {text}: {error}")))
}

/// Waits until nothing is about to change; the newest revision.
pub fn settled(limit: Duration) -> Done<u64> {
    let seconds = limit.as_secs().to_string();
    let answer = ask(&["wait", "--settled", "--timeout", &seconds])?;
    answer["revision"].as_u64().ok_or_else(|| format!("no revision in {answer}"))
}

/// Waits until a component is in a state that it came to after a revision; the newest revision then.
pub fn reaches(name: &str, state: &str, since: u64, limit: Duration) -> Done<u64> {
    let (seconds, since) = (limit.as_secs().to_string(), since.to_string());
    let answer = ask(&["wait", name, "--state", state, "--since", &since, "--timeout", &seconds])?;
    answer["revision"].as_u64().ok_or_else(|| format!("no revision in {answer}"))
}

/// The newest revision; 0 if nobody says.
pub fn revision() -> u64 {
    ask(&["status"]).ok().and_then(|status| status["revision"].as_u64()).unwrap_or(0)
}

/// The process of a component.
pub fn pid(name: &str) -> Done<i32> {
    let status = ask(&["status"])?;
    let all = status["components"].as_array().map_or(&[][..], Vec::as_slice);
    let pid = all.iter().find(|one| one["name"] == name).and_then(|one| one["pid"].as_i64());
    pid.map(|pid| pid as i32).ok_or_else(|| format!("{name} has no process"))
}

/// So many restarts, one after the other, by the socket itself: a command for each would take four times as long. As a
/// command does, each has a connection of its own and asks for the state before.
pub fn restart_often(times: usize) -> io::Result<()> {
    let status = encode_request(Request::Status { name: None, after: None })?;
    for name in FILLERS.iter().cycle().take(times) {
        let restart = encode_request(Request::Restart { name: (*name).to_owned(), timeout_ms: None })?;
        let mut supervisor = Conversation::begin(Path::new(SOCKET))?;
        for request in [&status, &restart] {
            supervisor.ask(request)?;
        }
    }
    Ok(())
}

/// One checkpoint. Whether it can be made at all, shows in the next event.
pub fn checkpoint_at_once() {
    drop(run(&["checkpoint", STATEFUL]));
}

/// The records of the journal that are newer than a revision.
pub fn journal(since: u64) -> Done<Vec<Value>> {
    let text = run(&["events", "--since", &since.to_string(), "--json"])?;
    let read = |line: &str| serde_json::from_str(line).map_err(|error| short(&format!("{line}: {error}")));
    text.lines().map(read).collect()
}

/// Components that are not as they were meant to be, and what of the machine is left over.
pub fn ill() -> Vec<String> {
    let status = match ask(&["status"]) {
        Ok(status) => status,
        Err(why) => return vec![why],
    };
    let all = status["components"].as_array().cloned().unwrap_or_default();
    let is_well = |one: &Value| {
        matches!(one["state"].as_str(), Some("ACTIVE" | "DONE" | "CYCLE"))
            && one["health"] != "failing"
            && one["name"] != PASSING
    };
    all.iter().filter(|one| !is_well(one)).map(|one| short(&one.to_string())).collect()
}

/// What this machine cannot do, and why.
pub fn without() -> Vec<(Kind, String)> {
    let why = match ask(&["checkpoint", "--check"]) {
        Ok(answer) if answer["usable"] == true => return Vec::new(),
        Ok(answer) => short(&answer.to_string()),
        Err(why) => why,
    };
    vec![(Kind::Checkpoint, why.clone()), (Kind::Move, why)]
}

/// As much as is worth being kept.
pub fn short(text: &str) -> String {
    let mut end = text.len().min(SAID_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
