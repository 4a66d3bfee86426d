//! `cargo xtask sim`: builds the simulation, optimised, and hands the arguments over to it.

use std::process::Command;

use yakiros_harness::programs::ends_with_its_thread;
use yakiros_reports::EXIT_INFRA;

/// A build of its own for engines that are broken on purpose.
const MUTATIONS: &str = "--mutations";

pub fn run(arguments: &[String]) -> i32 {
    run_build(arguments.iter().any(|argument| argument == MUTATIONS), arguments)
}

/// With the engine that can be broken on purpose, whether it is or not.
pub fn run_breakable(arguments: &[&str]) -> i32 {
    run_build(true, &arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// Only builds it, for who will run it later. What is wrong with it is told then.
pub fn build_breakable_ahead() {
    let mut command = cargo("build", true);
    ends_with_its_thread(&mut command);
    if let Err(error) = command.status() {
        eprintln!("failed to run cargo: {error}");
    }
}

fn cargo(subcommand: &str, breakable: bool) -> Command {
    let mut command =
        crate::test::command(&[subcommand, "--quiet", "--profile", "sim", "--package", "yakiros-sim"]);
    if breakable {
        command.args(["--features", "mutations"]);
    }
    command
}

fn run_build(breakable: bool, arguments: &[String]) -> i32 {
    match cargo("run", breakable).arg("--").args(arguments).status() {
        // A signal has no code.
        Ok(status) => status.code().unwrap_or(EXIT_INFRA),
        Err(error) => {
            eprintln!("failed to run cargo: {error}");
            EXIT_INFRA
        }
    }
}
