//! The core's speed. `cargo xtask bench` runs all of it and holds it against its bars; with a word, only what has it in
//! its name. `cargo bench -p yakiros-benches -- WORD` does without the bars, and compares with the run before.
//!
//! Few and short samples: all of it takes a few minutes. The figures are medians of one machine; compare those of one
//! run, and runs only on a quiet machine.

mod control;
mod engine;
mod files;
mod graph;
mod shapes;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn short() -> Criterion {
    let criterion = Criterion::default().sample_size(10);
    criterion.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = benches;
    config = short();
    targets = files::run, graph::resolve, graph::flip, engine::boot, engine::simulation, control::messages, control::socket
}
criterion_main!(benches);
