//! The commands about checkpoints.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use yakiros_checkpoint::store::{Id, KEPT};

const CHECK: &str = "\
Examples:
  graphctl checkpoint --check             what is there, what is missing, and what would help
  graphctl checkpoint --check --json
  graphctl checkpoint --check --criu /opt/criu/sbin/criu

Exit codes: 0 checkpoints can be made here, 1 they cannot.";

const LIST: &str = "\
Examples:
  graphctl checkpoint-list                all, newest first
  graphctl checkpoint-list web
  graphctl checkpoint-list --dir /mnt/checkpoints

Images are not read: a checkpoint that can plainly not be used is listed with the reason.";

const REMOVE: &str = "\
Example:
  graphctl checkpoint-rm web 20261122T081530.123456Z-9f3a61c2

One that is being restored, or read, is not removed.";

const CLEANUP: &str = "\
Examples:
  graphctl checkpoint-cleanup             all but the newest ten of each component
  graphctl checkpoint-cleanup --max-age 48
  graphctl checkpoint-cleanup --keep 3 --quota 2147483648

What was left half made is removed, too. The oldest go first.";

const USAGE: &str = "\
Examples:
  graphctl checkpoint-usage
  graphctl checkpoint-usage --json";

/// Commands that need no supervisor.
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Tell what checkpoints can hold on this machine
    #[command(after_help = CHECK)]
    Checkpoint(Check),
    /// Show the checkpoints that are kept
    #[command(after_help = LIST)]
    CheckpointList {
        /// Component; all without one
        name: Option<String>,
        /// Where they are
        #[command(flatten)]
        place: Place,
    },
    /// Remove a checkpoint
    #[command(after_help = REMOVE)]
    CheckpointRm {
        /// Component
        name: String,
        /// As checkpoint-list shows it
        #[arg(value_name = "ID")]
        id: Id,
        /// Where they are
        #[command(flatten)]
        place: Place,
    },
    /// Remove the checkpoints that are too many, too old or too large
    #[command(after_help = CLEANUP)]
    CheckpointCleanup(Cleanup),
    /// Show how much room the checkpoints of each component take
    #[command(after_help = USAGE)]
    CheckpointUsage {
        /// Where they are
        #[command(flatten)]
        place: Place,
    },
}

/// Where checkpoints are.
#[derive(Debug, Args)]
pub struct Place {
    /// Directory of the checkpoints
    #[arg(long, default_value = KEPT, value_name = "DIR")]
    pub dir: PathBuf,
}

/// How to find out.
#[derive(Debug, Args)]
pub struct Check {
    /// Find it out, and do nothing
    #[arg(long, required = true)]
    pub check: bool,
    /// CRIU, as a path or a name
    #[arg(long, default_value = yakiros_checkpoint::criu::NAME, value_name = "PROGRAM")]
    pub criu: PathBuf,
}

/// What is kept.
#[derive(Debug, Args)]
pub struct Cleanup {
    /// Hours that a checkpoint is kept [default: no limit]
    #[arg(long, value_parser = hours, value_name = "HOURS")]
    pub max_age: Option<Duration>,
    /// Checkpoints of each component that are kept
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub keep: usize,
    /// Bytes that all of them may have [default: no limit]
    #[arg(long, value_name = "BYTES")]
    pub quota: Option<u64>,
    /// Where they are
    #[command(flatten)]
    pub place: Place,
}

/// As many as a component file may say.
fn hours(text: &str) -> Result<Duration, String> {
    const MOST: u64 = 876_600;
    let hours = text.parse().ok().filter(|hours| *hours <= MOST);
    hours
        .map(|hours: u64| Duration::from_secs(hours * 3600))
        .ok_or_else(|| format!("write hours, from 0 to {MOST}"))
}
