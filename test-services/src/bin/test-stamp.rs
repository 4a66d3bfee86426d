//! A service that says when it came to life, for whoever measures how quickly supervisors start things.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;

const PROGRAM: Program = Program {
    name: "test-stamp",
    about: "Appends the monotonic clock in nanoseconds, as it was at the start of main, to a file; then does nothing until \
            SIGTERM or SIGINT. Whoever connects to its sockets is let in and seen off.",
    options: &[
        Opt { name: "--file", value: Some("FILE"), default: Some("/stamps"), help: "file to append to" },
        Opt { name: "--tcp", value: Some("ADDR"), default: None, help: "address and port to listen on" },
        Opt { name: "--unix", value: Some("PATH"), default: None, help: "socket to listen on" },
    ],
};

/// Pause after a failed accept: without descriptors it would fail again at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let born = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    yakiros_test_services::main(&PROGRAM, |values| run(values, born))
}

fn run(values: &Values<'_>, born: Duration) -> Result<ExitCode, Error> {
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    if let Some(address) = values.optional::<SocketAddr>("--tcp")? {
        let listener = TcpListener::bind(address).map_err(Error::failed(format!("listen on {address}")))?;
        thread::spawn(move || let_in(|| listener.accept().map(drop)));
    }
    if let Some(path) = values.optional_path("--unix") {
        let doing = format!("listen on {}", path.display());
        let listener = UnixListener::bind(path).map_err(Error::failed(doing))?;
        thread::spawn(move || let_in(|| listener.accept().map(drop)));
    }
    let path = values.path("--file")?;
    // One write of one line: many of these append to the same file at once.
    let line = format!("{}\n", born.as_nanos());
    let append = || OpenOptions::new().append(true).create(true).open(&path)?.write_all(line.as_bytes());
    append().map_err(Error::failed(format!("append to {}", path.display())))?;
    signals.wait().map_err(Error::failed("wait for a signal"))?;
    Ok(ExitCode::SUCCESS)
}

fn let_in(accept: impl Fn() -> std::io::Result<()>) {
    loop {
        if accept().is_err() {
            thread::sleep(ACCEPT_PAUSE);
        }
    }
}
