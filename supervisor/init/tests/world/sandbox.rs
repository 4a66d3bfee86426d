//! What a component asks for is what its processes have: each restriction is seen in the kernel's own words, and what it
//! is to prevent is tried with it and without it.
//!
//! A row is one program in two components: the one that is free says one thing, the one that is bound another.

mod files;
mod inspected;
mod kernel;
mod namespaces;
mod network;
mod privilege;
mod refused;
mod swap;

use std::fs;

use yakiros_core::journal::State;

use crate::guest::{Guest, until};

/// What a program says with a restriction and without.
struct Row {
    /// Names the two components.
    name: &'static str,
    /// More of the file of the one that is free.
    free: &'static str,
    /// More of the file of the one that is bound.
    bound: &'static str,
    /// What the shell runs; `@DIR@` is the folder of the run.
    script: &'static str,
    /// What the free one says, lines joined by spaces.
    without: &'static str,
    /// What the bound one says.
    with: &'static str,
}

/// A supervisor that is root of the machine, as on a machine of its own; in a user namespace it could give little away.
fn start() -> Option<Guest> {
    start_as("-pmf")
}

/// The same in these namespaces.
fn start_as(flags: &str) -> Option<Guest> {
    if !nix::unistd::geteuid().is_root() {
        // The suite `isolation` tries the same in a machine, whoever runs it.
        eprintln!("not tried: restrictions are given by root alone");
        return None;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("graph.d")).expect("configuration directory");
    // No control groups: root's would be those of the machine, and of every other test there.
    fs::write(dir.path().join("no-cgroups"), "").expect("a file in their place");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    Some(Guest::start_as(dir, flags))
}

/// Declare a component that the shell runs to its end.
fn declare(guest: &Guest, name: &str, script: &str, more: &str) {
    let dir = guest.dir.path().display().to_string();
    let args = ["-c", &script.replace("@DIR@", &dir)];
    let text = format!(
        "[component]\nname = {name:?}\nbinary = \"/bin/sh\"\nargs = {args:?}\ntype = \"oneshot\"\n{}\n",
        more.replace("@DIR@", &dir)
    );
    guest.declare(&format!("{name}.toml"), &text);
}

/// What a component has said, lines joined by spaces.
fn said(guest: &Guest, name: &str) -> String {
    let path = guest.dir.path().join("state").join(format!("{name}.log"));
    let text = fs::read_to_string(path).unwrap_or_default();
    // Before each line stands the time.
    let words = text.lines().flat_map(|line| line.split_whitespace().skip(1));
    words.collect::<Vec<_>>().join(" ")
}

/// Run all rows in one supervisor.
fn compare(rows: &[Row]) {
    let Some(guest) = start() else { return };
    compare_in(&guest, rows);
}

fn compare_in(guest: &Guest, rows: &[Row]) {
    for row in rows {
        declare(guest, &format!("{}-free", row.name), row.script, row.free);
        declare(guest, &format!("{}-bound", row.name), row.script, row.bound);
    }
    let mut wrong = Vec::new();
    for row in rows {
        for (kind, expected) in [("free", row.without), ("bound", row.with)] {
            let name = format!("{}-{kind}", row.name);
            until("the declaration", || guest.status().0.iter().any(|c| *c.name == name).then_some(()));
            guest.wait(&name, State::Done, None);
            let said = said(guest, &name);
            if said != expected {
                wrong.push(format!("{name} said {said:?} and not {expected:?}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
