//! `cargo xtask sim`: builds the simulation, optimised, and hands the arguments over to it.

use yakiros_reports::EXIT_INFRA;

pub fn run(arguments: &[String]) -> i32 {
    let mut command =
        crate::test::command(&["run", "--quiet", "--profile", "sim", "--package", "yakiros-sim"]);
    match command.arg("--").args(arguments).status() {
        // A signal has no code.
        Ok(status) => status.code().unwrap_or(EXIT_INFRA),
        Err(error) => {
            eprintln!("failed to run cargo: {error}");
            EXIT_INFRA
        }
    }
}
