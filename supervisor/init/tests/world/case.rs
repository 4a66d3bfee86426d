//! Cases that are folders: `tests/cases/NAME` with `graph.d` (the component files), `case.toml` (what is done, see
//! [`step`]) and `journal` (what the supervisor must then have written, see [`journal`]). `tests/cases/README.md` says how
//! to read and write them.

mod journal;
mod step;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::guest::Guest;

/// Declares a test for each folder.
macro_rules! cases {
    ($($test:ident => $folder:literal,)+) => {
        $(
            #[test]
            fn $test() {
                run($folder);
            }
        )+

        /// A folder that nobody runs proves nothing.
        #[test]
        fn every_case_with_steps_is_run() {
            let run = [$($folder),+];
            let all = fs::read_dir(folder("")).expect("cases").flatten();
            for case in all.filter(|case| case.path().join("case.toml").exists()) {
                let name = case.file_name();
                assert!(run.iter().any(|known| *known == name), "{} is not run", name.display());
            }
        }
    };
}

cases! {
    back_off => "back-off",
    a_cycle_does_not_refuse_the_boot => "cycle",
    fifty_killed_services_all_come_back => "fifty-killed-services",
    the_first_exit_of_a_child_deadlocks_nothing => "first-child-exit",
    more_than_256_components_run => "more-than-256-components",
    failure_before_exec_names_step_and_errno => "no-binary",
    the_pid_namespace_is_entered => "pid-namespace",
    every_method_of_readiness_fires => "readiness",
    reports_by_a_real_time_signal_are_never_lost => "readiness-signals",
    a_late_component_tells_what_its_command_answered => "readiness-refused",
    a_reload_keeps_what_runs_and_ends_what_is_removed => "reload",
    a_lost_requirement_stops_the_process_and_no_second_copy_starts => "requirement-lost",
    a_handler_of_sigabrt_completes => "watchdog-abort",
    slow_commands_block_nobody => "slow-commands",
}

/// `case.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What it shows, in a sentence. For the reader only.
    #[serde(rename = "about")]
    _about: String,
    /// Component files that are written so many times.
    #[serde(default)]
    many: Vec<Many>,
    /// A step a line.
    steps: String,
}

/// One file of the case's folder, written as many, each with its number in place of `@N@`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    /// In the case's folder.
    template: PathBuf,
    /// From 1 to this.
    count: usize,
}

/// A case under way.
struct World {
    guest: Guest,
    /// The case's own folder.
    folder: PathBuf,
    /// Processes by component, as `remember` saw them.
    remembered: HashMap<String, Option<i32>>,
    /// The journal's revision before the last step that did something.
    since: u64,
}

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(case)
}

fn run(name: &str) {
    let folder = folder(name);
    let text = fs::read_to_string(folder.join("case.toml")).expect("case.toml");
    let case: Case = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}/case.toml: {error}"));
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = dir.path().join("graph.d");
    fs::create_dir(&config).expect("configuration directory");
    for file in fs::read_dir(folder.join("graph.d")).into_iter().flatten().flatten() {
        write(dir.path(), &file.path(), &config.join(file.file_name()), None);
    }
    for many in &case.many {
        let stem = many.template.file_stem().expect("a name").to_string_lossy().into_owned();
        for number in 1..=many.count {
            let to = config.join(format!("{stem}-{number}.toml"));
            write(dir.path(), &folder.join(&many.template), &to, Some(number));
        }
    }
    let Some(guest) = Guest::start_in(dir) else {
        return;
    };
    let mut world = World { guest, folder, remembered: HashMap::new(), since: 0 };
    for line in case.steps.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        eprintln!("{name}: {line}");
        step::take(&mut world, line);
    }
    if let Ok(expected) = fs::read_to_string(world.folder.join("journal")) {
        journal::compare(name, &expected, &world.guest.records(0));
    }
}

/// Copies a component file with what only this run knows: the folder that the case works in, and the number.
fn write(dir: &Path, from: &Path, to: &Path, number: Option<usize>) {
    let text = fs::read_to_string(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    let text = text.replace("@DIR@", &dir.display().to_string());
    let text = text.replace("@N@", &number.unwrap_or_default().to_string());
    let beside = dir.join("beside");
    fs::write(&beside, text).expect("component file");
    fs::rename(beside, to).expect("component file");
}
