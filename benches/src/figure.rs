//! A figure against its bar.

use std::fmt;

use serde::Serialize;

/// One figure against its bar.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What was measured, with its unit.
    pub what: &'static str,
    /// The most it may be.
    pub bar: f64,
    /// What it was.
    pub value: f64,
}

impl Figure {
    /// Whether it is not above its bar.
    pub fn is_good(&self) -> bool {
        self.value <= self.bar
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_good() { "good" } else { "MISSED" };
        write!(f, "{word:<7} {:<58} {:>8.2}  bar {:.2}", self.what, self.value, self.bar)
    }
}
