//! Reports that it is ready in exactly the way that was asked for, once it is let, and then does nothing.

use std::env;
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::time::Duration;

use nix::libc;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-ready",
    about: "Waits for the gate, reports ready in every way that was asked for, then does nothing until SIGTERM or SIGINT.",
    options: &[
        Opt { name: "--gate", value: Some("FILE"), default: None, help: "report once this exists" },
        Opt { name: "--file", value: Some("FILE"), default: None, help: "by creating this file" },
        Opt { name: "--signal", value: Some("N"), default: None, help: "by sending the parent this signal" },
        Opt { name: "--fd", value: None, default: None, help: "by a newline to the descriptor in NOTIFY_FD" },
        Opt {
            name: "--socket",
            value: None,
            default: None,
            help: "by READY=1 to the socket in NOTIFY_SOCKET",
        },
    ],
};

/// Between two looks at the gate.
const STEP: Duration = Duration::from_millis(20);
/// Where sd_notify messages go.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let gate = values.optional_path("--gate");
    let signal: Option<i32> = values.optional("--signal")?;
    while gate.as_ref().is_some_and(|gate| !gate.exists()) {
        if signals.wait_for(STEP).map_err(Error::failed("wait for a signal"))?.is_some() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if values.switch("--fd") {
        ready::announce(None).map_err(Error::failed("write the newline"))?;
    }
    if values.switch("--socket") {
        notify().map_err(Error::failed("send READY=1"))?;
    }
    if let Some(path) = values.optional_path("--file") {
        fs::write(&path, "").map_err(Error::failed("create the file"))?;
    }
    if let Some(number) = signal {
        // SAFETY: calls on numbers; real-time signals have no name in the wrapper.
        unsafe { libc::kill(libc::getppid(), number) };
    }
    signals.wait().map_err(Error::failed("wait for a signal"))?;
    Ok(ExitCode::SUCCESS)
}

fn notify() -> io::Result<()> {
    let place = env::var_os(NOTIFY_SOCKET).ok_or_else(|| io::Error::other("NOTIFY_SOCKET is not set"))?;
    UnixDatagram::unbound()?.send_to(b"READY=1\n", place).map(drop)
}
