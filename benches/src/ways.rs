//! Several ways to do one thing, side by side.

use std::fmt;

use serde::Serialize;

use crate::peers::{median, worst};

/// One of them.
#[derive(Debug, Serialize)]
pub struct Way {
    /// Which.
    pub way: &'static str,
    /// Milliseconds.
    pub ms: Vec<f64>,
    /// Why it was not measured.
    pub skipped: Option<String>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, ms, skipped } = self;
        match (skipped, median(ms), worst(ms)) {
            (None, Some(middle), Some(most)) => {
                writeln!(f, "{way:<58} median {middle:>8.2} ms  worst {most:>8.2} ms  of {}", ms.len())
            }
            (reason, ..) => writeln!(f, "{way:<58} skipped: {}", reason.as_deref().unwrap_or("no figure")),
        }
    }
}
