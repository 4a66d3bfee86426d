//! Leaves a process behind whose parent is gone, so that PID 1 inherits it and must reap it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;

const PROGRAM: Program = Program {
    name: "test-orphan",
    about: "Forks twice. The child writes the grandchild's pid and exits; the grandchild,\n\
            now an orphan, waits for a file and exits with 0, or with 3 when it waited for\n\
            too long.",
    options: &[
        Opt {
            name: "--pid-file",
            value: Some("FILE"),
            default: None,
            help: "file that gets the grandchild's pid (required)",
        },
        Opt {
            name: "--until",
            value: Some("FILE"),
            default: None,
            help: "the grandchild exits when this file appears (required)",
        },
        Opt {
            name: "--limit-ms",
            value: Some("N"),
            default: Some("60000"),
            help: "longest wait of the grandchild",
        },
        Opt {
            name: "--stay",
            value: None,
            default: None,
            help: "run until SIGTERM instead of exiting once the orphan is there",
        },
    ],
};

/// How often the grandchild looks for the file.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Exit code of a grandchild that waited for too long.
const WAITED_TOO_LONG: i32 = 3;

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let (pid_file, until) = (values.path("--pid-file")?, values.path("--until")?);
    let limit = Duration::from_millis(values.parse("--limit-ms")?);
    // SAFETY: the process has one thread, so the child may do anything.
    match unsafe { fork() }.map_err(|error| Error::failed("fork")(error.into()))? {
        ForkResult::Parent { child } => {
            waitpid(child, None).map_err(|error| Error::failed("wait for the child")(error.into()))?;
        }
        ForkResult::Child => std::process::exit(child(&pid_file, &until, limit)),
    }
    if !pid_file.exists() {
        return Err(Error::failed("leave an orphan")(io::Error::other(
            "the child did not write the pid file",
        )));
    }
    if values.switch("--stay") {
        let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
        signals.wait().map_err(Error::failed("wait for a signal"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The child makes the grandchild, says who it is, and is gone. Returns the exit code of whoever returns.
fn child(pid_file: &Path, until: &Path, limit: Duration) -> i32 {
    // SAFETY: as above, a fork leaves one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => match write_pid(pid_file, child) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("test-orphan: failed to write {}: {error}", pid_file.display());
                1
            }
        },
        Ok(ForkResult::Child) => grandchild(until, limit),
        Err(error) => {
            eprintln!("test-orphan: failed to fork: {error}");
            1
        }
    }
}

fn grandchild(until: &Path, limit: Duration) -> i32 {
    let start = Instant::now();
    while !until.exists() {
        if start.elapsed() >= limit {
            return WAITED_TOO_LONG;
        }
        thread::sleep(LOOK_EVERY);
    }
    0
}

/// The file appears with its content, so that whoever waits for it never reads half a number.
fn write_pid(path: &Path, pid: Pid) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, format!("{pid}\n"))?;
    fs::rename(&beside, path)
}
