//! The core's speed against its bars, supervisors side by side, and hot swaps: see `README.md`.

pub mod peers;
pub mod speed;
pub mod swaps;
