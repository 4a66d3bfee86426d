//! The arguments of `top`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::arguments::seconds;

/// What is shown, and how often.
#[derive(Debug, Args)]
pub struct Top {
    /// Print one sample and end
    #[arg(long, conflicts_with = "count")]
    pub once: bool,
    /// Print so many samples and end
    #[arg(short = 'n', long, value_name = "SAMPLES", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Seconds between two readings, of which a sample is made
    #[arg(long, value_name = "SECONDS", value_parser = interval, default_value = "1")]
    pub interval: Duration,
    /// What has the most of this comes first
    #[arg(long, value_enum, value_name = "KEY", default_value = "cpu")]
    pub sort: Sort,
}

/// An order of components.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Sort {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// What is read from and written to disks.
    Io,
    /// Processes and threads.
    Pids,
    /// The worst of its pressures.
    Pressure,
    /// The alphabet.
    Name,
}

fn interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    let usage = || "write seconds, as 5 or 0.5, from 0.1 to a day".to_owned();
    seconds(text).ok().filter(|interval| *interval >= SHORTEST).ok_or_else(usage)
}
