//! The engine: a boot, and its life in the simulation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use yakiros_core::engine::{Config, Effect, Engine, Event, FileChange};
use yakiros_core::sim::{self, Failure, Report};

use crate::shapes::{SHAPES, changes, files};

/// Components of a boot.
const COMPONENTS: usize = 1000;

/// Seeds of one iteration: enough that one that is lively weighs little.
const SEEDS: u64 = 256;

/// Start everything: each process is executed as soon as it is wanted.
pub fn started(changes: Vec<FileChange>) -> Engine {
    let mut engine = Engine::new(Config::default());
    let mut effects = engine.handle(Duration::ZERO, Event::Files(changes));
    while !effects.is_empty() {
        let mut next = Vec::new();
        for effect in effects {
            if let Effect::Spawn { run, .. } = effect {
                next.extend(engine.handle(Duration::ZERO, Event::Executed(run)));
            }
        }
        effects = next;
    }
    engine
}

pub fn boot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("boot");
    group.throughput(Throughput::Elements(COMPONENTS as u64));
    for (name, shape) in SHAPES {
        let texts = files(COMPONENTS, shape);
        group.bench_function(BenchmarkId::new(name, COMPONENTS), |bencher| {
            bencher.iter_batched(|| changes(&texts), started, BatchSize::LargeInput);
        });
    }
    group.finish();
}

type Run = fn(u64) -> Result<Report, Box<Failure>>;

/// Run all seeds on so many threads; how many steps the engine made in one run of each.
fn steps(run: Run, threads: usize) -> u64 {
    let (next, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < SEEDS) {
            let report = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
            steps.fetch_add(report.steps, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    steps.into_inner()
}

/// As `cargo xtask sim` does it: under all checkers, each seed twice, a thread for each processor; and the engine alone.
pub fn simulation(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut group = criterion.benchmark_group("simulation");
    let rows: [(&str, Run, usize, u64); 2] = [
        ("all promises checked, twice", sim::run, threads, 2),
        ("one thread, unchecked", sim::run_unchecked, 1, 1),
    ];
    // The quickest way to count them, for this is done even when a filter leaves both out.
    let count = steps(sim::run_unchecked, threads);
    for (name, run, threads, times) in rows {
        group.throughput(Throughput::Elements(count * times));
        group.bench_function(name, |bencher| bencher.iter(|| steps(run, threads)));
    }
    group.finish();
}
