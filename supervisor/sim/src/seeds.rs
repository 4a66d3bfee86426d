//! Many seeds, over several threads.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use yakiros_core::sim::{self, Failure, Report};

use crate::{Arguments, print_json};

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(10);

/// What good runs add up to. A seed that is run twice counts twice.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Tally {
    seeds: u64,
    steps: u64,
    effects: u64,
    /// Virtual time, in seconds.
    simulated_s: u64,
}

impl Tally {
    fn of(report: &Report, runs: u64) -> Self {
        Self {
            seeds: 1,
            steps: report.steps * runs,
            effects: report.effects * runs,
            simulated_s: report.time.as_secs() * runs,
        }
    }

    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.effects += other.effects;
        self.simulated_s += other.simulated_s;
    }

    fn rate(&self, elapsed: Duration) -> f64 {
        self.steps as f64 / elapsed.as_secs_f64().max(0.001)
    }
}

/// The outcome, for `--json`.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    tally: Tally,
    elapsed_ms: u64,
    steps_per_second: u64,
    failure: Option<FailureText>,
}

#[derive(Serialize)]
struct FailureText {
    seed: u64,
    checker: &'static str,
    message: String,
    phase: String,
    step: u64,
    time_ms: u64,
    options: sim::Options,
    history: Vec<String>,
    replay: String,
}

impl From<&Failure> for FailureText {
    fn from(failure: &Failure) -> Self {
        Self {
            seed: failure.seed,
            checker: failure.reason.name(),
            message: failure.reason.to_string(),
            phase: failure.phase.to_string(),
            step: failure.step,
            time_ms: u64::try_from(failure.time.as_millis()).unwrap_or(u64::MAX),
            options: failure.options.clone(),
            history: failure.history.clone(),
            replay: replay(failure.seed),
        }
    }
}

type Outcomes = Sender<(u64, Result<Tally, Box<Failure>>)>;

/// What all threads share.
struct Work {
    next: AtomicU64,
    end: u64,
    stop: AtomicBool,
    unchecked: bool,
}

impl Work {
    /// Take seeds until there are none left, or one has failed.
    fn run(&self, outcomes: &Outcomes) {
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            let outcome = if self.unchecked {
                sim::run_unchecked(seed).map(|report| Tally::of(&report, 1))
            } else {
                sim::run(seed).map(|report| Tally::of(&report, 2))
            };
            if outcomes.send((seed, outcome)).is_err() {
                return;
            }
        }
    }
}

/// Run them, and say how it went.
pub fn run(arguments: &Arguments) -> ExitCode {
    let range = arguments.range();
    let start = Instant::now();
    let (tally, failure) = run_all(&range, arguments, start);
    let elapsed = start.elapsed();
    if arguments.json {
        print_json(&Outcome {
            tally,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            steps_per_second: tally.rate(elapsed) as u64,
            failure: failure.as_deref().map(FailureText::from),
        });
    } else {
        if let Some(failure) = &failure {
            println!("{failure}\nshow it again: {}\n", replay(failure.seed));
        }
        println!("{}", closing(&tally, elapsed, failure.is_some(), arguments.unchecked));
    }
    ExitCode::from(u8::from(failure.is_some()))
}

fn replay(seed: u64) -> String {
    format!("cargo xtask sim --seed {seed}")
}

fn closing(tally: &Tally, elapsed: Duration, failed: bool, unchecked: bool) -> String {
    let verdict = match (failed, unchecked) {
        (true, _) => "FAILED",
        (false, true) => "no promise checked",
        (false, false) => "every promise kept, twice",
    };
    let hours = tally.simulated_s as f64 / 3600.0;
    format!(
        "{} seeds: {verdict}; {} engine steps in {:.1} s ({:.2} million a second), {hours:.0} simulated hours",
        tally.seeds,
        tally.steps,
        elapsed.as_secs_f64(),
        tally.rate(elapsed) / 1e6,
    )
}

/// All seeds of the range, until one fails. Of several that fail at once, the lowest is shown.
fn run_all(range: &Range<u64>, arguments: &Arguments, start: Instant) -> (Tally, Option<Box<Failure>>) {
    let work = Work {
        next: AtomicU64::new(range.start),
        end: range.end,
        stop: AtomicBool::new(false),
        unchecked: arguments.unchecked,
    };
    let (results, outcomes) = channel();
    let mut tally = Tally::default();
    let mut failure: Option<Box<Failure>> = None;
    let total = range.end - range.start;
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs() {
            let results = results.clone();
            let work = &work;
            scope.spawn(move || work.run(&results));
        }
        drop(results);
        let mut shown = start;
        loop {
            match outcomes.recv_timeout(PROGRESS) {
                Ok((_, Ok(one))) => tally.add(one),
                Ok((seed, Err(found))) => {
                    work.stop.store(true, Ordering::Relaxed);
                    if failure.as_ref().is_none_or(|known| seed < known.seed) {
                        failure = Some(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                let millions = tally.rate(start.elapsed()) / 1e6;
                eprintln!("{} of {total} seeds, {millions:.2} million engine steps a second", tally.seeds);
            }
        }
    });
    (tally, failure)
}
