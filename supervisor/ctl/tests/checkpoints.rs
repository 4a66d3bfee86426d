//! `graphctl checkpoint-list`, `-rm`, `-cleanup`, `-usage` and `checkpoint --check`, as a user calls them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use yakiros_checkpoint::criu::Options;
use yakiros_checkpoint::preflight::Isolation;
use yakiros_checkpoint::store::{Facts, Metadata, Store, Version};

fn graphctl(arguments: &[&str], place: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphctl"));
    command.args(arguments).arg("--dir").arg(place).output().expect("graphctl runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(arguments: &[&str], place: &Path) -> Value {
    let output = graphctl(&[arguments, &["--json"]].concat(), place);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

fn keep(store: &Store, component: &str, size: usize) -> Metadata {
    let draft = store.begin(component).expect("a draft");
    fs::write(draft.images().join("pages-1.img"), vec![1; size]).expect("an image");
    let facts = Facts {
        original_pid: 4711,
        capabilities: Vec::new(),
        criu_version: Version { major: 4, minor: 2, patch: 1 },
        leave_running: false,
        preserve_fds: Vec::new(),
        roles: Vec::new(),
        options: Options::default(),
        figures: None,
        isolation: Isolation::default(),
    };
    draft.commit(facts, None).expect("a checkpoint")
}

#[test]
fn where_nothing_was_kept_there_is_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    assert_eq!(json(&["checkpoint-list"], &nowhere)["checkpoints"], Value::Array(Vec::new()));
    assert_eq!(json(&["checkpoint-usage"], &nowhere)["bytes"], 0);
    assert_eq!(json(&["checkpoint-cleanup"], &nowhere)["removed"], Value::Array(Vec::new()));
    let output = graphctl(&["checkpoint-rm", "web", "20261122T081530.123456Z-9f3a61c2"], &nowhere);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(!nowhere.exists());
    let output = graphctl(&["checkpoint-rm", "web", "newest"], &nowhere);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn what_is_kept_is_shown_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let store = Store::make(place).unwrap();
    let (first, second) = (keep(&store, "web", 1000), keep(&store, "web", 2000));
    let other = keep(&store, "database", 3000);
    let listed = json(&["checkpoint-list"], place);
    let ids = |listed: &Value| -> Vec<String> {
        let all = listed["checkpoints"].as_array().expect("checkpoints");
        all.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&listed), [other.id.as_str(), second.id.as_str(), first.id.as_str()]);
    assert_eq!(listed["checkpoints"][0]["metadata"]["component_name"], "database");
    assert_eq!(ids(&json(&["checkpoint-list", "web"], place)), [second.id.as_str(), first.id.as_str()]);
    let shown = text(&graphctl(&["checkpoint-list"], place));
    assert!(shown.contains(first.id.as_str()) && shown.ends_with("Total: 3 checkpoints\n"), "{shown}");
    let used = json(&["checkpoint-usage"], place);
    assert_eq!(used["components"][1]["component"], "web");
    assert_eq!(used["components"][1]["checkpoints"], 2);
    // One whose metadata are gone is shown with the reason, and can be removed.
    fs::remove_file(place.join("database").join(other.id.as_str()).join("metadata.json")).unwrap();
    let shown = text(&graphctl(&["checkpoint-list", "database"], place));
    assert!(shown.contains("its metadata.json cannot be used"), "{shown}");
    let removed = graphctl(&["checkpoint-rm", "database", other.id.as_str()], place);
    assert!(removed.status.success(), "{}", text(&removed));
    let again = graphctl(&["checkpoint-rm", "database", other.id.as_str()], place);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("database has no checkpoint "), "{}", text(&again));
    fs::create_dir(place.join("web/.new-left")).unwrap();
    let cleaned = json(&["checkpoint-cleanup", "--keep", "1"], place);
    assert_eq!(cleaned["removed"][0]["id"], first.id.as_str());
    assert_eq!(cleaned["half_made"].as_array().map(Vec::len), Some(1));
    assert_eq!(ids(&json(&["checkpoint-list"], place)), [second.id.as_str()]);
    let cleaned = text(&graphctl(&["checkpoint-cleanup", "--quota", "1"], place));
    assert!(cleaned.contains("Removed: 1 checkpoint with "), "{cleaned}");
}

#[test]
fn without_criu_it_is_said_what_would_help() {
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graphctl"));
        command.args(["checkpoint", "--check", "--criu", "/nowhere/criu"]).args(more);
        command.output().expect("graphctl runs")
    };
    let output = run(&["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["usable"], &report["criu"]), (&Value::Bool(false), &Value::Null));
    let basics = report["features"].as_array().expect("features").iter().find(|f| f["name"] == "basics");
    assert_eq!(basics.expect("it is asked")["verdict"]["missing"]["help"]["package"], "criu");
    let shown = text(&run(&[]));
    assert!(
        shown.starts_with("no CRIU\n") && shown.ends_with("No checkpoints can be made here.\n"),
        "{shown}"
    );
    assert!(shown.contains("install criu"), "{shown}");
}

#[test]
fn what_is_written_for_another_machine_is_taken_in_there() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).to_str().expect("a path").to_owned();
    let kept = keep(&Store::make(here.path()).unwrap(), "web", 1000);
    let (file, place) = (path("web.tar"), there.path().join("store"));
    let written = json(&["migrate", "web", "--to", &file], here.path());
    assert_eq!((&written["component"], &written["id"]), (&"web".into(), &kept.id.as_str().into()));
    assert_eq!(written["bytes"], fs::metadata(&file).expect("it is there").len());
    assert_eq!(json(&["migrate", "--from", &file], &place)["id"], kept.id.as_str());
    assert_eq!(json(&["checkpoint-list"], &place)["checkpoints"][0]["id"], kept.id.as_str());
    // What is there is not written over, and not taken in twice; what is damaged is taken in nowhere.
    let mut damaged = fs::read(&file).expect("it is there");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(path("bad.tar"), damaged).expect("it is written");
    let elsewhere = there.path().join("elsewhere");
    for (arguments, place, says) in [
        (vec!["migrate", "web", "--to", &file], here.path(), "File exists"),
        (vec!["migrate", "--from", &file], &place, "is there already"),
        (vec!["migrate", "--from", &path("bad.tar")], &elsewhere, "pages-1.img"),
        (vec!["migrate", "--from", &path("none.tar")], &elsewhere, "No such file"),
        (vec!["migrate", "nobody", "--to", &path("x.tar")], here.path(), "nobody"),
    ] {
        let output = graphctl(&arguments, place);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(says), "{arguments:?}: {}", text(&output));
    }
    assert!(json(&["checkpoint-list"], &elsewhere)["checkpoints"].as_array().expect("a list").is_empty());
    for arguments in [vec!["migrate"], vec!["migrate", "web"], vec!["migrate", "web", "--from", &file]] {
        assert_eq!(graphctl(&arguments, here.path()).status.code(), Some(2), "{arguments:?}");
    }
}
