//! `cargo xtask sim`: builds the simulation, optimised, and hands the arguments over to it.

use yakiros_reports::EXIT_INFRA;

/// A build of its own for engines that are broken on purpose.
const MUTATIONS: &str = "--mutations";

pub fn run(arguments: &[String]) -> i32 {
    let mut command =
        crate::test::command(&["run", "--quiet", "--profile", "sim", "--package", "yakiros-sim"]);
    if arguments.iter().any(|argument| argument == MUTATIONS) {
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
