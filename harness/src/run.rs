//! A whole run: plan, guests, scenarios, verdict, reports.
//!
//! - Whatever ends the run, nothing stays behind: guests die with this process, and its working files are removed.
//! - Each fact is in `events.jsonl` the moment it is known; the reports are made from that file alone.
//! - A scenario that panics, hangs or loses its guest ends itself only.

use std::cell::OnceCell;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use yakiros_reports::event::{self, Counts, Event, Level};
use yakiros_reports::{
    EVENTS_FILE, EXIT_FAILED, EXIT_INFRA, EXIT_PASSED, EXIT_USAGE, MARKDOWN_FILE, RunSummary, SummaryOptions,
    exit_code, rebuild, summary,
};
use yakiros_vm::image::{ImageRequest, Kernel};

use crate::attempt::{Attempt, SCENARIOS};
use crate::events::Events;
use crate::goals;
use crate::host;
use crate::interrupt::{self, EXIT_INTERRUPTED};
use crate::options::{self, Options};
use crate::pool::{Folders, SuiteMachine};
use crate::prepare::{PrepareError, Prepared};
use crate::programs::Programs;
use crate::progress::Live;
use crate::schedule::{Places, Schedule};
use crate::select::{Selection, select};
use crate::timings::Timings;

/// Where runs keep their folders, in cargo's target folder.
pub const RUNS: &str = "vm-test";
/// Beside the runs' folders: a link to the newest.
const LATEST: &str = "latest";
/// Names the file whose text GitHub Actions shows with a job.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";
/// In a run's folder: what is of use only while it runs.
const WORK: &str = "work";
/// In a run's folder: the consoles of the machines that were booted to be cloned.
const MACHINES: &str = "machines";

/// Runs what the options ask for, on each of these kernels, and gives the process's exit code: the gravest of theirs. A run
/// that was interrupted is the last. One that goes on until something fails goes on with the next kernel after each round: it
/// would never come to the second otherwise.
pub fn run_on(options: &Options, kernels: &[Kernel]) -> i32 {
    in_turns(options, kernels, |options| run_counted(options).0)
}

fn in_turns(options: &Options, kernels: &[Kernel], mut run: impl FnMut(Options) -> i32) -> i32 {
    let in_turns = options.until_fail && kernels.len() > 1;
    let rounds = if in_turns { options.repeat } else { Some(1) };
    let repeat = if in_turns { Some(1) } else { options.repeat };
    let is_over =
        |code| code == EXIT_INTERRUPTED || (code != EXIT_PASSED && (options.fail_fast || options.until_fail));
    let (mut code, mut round) = (EXIT_PASSED, 0);
    while rounds.is_none_or(|rounds| round < rounds.max(1)) {
        round += 1;
        for kernel in kernels {
            let image = ImageRequest { kernel: *kernel, ..options.image.clone() };
            let one = run(Options { image, repeat, ..options.clone() });
            code = gravest(code, one);
            if is_over(one) {
                return code;
            }
        }
    }
    code
}

/// A failure of what is under test weighs more than one of the infrastructure; an interruption is told as such.
fn gravest(a: i32, b: i32) -> i32 {
    const ORDER: [i32; 5] = [EXIT_INTERRUPTED, EXIT_USAGE, EXIT_FAILED, EXIT_INFRA, EXIT_PASSED];
    let known = ORDER.into_iter().find(|code| [a, b].contains(code));
    known.unwrap_or(EXIT_FAILED)
}

/// Runs what the options ask for and gives the process's exit code, and how many scenarios ended how.
pub fn run_counted(options: Options) -> (i32, Counts) {
    let selection = match select(&options) {
        Ok(selection) => selection,
        Err(message) => {
            eprintln!("error: {message}");
            return (EXIT_USAGE, Counts::default());
        }
    };
    match Run::start(options, &selection).and_then(Run::finish) {
        Ok(result) => result,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            (EXIT_INFRA, Counts::default())
        }
    }
}

/// Makes the reports of a run's folder again, shows its summary and gives its exit code.
pub fn report(folder: &Path) -> i32 {
    match rebuild(folder) {
        Ok(result) => {
            show(&result, folder);
            exit_code(&result)
        }
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            EXIT_INFRA
        }
    }
}

/// Adds the run's summary to what a CI service shows. That it cannot is no failure of the run.
fn hand_on_summary(folder: &Path, to: &Path) {
    let appended = fs::read(folder.join(MARKDOWN_FILE)).and_then(|text| {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(to)?;
        file.write_all(&text)
    });
    if let Err(error) = appended {
        eprintln!("warning: the summary could not be added to {}: {error}", to.display());
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn show(result: &RunSummary, folder: &Path) {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print!("{}", summary(result, &SummaryOptions { colour, folder: Some(folder) }));
}

struct Run {
    options: Rc<Options>,
    /// What it is judged by.
    goals: event::Goals,
    folder: PathBuf,
    events: Rc<Events>,
    interrupted: bool,
    /// Everything that was asked for has been tried.
    finished: bool,
}

impl Run {
    fn start(options: Options, selection: &Selection) -> Result<Self, PrepareError> {
        // A run that nobody could judge is not begun.
        let goals = goals::read(&options)?;
        let run_id = event::new_run_id();
        let folder = create_folder(&run_id)?;
        let events = Rc::new(Events::create(&folder.join(EVENTS_FILE), Live::new(options.verbose))?);
        let options = Rc::new(options);
        let mut run = Self { options, goals, folder, events, interrupted: false, finished: false };
        let outcome = interrupt::block_on(run.everything(&run_id, selection))?;
        match outcome {
            Some(Ok(())) => run.finished = true,
            Some(Err(error)) => run.events.log(Level::Error, format!("error: {error}")),
            None => {
                run.events.log(Level::Warn, "interrupted: guests are ended, what is known is reported");
                run.interrupted = true;
            }
        }
        Ok(run)
    }

    async fn everything(&self, run_id: &str, selection: &Selection) -> Result<(), PrepareError> {
        // Removed however this ends: by its end, an error, a panic or an interruption.
        let mut work = tempfile::Builder::new().prefix(WORK).rand_bytes(0).tempdir_in(&self.folder)?;
        work.disable_cleanup(self.options.keep);
        let prepared = Prepared::new(&self.options, work.path()).await;
        self.announce(run_id, selection, prepared.as_ref().ok());
        let prepared = prepared?;

        let limits = Rc::new(OnceCell::new());
        let mut machines = Vec::new();
        for (suite, _) in &selection.suites {
            let (folder, machine_folder) =
                (work.path().join(suite.name), self.folder.join(MACHINES).join(suite.name));
            fs::create_dir_all(&folder)?;
            fs::create_dir_all(&machine_folder)?;
            let config = suite.config()?;
            let machine = prepared.machine(suite, &config, &self.options, &folder)?;
            let (events, limits) = (Rc::clone(&self.events), Rc::clone(&limits));
            let scale = self.options.timeout_scale.unwrap_or(1.0);
            let folders = Folders { work: folder, log: machine_folder };
            machines.push(Rc::new(SuiteMachine::new(suite, config, machine, folders, events, limits, scale)));
        }
        self.scenarios(selection, &machines, &prepared.programs).await;
        Ok(())
    }

    fn announce(&self, run_id: &str, selection: &Selection, prepared: Option<&Prepared>) {
        let acceleration = prepared.map(|prepared| event::Acceleration {
            kind: prepared.acceleration.accelerator.name().into(),
            reason: prepared.acceleration.reason.clone(),
        });
        self.events.emit(Event::RunStarted(event::RunStarted {
            run_id: run_id.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            command_line: self.options.command_line.clone(),
            git_commit: host::git_commit(),
            seed: None,
            host: host::describe(),
            acceleration,
            qemu_version: prepared.map(|prepared| prepared.qemu.version.clone()),
        }));
        for record in
            prepared.iter().flat_map(|prepared| prepared.image.records.iter().chain(&prepared.qemu.records))
        {
            self.events.emit(Event::Artifact(event::Artifact {
                name: record.name.clone(),
                version: record.version.clone(),
                sha256: record.sha256.clone(),
                origin: record.origin.to_string(),
                size_bytes: record.size,
            }));
        }
        let planned = selection.scenarios().map(|(suite, scenario)| event::PlannedScenario {
            suite: suite.name.into(),
            name: scenario.name.into(),
            machine: suite.name.into(),
        });
        let left_out = selection.left_out.iter().map(|left| event::LeftOut {
            suite: left.suite.into(),
            name: left.name.into(),
            reason: left.why.clone(),
        });
        let (scenarios, left_out) = (planned.collect(), left_out.collect());
        self.events.emit(Event::Plan(event::Plan { scenarios, left_out }));
        self.events.emit(Event::Goals(self.goals.clone()));
    }

    async fn scenarios(&self, selection: &Selection, machines: &[Rc<SuiteMachine>], programs: &Programs) {
        let of_suite = selection.suites.iter().zip(machines);
        let attempts = of_suite.flat_map(|((_, scenarios), machine)| {
            scenarios.iter().map(|scenario| Attempt {
                scenario,
                machine: Rc::clone(machine),
                events: Rc::clone(&self.events),
                options: Rc::clone(&self.options),
                programs: programs.clone(),
                run_folder: self.folder.clone(),
            })
        });
        let (timings, places) = (Timings::read(self.options.profile.amounts), Places::of(&self.options));
        Schedule::new(attempts.collect(), &timings, &places, &self.options).run(&self.events).await;
    }

    /// Ends the event stream, makes the reports and shows the summary.
    fn finish(self) -> Result<(i32, Counts), PrepareError> {
        // Empty when everything passed; then there is nothing to find in it.
        drop(fs::remove_dir(self.folder.join(SCENARIOS)));
        self.events.close(self.interrupted);
        if self.events.lost() > 0 {
            eprintln!("error: {} events could not be written; the reports lack them", self.events.lost());
        }
        let result = rebuild(&self.folder)?;
        show(&result, &self.folder);
        if let Some(file) = std::env::var_os(STEP_SUMMARY) {
            hand_on_summary(&self.folder, Path::new(&file));
        }
        if self.finished {
            Timings::remember(&result, &self.options);
        }
        let code = match exit_code(&result) {
            _ if self.interrupted => EXIT_INTERRUPTED,
            EXIT_PASSED if self.events.lost() > 0 => EXIT_INFRA,
            code => code,
        };
        Ok((code, result.counts()))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_added_to_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().join("shown");
        fs::write(folder.path().join(MARKDOWN_FILE), "two\n").unwrap();
        fs::write(&shown, "one\n").unwrap();
        hand_on_summary(folder.path(), &shown);
        assert_eq!(fs::read_to_string(&shown).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn until_something_fails_every_kernel_has_its_turn() {
        use Kernel::{Alpine, Debian};
        let runs = |until_fail, repeat, codes: &[i32]| {
            let (mut seen, mut codes) = (Vec::new(), codes.iter().copied());
            let options = Options { repeat, until_fail, ..Options::default() };
            let code = in_turns(&options, &[Alpine, Debian], |options| {
                seen.push((options.image.kernel, options.repeat));
                codes.next().unwrap_or(EXIT_PASSED)
            });
            (code, seen)
        };
        let once = [(Alpine, Some(1)), (Debian, Some(1))];
        let fails_late = [EXIT_PASSED, EXIT_PASSED, EXIT_PASSED, EXIT_FAILED];
        assert_eq!(runs(true, None, &fails_late), (EXIT_FAILED, [once, once].concat()));
        assert_eq!(runs(true, None, &[EXIT_INFRA]), (EXIT_INFRA, once[..1].to_vec()));
        assert_eq!(runs(true, Some(3), &[]), (EXIT_PASSED, [once, once, once].concat()));
        // Otherwise each has all of its rounds at once.
        let thrice = vec![(Alpine, Some(3)), (Debian, Some(3))];
        assert_eq!(runs(false, Some(3), &[EXIT_FAILED]), (EXIT_FAILED, thrice));
        let interrupted = [EXIT_INTERRUPTED, EXIT_PASSED];
        assert_eq!(runs(false, None, &interrupted), (EXIT_INTERRUPTED, vec![(Alpine, None)]));
    }

    #[test]
    fn several_runs_are_as_good_as_the_worst() {
        let table = [
            (EXIT_PASSED, EXIT_PASSED, EXIT_PASSED),
            (EXIT_PASSED, EXIT_INFRA, EXIT_INFRA),
            (EXIT_INFRA, EXIT_FAILED, EXIT_FAILED),
            (EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INTERRUPTED),
        ];
        for (a, b, expected) in table {
            assert_eq!([gravest(a, b), gravest(b, a)], [expected, expected]);
        }
    }
}
