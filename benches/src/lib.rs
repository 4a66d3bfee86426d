//! Benchmarks: of the core in `benches/core.rs`, of whole supervisors side by side in [`peers`].

pub mod peers;
