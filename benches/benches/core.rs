//! The core's speed: `cargo bench -p yakiros-benches`, with a filter as last argument if wanted.
//!
//! Shapes: a *chain* (each needs the one before: the deepest graph), *layers* of ten (each needs
//! two of the layer below: an ordinary system), and *random* (three requirements among all before
//! it, from a fixed seed).

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use yakiros_core::component::parse;
use yakiros_core::control::{Answer, Request, decode_request, encode_answer, encode_request};
use yakiros_core::engine::{Config, Effect, Engine, Event, FileChange, FileContent};
use yakiros_core::graph::{Graph, Level, NodeId};
use yakiros_core::sim::{self, Random};

const SIZES: [usize; 4] = [50, 300, 1_000, 10_000];

/// Requirements of component `number`.
type Shape = fn(usize, &mut Random) -> Vec<usize>;

const SHAPES: [(&str, Shape); 3] = [
    ("chain", |number, _| number.checked_sub(1).into_iter().collect()),
    ("layers", |number, _| {
        let below = (number / 10).checked_sub(1);
        below.map_or(Vec::new(), |layer| vec![layer * 10 + number % 10, layer * 10 + (number + 1) % 10])
    }),
    ("random", |number, random| {
        let pick = (0..3.min(number)).map(|_| random.below(number as u64) as usize);
        pick.collect()
    }),
];

fn capability(number: usize) -> String {
    format!("capability.{number}")
}

fn file(number: usize, requires: &[usize]) -> String {
    let requires: Vec<_> = requires.iter().map(|n| format!("{:?}", capability(*n))).collect();
    format!(
        "[component]\nname = \"component-{number}\"\nbinary = \"/usr/bin/true\"\n\
         args = [\"--number\", \"{number}\"]\n[provides]\ncapabilities = [{:?}]\n\
         [requires]\ncapabilities = [{}]\n[lifecycle]\nrestart_max = 10\n\
         [resources]\nmemory_max = \"64M\"\n",
        capability(number),
        requires.join(", ")
    )
}

fn files(count: usize, shape: Shape) -> Vec<String> {
    let mut random = Random::new(1);
    (0..count).map(|number| file(number, &shape(number, &mut random))).collect()
}

fn change(number: usize, text: &str) -> FileChange {
    let component = parse(text).component.expect("a component");
    FileChange { file: format!("{number:06}.toml"), content: FileContent::Component(Box::new(component)) }
}

fn graph(count: usize, shape: Shape) -> (Graph, Vec<NodeId>) {
    let mut random = Random::new(1);
    let mut graph = Graph::default();
    let insert = |number| {
        let requires = shape(number, &mut random).into_iter().map(capability);
        graph.insert(&[capability(number)], &requires.collect::<Vec<_>>(), &[])
    };
    let ids = (0..count).map(insert).collect();
    (graph, ids)
}

fn component_files(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("files");
    let text = file(7, &[1, 2, 3]);
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parse one", |bencher| bencher.iter(|| parse(black_box(&text))));
    let broken = text.replace("restart_max = 10", "restart_mx = \"x\"\nhandoff = \"no\"");
    group.bench_function("parse one with mistakes", |bencher| {
        bencher.iter(|| parse(black_box(&broken)));
    });
    let many = files(1000, SHAPES[1].1);
    group.throughput(Throughput::Elements(many.len() as u64));
    group.bench_function("load 1000 into an engine", |bencher| {
        bencher.iter(|| {
            let mut engine = Engine::new(Config::default());
            let changes = many.iter().enumerate().map(|(n, text)| change(n, text)).collect();
            engine.handle(Duration::ZERO, Event::Files(changes))
        });
    });
    group.finish();
}

fn resolve(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resolve");
    for (name, shape) in SHAPES {
        for size in SIZES {
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let fresh = || graph(size, shape).0;
                bencher.iter_batched(fresh, |mut graph| graph.settle(), BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

fn flip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flip");
    for (name, shape) in SHAPES {
        for size in SIZES {
            let (mut graph, ids) = graph(size, shape);
            graph.settle();
            for id in &ids {
                graph.set_level(*id, Level::Up);
            }
            let middle = ids[size / 2];
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    graph.set_level(middle, Level::Down);
                    graph.set_level(middle, Level::Up);
                    black_box(graph.take_touched())
                });
            });
        }
    }
    group.finish();
}

/// Start everything: each process is executed as soon as it is wanted.
fn boot(changes: Vec<FileChange>) -> Engine {
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

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(20);
    for (name, shape) in SHAPES {
        let texts = files(1000, shape);
        group.throughput(Throughput::Elements(1000));
        group.bench_function(BenchmarkId::new("boot", name), |bencher| {
            let changes = || texts.iter().enumerate().map(|(n, t)| change(n, t)).collect();
            bencher.iter_batched(changes, boot, BatchSize::LargeInput);
        });
    }
    let steps: u64 = (0..20).map(|seed| sim::run_unchecked(seed).map_or(0, |report| report.steps)).sum();
    group.throughput(Throughput::Elements(steps));
    group.bench_function("simulation, 20 seeds", |bencher| {
        bencher.iter(|| (0..20).map(|seed| sim::run_unchecked(seed).is_ok()).filter(|ok| *ok).count());
    });
    group.finish();
}

fn control(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("control");
    let request = Request::Status { name: None, after: None };
    let line = encode_request(request.clone()).expect("a request");
    group.bench_function("encode request", |bencher| {
        bencher.iter(|| encode_request(black_box(request.clone())));
    });
    group.bench_function("decode request", |bencher| {
        bencher.iter(|| decode_request(black_box(&line)).is_ok());
    });
    let texts = files(300, SHAPES[1].1);
    let engine = boot(texts.iter().enumerate().map(|(n, t)| change(n, t)).collect());
    group.throughput(Throughput::Elements(300));
    group.bench_function("status page of 300", |bencher| bencher.iter(|| engine.status_page(None)));
    let page = engine.status_page(None);
    group.bench_function("encode status of 300", |bencher| {
        let answer = || Answer::Status(page.clone());
        bencher.iter_batched(answer, encode_answer, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, component_files, resolve, flip, engine, control);
criterion_main!(benches);
