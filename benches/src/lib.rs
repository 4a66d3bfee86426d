//! Nothing but benchmarks: see `benches/core.rs`.
