//! A service of several threads, each with a memory of its own, to see that all of them go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::{Builder, sleep};
use std::time::Duration;

use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-threads",
    about: "Has threads that count, each into a file of its own, until SIGTERM or SIGINT.",
    options: &[
        Opt { name: "--threads", value: Some("N"), default: Some("4"), help: "how many, beside the first" },
        Opt { name: "--into", value: Some("DIR"), default: None, help: "directory for the files" },
    ],
};

/// Between two numbers.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    // Before there are others: they take none then.
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let directory = values.optional_path("--into").unwrap_or_else(|| PathBuf::from("."));
    for number in 1..=values.parse::<usize>("--threads")? {
        let directory = directory.clone();
        let thread = Builder::new().name(format!("counter-{number}"));
        let spawned = thread.spawn(move || count(&directory, number));
        spawned.map_err(Error::failed("start a thread"))?;
    }
    ready::announce(None).map_err(Error::failed("announce readiness"))?;
    signals.wait().map_err(Error::failed("wait for a signal"))?;
    Ok(ExitCode::SUCCESS)
}

/// Each number is put in its place whole, for it may be read at any moment.
fn count(directory: &Path, number: usize) {
    let (file, new) = (directory.join(number.to_string()), directory.join(format!("{number}.new")));
    for count in 0_u64.. {
        // Who looks sees that nothing comes.
        let _ = fs::write(&new, count.to_string()).and_then(|()| fs::rename(&new, &file));
        sleep(PAUSE);
    }
}
