//! The scripts are tried by the shells themselves, where there are these.

use super::*;
use std::path::PathBuf;
use std::process::Command as Process;

/// Stands for a supervisor with three components.
const NAMES: &str = "[ \"$*\" = names ] && printf 'web\\nwatcher\\ndb\\n'";

/// Far above what a shell takes; one that waits for ever has failed.
const LIMIT_S: &str = "60";

#[test]
fn every_shell_is_told_where_names_stand() {
    let command = crate::manual::command;
    let commands = with_names(&command());
    for name in ["status", "tree", "start", "log", "why", "wait", "path", "simulate", "check-readiness"] {
        assert!(commands.iter().any(|command| command == name), "{name} is not in {commands:?}");
    }
    assert!(!commands.iter().any(|command| command == "caps"), "{commands:?}");
    let zsh = script(Shell::Zsh, command());
    assert!(zsh.starts_with("#compdef graphctl\n"), "{zsh}");
    assert!(zsh.matches(":_graphctl_components'").count() >= commands.len() - 2, "{zsh}");
    let fish = script(Shell::Fish, command());
    assert!(fish.contains(" status tree start "), "{fish}");
}

/// What a shell prints of a script of its own; `None`, with the reason said, where it is not installed.
fn run(shell: &str, arguments: &[&str]) -> Option<String> {
    let home = tempfile::tempdir().expect("temporary directory");
    let installed = Process::new(shell).arg("--version").output().is_ok();
    if !installed {
        eprintln!("skipped: there is no {shell} here");
        return None;
    }
    let run = Process::new("timeout")
        .args([LIMIT_S, shell])
        .args(arguments)
        .env("HOME", home.path())
        .output()
        .unwrap_or_else(|error| panic!("timeout: {error}"));
    assert!(run.status.success(), "{shell} {}: {}", run.status, String::from_utf8_lossy(&run.stderr));
    Some(String::from_utf8_lossy(&run.stdout).trim_end_matches('\n').to_owned())
}

/// What bash completes after these words.
fn bash(words: &str) -> Option<String> {
    let test = format!(
        "{}\ngraphctl() {{ {NAMES}; }}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         _graphctl_with_names graphctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         echo \"${{COMPREPLY[*]}}\"",
        script(Shell::Bash, crate::manual::command())
    );
    run("bash", &["--norc", "-c", &test])
}

#[test]
fn bash_completes_names_of_components() {
    let Some(found) = bash("graphctl start w") else {
        return;
    };
    assert!(found.ends_with("web watcher"), "{found:?}");
    assert_eq!(bash("graphctl ca").as_deref(), Some("caps"));
    assert!(bash("graphctl caps d").is_some_and(|found| !found.contains("db")));
    assert_eq!(bash("graphctl start --time").as_deref(), Some("--timeout"));
}

#[test]
fn zsh_completes_names_of_components() {
    // A line, and what it is after the completion key.
    const LINES: [[&str; 2]; 9] = [
        ["graphctl start d", "graphctl start db "],
        ["graphctl log we", "graphctl log web "],
        ["graphctl why d", "graphctl why db "],
        ["graphctl path web d", "graphctl path web db "],
        ["graphctl simulate remove wa", "graphctl simulate remove watcher "],
        ["graphctl check-readiness d", "graphctl check-readiness db "],
        ["graphctl ca", "graphctl caps "],
        ["graphctl caps d", "graphctl caps d"],
        ["graphctl start --time", "graphctl start --timeout="],
    ];
    let dir = tempfile::tempdir().expect("temporary directory");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a script");
        path
    };
    let probe = write("probe.zsh", include_str!("probe.zsh")).display().to_string();
    let made = write("_graphctl", &script(Shell::Zsh, crate::manual::command())).display().to_string();
    let arguments: Vec<_> =
        ["-f", &probe, &made].into_iter().chain(LINES.iter().map(|[line, _]| *line)).collect();
    let Some(found) = run("zsh", &arguments) else {
        return;
    };
    let expected: Vec<_> = LINES.iter().map(|[_, after]| *after).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

/// What fish offers after this line, without descriptions.
fn fish(line: &str) -> Option<Vec<String>> {
    let made = script(Shell::Fish, crate::manual::command());
    let test = format!(
        "function graphctl; test \"$argv\" = names; and printf 'web\\nwatcher\\ndb\\n'; end\n{made}\ncomplete -C '{line}'"
    );
    let found = run("fish", &["--no-config", "-c", &test])?;
    let words = found.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
    Some(words.collect())
}

#[test]
fn fish_completes_names_of_components() {
    let Some(found) = fish("graphctl start w") else {
        return;
    };
    assert_eq!(found, ["watcher", "web"]);
    for (line, expected) in [
        ("graphctl path web d", &["db"][..]),
        ("graphctl simulate remove wa", &["watcher"]),
        ("graphctl check-readiness d", &["db"]),
        ("graphctl ca", &["caps"]),
        ("graphctl caps d", &[]),
        ("graphctl start --time", &["--timeout"]),
    ] {
        assert_eq!(fish(line).expect("fish"), expected, "{line}");
    }
}
