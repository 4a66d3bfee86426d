//! Many boots and many clones in a row, to see how often the machinery itself fails.
//!
//! A harness whose own failures are taken for the supervisor's is of no use. So its rate of failure is measured, not
//! assumed: one failure in any of them is reported and makes the test fail.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use yakiros_guest::protocol::Exec;
use yakiros_reports::stats::{self, Spread};
use yakiros_reports::{EXIT_FAILED, EXIT_INFRA, EXIT_PASSED};
use yakiros_vm::error::VmError;
use yakiros_vm::machine::{Guest, Machine, Saved};
use yakiros_vm::qemu::Accelerator;

mod faults;

use crate::interrupt::{self, EXIT_INTERRUPTED};
use crate::limits::{FIRST_BOOT, Limits};
use crate::options::{self, Options};
use crate::prepare::{PrepareError, Prepared};
use crate::suite::SUITES;

/// For one command in a guest that does nothing else.
const COMMAND: Duration = Duration::from_secs(10);

/// A clock that was not set stands at the time of the save, which a run soon leaves behind by more than this.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// What a clone's first answer may take of a cold boot's.
const RATIO_BAR: f64 = 0.15;
/// How long the guest's clock is compared with the host's, and by how much they may differ: a busy host delays the
/// reading of either by some milliseconds.
const DRIFT_SPAN: Duration = Duration::from_secs(2);
const MAX_DRIFT: f64 = 0.05;

/// How often to do what.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Boots, each in a QEMU of its own.
    pub boots: usize,
    /// Clones of one saved guest.
    pub clones: usize,
    /// Whether guests are made to fail, too, each kind of failure once.
    pub faults: bool,
}

/// Boots and clones that often, prints the times, and gives the process's exit code.
pub fn run(options: &Options, counts: Counts) -> i32 {
    // What other suites need is not prepared.
    let options = Options { suites: vec![SUITES[0].name.to_owned()], ..options.clone() };
    match measure(&options, counts) {
        Ok(Some(0)) => EXIT_PASSED,
        Ok(Some(_)) => EXIT_FAILED,
        Ok(None) => EXIT_INTERRUPTED,
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_INFRA
        }
    }
}

/// Gives the number of failures, or nothing if it was interrupted.
fn measure(options: &Options, counts: Counts) -> Result<Option<usize>, PrepareError> {
    let parent = options::target();
    fs::create_dir_all(&parent)?;
    let work = tempfile::Builder::new().prefix("self-test-").tempdir_in(parent)?;
    let measured = interrupt::block_on(async {
        let prepared = Prepared::new(options, work.path()).await?;
        let suite = &SUITES[0];
        let machine = prepared.machine(suite, &suite.config()?, options, work.path())?;
        let (boots, clones, saved) = in_turns(&machine, work.path(), counts).await?;
        boots.print("cold boots");
        clones.print("clones");
        let too_slow = ratio_over_bar(&boots, &clones, prepared.host.accelerator);
        let unseen = if counts.faults { faults::provoke(&machine, &saved, work.path()).await? } else { 0 };
        Ok(boots.failures.len() + clones.failures.len() + usize::from(too_slow) + unseen)
    })?;
    measured.transpose()
}

/// Prints the ratio and says whether it is over the bar.
fn ratio_over_bar(boots: &Series, clones: &Series, accelerator: Accelerator) -> bool {
    let (Some(clone), Some(boot)) = (stats::median(&clones.times), stats::median(&boots.times)) else {
        return false;
    };
    let ratio = clone / boot;
    // With KVM a boot is so quick that the start of QEMU itself is most of either.
    let bar = accelerator == Accelerator::Tcg;
    println!(
        "clone / cold boot: {ratio:.3}{}",
        if bar { format!(" (bar: {RATIO_BAR})") } else { String::new() }
    );
    bar && ratio > RATIO_BAR
}

#[derive(Default)]
struct Series {
    /// Milliseconds.
    times: Vec<f64>,
    failures: Vec<String>,
    tried: usize,
}

impl Series {
    fn add(&mut self, started: Instant, result: Result<(), VmError>) {
        self.tried += 1;
        match result {
            Ok(()) => self.times.push(started.elapsed().as_secs_f64() * 1000.0),
            Err(error) => {
                eprintln!("failure after {:.1?}: {error}", started.elapsed());
                self.failures.push(error.to_string());
            }
        }
    }

    fn print(&self, what: &str) {
        let count = self.tried;
        if let Some(Spread { median, p95, max, .. }) = stats::spread(&self.times) {
            println!("{count} {what}: median {median:.0} ms, p95 {p95:.0} ms, max {max:.0} ms");
        }
        println!("{count} {what}: {} failed", self.failures.len());
        for failure in &self.failures {
            println!("  {failure}");
        }
    }
}

/// Boots and clones in turns, so that both meet the same load of the host and their ratio says something.
async fn in_turns(
    machine: &Machine,
    work: &Path,
    counts: Counts,
) -> Result<(Series, Series, Saved), VmError> {
    let guest = machine.boot(work, &work.join("base.log"), FIRST_BOOT).await?;
    let limit = Limits::calibrated(guest.answered_after, 1.0).for_clone();
    first_command(&guest).await?;
    let (mut boots, mut clones) = (Series::default(), Series::default());
    boots.failures.extend(clock_drift(&guest).await?);
    let saved = guest.save(work).await?;
    let mut seen = HashSet::new();
    let turns = counts.boots.max(1);
    for turn in 0..turns {
        if turn < counts.boots {
            let started = Instant::now();
            boots.add(started, boot_once(machine, work).await);
        }
        for _ in counts.clones * turn / turns..counts.clones * (turn + 1) / turns {
            clone_once(&saved, work, limit, &mut seen, &mut clones).await?;
        }
    }
    Ok((boots, clones, saved))
}

/// The guest's clock must run at the host's rate.
async fn clock_drift(guest: &Guest) -> Result<Option<String>, VmError> {
    let read = || guest.watched("read the guest's clock", COMMAND, guest.agent.clock(None));
    let (start, first) = (Instant::now(), read().await?);
    tokio::time::sleep(DRIFT_SPAN).await;
    let (span, last) = (start.elapsed(), read().await?);
    let ratio =
        Duration::from_nanos(last.monotonic_ns - first.monotonic_ns).as_secs_f64() / span.as_secs_f64();
    let drifts = (ratio - 1.0).abs() > MAX_DRIFT;
    Ok(drifts.then(|| format!("the guest's clock runs at {ratio:.3} of the host's rate")))
}

async fn boot_once(machine: &Machine, work: &Path) -> Result<(), VmError> {
    let guest = machine.boot(work, &work.join("boots.log"), FIRST_BOOT).await?;
    first_command(&guest).await
}

async fn clone_once(
    saved: &Saved,
    work: &Path,
    limit: Duration,
    seen: &mut HashSet<Vec<u8>>,
    series: &mut Series,
) -> Result<(), VmError> {
    let started = Instant::now();
    let cloned = async {
        let guest = saved.clone_guest(&work.join("clones.log"), limit).await?;
        first_command(&guest).await?;
        Ok(guest)
    };
    match cloned.await {
        Ok(guest) => {
            series.add(started, Ok(()));
            series.failures.extend(what_is_not_its_own(&guest, seen).await?);
        }
        Err(error) => series.add(started, Err(error)),
    }
    Ok(())
}

/// A clone's random numbers must be no other clone's, and its wall clock the host's.
async fn what_is_not_its_own(guest: &Guest, seen: &mut HashSet<Vec<u8>>) -> Result<Option<String>, VmError> {
    let uuid = guest.agent.read_file("/proc/sys/kernel/random/uuid");
    let uuid = guest.watched("read a random number", COMMAND, uuid).await?;
    let clock = guest.watched("read the guest's clock", COMMAND, guest.agent.clock(None)).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let behind = now.abs_diff(Duration::from_nanos(clock.realtime_ns));
    if behind > CLOCK_TOLERANCE {
        return Ok(Some(format!("a clone's wall clock is {behind:.1?} off the host's")));
    }
    let repeated = !seen.insert(uuid.clone());
    Ok(repeated
        .then(|| format!("two clones drew the same random number {}", String::from_utf8_lossy(&uuid).trim())))
}

async fn first_command(guest: &Guest) -> Result<(), VmError> {
    let argv = vec!["/bin/true".into()];
    guest.exec(Exec { argv, ..Exec::default() }, COMMAND).await.map(drop)
}
