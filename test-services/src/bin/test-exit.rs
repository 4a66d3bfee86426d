//! Ends in the way that was asked for: with an exit code, or by a signal.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;
use std::{io, thread};

use nix::sys::signal::{SigHandler, Signal, raise, signal};
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-exit",
    about: "Ends after a while, with an exit code or by a signal.",
    options: &[
        Opt { name: "--after-ms", value: Some("N"), default: Some("0"), help: "time until the end" },
        Opt {
            name: "--code",
            value: Some("N"),
            default: None,
            help: "exit code, 0 to 255 (0 when nothing is said)",
        },
        Opt {
            name: "--signal",
            value: Some("NAME"),
            default: None,
            help: "signal to end by, as SEGV or SIGSEGV",
        },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let after = Duration::from_millis(values.parse("--after-ms")?);
    let code: Option<u8> = values.optional("--code")?;
    let name: Option<String> = values.optional("--signal")?;
    let signal = name.as_deref().map(signal_of).transpose()?;
    if code.is_some() && signal.is_some() {
        return Err(Error::Usage("--code and --signal exclude each other".into()));
    }
    thread::sleep(after);
    match signal {
        Some(signal) => end_by(signal).map_err(Error::failed(format!("end by {signal}"))),
        None => Ok(ExitCode::from(code.unwrap_or(0))),
    }
}

fn signal_of(name: &str) -> Result<Signal, Error> {
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    Signal::from_str(&full).map_err(|_| Error::Usage(format!("--signal {name}: no such signal")))
}

/// Only comes back when the signal did not end the process.
fn end_by(which: Signal) -> io::Result<ExitCode> {
    if !matches!(which, Signal::SIGKILL | Signal::SIGSTOP) {
        // SAFETY: the default action runs no code in the process. The runtime's own handlers (SIGSEGV, SIGPIPE) would
        // keep it alive.
        unsafe { signal(which, SigHandler::SigDfl) }?;
    }
    raise(which)?;
    Err(io::Error::other("the process is still there: the signal does not end a process"))
}
