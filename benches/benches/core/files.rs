//! Component files: one as text, and a thousand in a directory.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use yakiros_core::component::parse;

use crate::shapes::{LAYERS, file, files};

/// Files in the directory.
const MANY: usize = 1000;

pub fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("files");
    let text = file(7, &[1, 2, 3]);
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parse one", |bencher| bencher.iter(|| parse(black_box(&text))));
    let broken = text.replace("restart_max = 10", "restart_mx = \"x\"\nhandoff = \"no\"");
    group.bench_function("parse one with mistakes", |bencher| {
        bencher.iter(|| parse(black_box(&broken)));
    });
    let directory = tempfile::tempdir().expect("a directory");
    for (number, text) in files(MANY, LAYERS).iter().enumerate() {
        let path = directory.path().join(format!("{number:04}.toml"));
        std::fs::write(path, text).expect("a file");
    }
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("load 1000 from a directory", |bencher| {
        bencher.iter(|| {
            let found = yakiros_files::list(directory.path()).expect("a list");
            let loaded = found.values().filter_map(|path| yakiros_files::load(path));
            let usable = loaded.filter(|loaded| loaded.parsed.component.is_some()).count();
            assert_eq!(usable, MANY);
        });
    });
    group.finish();
}
