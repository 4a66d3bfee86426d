//! A service that does not stop when it is asked to.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-stubborn",
    about: "Ignores SIGTERM, SIGINT and SIGHUP, and says so on standard output; only SIGKILL ends it before its time.",
    options: &[
        Opt { name: "--ready-file", value: Some("FILE"), default: None, help: "file to create when ready" },
        Opt {
            name: "--limit-s",
            value: Some("N"),
            default: Some("3600"),
            help: "exit with 0 after so long, so that none is left over",
        },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let limit = Duration::from_secs(values.parse("--limit-s")?);
    let start = Instant::now();
    let signals = Signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
        .map_err(Error::failed("take signals"))?;
    ready::announce(values.optional_path("--ready-file").as_deref())
        .map_err(Error::failed("announce readiness"))?;
    loop {
        let left = limit.saturating_sub(start.elapsed());
        match signals.wait_for(left).map_err(Error::failed("wait for a signal"))? {
            Some(signal) => println!("ignored {signal}"),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}
