//! Starting, watching and ending the services under test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait for something that should come within milliseconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// All services by name and path.
pub const ALL: [(&str, &str); 19] = [
    ("test-database", env!("CARGO_BIN_EXE_test-database")),
    ("test-monitor", env!("CARGO_BIN_EXE_test-monitor")),
    ("test-networking", env!("CARGO_BIN_EXE_test-networking")),
    ("test-stateful-service", env!("CARGO_BIN_EXE_test-stateful-service")),
    ("test-web-server", env!("CARGO_BIN_EXE_test-web-server")),
    ("test-echo-server", env!("CARGO_BIN_EXE_test-echo-server")),
    ("test-escape", env!("CARGO_BIN_EXE_test-escape")),
    ("test-exit", env!("CARGO_BIN_EXE_test-exit")),
    ("test-flood", env!("CARGO_BIN_EXE_test-flood")),
    ("test-floor", env!("CARGO_BIN_EXE_test-floor")),
    ("test-health-demo", env!("CARGO_BIN_EXE_test-health-demo")),
    ("test-hog", env!("CARGO_BIN_EXE_test-hog")),
    ("test-idle", env!("CARGO_BIN_EXE_test-idle")),
    ("test-oneshot", env!("CARGO_BIN_EXE_test-oneshot")),
    ("test-orphan", env!("CARGO_BIN_EXE_test-orphan")),
    ("test-ready", env!("CARGO_BIN_EXE_test-ready")),
    ("test-stamp", env!("CARGO_BIN_EXE_test-stamp")),
    ("test-stubborn", env!("CARGO_BIN_EXE_test-stubborn")),
    ("test-writer", env!("CARGO_BIN_EXE_test-writer")),
];

/// A running service; it does not outlive the test.
pub struct Service {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Service {
    pub fn start(program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The next line of its output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// The address of the line that says it.
    pub fn address(&mut self) -> String {
        self.line().strip_prefix("listening on ").unwrap().trim().to_owned()
    }

    /// Sends a signal and waits for the end.
    pub fn stop(mut self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).unwrap();
        let mut status = None;
        until("the service has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has usually ended by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
pub fn output(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

pub fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until `condition` holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
