//! How each kind of event is done, and what has to come of it.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::control::{self, Done};
use crate::load::Load;
use crate::plan::{Event, FLAPPING, Kind, PASSING, QUESTIONS, STATEFUL};

/// For a component to do what it is told.
const REACTION: Duration = Duration::from_secs(120);
/// Its existence makes the flapping server ill.
const ILL: &str = "/run/test-health-demo.ill";
/// Where component files are.
const COMPONENTS: &str = "/etc/graph.d";

/// Does it; what is worth telling of it, or why it did not come to what it should.
pub fn act(event: &Event, load: &Load) -> Done<Value> {
    let since = control::settled(REACTION)?;
    let name = event.target().unwrap_or_default();
    match event.kind {
        Kind::Restart => {
            control::run(&["restart", name])?;
            control::reaches(name, "ACTIVE", since, REACTION).map(|_| Value::Null)
        }
        Kind::Kill => {
            let pid = control::pid(name)?;
            kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {name}: {error}"))?;
            control::reaches(name, "ACTIVE", since, REACTION).map(|_| Value::Null)
        }
        Kind::Upgrade => upgrade(name, &["fd-passing"], load),
        // CRIU does not take connections that are up: a client that has one at that moment makes it the next way, which loses
        // nothing either.
        Kind::Move if event.lot.is_multiple_of(2) => upgrade(STATEFUL, &["checkpoint", "fd-passing"], load),
        Kind::Move => {
            let _closed = load.closed();
            upgrade(STATEFUL, &["checkpoint"], load)
        }
        Kind::Checkpoint => {
            let _closed = load.closed();
            let made = control::ask(&["checkpoint", STATEFUL])?;
            let is_made = made["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
            if is_made { Ok(json!({ "frozen_us": made["frozen_us"] })) } else { Err(format!("it is {made}")) }
        }
        Kind::Flap => {
            write(ILL, "")?;
            let ill = control::reaches(FLAPPING, "DEGRADED", since, REACTION);
            fs::remove_file(ILL).map_err(|error| format!("remove {ILL}: {error}"))?;
            control::reaches(FLAPPING, "ACTIVE", ill?, REACTION).map(|_| Value::Null)
        }
        Kind::Reload => control::run(&["reload"]).map(|_| Value::Null),
        Kind::Declare => pass("binary = \"/usr/local/bin/test-idle\"", "ACTIVE", since),
        Kind::Flood => {
            let flood = "binary = \"/usr/local/bin/test-flood\"\ntype = \"oneshot\"\n\
                         args = [\"--lines\", \"3000\", \"--bytes\", \"100\"]";
            pass(flood, "DONE", since)
        }
        Kind::Query => {
            const ALL: [&[&str]; QUESTIONS as usize] =
                [&["analyze"], &["top", "--once"], &["caps"], &["audit"], &["dot"], &["order"]];
            let question = ALL[(event.lot % QUESTIONS) as usize];
            control::run(question).map(|_| json!({ "question": question[0] }))
        }
    }
}

/// Upgrades while clients ask without a pause.
fn upgrade(name: &str, levels: &[&str], load: &Load) -> Done<Value> {
    load.hot();
    let answer = control::ask(&["upgrade", name]);
    load.steady();
    let answer = answer?;
    if levels.iter().any(|level| answer["level"] == *level) {
        Ok(json!({ "gap_us": answer["gap_us"], "level": answer["level"] }))
    } else {
        Err(format!("the upgrade of {name} was {}: {}", answer["level"], answer["passed_over"]))
    }
}

/// A component comes, reaches a state, and goes.
fn pass(lines: &str, state: &str, since: u64) -> Done<Value> {
    let (hidden, file) = (format!("{COMPONENTS}/.{PASSING}"), format!("{COMPONENTS}/{PASSING}.toml"));
    write(&hidden, &format!("[component]\nname = \"{PASSING}\"\n{lines}\n"))?;
    fs::rename(&hidden, &file).map_err(|error| format!("rename {hidden}: {error}"))?;
    let there = control::reaches(PASSING, state, since, REACTION);
    fs::remove_file(&file).map_err(|error| format!("remove {file}: {error}"))?;
    control::reaches(PASSING, "REMOVED", there?, REACTION).map(|_| Value::Null)
}

fn write(path: &str, text: &str) -> Done<()> {
    fs::write(path, text).map_err(|error| format!("write {path}: {error}"))
}
