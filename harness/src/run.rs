//! A whole run: plan, guests, scenarios, verdict, reports.
//!
//! - Whatever ends the run, nothing stays behind: guests die with this process, and its working files are removed.
//! - Each fact is in `events.jsonl` the moment it is known; the reports are made from that file alone.
//! - A scenario that panics, hangs or loses its guest ends itself only.

use std::cell::{OnceCell, RefCell};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::symlink;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use yakiros_reports::event::{self, Counts, Culprit, Event, Level, Outcome, ScenarioFinished, ms};
use yakiros_reports::{
    EVENTS_FILE, EXIT_INFRA, EXIT_PASSED, EXIT_USAGE, RunSummary, SummaryOptions, closing, exit_code,
    rebuild, summary,
};

use crate::capsule;
use crate::events::Events;
use crate::failure::Failure;
use crate::host;
use crate::interrupt::{self, EXIT_INTERRUPTED};
use crate::ledger;
use crate::options::{self, Options};
use crate::pool::{Folders, SuiteMachine};
use crate::prepare::{PrepareError, Prepared};
use crate::programs::Programs;
use crate::progress::Live;
use crate::scenario::{Scenario, Start};
use crate::suite::{Suite, select};
use crate::vm::{ScenarioLog, Vm};

/// Where runs keep their folders, in cargo's target folder.
const RUNS: &str = "vm-test";
/// Beside the runs' folders: a link to the newest.
const LATEST: &str = "latest";
/// In a run's folder: what is of use only while it runs.
const WORK: &str = "work";
/// In a run's folder: a capsule for each scenario that failed.
const SCENARIOS: &str = "scenarios";
/// In a run's folder: the consoles of the machines that were booted to be cloned.
const MACHINES: &str = "machines";
/// What QEMU itself needs beside the guest's memory; clones share most of the guest's.
const QEMU_MEMORY_MB: u64 = 150;
/// A scenario that is over its budget gets this long for its capsule.
const CAPSULE_LIMIT: Duration = Duration::from_secs(20);

type Selection = Vec<(&'static Suite, Vec<&'static Scenario>)>;

/// Runs what the options ask for and gives the process's exit code.
pub fn run(options: Options) -> i32 {
    run_counted(options).0
}

/// The same, with how many scenarios ended how.
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

/// Lists what the options select and gives the process's exit code.
pub fn list(options: &Options) -> i32 {
    let selection = match select(options) {
        Ok(selection) => selection,
        Err(message) => {
            eprintln!("error: {message}");
            return EXIT_USAGE;
        }
    };
    for (suite, scenarios) in selection {
        match suite.config() {
            Ok(config) => println!("{}: {}", suite.name, config.description),
            Err(error) => println!("{}: {error}", suite.name),
        }
        for scenario in scenarios {
            let start = if scenario.start == Start::Clone { "clone" } else { "cold" };
            println!("  {:<36} {start:<6} {}", scenario.name, scenario.summary);
        }
    }
    EXIT_PASSED
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
    folder: PathBuf,
    events: Rc<Events>,
    interrupted: bool,
}

impl Run {
    fn start(options: Options, selection: &Selection) -> Result<Self, PrepareError> {
        let run_id = event::new_run_id();
        let folder = create_folder(&run_id)?;
        let events = Rc::new(Events::create(&folder.join(EVENTS_FILE), Live::new(options.verbose))?);
        let mut run = Self { options: Rc::new(options), folder, events, interrupted: false };
        let outcome = interrupt::block_on(run.everything(&run_id, selection))?;
        match outcome {
            Some(Ok(())) => {}
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
        for (suite, _) in selection {
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
        let planned = selection.iter().flat_map(|(suite, scenarios)| {
            scenarios.iter().map(|scenario| event::PlannedScenario {
                suite: suite.name.into(),
                name: scenario.name.into(),
                machine: suite.name.into(),
            })
        });
        self.events.emit(Event::Plan(event::Plan { scenarios: planned.collect() }));
    }

    async fn scenarios(&self, selection: &Selection, machines: &[Rc<SuiteMachine>], programs: &Programs) {
        let jobs = Arc::new(Semaphore::new(self.jobs(machines)));
        let mut running = JoinSet::new();
        for ((_, scenarios), machine) in selection.iter().zip(machines) {
            for &scenario in scenarios {
                let (jobs, machine) = (Arc::clone(&jobs), Rc::clone(machine));
                let attempt = Attempt {
                    scenario,
                    machine,
                    events: Rc::clone(&self.events),
                    options: Rc::clone(&self.options),
                    programs: programs.clone(),
                    run_folder: self.folder.clone(),
                };
                running.spawn_local(async move {
                    // The semaphore is never closed, so this cannot fail.
                    let _place = jobs.acquire().await;
                    attempt.run().await;
                });
            }
        }
        while let Some(result) = running.join_next().await {
            if let Err(error) = result {
                self.events.log(Level::Error, format!("error: a scenario's task ended: {error}"));
            }
        }
    }

    /// As asked, else as many as the host has processors and memory for.
    fn jobs(&self, machines: &[Rc<SuiteMachine>]) -> usize {
        let largest = machines.iter().map(|machine| u64::from(machine.memory_mb())).max().unwrap_or(0);
        let host = host::describe();
        let by_memory = host::available_memory_mb() / (largest + QEMU_MEMORY_MB);
        self.options.jobs.unwrap_or_else(|| by_memory.min(host.cpus.into()) as usize).max(1)
    }

    /// Ends the event stream, makes the reports and shows the summary.
    fn finish(self) -> Result<(i32, Counts), PrepareError> {
        // Empty when everything passed; then there is nothing to find in it.
        drop(fs::remove_dir(self.folder.join(SCENARIOS)));
        let end = closing(self.events.counts(), ms(self.events.elapsed()), self.interrupted);
        self.events.emit(Event::RunFinished(end));
        if self.events.lost() > 0 {
            eprintln!("error: {} events could not be written; the reports lack them", self.events.lost());
        }
        let result = rebuild(&self.folder)?;
        show(&result, &self.folder);
        let code = match exit_code(&result) {
            _ if self.interrupted => EXIT_INTERRUPTED,
            EXIT_PASSED if self.events.lost() > 0 => EXIT_INFRA,
            code => code,
        };
        Ok((code, result.counts()))
    }
}

/// One scenario on one guest.
struct Attempt {
    scenario: &'static Scenario,
    machine: Rc<SuiteMachine>,
    events: Rc<Events>,
    options: Rc<Options>,
    programs: Programs,
    run_folder: PathBuf,
}

impl Attempt {
    async fn run(self) {
        let started = Instant::now();
        let suite = self.machine.name();
        let name = self.scenario.name.to_owned();
        let is_clone = self.scenario.start == Start::Clone && !self.options.cold;
        self.events.emit(Event::ScenarioStarted(event::ScenarioStarted {
            suite: suite.clone(),
            name: name.clone(),
            machine: suite.clone(),
            attempt: 1,
            start: if is_clone { event::StartKind::Clone } else { event::StartKind::Cold },
        }));
        let folder = self.run_folder.join(SCENARIOS).join(format!("{suite}.{name}"));
        let result = match fs::create_dir_all(&folder) {
            Ok(()) => self.on_guest(started, &folder).await,
            Err(error) => Err(Failure::harness(format!("failed to make {}: {error}", folder.display()))),
        };
        let skipped = result.as_ref().is_err_and(|failure| failure.is_skip);
        let passed = result.is_ok() || skipped;
        // Of a scenario that got no guest; its reason names where to look.
        let is_empty = fs::remove_dir(&folder).is_ok();
        let failure = result.err();
        let outcome = match &failure {
            None => Outcome::Passed,
            Some(failure) if failure.is_skip => Outcome::Skipped,
            Some(failure) if failure.is_infrastructure() => Outcome::InfraFailed,
            Some(_) => Outcome::Failed,
        };
        self.events.emit(Event::ScenarioFinished(ScenarioFinished {
            suite: suite.clone(),
            name: name.clone(),
            outcome,
            duration_ms: ms(started.elapsed()),
            reason: failure.as_ref().map(ToString::to_string),
            culprit: failure.filter(|_| !skipped).map(|failure| failure.culprit),
            capsule: (!passed && !is_empty).then(|| folder.display().to_string()),
            reproduce: (!passed).then(|| self.options.reproduce(&suite, &name)),
        }));
        if passed && !self.options.keep {
            drop(fs::remove_dir_all(&folder));
        }
    }

    async fn on_guest(&self, started: Instant, folder: &Path) -> Result<(), Failure> {
        let console_log = folder.join("console.log");
        let ready = self.machine.guest(self.scenario, self.options.cold, &console_log).await?;
        let budget = ready.limits.scaled(self.scenario.budget);
        let log = ScenarioLog {
            events: Rc::clone(&self.events),
            suite: self.machine.name(),
            scenario: self.scenario.name.into(),
            started,
            step: Rc::default(),
        };
        let vm = Vm::new(
            ready.guest,
            ready.disks,
            ready.limits,
            self.options.profile,
            self.programs.clone(),
            log.clone(),
        );
        let work = async {
            let before = ledger::take(&vm).await?;
            catch_panic((self.scenario.run)(&vm)).await?;
            let status = vm.still_works().await?;
            ledger::settle(&vm, &before, status).await
        };
        let result = match tokio::time::timeout(budget, work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::budget(format!("the scenario's {budget:.0?} are over"))),
        };
        let result = self.with_console(&vm, result).map_err(|failure| in_step(failure, &log.step));
        let mut result = result;
        if let Err(failure) = &mut result
            && !failure.is_skip
        {
            if !vm.guest.has_ended()
                && let Ok(Some(lines)) = vm.internal_error().await
            {
                failure.culprit = Culprit::Supervisor;
                failure.message =
                    format!("the supervisor has failed in itself: {lines}\n{}", failure.message);
            }
            // What could not be collected in this time is missing from the folder; the verdict stands.
            drop(tokio::time::timeout(CAPSULE_LIMIT, capsule::collect(&vm.guest, folder)).await);
            vm.keep_disks(folder);
        }
        result
    }

    /// Reports what the console showed; after something fatal there nothing has passed.
    fn with_console(&self, vm: &Vm, result: Result<(), Failure>) -> Result<(), Failure> {
        let findings = vm.guest.console.findings();
        for finding in &findings {
            self.events.emit(Event::ConsoleFinding(event::ConsoleFinding {
                suite: Some(self.machine.name()),
                scenario: Some(self.scenario.name.into()),
                class: finding.class.name().into(),
                title: finding.title.clone(),
                excerpt: finding.excerpt.clone(),
            }));
        }
        let fatal = findings.into_iter().find(|finding| finding.class.is_fatal());
        match (result, fatal) {
            (Err(failure), None) => Err(failure),
            (Ok(()), None) => Ok(()),
            (result, Some(finding)) => {
                let (culprit, who) = if finding.is_end_of_init() {
                    (Culprit::Supervisor, "process 1 of the guest ended")
                } else {
                    (Culprit::GuestKernel, "the guest's kernel failed")
                };
                let said = result.err().map(|failure| format!("; {failure}")).unwrap_or_default();
                Err(Failure::of(culprit, format!("{who}: {}{said}", finding.title)))
            }
        }
    }
}

/// A panic in a scenario is the harness's fault, and only that scenario's end.
async fn catch_panic(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            std::task::Poll::Ready(Err(Failure::harness(format!("the scenario panicked: {text}"))))
        })
    })
    .await
}

fn in_step(mut failure: Failure, step: &RefCell<Option<String>>) -> Failure {
    if let Some(step) = step.borrow().as_ref() {
        failure.message = format!("{step}: {}", failure.message);
    }
    failure
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
