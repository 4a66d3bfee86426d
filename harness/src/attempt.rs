//! One scenario on one guest: its work, its verdict, and what is kept of a failure.

use std::cell::RefCell;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use yakiros_reports::event::{self, Culprit, Event, Outcome, ScenarioFinished, ms};
use yakiros_vm::console::Class;
use yakiros_vm::machine::Guest;
use yakiros_vm::silence::silence;

use crate::capsule;
use crate::events::Events;
use crate::failure::Failure;
use crate::host;
use crate::ledger;
use crate::options::Options;
use crate::pool::SuiteMachine;
use crate::programs::Programs;
use crate::scenario::{Scenario, Start};
use crate::vm::{ScenarioLog, Siblings, Vm};

/// In a run's folder: a capsule for each scenario that failed.
pub const SCENARIOS: &str = "scenarios";
/// A scenario that is over its budget gets this long for its capsule.
const CAPSULE_LIMIT: Duration = Duration::from_secs(20);
/// A kernel that has failed prints its report in this time.
const CONSOLE_GRACE: Duration = Duration::from_secs(1);

/// One scenario, to be tried on guests.
#[derive(Clone)]
pub struct Attempt {
    /// What is tried.
    pub scenario: &'static Scenario,
    /// Its suite's machine.
    pub machine: Rc<SuiteMachine>,
    /// Where everything is told.
    pub events: Rc<Events>,
    /// What the run was asked to do.
    pub options: Rc<Options>,
    /// What runs in the guest.
    pub programs: Programs,
    /// The run's folder.
    pub run_folder: PathBuf,
}

/// How an attempt ended, beside its verdict.
struct Done {
    result: Result<(), Failure>,
    host_cpu: Option<Duration>,
}

impl Attempt {
    /// `suite/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.machine.name(), self.scenario.name)
    }

    /// Tries it once, for the time of this number.
    pub async fn run(&self, number: u32) -> Outcome {
        let started = Instant::now();
        let suite = self.machine.name();
        let name = self.scenario.name.to_owned();
        let is_clone = self.scenario.start == Start::Clone && !self.options.cold;
        self.events.emit(Event::ScenarioStarted(event::ScenarioStarted {
            suite: suite.clone(),
            name: name.clone(),
            machine: suite.clone(),
            attempt: number,
            start: if is_clone { event::StartKind::Clone } else { event::StartKind::Cold },
        }));
        let capsule =
            if number == 1 { format!("{suite}.{name}") } else { format!("{suite}.{name}.{number}") };
        let folder = self.run_folder.join(SCENARIOS).join(capsule);
        let Done { result, host_cpu } = match fs::create_dir_all(&folder) {
            Ok(()) => self.on_guest(number, started, &folder).await,
            Err(error) => {
                let message = format!("failed to make {}: {error}", folder.display());
                Done { result: Err(Failure::harness(message)), host_cpu: None }
            }
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
            host_cpu_ms: host_cpu.map(ms),
        }));
        if passed && !self.options.keep {
            drop(fs::remove_dir_all(&folder));
        }
        outcome
    }

    /// Says that it is not tried.
    pub fn skip(&self, reason: String) {
        self.events.emit(Event::ScenarioFinished(ScenarioFinished {
            suite: self.machine.name(),
            name: self.scenario.name.to_owned(),
            outcome: Outcome::Skipped,
            duration_ms: 0.0,
            reason: Some(reason),
            culprit: None,
            capsule: None,
            reproduce: None,
            host_cpu_ms: None,
        }));
    }

    async fn on_guest(&self, number: u32, started: Instant, folder: &Path) -> Done {
        let console_log = folder.join("console.log");
        let ready = match self.machine.guest(self.scenario, number, self.options.cold, &console_log).await {
            Ok(ready) => ready,
            Err(failure) => return Done { result: Err(failure), host_cpu: None },
        };
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
            self.options.profile.clone(),
            self.programs.clone(),
            log.clone(),
            Siblings {
                machine: Rc::clone(&self.machine),
                folder: folder.to_path_buf(),
                consoles: Rc::default(),
            },
        );
        let work = async {
            let before = ledger::take(&vm).await?;
            catch_panic((self.scenario.run)(&vm)).await?;
            let status = vm.still_works().await?;
            ledger::settle(&vm, &before, status).await
        };
        let is_expected = |class| vm.is_expected(class);
        let result = limited(&vm.guest, budget, ready.limits.for_silence(), is_expected, work).await;
        let host_cpu = host::processor_demand(vm.guest.qemu_pid());
        let result = self.with_console(&vm, result).await;
        let mut result = result.map_err(|failure| in_step(failure, &log.step));
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
        Done { result, host_cpu }
    }

    /// Reports what the consoles showed; after something fatal there nothing has passed.
    async fn with_console(&self, vm: &Vm, result: Result<(), Failure>) -> Result<(), Failure> {
        let mut findings = Vec::new();
        for console in vm.consoles() {
            if console.fatal_finding().is_some() {
                // The lines that show it follow the first.
                drop(tokio::time::timeout(CONSOLE_GRACE, console.closed()).await);
            }
            findings.extend(console.findings());
        }
        for finding in &findings {
            self.events.emit(Event::ConsoleFinding(event::ConsoleFinding {
                suite: Some(self.machine.name()),
                scenario: Some(self.scenario.name.into()),
                class: finding.class.name().into(),
                title: finding.title.clone(),
                excerpt: finding.excerpt.clone(),
            }));
        }
        let fatal =
            findings.into_iter().find(|finding| finding.class.is_fatal() && !vm.is_expected(finding.class));
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

/// Does a scenario's work in a guest until it is done, its time is over, or the guest has failed or is stuck, whatever it
/// is that the work waits for.
pub async fn limited(
    guest: &Guest,
    budget: Duration,
    silent_for: Duration,
    is_expected: impl Fn(Class) -> bool,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        result = work => result,
        error = guest.failure(is_expected) => Err(error.into()),
        error = silence(guest, silent_for) => Err(error.into()),
        () = tokio::time::sleep(budget) => {
            Err(Failure::budget(format!("the scenario's {budget:.0?} are over")))
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
