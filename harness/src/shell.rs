//! A shell in a guest, next to the running supervisor.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::termios::{self, SetArg, Termios};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use yakiros_guest::protocol::{Exec, ExitStatus, WindowSize};
use yakiros_reports::EXIT_INFRA;
use yakiros_vm::agent::{Keyboard, ProgramEvent};
use yakiros_vm::machine::Guest;

use crate::interrupt::{self, EXIT_INTERRUPTED};
use crate::limits::FIRST_BOOT;
use crate::options::{self, Options};
use crate::pool;
use crate::prepare::{PrepareError, Prepared};
use crate::suite::{SUITES, Suite};

/// Of a terminal that does not tell.
const USUAL_SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };
/// An exit code of a shell that was ended by a signal is this plus the signal, as in any shell.
const SIGNAL_BASE: i32 = 128;
/// Of a file's mode.
const PERMISSIONS: u32 = 0o7777;
/// For a folder to be made.
const PUT_LIMIT_MS: u64 = 10_000;

/// A file that goes into the guest, with its permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// On the host.
    pub from: PathBuf,
    /// In the guest; folders that are missing are made.
    pub to: String,
}

impl FromStr for Put {
    type Err = String;

    /// `FILE:PATH`, as people write it who know `scp` and `docker`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not FILE:PATH, with an absolute path in the guest");
        let (from, to) = text.rsplit_once(':').filter(|(from, _)| !from.is_empty()).ok_or_else(wrong)?;
        // A file's name is needed, too.
        if !to.starts_with('/') || to.ends_with('/') {
            return Err(wrong());
        }
        Ok(Self { from: from.into(), to: to.to_owned() })
    }
}

/// Boots a suite's machine, puts files into it, and gives a shell in it; without a terminal, runs what standard input
/// says. Gives the shell's exit code.
pub fn run(options: &Options, files: &[Put], command: &[String]) -> i32 {
    match shell(options, files, command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_INFRA
        }
    }
}

fn shell(options: &Options, files: &[Put], command: &[String]) -> Result<i32, PrepareError> {
    let suite = chosen_suite(options)?;
    let files = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let parent = options::target();
    fs::create_dir_all(&parent)?;
    let work = tempfile::Builder::new().prefix("shell-").tempdir_in(parent)?;
    let code = interrupt::block_on(async {
        let prepared = Prepared::new(options, work.path()).await?;
        let config = suite.config()?;
        let machine = prepared.machine(suite, &config, options, work.path())?;
        let guest = machine.boot(work.path(), &work.path().join("console.log"), FIRST_BOOT).await?;
        eprintln!("booted in {:.2} s; `exit` or Ctrl-D ends the guest", guest.answered_after.as_secs_f64());
        // A shell is most needed where the supervisor does not work.
        if options.init.is_none()
            && let Err(failure) = pool::settle(&guest, config.limits.settle()).await
        {
            eprintln!("warning: {failure}");
        }
        for (to, mode, content) in &files {
            put(&guest, to, *mode, content).await?;
        }
        interact(&guest, command).await
    })?;
    code.unwrap_or(Ok(EXIT_INTERRUPTED))
}

/// What goes into the guest is read before it is booted: a wrong name is told at once.
fn read(file: &Put) -> Result<(String, u32, Vec<u8>), PrepareError> {
    let failed = |error: io::Error| format!("failed to read {}: {error}", file.from.display());
    let content = fs::read(&file.from).map_err(failed)?;
    let mode = fs::metadata(&file.from).map_err(failed)?.permissions().mode() & PERMISSIONS;
    Ok((file.to.clone(), mode, content))
}

async fn put(guest: &Guest, to: &str, mode: u32, content: &[u8]) -> Result<(), PrepareError> {
    let folder = to.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let make = Exec {
        argv: ["mkdir", "-p", "--", folder].map(str::to_owned).into(),
        env: Vec::new(),
        cwd: None,
        stdin: false,
        timeout_ms: Some(PUT_LIMIT_MS),
        terminal: None,
    };
    let failed = |kind| format!("failed to put {to} into the guest: {kind}");
    guest.agent.exec(make).await.map_err(failed)?;
    Ok(guest.agent.write_file(to, mode, true, content).await.map_err(failed)?)
}

fn chosen_suite(options: &Options) -> Result<&'static Suite, PrepareError> {
    match options.suites.as_slice() {
        [] => Ok(&SUITES[0]),
        [name] => {
            let found = SUITES.iter().find(|suite| suite.name == name);
            found.ok_or_else(|| format!("there is no suite '{name}'").into())
        }
        _ => Err("a shell needs one suite's machine, not several".into()),
    }
}

async fn interact(guest: &Guest, command: &[String]) -> Result<i32, PrepareError> {
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let argv =
        if command.is_empty() { vec!["/bin/sh".to_owned(), "-i".to_owned()] } else { command.to_vec() };
    let argv = if command.is_empty() && !on_terminal { vec!["/bin/sh".into()] } else { argv };
    let exec = Exec {
        argv,
        env: vec![("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "linux".into()))],
        cwd: None,
        stdin: true,
        timeout_ms: None,
        terminal: on_terminal.then(terminal_size),
    };
    let _raw = if on_terminal { Some(RawMode::enter()?) } else { None };
    let started = guest.agent.start(exec).await;
    let mut program = started.map_err(|kind| format!("failed to start a shell: {kind}"))?;
    let keyboard = program.keyboard();
    tokio::spawn(forward_keys(keyboard.clone()));
    let mut resized = signal(SignalKind::window_change())?;
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        tokio::select! {
            event = program.next() => match event.map_err(|kind| format!("failed to follow the shell: {kind}"))? {
                ProgramEvent::Started(_) => {}
                ProgramEvent::Stdout(bytes) => {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await?;
                }
                ProgramEvent::Stderr(bytes) => {
                    stderr.write_all(&bytes).await?;
                    stderr.flush().await?;
                }
                ProgramEvent::Exited(status) => return Ok(exit_code(status)),
            },
            _ = resized.recv(), if on_terminal => drop(keyboard.resize(terminal_size()).await),
        }
    }
}

async fn forward_keys(keyboard: Keyboard) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
        if keyboard.type_bytes(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // The guest may have ended meanwhile; then there is nothing to close.
    drop(keyboard.end().await);
}

fn exit_code(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => SIGNAL_BASE + signal,
        ExitStatus::TimedOut | ExitStatus::Cancelled => EXIT_INFRA,
    }
}

fn terminal_size() -> WindowSize {
    match rustix::termios::tcgetwinsize(io::stdout().as_fd()) {
        Ok(size) if size.ws_row > 0 => WindowSize { rows: size.ws_row, columns: size.ws_col },
        _ => USUAL_SIZE,
    }
}

/// The terminal passes every key on; as it was before once this is dropped.
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn enter() -> nix::Result<Self> {
        let before = termios::tcgetattr(io::stdin().as_fd())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _gone = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::Put;

    #[test]
    fn a_file_and_its_place_are_told_apart_at_the_last_colon() {
        let put = |text: &str| text.parse::<Put>().map(|put| (put.from.display().to_string(), put.to));
        assert_eq!(put("a:b/echo:/usr/bin/echo"), Ok(("a:b/echo".into(), "/usr/bin/echo".into())));
        for wrong in ["echo", "echo:", ":/echo", "echo:bin/echo", "echo:/usr/bin/"] {
            assert!(put(wrong).is_err_and(|why| why.contains("FILE:PATH")), "{wrong}");
        }
    }
}
