//! CRIU as a program: what it is told, what it says, how long it may take.
//!
//! Its configuration files are not read, so that it does what is written here. It is never asked for by a shell.

mod arguments;
mod figures;
pub mod gate;
mod known;
mod log;
mod room;
mod unlock;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use arguments::{Action, Cgroups, NetworkLock, Options, Paths, Then, arguments};
pub use figures::{DumpFigures, Figures, RestoreFigures};
use gate::{Decide, Gate};
pub use known::Known;
pub use log::reasons;
pub(crate) use room::Room;
pub use unlock::{has_nf_tables, tables, unlock, unlock_table};

use crate::child::{self, Asked, Ended};
use crate::store::Version;

/// Its name, where no path is given.
pub const NAME: &str = "criu";
/// To say its version; it does nothing before.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// Most characters of what it says in place of its version.
const SAID_LIMIT: usize = 100;
/// Most bytes of a log that are looked through, from its begin: the first error is what matters.
const LOG_LIMIT: u64 = 8 << 20;
/// Of its figures: two messages of some twenty numbers.
const FIGURES_LIMIT: u64 = 1 << 16;
/// Its log's name in its working directory.
const LOG: &str = "criu.log";

/// A CRIU that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criu {
    /// Its program.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

/// How it is called.
pub struct Call<'a> {
    /// The time it has, without that for the answer at the gate.
    pub limit: Duration,
    /// The lock of what it works on, which it holds as long as it lives.
    pub held: BorrowedFd<'a>,
    /// Where it asks before it ends processes, or lets any run that it has made, and what answers.
    pub gate: Option<(&'a Gate, &'a mut Decide<'a>)>,
    /// What it finds around itself.
    pub(crate) room: Room,
}

/// Why it did not do what it was told.
#[derive(Debug)]
pub enum CriuError {
    /// There is no such program.
    Absent(PathBuf),
    /// It cannot be started or its files not be read.
    Failed(PathBuf, io::Error),
    /// It says something else than its version.
    Version(String),
    /// It was killed, because this time was over.
    Late(Duration),
    /// Somebody killed it, by this signal.
    Killed(i32),
    /// It gave up, for these reasons; the first is the cause.
    Refused(Vec<String>),
}

impl Criu {
    /// The one at this path; a name alone is looked for in `PATH`.
    pub fn find(path: &Path) -> Result<Self, CriuError> {
        let path = resolve(path).ok_or_else(|| CriuError::Absent(path.to_owned()))?;
        let ended = child::run(Command::new(&path).arg("--version"), VERSION_LIMIT);
        let Ended { status, output } = ended.map_err(|error| CriuError::Failed(path.clone(), error))?;
        if status.is_none() {
            return Err(CriuError::Late(VERSION_LIMIT));
        }
        let version = parse_version(&output).ok_or_else(|| {
            CriuError::Version(output.lines().next().unwrap_or_default().chars().take(SAID_LIMIT).collect())
        })?;
        Ok(Self { path, version })
    }

    /// The same, where it may have been asked before what it is. If it was asked now, what is to be known the next time.
    pub(crate) fn find_again(path: &Path, known: Option<&Known>) -> Result<(Self, Option<Known>), CriuError> {
        let path = resolve(path).ok_or_else(|| CriuError::Absent(path.to_owned()))?;
        if let Some(version) = known.and_then(|known| known.version(&path)) {
            return Ok((Self { path, version }, None));
        }
        let found = Self::find(&path)?;
        let news = Known::of(&found);
        Ok((found, news))
    }

    /// Do something to a process or make one again. What it counted is none if that cannot be read: it decides nothing.
    pub fn run(
        &self,
        action: &Action,
        options: &Options,
        paths: &Paths,
        call: Call<'_>,
    ) -> Result<Figures, CriuError> {
        let Call { limit, held, gate, room } = call;
        let log = paths.work.join(LOG);
        let mut given = arguments(action, options, paths);
        given.extend(["--log-file", LOG].map(OsString::from));
        let mut command = Command::new(&self.path);
        command.args(given);
        room.enter(&mut command);
        let ended = match gate {
            None => child::run_with(&mut command, limit, Some(held), None),
            Some((gate, answer)) => {
                command.env(gate::DOOR, gate.work());
                let mut answer = || gate.answer(&mut *answer);
                let asked = Asked { by: gate.as_fd(), answer: &mut answer };
                child::run_with(&mut command, limit, Some(held), Some(asked))
            }
        };
        let ended = ended.map_err(|error| CriuError::Failed(self.path.clone(), error))?;
        match ended.status {
            None => Err(CriuError::Late(limit)),
            Some(status) if status.success() => {
                let bytes = read(&paths.work.join(action.figures()), FIGURES_LIMIT).unwrap_or_default();
                Ok(Figures::parse(&bytes).unwrap_or_default())
            }
            Some(status) => {
                if let Some(signal) = status.signal() {
                    return Err(CriuError::Killed(signal));
                }
                let text = match read(&log, LOG_LIMIT) {
                    Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    // It has not come so far.
                    Err(_) => ended.output,
                };
                let mut reasons = reasons(&text);
                if reasons.is_empty() {
                    reasons.push(format!("it ended with {status} and said nothing; see {}", log.display()));
                }
                Err(CriuError::Refused(reasons))
            }
        }
    }
}

/// `Version: 4.1.1`, and in builds from sources a line `GitID: …` after it.
fn parse_version(text: &str) -> Option<Version> {
    let line = text.lines().find_map(|line| line.strip_prefix("Version: "))?;
    let mut numbers = line.trim().split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    let patch = numbers.next().unwrap_or(Some(0))?;
    Some(Version { major, minor, patch })
}

/// The program at this path; a name alone is looked for in `PATH`.
pub(crate) fn resolve(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
    };
    if path.components().count() > 1 {
        return Some(path.to_owned()).filter(is_program);
    }
    let places =
        std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin".into());
    std::env::split_paths(&places).map(|place| place.join(path)).find(is_program)
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl fmt::Display for CriuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => {
                write!(f, "there is no program {}: install CRIU, or name its path", path.display())
            }
            Self::Failed(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Version(said) => write!(f, "it does not say its version but {said:?}"),
            Self::Late(limit) => {
                write!(f, "CRIU had not ended after {} s and was killed", limit.as_secs_f64())
            }
            Self::Killed(signal) => write!(f, "CRIU was killed by signal {signal}"),
            Self::Refused(reasons) => {
                let first = reasons.first().map_or("", String::as_str);
                write!(f, "CRIU: {first}")?;
                reasons.iter().skip(1).try_for_each(|reason| write!(f, "; {reason}"))
            }
        }
    }
}

impl std::error::Error for CriuError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let of = |text: &str| parse_version(text).map(|version| version.to_string());
        assert_eq!(of("Version: 4.1.1\n").as_deref(), Some("4.1.1"));
        assert_eq!(of("Warn  (x)\nVersion: 3.17\nGitID: v3.17\n").as_deref(), Some("3.17.0"));
        for text in ["", "Version: ", "Version: 4", "Version: x.y", "Version: 4.1.x", "4.1.1"] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }

    #[test]
    fn programs_that_are_none_are_named() {
        let of = |path: &str| Criu::find(Path::new(path)).expect_err("none").to_string();
        assert!(of("/nowhere/criu").starts_with("there is no program /nowhere/criu"));
        assert!(of("no-such-criu").starts_with("there is no program no-such-criu"));
        assert!(of("/bin/echo").starts_with("it does not say its version but \""));
    }
}
