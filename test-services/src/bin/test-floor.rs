//! The least that a supervisor can do, to be measured beside supervisors: what a machine itself takes.

use std::fs;
use std::io;
use std::process::{Command, ExitCode};

use nix::sys::wait::wait;
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-floor",
    about: "Keeps a number of copies of a program running and does nothing else: it waits for a child to end and creates \
            the next, by vfork and exec. Signals, logs, groups, files, limits, descriptors: nothing of that is seen to.",
    options: &[
        Opt { name: "--program", value: Some("FILE"), default: None, help: "what to run (required)" },
        Opt {
            name: "--count-file",
            value: Some("FILE"),
            default: None,
            help: "file with the number of copies (required)",
        },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let (program, file) = (values.path("--program")?, values.path("--count-file")?);
    let reading = || Error::failed(format!("read a number from {}", file.display()));
    let text = fs::read_to_string(&file).map_err(reading())?;
    let count: usize = text.trim().parse().map_err(|_| reading()(io::ErrorKind::InvalidData.into()))?;
    // The standard library does it by `posix_spawn`, whose child shares the memory and holds its parent until exec.
    let mut command = Command::new(&program);
    let mut start =
        || command.spawn().map(drop).map_err(Error::failed(format!("execute {}", program.display())));
    for _ in 0..count {
        start()?;
    }
    loop {
        wait().map_err(|error| Error::failed("wait for a child")(error.into()))?;
        start()?;
    }
}
