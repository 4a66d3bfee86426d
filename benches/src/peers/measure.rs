//! What is done to the supervisors, and what is read off.

use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Setup;
use super::arena::{Arena, Field, now};
use super::events::Events;
use super::inits::Services;
use super::proc::{self, Memory, Usage};
use super::report::{Idle, Population, Row};

/// Services of the race to the last exec.
const STARTED: usize = 100;

/// Numbers of idle services for which memory is measured.
const POPULATIONS: [usize; 3] = [1, 20, 100];

/// The population that is watched while idle.
const WATCHED: usize = 20;

/// The population some services of which are killed, and how many.
const KILLED: (usize, usize) = (100, 50);

/// Services of the chain.
const CHAIN: usize = 1000;

/// Services with a native probe.
const PROBED: usize = 200;

/// Within this time all services run, or the supervisor cannot do it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time after the last start for a supervisor to come to rest. Some look again after a second.
const SETTLE: Duration = Duration::from_millis(2500);

/// Pause between two looks at the stamps. The stamps are exact; this only has to leave the processors alone.
const LOOK: Duration = Duration::from_millis(5);

/// Pause between two kills, so that the machine is quiet at each.
const BETWEEN_KILLS: Duration = Duration::from_millis(20);

/// A hundred services from exec of the supervisor to the last service's first instruction, in turn.
pub fn starts(field: &Field, setup: &Setup, rows: &mut [Row]) {
    for round in 0..setup.rounds {
        (setup.say)(&format!("start {STARTED} services, round {} of {}", round + 1, setup.rounds));
        for at in 0..rows.len() {
            with(field, setup, rows, at, Services::Independent(STARTED), |arena, row| {
                if let Some(last) = arena.stamps().iter().max() {
                    row.figures.start_ms.push(millis(last - arena.started));
                }
            });
        }
    }
}

/// Memory of each population, idleness of one, respawn in another.
pub fn populations(field: &Field, setup: &Setup, rows: &mut [Row]) {
    let events = Events::new();
    if let Err(error) = &events {
        let text =
            format!("when programs are executed is not known: the kernel gives no process events: {error}");
        for row in rows.iter_mut() {
            row.note(text.clone());
        }
    }
    for services in POPULATIONS {
        for at in 0..rows.len() {
            (setup.say)(&format!("{} with {services} idle services", rows[at].name));
            with(field, setup, rows, at, Services::Independent(services), |arena, row| {
                sleep(SETTLE);
                if let Some(memory) = population(arena, services) {
                    row.figures.memory.push(memory);
                }
                if services == WATCHED {
                    row.figures.idle = idle(arena, setup.watch_seconds);
                }
                if services == KILLED.0 {
                    respawn(arena, events.as_ref().ok(), row);
                    sleep(SETTLE);
                    row.figures.memory_after = proc::memory(arena.pid).ok();
                }
            });
        }
    }
}

/// A chain of services each of which needs the one before.
pub fn chains(field: &Field, setup: &Setup, rows: &mut [Row]) {
    (setup.say)(&format!("a chain of {CHAIN} services"));
    for at in 0..rows.len() {
        with(field, setup, rows, at, Services::Chain(CHAIN), |arena, row| {
            row.figures.chain_ms = arena.stamps().iter().max().map(|last| millis(last - arena.started));
        });
    }
}

/// Native probes of many services each second.
pub fn probes(field: &Field, setup: &Setup, rows: &mut [Row]) {
    (setup.say)(&format!("{PROBED} services with a native probe each second"));
    for at in 0..rows.len() {
        with(field, setup, rows, at, Services::Probed(PROBED), |arena, row| {
            sleep(SETTLE);
            let Some(before) = usage(&[arena.pid]) else { return };
            let begin = now();
            sleep(Duration::from_secs(setup.watch_seconds));
            let Some(after) = usage(&[arena.pid]) else { return };
            let elapsed = (now() - begin) as f64;
            row.figures.probes_cpu_percent = Some((after.cpu - before.cpu) as f64 / elapsed * 100.0);
        });
    }
}

/// Bring `services` up under one contestant and measure. What does not work is noted in its row.
fn with(
    field: &Field,
    setup: &Setup,
    rows: &mut [Row],
    at: usize,
    services: Services,
    measure: impl FnOnce(&Arena, &mut Row),
) {
    let (contestant, row) = (&setup.contestants[at], &mut rows[at]);
    let Ok(source) = &contestant.root else { return };
    let outcome = field.root(source, &setup.service).and_then(|root| {
        let can = (contestant.init.declare)(&root, services)?;
        if can { field.start(&root, contestant.init.argv).map(Some) } else { Ok(None) }
    });
    match outcome {
        Ok(None) => {}
        Ok(Some(arena)) => {
            let wanted = match services {
                Services::Independent(count) | Services::Chain(count) => count,
                Services::Probed(count) => count + 1,
            };
            match wait_for_stamps(&arena, wanted) {
                Ok(()) => measure(&arena, row),
                Err(count) => {
                    row.note(format!("{services:?}: {count} of {wanted} came up: {}", arena.output()));
                }
            }
        }
        Err(error) => row.note(format!("{services:?}: {error}")),
    }
}

/// Wait until so many services have come to life; the error is how many did.
fn wait_for_stamps(arena: &Arena, wanted: usize) -> Result<(), usize> {
    let end = Instant::now() + PATIENCE;
    loop {
        let count = arena.stamps().len();
        if count >= wanted {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(count);
        }
        sleep(LOOK);
    }
}

fn population(arena: &Arena, services: usize) -> Option<Population> {
    let (_, supervising) = proc::inhabitants(arena.pid, "test-stamp").ok()?;
    let own = proc::memory(arena.pid).ok()?;
    let all = supervising.iter().filter_map(|pid| proc::memory(*pid).ok());
    let all = all.fold(Memory::default(), |sum, one| Memory {
        pss: sum.pss + one.pss,
        anonymous: sum.anonymous + one.anonymous,
        file: sum.file + one.file,
    });
    Some(Population { services, own, processes: supervising.len(), all })
}

/// Watch all processes that supervise while nothing happens.
fn idle(arena: &Arena, seconds: u64) -> Option<Idle> {
    let (_, supervising) = proc::inhabitants(arena.pid, "test-stamp").ok()?;
    let before = usage(&supervising)?;
    sleep(Duration::from_secs(seconds));
    let after = usage(&supervising)?;
    Some(Idle { seconds, wakeups: after.switches - before.switches, cpu_ms: millis(after.cpu - before.cpu) })
}

fn usage(pids: &[i32]) -> Option<Usage> {
    pids.iter().try_fold(Usage::default(), |sum, pid| {
        let one = proc::usage(*pid).ok()?;
        Some(Usage { cpu: sum.cpu + one.cpu, switches: sum.switches + one.switches })
    })
}

/// Kill different services one after the other, each once, so that nobody's rate limit is met.
fn respawn(arena: &Arena, events: Option<&Events>, row: &mut Row) {
    let Ok((services, _)) = proc::inhabitants(arena.pid, "test-stamp") else { return };
    for pid in services.into_iter().take(KILLED.1) {
        let before = arena.stamps().len();
        let lost = events.is_some_and(|events| events.take().is_err());
        let killed = now();
        let sent = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        if sent.is_err() || wait_for_stamps(arena, before + 1).is_err() {
            return row.note(format!("a killed service did not come back: {}", arena.output()));
        }
        let born = arena.stamps().last().copied().unwrap_or(killed);
        row.figures.reborn_ms.push(millis(born.saturating_sub(killed)));
        match events.map(|events| last_execution(arena, events, killed..=born)) {
            Some(Some(executed)) if !lost => row.figures.respawn_ms.push(millis(executed - killed)),
            None => {}
            Some(_) => row.note("an execution was not seen: events were lost".to_owned()),
        }
        sleep(BETWEEN_KILLS);
    }
}

/// When the process that was born last was executed: some execute an interpreter first, which does not count.
fn last_execution(arena: &Arena, events: &Events, span: RangeInclusive<u64>) -> Option<u64> {
    let all = events.take().ok()?;
    let inside = all.iter().filter(|event| span.contains(&event.at) && proc::is_inside(event.pid, arena.pid));
    inside.map(|event| event.at).max()
}

fn millis(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}
