//! The core's speed against its bars, and supervisors side by side: see `README.md`.

pub mod peers;
pub mod speed;
