//! The core's speed against its bars, supervisors side by side, hot swaps, and isolated starts: see `README.md`.

pub mod figure;
pub mod isolation;
pub mod peers;
pub mod speed;
pub mod swaps;
