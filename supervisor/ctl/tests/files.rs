//! `graphctl lint`, `explain` and `schema`, as a user calls them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use yakiros_core::diagnostic::Severity;
use yakiros_core::diagnostic::rules::{Example, RULES};

fn graphctl(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphctl"));
    command.args(arguments).current_dir(directory).output().expect("graphctl runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// An empty directory with what an example says in it.
fn lay_out(example: &Example) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    match example {
        Example::File(text) => write("web.toml", text),
        Example::Files(files) => files.iter().for_each(|(name, text)| write(name, text)),
        Example::Shell(line) => {
            let shell = Command::new("sh").args(["-c", line]).current_dir(directory.path()).status();
            assert!(shell.is_ok_and(|status| status.success()), "{line}");
        }
    }
    directory
}

/// The codes that lint finds, and its exit code.
fn lint(example: &Example, more: &[&str]) -> (BTreeSet<String>, Option<i32>) {
    let directory = lay_out(example);
    let output = graphctl(directory.path(), &[&["lint", "--json", "."], more].concat());
    let report = json(&output);
    let files = report["files"].as_array().expect("files");
    let found = files.iter().flat_map(|file| file["diagnostics"].as_array().expect("diagnostics"));
    let codes = found.map(|finding| finding["code"].as_str().expect("a code").to_owned());
    (codes.collect(), output.status.code())
}

#[test]
fn each_example_is_judged_as_the_table_says() {
    for rule in RULES {
        let (found, exit) = lint(&rule.bad, &[]);
        assert_eq!(found, BTreeSet::from([rule.code.to_owned()]), "the bad example of {}", rule.code);
        let is_error = rule.severity == Severity::Error;
        assert_eq!(exit, Some(i32::from(is_error)), "{}", rule.code);
        assert_eq!(lint(&rule.bad, &["--strict"]).1, Some(1), "{}", rule.code);
        assert_eq!(lint(&rule.good, &["--strict"]), (BTreeSet::new(), Some(0)), "{}", rule.code);
    }
}

const WEB: &str = "[component]\nname = \"web\"\nbinary = \"/bin/sh\"\n[requires]\ncapabilities = [\"net\"]\n";

#[test]
fn findings_are_drawn_and_counted() {
    let directory = lay_out(&Example::Files(&[("web.toml", WEB), ("b.toml", "[component]\nname = 3\n")]));
    let output = graphctl(directory.path(), &["lint", "."]);
    let shown = text(&output);
    assert!(
        shown.contains("warning[Y0402]: component \"web\" requires \"net\", which nobody provides"),
        "{shown}"
    );
    assert!(shown.contains("web.toml:5:17"), "{shown}");
    assert!(shown.ends_with("2 files: 2 errors, 1 warning\n"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colour but on a terminal: {shown}");
    // A file for itself may get what it needs from others.
    let output = graphctl(directory.path(), &["lint", "--strict", "web.toml"]);
    assert_eq!((text(&output).as_str(), output.status.code()), ("1 file: 0 errors, 0 warnings\n", Some(0)));
}

#[test]
fn programs_are_looked_for_below_the_root() {
    let root = tempfile::tempdir().expect("a directory");
    let at = |name: &str| root.path().join(name);
    std::fs::create_dir_all(at("etc/graph.d")).expect("a directory");
    std::fs::create_dir_all(at("opt")).expect("a directory");
    std::fs::copy("/bin/sh", at("opt/web")).expect("a program");
    let web =
        "[component]\nname = \"web\"\nbinary = \"/opt/web\"\n[lifecycle]\nhealth_check = [\"/opt/probe\"]\n";
    std::fs::write(at("etc/graph.d/web.toml"), web).expect("a file");
    let root = root.path().to_str().expect("a name");
    let shown = text(&graphctl(Path::new("/"), &["lint", "--root", root]));
    assert!(
        shown.contains("web.toml:5:16") && shown.contains("\"/opt/probe\": program does not exist"),
        "{shown}"
    );
    assert!(shown.ends_with("1 file: 0 errors, 1 warning\n"), "{shown}");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = graphctl(directory.path(), &["lint", "absent.toml"]);
    assert!(text(&output).contains("error[Y0001]: the file does not exist"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    let output = graphctl(directory.path(), &["lint", "--root", "."]);
    assert!(text(&output).contains("failed to read ./etc/graph.d"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    let output = graphctl(directory.path(), &["lint", "."]);
    assert_eq!(
        (text(&output).as_str(), output.status.code()),
        ("no component files (*.toml) there\n", Some(0))
    );
    assert_eq!(graphctl(directory.path(), &["lint", "--strict", "."]).status.code(), Some(1));
    assert_eq!(graphctl(directory.path(), &["lint", "--strickt"]).status.code(), Some(2));
}

#[test]
fn every_code_is_explained() {
    let root = Path::new("/");
    let all = json(&graphctl(root, &["explain", "--json"]));
    let listed = text(&graphctl(root, &["explain"]));
    for (rule, listed_rule) in RULES.iter().zip(all["codes"].as_array().expect("codes")) {
        assert_eq!(listed_rule["code"], rule.code);
        assert!(listed.contains(rule.code) && listed.contains(rule.title), "{listed}");
        let shown = text(&graphctl(root, &["explain", &rule.code.to_lowercase()]));
        let lines = rule.bad.to_string();
        let lines = lines.lines().chain([rule.explanation, rule.title]);
        assert!(lines.into_iter().all(|line| shown.contains(line)), "{shown}");
        let one = json(&graphctl(root, &["explain", rule.code, "--json"]));
        assert_eq!((&one["title"], &one["bad"]), (&listed_rule["title"], &listed_rule["bad"]));
    }
    let output = graphctl(root, &["explain", "Y102"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("did you mean \"Y0102\"?"), "{}", text(&output));
}

#[test]
fn the_schema_is_one() {
    let schema = json(&graphctl(Path::new("/"), &["schema"]));
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["lifecycle"]["properties"]["restart_max"]["default"], 5);
}
