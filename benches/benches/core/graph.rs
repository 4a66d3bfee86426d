//! The capability graph: resolved from nothing, and one capability that goes up or down.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use yakiros_core::graph::{Graph, Level, NodeId};
use yakiros_core::sim::Random;

use crate::shapes::{SHAPES, Shape, capability};

const SIZES: [usize; 4] = [50, 1_000, 10_000, 100_000];

/// Components that one flip touches, among as many as the third of [`SIZES`].
const TOUCHED: usize = 10;

/// What a component provides and what it requires.
type Declared = ([String; 1], Vec<String>);

fn declared(count: usize, shape: impl Fn(usize, &mut Random) -> Vec<usize>) -> Vec<Declared> {
    let mut random = Random::new(1);
    let declare = |number| {
        let requires = shape(number, &mut random).into_iter().map(capability);
        ([capability(number)], requires.collect())
    };
    (0..count).map(declare).collect()
}

/// From nothing to a graph that knows every cycle, layer and unmet requirement.
fn resolved(declared: &[Declared]) -> (Graph, Vec<NodeId>) {
    let mut graph = Graph::default();
    let insert = |(provides, requires): &Declared| graph.insert(provides, requires, &[]);
    let ids = declared.iter().map(insert).collect();
    graph.settle();
    (graph, ids)
}

pub fn resolve(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resolve");
    for (name, shape) in SHAPES {
        for size in SIZES {
            let declared = declared(size, shape);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_batched(|| (), |()| resolved(&declared), BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

/// Everything is up; one goes down and up again in turn, a flip each time.
fn flip_one(
    bencher: &mut criterion::Bencher<'_>,
    declared: &[Declared],
    number: usize,
    touches: Option<usize>,
) {
    let (mut graph, ids) = resolved(declared);
    for id in &ids {
        graph.set_level(*id, Level::Up);
    }
    graph.take_touched();
    let mut level = Level::Up;
    let mut flip = || {
        level = if level == Level::Up { Level::Down } else { Level::Up };
        graph.set_level(ids[number], level);
        graph.take_touched()
    };
    for _ in 0..2 {
        let touched = flip().len();
        assert!(touches.is_none_or(|expected| touched == expected), "{touched} touched");
    }
    bencher.iter(|| black_box(flip()));
}

pub fn flip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flip");
    for (name, shape) in SHAPES {
        for size in SIZES {
            let declared = declared(size, shape);
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                flip_one(bencher, &declared, size / 2, None);
            });
        }
    }
    // The first is needed by the ten after it, and these by nobody.
    let shape: Shape = |number, _| match number {
        1..=TOUCHED => vec![0],
        _ => number.checked_sub(TOUCHED + 10).filter(|n| *n > TOUCHED).into_iter().collect(),
    };
    let declared = declared(SIZES[2], shape);
    group.bench_function(BenchmarkId::new("touching 10 of", SIZES[2]), |bencher| {
        flip_one(bencher, &declared, 0, Some(TOUCHED));
    });
    group.finish();
}
