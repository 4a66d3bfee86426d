//! The core's speed against its bars, supervisors side by side, hot swaps, isolated starts, and checkpoints: see `README.md`.

pub mod checkpoints;
pub mod figure;
pub mod isolation;
pub mod peers;
pub mod speed;
pub mod swaps;
pub mod ways;
