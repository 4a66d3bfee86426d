//! What a person sees while things go on.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use yakiros_reports::event::{Event, Outcome, Record, ScenarioFinished};
use yakiros_vm::image::{Progress, human_bytes};

/// Prints a line for each scenario that has ended, and with `verbose` for each step.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    verbose: bool,
    colour: bool,
}

impl Live {
    /// Colours only on a terminal that wants them.
    pub fn new(verbose: bool) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { verbose, colour }
    }

    /// Shows an event, if it is one to be shown.
    pub fn show(self, record: &Record) {
        match &record.event {
            Event::MachineReady(machine) => eprintln!(
                "machine {}: booted in {:.2} s, settled after {:.2} s",
                machine.machine,
                machine.boot_ms / 1000.0,
                machine.ready_ms / 1000.0
            ),
            Event::Step(step) if self.verbose => eprintln!(
                "     {}/{}: {} {:.0} ms: {}",
                step.suite,
                step.scenario,
                step.name,
                step.duration_ms,
                step.outcome.name()
            ),
            Event::ScenarioFinished(finished) => self.finished(finished),
            Event::Log(log) => eprintln!("{}", log.message),
            _ => {}
        }
    }

    fn finished(self, finished: &ScenarioFinished) {
        let (word, colour) = match finished.outcome {
            Outcome::Passed => ("PASS", "32"),
            Outcome::Failed => ("FAIL", "31"),
            Outcome::Flaky => ("FLAKY", "33"),
            Outcome::Skipped => ("SKIP", "33"),
            Outcome::InfraFailed => ("INFRA", "35"),
        };
        let word = if self.colour { format!("\x1b[{colour}m{word:<5}\x1b[0m") } else { format!("{word:<5}") };
        let name = format!("{}/{}", finished.suite, finished.name);
        eprintln!("{word} {name:<52} {:>6.2} s", finished.duration_ms / 1000.0);
        if let Some(reason) = &finished.reason {
            eprintln!("      {}", reason.replace('\n', "\n      "));
        }
    }
}

/// How often a progress line is written where there is no terminal to draw a bar on.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What the preparation does: one line each on standard error, and a bar for downloads if that is a terminal.
#[derive(Debug, Default)]
pub struct Preparation {
    bar: Mutex<Option<ProgressBar>>,
    last_line: Mutex<Option<Instant>>,
}

impl Progress for Preparation {
    fn step(&self, line: &str) {
        match lock(&self.bar).as_ref() {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn bytes(&self, label: &str, done: u64, total: Option<u64>) {
        if std::io::stderr().is_terminal() {
            let mut bar = lock(&self.bar);
            let bar = bar.get_or_insert_with(|| new_bar(label, total));
            bar.set_position(done);
            return;
        }
        let mut last = lock(&self.last_line);
        let start = *last.get_or_insert_with(Instant::now);
        if start.elapsed() >= LINE_EVERY {
            *last = Some(Instant::now());
            let of = total.map(|total| format!(" of {}", human_bytes(total))).unwrap_or_default();
            eprintln!("{label}: {}{of}", human_bytes(done));
        }
    }

    fn done(&self) {
        if let Some(bar) = lock(&self.bar).take() {
            bar.finish_and_clear();
        }
        lock(&self.last_line).take();
    }
}

fn new_bar(label: &str, total: Option<u64>) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_message(label.to_owned());
    let form = "{msg} [{bar:30}] {bytes}/{total_bytes} {eta}";
    if let (Ok(style), true) = (ProgressStyle::with_template(form), total.is_some()) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
