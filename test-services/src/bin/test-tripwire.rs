//! Stands in the place of another program, runs that, and does something to it when it comes to a point that is named.
//!
//! Put at PATH, with the program itself at `PATH.real`, it does what `PATH.wires` says: a wire on each line, which is the
//! name of what happens, a blank, and the text that the program is about to write, or that is in the path of a file that it
//! is about to open. Each wire trips once; which did is added to `PATH.tripped`. Lines that begin with `+` are arguments for
//! the program beside its own.
//!
//! - `kill`: the program is killed, and this one with it.
//! - `kill-parent`: whoever started it is killed.
//! - `hold`: it stands still until `PATH.held`, which is made then, is gone. It dies with this one.
//! - `run COMMAND;`: the shell runs the command, up to the semicolon.
//!
//! Only its first process is looked at, so that it can make and trace others.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

// System calls.
const OPEN: i64 = libc::SYS_open;
const OPEN_AT: i64 = libc::SYS_openat;
const WRITE: i64 = libc::SYS_write;
/// Most bytes of a text or a path that are looked through.
const TEXT_LIMIT: u64 = 4096;
/// Between two looks at whether it may go on.
const LOOK: Duration = Duration::from_millis(5);

struct Wire {
    action: Action,
    text: String,
    tripped: bool,
}

enum Action {
    Kill,
    KillParent,
    Hold,
    Run(String),
}

struct Plan {
    place: PathBuf,
    wires: Vec<Wire>,
    arguments: Vec<OsString>,
}

impl Plan {
    fn read(place: PathBuf) -> io::Result<Self> {
        let (mut wires, mut arguments) = (Vec::new(), Vec::new());
        // Without a plan it is as if it was not there.
        for line in fs::read_to_string(beside(&place, "wires")).unwrap_or_default().lines() {
            if let Some(argument) = line.strip_prefix('+') {
                arguments.push(argument.into());
            } else {
                let wire = Wire::parse(line).ok_or_else(|| io::Error::other(format!("no wire: {line}")))?;
                wires.push(wire);
            }
        }
        Ok(Self { place, wires, arguments })
    }

    /// It is about to write this, or to open it.
    fn comes_to(&mut self, pid: Pid, bytes: &[u8]) -> io::Result<()> {
        let said = String::from_utf8_lossy(bytes);
        let place = &self.place;
        for wire in self.wires.iter_mut().filter(|wire| !wire.tripped && said.contains(&wire.text)) {
            wire.tripped = true;
            let mut tripped = OpenOptions::new().create(true).append(true).open(beside(place, "tripped"))?;
            writeln!(tripped, "{}", wire.text)?;
            wire.action.happen(place, pid)?;
        }
        Ok(())
    }
}

impl Wire {
    fn parse(line: &str) -> Option<Self> {
        let (action, text) = if let Some(rest) = line.strip_prefix("run ") {
            let (command, text) = rest.split_once("; ")?;
            (Action::Run(command.to_owned()), text)
        } else {
            let (action, text) = line.split_once(' ')?;
            let action = match action {
                "kill" => Action::Kill,
                "kill-parent" => Action::KillParent,
                "hold" => Action::Hold,
                _ => return None,
            };
            (action, text)
        };
        Some(Self { action, text: text.to_owned(), tripped: false })
    }
}

impl Action {
    fn happen(&self, place: &Path, pid: Pid) -> io::Result<()> {
        match self {
            Self::Kill => {
                kill(pid, Signal::SIGKILL)?;
                // Whoever waits for it sees this one.
                waitpid(pid, None)?;
                kill(getpid(), Signal::SIGKILL)?;
            }
            Self::KillParent => kill(getppid(), Signal::SIGKILL)?,
            Self::Hold => {
                let held = beside(place, "held");
                fs::write(&held, pid.to_string())?;
                while held.exists() {
                    sleep(LOOK);
                }
            }
            Self::Run(command) => {
                Command::new("/bin/sh").args(["-c", command]).status()?;
            }
        }
        Ok(())
    }
}

fn beside(place: &Path, what: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

/// The bytes at the place of a process's memory, or as many of them as there are.
fn bytes_at(memory: &File, place: u64, count: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(count.min(TEXT_LIMIT)).unwrap_or_default()];
    let read = memory.read_at(&mut bytes, place).unwrap_or_default();
    bytes.truncate(read);
    bytes
}

/// What a system call writes or opens.
fn subject(memory: &File, registers: &user_regs_struct) -> Vec<u8> {
    let path = |place| {
        let mut bytes = bytes_at(memory, place, TEXT_LIMIT);
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        bytes
    };
    match i64::try_from(registers.orig_rax) {
        Ok(WRITE) => bytes_at(memory, registers.rsi, registers.rdx),
        Ok(OPEN_AT) => path(registers.rsi),
        Ok(OPEN) => path(registers.rdi),
        _ => Vec::new(),
    }
}

/// Run it to its end.
fn watch(plan: &mut Plan, name: &OsStr, arguments: &[OsString]) -> io::Result<ExitCode> {
    let mut command = Command::new(beside(&plan.place, "real"));
    command.arg0(name).args(arguments).args(&plan.arguments);
    // SAFETY: ptrace is a system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    // Spawning returns when it executes the program, where it stops.
    let child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    waitpid(pid, None)?;
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)?;
    let (mut memory, mut is_entry, mut signal) = (File::open(format!("/proc/{pid}/mem"))?, true, None);
    loop {
        match ptrace::syscall(pid, signal.take()) {
            // Somebody else has killed it.
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
        match waitpid(pid, None)? {
            WaitStatus::PtraceSyscall(_) => {
                if is_entry && let Ok(registers) = ptrace::getregs(pid) {
                    let bytes = subject(&memory, &registers);
                    plan.comes_to(pid, &bytes)?;
                }
                is_entry = !is_entry;
            }
            // After an execution: its memory is another one.
            WaitStatus::Stopped(_, Signal::SIGTRAP) => memory = File::open(format!("/proc/{pid}/mem"))?,
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(_, code) => return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
            WaitStatus::Signaled(_, signal, _) => {
                kill(getpid(), signal)?;
                return Ok(ExitCode::FAILURE);
            }
            _ => {}
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    // As it was called, and not what that leads to.
    let watched = Plan::read(PathBuf::from(&name)).and_then(|mut plan| watch(&mut plan, &name, &arguments));
    watched.unwrap_or_else(|error| {
        eprintln!("{}: {error}", name.display());
        ExitCode::FAILURE
    })
}
