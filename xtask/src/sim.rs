//! `cargo xtask sim`: builds the simulation, optimised, and hands the arguments over to it.

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

fn run_build(breakable: bool, arguments: &[String]) -> i32 {
    let mut command =
        crate::test::command(&["run", "--quiet", "--profile", "sim", "--package", "yakiros-sim"]);
    if breakable {
        command.args(["--features", "mutations"]);
    }
    match command.arg("--").args(arguments).status() {
        // A signal has no code.
        Ok(status) => status.code().unwrap_or(EXIT_INFRA),
        Err(error) => {
            eprintln!("failed to run cargo: {error}");
            EXIT_INFRA
        }
    }
}
