//! What the test services share: the command line ([`args`]), signals ([`stop`]), readiness ([`ready`]), serving and
//! handing over ([`server`], [`http`]) and doing it wrong ([`faults`]), what is on the disk ([`wal`]), and asking the
//! supervisor ([`control`]).
//!
//! Each service is one small static program in `src/bin/` that does one thing and is meant to be copied from. All of
//! them keep the same contract:
//!
//! - `--help` explains every option; a wrong command line ends with 2 and says what is wrong.
//! - 0 means done or stopped as asked, 1 means failed, with one line on standard error.
//! - Standard output is for what a test wants to see; it is written line by line.

pub mod args;
pub mod control;
pub mod faults;
pub mod http;
pub mod ready;
pub mod server;
pub mod socket;
pub mod stop;
pub mod wal;

use std::fmt;
use std::io;
use std::process::ExitCode;

use args::{Program, Values};

/// Why a service ended early.
#[derive(Debug)]
pub enum Error {
    /// The command line is wrong.
    Usage(String),
    /// Something else did not work: what, and why.
    Failed(String, io::Error),
}

impl Error {
    /// For `map_err`: the text completes "failed to ...".
    pub fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Failed(what, source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Failed(what, source) => write!(f, "failed to {what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Usage(_) => None,
            Self::Failed(_, source) => Some(source),
        }
    }
}

/// The `main` of every service: reads the command line, runs, reports an error in one line.
pub fn main(program: &Program, run: impl FnOnce(&Values<'_>) -> Result<ExitCode, Error>) -> ExitCode {
    let result = match program.parse(std::env::args_os().skip(1)) {
        Ok(values) if values.help() => {
            print!("{}", program.help());
            return ExitCode::SUCCESS;
        }
        Ok(values) => run(&values),
        Err(error) => Err(error),
    };
    match result {
        Ok(code) => code,
        Err(error @ Error::Usage(_)) => {
            eprintln!("{}: {error}; see {} --help", program.name, program.name);
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{}: {error}", program.name);
            ExitCode::FAILURE
        }
    }
}
