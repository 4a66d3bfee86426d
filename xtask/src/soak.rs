//! `cargo xtask soak`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use yakiros_harness::programs::Build;
use yakiros_harness::soak::{self, SoakOptions};

use crate::Guest;

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask soak                                    24 hours, with a report each hour
  cargo xtask soak --duration 1h --report-interval 10m
  cargo xtask soak --virtual-time                     24 hours by the guest's clock, in minutes
  cargo xtask soak --virtual-time --duration 1h --seed 7
                                                      the same seed gives the same journal, record by record
  cargo xtask soak --kernel debian --output /srv/soak a folder of your own, on Debian's kernel
  cargo xtask soak --resume target/soak/latest        go on where a killed run ended, in a new boot
Durations: a number with ms, s, m, h or d. Ctrl-C ends a run with a full report of what there is.
Exit codes: 0 nothing was lost and nothing grew, 1 something did, 2 usage, 69 the infrastructure failed, 130 interrupted.
Reports: target/soak/<run-id>/ with report.html, report.json, junit.xml and summary.md; one of each for every interval in
intervals/; what the guest wrote in boots/<n>/stream.jsonl. docs/soak.md says what is done and how it is judged.";

/// A day, as the plan has it.
const USUAL: &str = "24h";
const USUAL_INTERVAL: &str = "1h";

#[derive(Args)]
pub struct Soak {
    /// For how long, by the guest's clock
    #[arg(long, value_name = "TIME", default_value = USUAL, value_parser = time)]
    duration: Duration,
    /// A report for each such part of it
    #[arg(long, value_name = "TIME", default_value = USUAL_INTERVAL, value_parser = time)]
    report_interval: Duration,
    /// Under a clock that counts the guest's instructions and skips what it has nothing to do in: a day takes minutes
    #[arg(long)]
    virtual_time: bool,
    /// What is done follows from it [default: drawn by chance; reports tell it]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Between two events on average [default: 6s, in virtual time 45s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pace: Option<Duration>,
    /// The run's folder, which has to be empty or missing [default: one of its own in target/soak]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Go on with the run in this folder: with the rest of its time, in a new boot. Its own options count
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["output", "seed", "duration", "report_interval", "virtual_time", "pace", "leak"])]
    resume: Option<PathBuf>,
    /// A supervisor made for tests, which loses so many bytes with each restart: the run has to find it
    #[arg(long, value_name = "BYTES")]
    leak: Option<u32>,
    /// The guest's programs from the same code, but not optimised over all crates: built in a third of the time
    #[arg(long)]
    quick: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    guest: Guest,
}

impl Soak {
    pub fn run(&self) -> i32 {
        let mut guest = self.guest.options();
        if self.quick {
            guest.profile.programs = Build::Quick;
        }
        soak::run(&SoakOptions {
            guest,
            length: self.duration,
            interval: self.report_interval,
            virtual_time: self.virtual_time,
            seed: self.seed,
            pace: self.pace,
            output: self.output.clone(),
            resume: self.resume.clone(),
            json: self.json,
            leak_bytes: self.leak,
        })
    }
}

/// `90s`, `1.5h`.
fn time(text: &str) -> Result<Duration, String> {
    /// A month: nobody waits longer for a verdict.
    const MOST: f64 = 31.0 * 86_400.0;
    const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or("a unit is missing: ms, s, m, h or d")?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("'{number}' is no number"))?;
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("'{unit}' is none of ms, s, m, h, d"))?;
    let seconds = number * factor;
    let sound = seconds > 0.0 && seconds <= MOST;
    if sound {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it has to be above 0 and at most 31d".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        for (text, milliseconds) in [("250ms", 250), ("90s", 90_000), ("1.5h", 5_400_000), ("1d", 86_400_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)));
        }
        for bad in ["", "1", "h", "1y", "-1s", "0s", "1e9d", "NaNs"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
