//! Appends to a file without ever syncing it, and ends the file properly when it is stopped properly.
//!
//! After a clean power-off the file ends with `last N` after N numbered lines. Without that line the service was not
//! stopped in order; with lines missing the file system was not synced.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-writer",
    about: "Appends the lines \"1\", \"2\", ... to a file without fsync; on SIGTERM or SIGINT\n\
            appends \"last N\" and exits with 0.",
    options: &[
        Opt { name: "--file", value: Some("FILE"), default: None, help: "file to append to (required)" },
        Opt { name: "--interval-ms", value: Some("N"), default: Some("10"), help: "time between two lines" },
        Opt {
            name: "--max-lines",
            value: Some("N"),
            default: Some("1000000"),
            help: "then only wait, so that no disk is filled",
        },
        Opt {
            name: "--ready-file",
            value: Some("FILE"),
            default: None,
            help: "file to create after the first line",
        },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let path = values.path("--file")?;
    let interval = Duration::from_millis(values.parse("--interval-ms")?);
    let max: u64 = values.parse("--max-lines")?;
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let write_failed = || Error::failed(format!("append to {}", path.display()));
    let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(write_failed())?;
    let mut append = |line: String| -> io::Result<()> { file.write_all(line.as_bytes()) };
    append("1\n".to_owned()).map_err(write_failed())?;
    ready::announce(values.optional_path("--ready-file").as_deref())
        .map_err(Error::failed("announce readiness"))?;
    let mut written = 1;
    loop {
        let pause = if written < max { interval } else { Duration::MAX };
        if signals.wait_for(pause).map_err(Error::failed("wait for a signal"))?.is_some() {
            append(format!("last {written}\n")).map_err(write_failed())?;
            return Ok(ExitCode::SUCCESS);
        }
        written += 1;
        append(format!("{written}\n")).map_err(write_failed())?;
    }
}
