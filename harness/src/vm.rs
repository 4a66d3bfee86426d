//! The guest as a scenario sees it: steps, commands, the supervisor's state.
//!
//! Every method has a limit. Nothing here sleeps until something "should" have happened: waiting is done by the
//! supervisor (`graphctl wait`, which sees each state change) or by the agent (for paths).

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use yakiros_guest::protocol::{Exec, ExitStatus};
use yakiros_reports::event::{CrashPoint, Event, Ledger, Metric, Outcome, Series, Step, ms};
use yakiros_vm::agent::{AgentResult, Connection, Output};
use yakiros_vm::console::{Class, Console};
use yakiros_vm::machine::{Ended, Guest, Machine};

use crate::events::Events;
use crate::failure::Failure;
use crate::limits::Limits;
use crate::pool::{Ready, SuiteMachine};
use crate::profile::{Amounts, Profile};
use crate::programs::Programs;

/// What the supervisor may take to answer a request, beyond the time the request itself is given.
const ANSWER: Duration = Duration::from_secs(5);
/// What the supervisor writes to the kernel's log when it has given up supervising.
const PANIC_LOG: &str =
    "dmesg | grep -e 'graph-resolver: internal error' -e 'the supervisor has stopped working'";
/// Where component files go.
pub const COMPONENTS: &str = "/etc/graph.d";
/// A supervisor that fails on request, in machines with `fault_injection`.
pub const FAULTY_SUPERVISOR: &str = "/usr/local/lib/graph-resolver-faulty";

/// The kernel that a guest with `boot_files` runs, as a bzImage.
pub const BOOT_KERNEL: &str = "/boot/vmlinuz";
/// What it has begun with, without what is below `/boot`.
pub const BOOT_INITRD: &str = "/boot/initrd";
/// The kernel that a guest with `other_kernel` does not run, as a bzImage; it begins with [`BOOT_INITRD`], too.
pub const BOOT_OTHER_KERNEL: &str = "/boot/vmlinuz-other";

/// A guest in the hands of one scenario.
pub struct Vm {
    /// The guest, for what has no method here.
    pub guest: Guest,
    disks: Vec<PathBuf>,
    limits: Limits,
    profile: Profile,
    programs: Programs,
    log: ScenarioLog,
    siblings: Siblings,
    expected: Cell<Option<Class>>,
}

/// What other guests of the same suite are made of.
#[derive(Clone)]
pub struct Siblings {
    /// The suite's machine.
    pub machine: Rc<SuiteMachine>,
    /// The scenario's folder.
    pub folder: PathBuf,
    /// The console of each that was made.
    pub consoles: Rc<RefCell<Vec<Console>>>,
}

impl Siblings {
    fn next_console(&self) -> PathBuf {
        self.folder.join(format!("console-{}.log", self.consoles.borrow().len() + 2))
    }
}

/// Where a scenario's steps and metrics go.
#[derive(Clone)]
pub struct ScenarioLog {
    /// The run's events.
    pub events: Rc<Events>,
    /// Suite's name.
    pub suite: String,
    /// Scenario's name.
    pub scenario: String,
    /// When it started.
    pub started: Instant,
    /// What it is doing.
    pub step: Rc<RefCell<Option<String>>>,
}

/// The supervisor's answer to `graphctl status --json`, as far as scenarios use it.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The journal's newest revision.
    pub revision: u64,
    /// All components, the built-in one excepted.
    pub components: Vec<Component>,
    /// Component files that were refused.
    pub rejected: Vec<Rejected>,
}

/// One component.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its state, in capitals.
    pub state: String,
    /// Its process, if it has one.
    pub pid: Option<i32>,
    /// How often it was restarted.
    pub restarts: u64,
    /// Why it is in this state.
    pub detail: Option<String>,
    /// What its probes say: `none` where there are none.
    #[serde(default)]
    pub health: String,
    /// What the supervisor holds for it.
    #[serde(default)]
    pub descriptors: Vec<HeldDescriptors>,
}

/// Descriptors of one name that the supervisor holds for a component.
#[derive(Debug, Clone, Deserialize)]
pub struct HeldDescriptors {
    /// How many.
    pub count: u32,
}

/// One refused component file.
#[derive(Debug, Clone, Deserialize)]
pub struct Rejected {
    /// Its path.
    pub file: String,
    /// What is wrong with it.
    pub diagnostics: Vec<Diagnostic>,
}

/// One thing that is wrong with a component file.
#[derive(Debug, Clone, Deserialize)]
pub struct Diagnostic {
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// In words.
    pub message: String,
}

impl Status {
    /// A component by name.
    pub fn component(&self, name: &str) -> Result<&Component, Failure> {
        let known = || self.components.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        self.components.iter().find(|c| c.name == name).ok_or_else(|| {
            Failure::supervisor(format!("graphctl status does not list {name}; it lists {}", known()))
        })
    }

    /// How many components are in a state.
    pub fn count(&self, state: &str) -> usize {
        self.components.iter().filter(|c| c.state == state).count()
    }
}

impl Component {
    /// Its process; a failure if it has none.
    pub fn running_pid(&self) -> Result<i32, Failure> {
        self.pid
            .ok_or_else(|| Failure::supervisor(format!("{} is {} and has no process", self.name, self.state)))
    }
}

impl Vm {
    /// Hands a guest to a scenario.
    pub fn new(
        guest: Guest,
        disks: Vec<PathBuf>,
        limits: Limits,
        profile: Profile,
        programs: Programs,
        log: ScenarioLog,
        siblings: Siblings,
    ) -> Self {
        Self { guest, disks, limits, profile, programs, log, siblings, expected: Cell::new(None) }
    }

    /// Another guest, a clone of the suite's machine as it was saved. Its console is beside that of the first, and is judged
    /// like that; what it is left with is not counted. It ends with the value. The scenario says in its table how many
    /// guests it has at a time.
    pub async fn another(&self) -> Result<Self, Failure> {
        let ready = self.siblings.machine.clone_of_saved(&self.siblings.next_console()).await?;
        Ok(self.beside(ready))
    }

    /// Another guest, booted from its begin without [`BOOT_KERNEL`] and [`BOOT_INITRD`], and how long that took from the start
    /// of QEMU until it had settled. The rest is as in [`another`](Self::another).
    pub async fn another_from_its_begin(&self) -> Result<(Self, Duration), Failure> {
        let Siblings { machine, folder, .. } = &self.siblings;
        let (ready, took) = machine.boot_bare(folder, &self.siblings.next_console()).await?;
        Ok((self.beside(ready), took))
    }

    fn beside(&self, ready: Ready) -> Self {
        self.siblings.consoles.borrow_mut().push(ready.guest.console.clone());
        Self {
            guest: ready.guest,
            disks: ready.disks,
            limits: ready.limits,
            profile: self.profile.clone(),
            programs: self.programs.clone(),
            log: self.log.clone(),
            siblings: self.siblings.clone(),
            expected: Cell::new(None),
        }
    }

    /// The consoles of all guests that the scenario has, or has had.
    pub fn consoles(&self) -> Vec<Console> {
        let own = std::iter::once(self.guest.console.clone());
        own.chain(self.siblings.consoles.borrow().iter().cloned()).collect()
    }

    /// The machine that the guest was made of.
    pub fn machine(&self) -> &Machine {
        self.siblings.machine.machine()
    }

    /// The scenario's folder, which is kept if it fails.
    pub fn folder(&self) -> &Path {
        &self.siblings.folder
    }

    /// A program of the guest, on the host: they are static.
    pub fn host_program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// The unit tests of a package, on the host: they are static.
    pub fn unit_tests(&self, package: &str) -> PathBuf {
        self.programs.unit_tests(package)
    }

    /// How much is to be done: all that is promised, or what is tried for each change.
    pub fn amount<T>(&self, full: T, ci: T) -> T {
        match self.profile.amounts {
            Amounts::All => full,
            Amounts::Few => ci,
        }
    }

    /// How much is to be done, by a name of `profiles.toml`.
    pub fn planned(&self, what: &str) -> Result<u64, Failure> {
        let number = self.profile.planned.get(what).copied();
        number.ok_or_else(|| Failure::harness(format!("profiles.toml has no amount.{what}")))
    }

    /// One of the scenario's disks, as a raw image on the host. To be read after the guest has ended.
    pub fn disk(&self, index: usize) -> Result<&Path, Failure> {
        let disk = self.disks.get(index).map(PathBuf::as_path);
        disk.ok_or_else(|| Failure::harness(format!("the scenario has no disk {index}")))
    }

    /// Keeps the scenario's disks with what else is kept of a failure. A disk that cannot be kept is said to be lost.
    pub fn keep_disks(&self, folder: &Path) {
        for disk in &self.disks {
            let to = folder.join(disk.file_name().unwrap_or_default());
            if let Err(error) = std::fs::rename(disk, &to) {
                eprintln!("failed to keep {}: {error}", disk.display());
            }
        }
    }

    /// The guest's kernel is about to fail in this way, which is what the scenario is about: it fails no scenario.
    pub fn expect_console(&self, class: Class) {
        self.expected.set(Some(class));
    }

    /// See [`Self::expect_console`].
    pub fn is_expected(&self, class: Class) -> bool {
        self.expected.get() == Some(class)
    }

    /// A limit that is fair on this host.
    pub fn limit(&self, on_a_quick_host: Duration) -> Duration {
        self.limits.scaled(on_a_quick_host)
    }

    /// Does something under a name that reports show, with its time.
    pub async fn step<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        self.log.step.replace(Some(name.to_owned()));
        let result = work.await;
        self.log.events.emit(Event::Step(Step {
            suite: self.log.suite.clone(),
            scenario: self.log.scenario.clone(),
            name: name.to_owned(),
            t_ms: ms(start.duration_since(self.log.started)),
            duration_ms: ms(start.elapsed()),
            outcome: if result.is_ok() { Outcome::Passed } else { Outcome::Failed },
        }));
        let value = result?;
        self.log.step.replace(None);
        Ok(value)
    }

    /// Reports a number.
    pub fn metric(&self, name: &str, unit: &str, value: f64) {
        self.report_metric(name, unit, value, None);
    }

    /// Reports a number that was measured several times: its median stands for it.
    pub fn samples(&self, name: &str, unit: &str, samples: Vec<f64>) {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        self.report_metric(name, unit, median, Some(samples));
    }

    fn report_metric(&self, name: &str, unit: &str, value: f64, samples: Option<Vec<f64>>) {
        self.log.events.emit(Event::Metric(Metric {
            suite: Some(self.log.suite.clone()),
            scenario: Some(self.log.scenario.clone()),
            name: name.to_owned(),
            unit: unit.to_owned(),
            value,
            samples,
        }));
    }

    /// Reports a number over time.
    pub fn series(&self, series: Series) {
        let (suite, scenario) = (Some(self.log.suite.clone()), Some(self.log.scenario.clone()));
        self.log.events.emit(Event::Series(Series { suite, scenario, ..series }));
    }

    /// Reports who serves after something happened in the middle of an upgrade.
    pub fn crash_point(&self, step: &str, fault: &str, outcome: &str) {
        self.log.events.emit(Event::CrashPoint(CrashPoint {
            suite: self.log.suite.clone(),
            scenario: self.log.scenario.clone(),
            step: step.to_owned(),
            fault: fault.to_owned(),
            outcome: outcome.to_owned(),
        }));
    }

    /// Reports what there was before and after.
    pub fn ledger(&self, ledger: Ledger) {
        let (suite, scenario) = (self.log.suite.clone(), self.log.scenario.clone());
        self.log.events.emit(Event::Ledger(Ledger { suite, scenario, ..ledger }));
    }

    /// Asks the agent for something that has no method here.
    pub async fn ask<T>(
        &self,
        attempt: &str,
        limit: Duration,
        work: impl Future<Output = AgentResult<T>>,
    ) -> Result<T, Failure> {
        Ok(self.guest.watched(attempt, self.limit(limit), work).await?)
    }

    /// Runs a program and gives what it printed, however it ended.
    pub async fn run(&self, argv: &[&str], limit: Duration) -> Result<Output, Failure> {
        let argv = argv.iter().map(ToString::to_string).collect();
        Ok(self.guest.exec(Exec { argv, ..Exec::default() }, self.limit(limit)).await?)
    }

    /// Runs a program that has to succeed and gives its standard output.
    pub async fn succeed(&self, argv: &[&str], limit: Duration) -> Result<String, Failure> {
        let output = self.run(argv, limit).await?;
        if output.success() {
            return Ok(output.text());
        }
        Err(Failure::supervisor(format!("`{}` {}", argv.join(" "), describe(&output))))
    }

    /// Runs a shell script that has to succeed and gives its standard output.
    pub async fn sh(&self, script: &str) -> Result<String, Failure> {
        self.succeed(&["/bin/sh", "-euc", script], ANSWER).await
    }

    /// Runs graphctl, which has to succeed.
    pub async fn graphctl(&self, arguments: &[&str]) -> Result<String, Failure> {
        self.graphctl_within(arguments, Duration::ZERO).await
    }

    /// Runs a graphctl command that may itself take `time`.
    pub async fn graphctl_within(&self, arguments: &[&str], time: Duration) -> Result<String, Failure> {
        self.succeed(&[&["graphctl"], arguments].concat(), time + ANSWER).await
    }

    /// The supervisor's whole state.
    pub async fn status(&self) -> Result<Status, Failure> {
        let text = self.graphctl(&["status", "--json"]).await?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::supervisor(format!("graphctl status --json printed no status: {error}: {}", head(&text)))
        })
    }

    /// Waits until a component is in a state; with `since` it must enter it after that revision.
    pub async fn wait_state(
        &self,
        name: &str,
        state: &str,
        since: Option<u64>,
        limit: Duration,
    ) -> Result<(), Failure> {
        let limit = self.limit(limit);
        let (seconds, revision) =
            (limit.as_secs_f64().to_string(), since.map(|revision| revision.to_string()));
        let mut argv = vec!["graphctl", "wait", name, "--state", state, "--timeout", &seconds];
        if let Some(revision) = &revision {
            argv.extend(["--since", revision]);
        }
        let output = self.run(&argv, limit + ANSWER).await?;
        if output.success() {
            return Ok(());
        }
        let after = since.map(|revision| format!(" after revision {revision}")).unwrap_or_default();
        let said = output.error_text();
        let said = said.trim();
        Err(Failure::supervisor(format!("{name} did not become {state}{after} within {limit:.1?}: {said}")))
    }

    /// Waits until nothing is about to change any more.
    pub async fn wait_settled(&self, limit: Duration) -> Result<(), Failure> {
        let seconds = self.limit(limit).as_secs_f64().to_string();
        self.graphctl_within(&["wait", "--settled", "--timeout", &seconds], limit).await.map(drop)
    }

    /// Writes a component file the way editors and package managers do, by rename.
    pub async fn declare(&self, file: &str, content: &str) -> Result<(), Failure> {
        self.write(&format!("{COMPONENTS}/{file}"), content).await
    }

    /// Writes many component files, which appear one right after the other once all are written.
    pub async fn declare_all(&self, files: &[(String, String)]) -> Result<(), Failure> {
        // For each an emulated processor starts a program.
        let limit = ANSWER + Duration::from_millis(100) * u32::try_from(files.len()).unwrap_or(u32::MAX);
        let mut script = "mkdir -p /etc/declared.d\n".to_owned();
        for (file, content) in files {
            let _infallible = write!(script, "cat > /etc/declared.d/{file} <<'END'\n{content}\nEND\n");
        }
        let _infallible = writeln!(script, "mv /etc/declared.d/* {COMPONENTS}/");
        self.write("/tmp/declare.sh", &script).await?;
        self.succeed(&["/bin/sh", "-eu", "/tmp/declare.sh"], limit).await.map(drop)
    }

    /// Removes a component file.
    pub async fn undeclare(&self, file: &str) -> Result<(), Failure> {
        self.succeed(&["rm", &format!("{COMPONENTS}/{file}")], ANSWER).await.map(drop)
    }

    /// Writes a file, by rename.
    pub async fn write(&self, path: &str, content: &str) -> Result<(), Failure> {
        let write = self.guest.agent.write_file(path, 0o644, true, content.as_bytes());
        self.ask(&format!("write {path}"), ANSWER, write).await
    }

    /// Reads a file as text.
    pub async fn read(&self, path: &str) -> Result<String, Failure> {
        let content = self.ask(&format!("read {path}"), ANSWER, self.guest.agent.read_file(path)).await?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Waits until a condition of the shell holds in the guest, for what has no other sign. Gives what it printed last.
    pub async fn until(&self, what: &str, condition: &str, limit: Duration) -> Result<String, Failure> {
        let limit = self.limit(limit);
        let script = format!("until {condition}; do sleep 0.02; done");
        let seconds = limit.as_secs().to_string();
        let output = self.run(&["timeout", &seconds, "/bin/sh", "-c", &script], limit * 2).await?;
        if output.success() {
            return Ok(output.text());
        }
        let said = output.error_text();
        Err(Failure::supervisor(format!("{what}: not within {limit:.0?} ({condition}): {}", said.trim())))
    }

    /// Waits until a path exists.
    pub async fn wait_path(&self, path: &str, limit: Duration) -> Result<(), Failure> {
        let limit = self.limit(limit);
        let wait = self.guest.agent.wait_path(path, false, limit);
        Ok(self.guest.watched(&format!("wait for {path}"), limit * 2 + ANSWER, wait).await.map(drop)?)
    }

    /// Waits until a path is gone.
    pub async fn wait_gone(&self, path: &str, limit: Duration) -> Result<(), Failure> {
        let limit = self.limit(limit);
        let wait = self.guest.agent.wait_path(path, true, limit);
        let attempt = format!("see {path} go");
        Ok(self.guest.watched(&attempt, limit * 2 + ANSWER, wait).await.map(drop)?)
    }

    /// Sends a signal from inside the guest.
    pub async fn signal(&self, pid: i32, signal: i32) -> Result<(), Failure> {
        let attempt = format!("send signal {signal} to {pid}");
        self.ask(&attempt, ANSWER, self.guest.agent.signal(pid, signal)).await
    }

    /// A process is gone, reaped and all; `whose` says which one it is.
    pub async fn wait_process_gone(&self, pid: i32, whose: &str, limit: Duration) -> Result<(), Failure> {
        let gone = self.wait_gone(&format!("/proc/{pid}"), limit).await;
        gone.map_err(|failure| Failure { message: format!("{whose}, {pid}: {failure}"), ..failure })
    }

    /// Whether a process is there; a zombie is.
    pub async fn exists(&self, pid: i32) -> Result<bool, Failure> {
        let stat = self.run(&["test", "-e", &format!("/proc/{pid}")], ANSWER).await?;
        Ok(stat.success())
    }

    /// Connects to a TCP port from inside the guest.
    pub async fn connect(&self, address: &str) -> Result<Connection, Failure> {
        let connect = self.guest.agent.tcp_connect(address, self.limit(ANSWER));
        self.ask(&format!("connect to {address}"), ANSWER * 2, connect).await
    }

    /// After the scenario the supervisor still does its work, unless the scenario ended the guest. Gives its state.
    pub async fn still_works(&self) -> Result<Option<Status>, Failure> {
        if self.guest.has_ended() {
            return Ok(None);
        }
        let status = self.status().await.map_err(|mut failure| {
            failure.message = format!("the supervisor no longer answers after the scenario: {failure}");
            failure
        })?;
        match self.internal_error().await? {
            None => Ok(Some(status)),
            Some(lines) => Err(Failure::supervisor(format!("the supervisor has failed in itself: {lines}"))),
        }
    }

    /// What the supervisor has said of an error of its own.
    pub async fn internal_error(&self) -> Result<Option<String>, Failure> {
        let lines = self.run(&["sh", "-c", PANIC_LOG], ANSWER).await?.text();
        Ok(Some(lines.trim().to_owned()).filter(|lines| !lines.is_empty()))
    }

    /// Waits until the guest has ended by itself.
    pub async fn ended(&self, limit: Duration) -> Result<Ended, Failure> {
        match self.guest.ended(self.limit(limit)).await {
            Ok(ended) => Ok(ended),
            Err(error) => Err(Failure::supervisor(error.to_string())),
        }
    }
}

/// How a program that should have succeeded did not.
fn describe(output: &Output) -> String {
    let how = match output.status {
        ExitStatus::Code(code) => format!("ended with code {code}"),
        ExitStatus::Signal(signal) => format!("was ended by signal {signal}"),
        ExitStatus::TimedOut => "did not end in its time".into(),
        ExitStatus::Cancelled => "was cancelled".into(),
    };
    let (stdout, stderr) = (output.text(), output.error_text());
    match (head(&stderr), head(&stdout)) {
        ("", "") => format!("{how}, and printed nothing"),
        ("", text) | (text, _) => format!("{how}: {text}"),
    }
}

/// The part of a text that fits into a message.
fn head(text: &str) -> &str {
    const MESSAGE_BYTES: usize = 600;
    let text = text.trim();
    let end = (0..=MESSAGE_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
