//! `cargo xtask soak`: one machine for hours, with everything that it has in use, and a verdict about what it loses.
//!
//! - The guest drives itself ([`machine`]) and writes down what it does and sees ([`history`]); QEMU puts that into a file, so
//!   that nothing of it is lost with the harness. Everything else is made from these files, and can be made again.
//! - The same guest under a clock that skips idle time ([`machine::Drive::virtual_time`]) passes a day in minutes.
//! - Whether something grows is told by a test ([`trend`]), series by series ([`series`]).

mod follow;
pub mod history;
mod live;
pub mod machine;
mod report;
pub mod series;
pub mod trend;
pub mod verdict;

use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use yakiros_reports::event::{self, Artifact, RunStarted};
use yakiros_reports::{EXIT_INFRA, EXIT_USAGE, REPORT_FILE, RunSummary, SummaryOptions, exit_code, summary};

use crate::host;
use crate::interrupt::{self, EXIT_INTERRUPTED};
use crate::options::{self, Options};
use crate::prepare::{PrepareError, Prepared};
use crate::programs::Programs;
use crate::suite::SUITES;
use history::Boot;
use machine::Drive;

pub use follow::{Stop, explain, follow};

/// Where runs keep their folders, in cargo's target folder.
const RUNS: &str = "soak";
/// Beside the runs' folders: a link to the newest.
const LATEST: &str = "latest";
/// In a run's folder: what it was asked to do.
const META: &str = "soak.json";
/// In a run's folder: a folder for each boot.
const BOOTS: &str = "boots";
/// In a boot's folder: what the guest wrote.
const STREAM: &str = "stream.jsonl";
/// In a boot's folder: its console.
const CONSOLE: &str = "console.log";
/// In a boot's folder: how folders begin that are of use only while the boot is prepared and runs.
const WORK: &str = "work-";
/// The suite whose machine it is.
const SUITE: &str = "reliability";

/// What a soak was asked to do.
#[derive(Debug, Clone, Default)]
pub struct SoakOptions {
    /// What is booted, and how.
    pub guest: Options,
    /// For how long, by the guest's clock.
    pub length: Duration,
    /// A report for each such part of it.
    pub interval: Duration,
    /// Under a clock that skips idle time.
    pub virtual_time: bool,
    /// What is done follows from it; drawn by chance when not given.
    pub seed: Option<u64>,
    /// Between two events on average; the usual when not given.
    pub pace: Option<Duration>,
    /// Where the run's folder is made; among the others when not given.
    pub output: Option<PathBuf>,
    /// Go on with this run.
    pub resume: Option<PathBuf>,
    /// Print the report as JSON.
    pub json: bool,
    /// A supervisor that loses so many bytes with each restart.
    pub leak_bytes: Option<u32>,
}

/// What a run was asked to do, and on what: all that its reports need beside the guest's own words.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Meta {
    /// The first event of its reports.
    started: RunStarted,
    /// What was booted; empty until that is known.
    artifacts: Vec<Artifact>,
    /// Of the guest.
    memory_mb: u64,
    /// What is done.
    drive: Drive,
    /// Between two reports, in seconds.
    interval_s: u64,
}

/// One run.
struct Soak {
    folder: PathBuf,
    meta: Meta,
}

/// How it came to its end.
#[derive(Debug, Clone, PartialEq)]
enum Ending {
    /// All of the time has passed.
    Complete,
    /// Somebody wanted it to end.
    Interrupted,
    /// Something else ended it.
    Broken(verdict::Check),
}

/// Runs what was asked for, or goes on with it, and gives the process's exit code.
pub fn run(options: &SoakOptions) -> i32 {
    match prepare(options).and_then(|soak| soak.everything(options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            if options.resume.is_some() && error.downcast_ref::<NoRun>().is_some() {
                EXIT_USAGE
            } else {
                EXIT_INFRA
            }
        }
    }
}

/// The folder that is to be gone on with holds no run.
#[derive(Debug)]
struct NoRun(PathBuf, String);

impl std::fmt::Display for NoRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} holds no soak: {}", self.0.display(), self.1)
    }
}

impl std::error::Error for NoRun {}

fn prepare(options: &SoakOptions) -> Result<Soak, PrepareError> {
    if let Some(folder) = &options.resume {
        let no_run = |why: String| NoRun(folder.clone(), why);
        let text = fs::read_to_string(folder.join(META)).map_err(|error| no_run(error.to_string()))?;
        let meta = serde_json::from_str(&text).map_err(|error| no_run(error.to_string()))?;
        return Ok(Soak { folder: folder.clone(), meta });
    }
    let run_id = event::new_run_id();
    let folder = match &options.output {
        Some(folder) => {
            fs::create_dir_all(folder)?;
            if fs::read_dir(folder)?.next().is_some() {
                return Err(format!("{} is not empty", folder.display()).into());
            }
            folder.clone()
        }
        None => create_folder(&run_id)?,
    };
    // RandomState's seed is the operating system's.
    let by_chance = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), &run_id) >> 32;
    let seed = options.seed.unwrap_or_else(by_chance);
    let mut drive = Drive::usual(seed, options.length, options.virtual_time);
    if let Some(pace) = options.pace {
        drive.pace_ms = pace.as_millis() as u64;
    }
    drive.leak_bytes = options.leak_bytes;
    let started = RunStarted {
        run_id,
        version: env!("CARGO_PKG_VERSION").into(),
        command_line: options.guest.command_line.clone(),
        git_commit: host::git_commit(),
        seed: Some(seed),
        host: host::describe(),
        acceleration: None,
        qemu_version: None,
    };
    let meta = Meta {
        started,
        artifacts: Vec::new(),
        memory_mb: 0,
        drive,
        interval_s: options.interval.as_secs().max(1),
    };
    Ok(Soak { folder, meta })
}

/// Makes the run's folder and points `latest` at it.
fn create_folder(run_id: &str) -> io::Result<PathBuf> {
    let runs = options::target().join(RUNS);
    let folder = runs.join(run_id);
    fs::create_dir_all(&folder)?;
    // Under a name of its own first, so that two runs at once never leave it missing.
    let link = runs.join(format!(".{LATEST}-{run_id}"));
    symlink(run_id, &link)?;
    fs::rename(&link, runs.join(LATEST))?;
    Ok(folder)
}

impl Soak {
    fn everything(mut self, options: &SoakOptions) -> Result<i32, PrepareError> {
        self.remember()?;
        self.sweep()?;
        let before = self.boots()?;
        let passed: u64 = before.iter().map(Boot::passed_ms).sum::<u64>() / 1000;
        let left = self.meta.drive.seconds.saturating_sub(passed);
        let is_done = before.last().is_some_and(|boot| boot.end.is_some()) || left == 0;
        let ending = if is_done {
            Ending::Complete
        } else {
            if !before.is_empty() {
                eprintln!("{passed} s have passed; a new boot goes on with the other {left} s");
            }
            let drive = Drive {
                // Another boot does other things.
                seed: self.meta.drive.seed.wrapping_add(before.len() as u64),
                seconds: left,
                ..self.meta.drive.clone()
            };
            let one = interrupt::block_on(self.boot(options, &drive, before))?;
            one.unwrap_or(Ok(Ending::Interrupted))?
        };
        let result = report::whole(&self.folder, &self.meta, &self.boots()?, &ending)?;
        show(&result, &self.folder, options.json);
        Ok(if ending == Ending::Interrupted { EXIT_INTERRUPTED } else { exit_code(&result) })
    }

    /// One boot, to its end.
    async fn boot(
        &mut self,
        options: &SoakOptions,
        drive: &Drive,
        before: Vec<Boot>,
    ) -> Result<Ending, PrepareError> {
        let folder = self.folder.join(BOOTS).join((before.len() + 1).to_string());
        fs::create_dir_all(&folder)?;
        let folder = fs::canonicalize(folder)?;
        let suite = SUITES.iter().find(|suite| suite.name == SUITE).ok_or("there is no such suite")?;
        let guest = Options { suites: vec![SUITE.into()], ..options.guest.clone() };
        let work = tempfile::Builder::new().prefix(WORK).tempdir_in(&folder)?;
        if drive.leak_bytes.is_some() {
            // Before the others: those are what is in its place afterwards.
            let build = guest.profile.programs;
            tokio::task::spawn_blocking(move || Programs::build_faulty(build)).await??;
        }
        let prepared = Prepared::new(&guest, work.path()).await?;
        let mut config = suite.config()?;
        config.machine.fault_injection = drive.leak_bytes.is_some();
        let of_suite = prepared.machine(suite, &config, &guest, work.path())?;
        let machine = machine::machine(&of_suite, drive, work.path())?;
        self.meta.started.acceleration = Some(event::Acceleration {
            kind: if drive.virtual_time {
                "tcg".into()
            } else {
                prepared.acceleration.accelerator.name().into()
            },
            reason: if drive.virtual_time {
                "a clock that counts instructions needs emulation".into()
            } else {
                prepared.acceleration.reason.clone()
            },
        });
        self.meta.started.qemu_version = Some(prepared.qemu.version.clone());
        self.meta.memory_mb = config.machine.memory_mb.into();
        let records = prepared.image.records.iter().chain(&prepared.qemu.records);
        self.meta.artifacts = records
            .map(|record| Artifact {
                name: record.name.clone(),
                version: record.version.clone(),
                sha256: record.sha256.clone(),
                origin: record.origin.to_string(),
                size_bytes: record.size,
            })
            .collect();
        self.remember()?;
        eprintln!("the reports are in {}", self.folder.display());
        let (stream, console) = (folder.join(STREAM), folder.join(CONSOLE));
        let process = machine::start(&machine, drive, stream.clone(), &console, work.path())?;
        let mut live = live::Live::new(&self.meta, &before);
        let mut reported = report::intervals(&before, &self.meta);
        let mut all = before;
        all.push(Boot::default());
        let last = all.len() - 1;
        let stop = follow(&process, &stream, |boot| {
            all[last].clone_from(boot);
            live.show(&all);
            let complete = report::intervals(&all, &self.meta);
            for number in reported..complete {
                match report::interval(&self.folder, &self.meta, &all, number) {
                    Ok(line) => live.line(&line),
                    Err(error) => {
                        live.line(&format!("the report of interval {} is missing: {error}", number + 1));
                    }
                }
            }
            reported = reported.max(complete);
        })
        .await?;
        drop(process);
        live.end();
        Ok(match stop {
            Stop::Ended => Ending::Complete,
            broken => Ending::Broken(explain(&broken, &console)),
        })
    }

    /// Removes what a harness that was killed could not.
    fn sweep(&self) -> io::Result<()> {
        let boots = match fs::read_dir(self.folder.join(BOOTS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            boots => boots?,
        };
        for boot in boots {
            for entry in fs::read_dir(boot?.path())? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(WORK) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// What the guests have written so far.
    fn boots(&self) -> io::Result<Vec<Boot>> {
        let mut boots = Vec::new();
        for number in 1.. {
            let path = self.folder.join(BOOTS).join(number.to_string()).join(STREAM);
            match fs::read(&path) {
                Ok(bytes) => boots.push(Boot::read(&String::from_utf8_lossy(&bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(boots)
    }

    fn remember(&self) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&self.meta).map_err(io::Error::other)?;
        let beside = self.folder.join(format!(".{META}"));
        fs::write(&beside, text + "\n")?;
        fs::rename(beside, self.folder.join(META))
    }
}

fn show(result: &RunSummary, folder: &Path, json: bool) {
    if json {
        print!("{}", fs::read_to_string(folder.join(REPORT_FILE)).unwrap_or_default());
        return;
    }
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print!("{}", summary(result, &SummaryOptions { colour, folder: Some(folder) }));
}
