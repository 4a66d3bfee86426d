//! `cargo xtask test`: everything that has to hold before a change is good, quickest first.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use yakiros_harness::options::{Options, workspace};
use yakiros_harness::profile::Profile;
use yakiros_harness::programs::Programs;
use yakiros_reports::event::Counts;
use yakiros_reports::{EXIT_FAILED, EXIT_INFRA, EXIT_PASSED};
use yakiros_vm::image::{ImageRequest, Kernel};

/// Tests that have run, over all kinds.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Seeds for each mutation. Some show only where several rare things meet, once in some hundred seeds: with these every one is
/// noticed by several of them, so that a change of what is drawn does not hide it.
const MUTATION_SEEDS: &str = "4000";

/// The profile of the scenarios.
const PROFILE: &str = "ci";

/// Gives an exit code.
type Stage = (&'static str, fn(&mut Tally) -> i32);

/// How much less than the tests the builds beside them may take of the processors: the most that a user may ask for and
/// that still gets on.
const BUILD_NICENESS: i32 = 10;

/// In order; the first that fails ends the run, since the later ones take longer and say less.
const STAGES: [Stage; 8] = [
    ("format", |_| cargo(&["fmt", "--all", "--check"])),
    ("lint", |_| cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("build of the tests", |_| cargo(&["test", "--quiet", "--workspace", "--no-run"])),
    // Tests wait as often as they work.
    ("unit, property, simulation and namespace tests", |tally| {
        build_ahead();
        cargo_test(tally)
    }),
    // With the build that the next stage needs: another one takes a minute.
    ("ten thousand seeds of the simulation", |_| crate::sim::run_breakable(&["--seeds", "10000"])),
    ("mutations of the engine", |_| crate::sim::run_breakable(&["--mutations", "--seeds", MUTATION_SEEDS])),
    ("scenarios on Alpine's kernel", |tally| vm_test(Kernel::Alpine, tally)),
    ("scenarios on Debian's kernel", |tally| vm_test(Kernel::Debian, tally)),
];

pub fn run() -> i32 {
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut code = EXIT_PASSED;
    for (name, stage) in STAGES {
        let stage_start = Instant::now();
        eprintln!("== {name}");
        code = stage(&mut tally);
        let verdict = if code == EXIT_PASSED { "good" } else { "FAILED" };
        eprintln!("== {name}: {verdict}, {:.0} s", stage_start.elapsed().as_secs_f64());
        if code != EXIT_PASSED {
            // A stage that fails without counting a test, such as the formatter, counts as one.
            tally.failed = tally.failed.max(1);
            break;
        }
    }
    eprintln!("{:.0} s in all", start.elapsed().as_secs_f64());
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    code
}

/// Begins to build what later stages run. They wait for it by cargo's locks, and tell what is wrong with it.
fn build_ahead() {
    std::thread::spawn(|| {
        // Of this thread alone on Linux, and of what it starts.
        let _as_before = rustix::process::nice(BUILD_NICENESS);
        crate::sim::build_breakable_ahead();
        if let Ok(profile) = Profile::named(PROFILE)
            && let Err(error) = Programs::build_ahead(profile.programs)
        {
            eprintln!("{error}");
        }
    });
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

fn cargo(arguments: &[&str]) -> i32 {
    match command(arguments).status() {
        Ok(status) => verdict(status),
        Err(error) => {
            eprintln!("failed to run cargo: {error}");
            EXIT_INFRA
        }
    }
}

fn verdict(status: ExitStatus) -> i32 {
    if status.success() { EXIT_PASSED } else { EXIT_FAILED }
}

/// Passes cargo's output on and adds up the closing lines of its test programs.
fn cargo_test(tally: &mut Tally) -> i32 {
    let started =
        command(&["test", "--quiet", "--workspace", "--no-fail-fast"]).stdout(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!("failed to run cargo: {error}");
            return EXIT_INFRA;
        }
    };
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            tally.add(&line);
            println!("{line}");
        }
    }
    child.wait().map_or(EXIT_INFRA, verdict)
}

fn vm_test(kernel: Kernel, tally: &mut Tally) -> i32 {
    let image = ImageRequest { kernel, ..ImageRequest::default() };
    let command_line = crate::command_line();
    let profile = match Profile::named(PROFILE) {
        Ok(profile) => profile,
        Err(message) => {
            eprintln!("error: {message}");
            return EXIT_INFRA;
        }
    };
    let options = Options { image, command_line, profile, ..Options::default() };
    let (code, counts) = yakiros_harness::run_counted(options);
    let Counts { passed, failed, flaky, skipped, infra_failed } = counts;
    tally.passed += u64::from(passed);
    tally.failed += u64::from(failed + flaky + infra_failed);
    tally.skipped += u64::from(skipped);
    code
}

impl Tally {
    /// Adds a line such as `test result: ok. 7 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.05s",
        );
        tally.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.add("test some::name ... ok");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (10, 2, 1));
    }
}
