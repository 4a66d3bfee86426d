//! The commands about checkpoints: those that the supervisor carries out, and those about what is kept.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use yakiros_checkpoint::store::{Id, KEPT};

use crate::arguments::seconds;

const MAKE: &str = "\
Examples:
  graphctl checkpoint web                 what web is, to be had again by graphctl restore web
  graphctl checkpoint web --hold && backup; graphctl continue
  graphctl checkpoint --check             what is there, what is missing, and what would help
  graphctl checkpoint --check --json
  graphctl checkpoint --check --criu /opt/criu/sbin/criu

Its processes stand still while they are written down, clients wait, and its health is not looked at. For a
component with enabled = true below [checkpoint] in its file. One that cannot be made changes nothing.
Exit codes: 0 it is made, with --check: it could be; 1 not.";

const CONTINUE: &str = "\
Examples:
  graphctl continue                       everything that graphctl checkpoint --hold has left held
  graphctl continue --json

Nobody has to: what is held goes on by itself after a minute.";

const RESTORE: &str = "\
Examples:
  graphctl restore web                    as web was when its newest checkpoint was made
  graphctl restore web 20261122T081530.123456Z-9f3a61c2
  graphctl restore web --no-fallback      or not at all

What runs of it is stopped, after what needs it; its connections of then are those that it has again, if the
other end still has them. Without --no-fallback it is started anew where that cannot be, which is said.
Exit codes: 0 it runs, 1 it does not; with --no-fallback it has FAILED then, until it is started.";

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
  graphctl checkpoint-cleanup --keep 3 --quota 2G

What was left half made is removed, too. The oldest go first.";

const USAGE: &str = "\
Examples:
  graphctl checkpoint-usage
  graphctl checkpoint-usage --json";

const MIGRATE: &str = "\
Examples:
  graphctl migrate web --to web.tar       the newest checkpoint of web as one file, for another machine
  graphctl migrate web 20261122T081530.123456Z-9f3a61c2 --to web.tar
  graphctl migrate --from web.tar         there; then: graphctl restore web

The other machine needs the same processor architecture, the same programs and libraries at the same paths, the
files that were open, and a CRIU that is not older; what differs is said when it is taken in or restored. The
file holds what was in the processes' memory, and is root's alone. One that is damaged is not taken in.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Write a component's processes down, and return when that is done; or tell what that takes on this machine
    #[command(after_help = MAKE)]
    Checkpoint(Make),
    /// Let everything go on that a checkpoint has left held
    #[command(after_help = CONTINUE)]
    Continue,
    /// Make a component's processes from a checkpoint, in place of those that run, and return when they run
    #[command(after_help = RESTORE)]
    Restore(Restore),
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
    /// Write a checkpoint as one file for another machine, or take one in from there
    #[command(after_help = MIGRATE)]
    Migrate(Migrate),
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

/// Of what, and what follows.
#[derive(Debug, Args)]
pub struct Make {
    /// Component
    #[arg(required_unless_present = "check", conflicts_with = "check")]
    pub name: Option<String>,
    /// Leave its processes as they are then, until graphctl continue, for a minute at most
    #[arg(long, conflicts_with = "check")]
    pub hold: bool,
    /// Seconds for it, 120 at most; what takes longer is undone
    #[arg(long, value_parser = seconds, default_value = "120", value_name = "SECONDS")]
    pub timeout: Duration,
    /// Tell what checkpoints can hold on this machine, and do nothing
    #[arg(long)]
    pub check: bool,
    /// CRIU, as a path or a name, for --check
    #[arg(long, default_value = yakiros_checkpoint::criu::NAME, value_name = "PROGRAM", requires = "check")]
    pub criu: PathBuf,
}

/// From what.
#[derive(Debug, Args)]
pub struct Restore {
    /// Component
    pub name: String,
    /// As checkpoint-list shows it [default: the newest]
    #[arg(value_name = "ID")]
    pub id: Option<Id>,
    /// Do not start it anew where it cannot be made from a checkpoint
    #[arg(long)]
    pub no_fallback: bool,
    /// Seconds to wait until it runs
    #[arg(long, value_parser = seconds, default_value = "120", value_name = "SECONDS")]
    pub timeout: Duration,
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
    /// Bytes that all of them may have, as 500M or 2G [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub quota: Option<u64>,
    /// Where they are
    #[command(flatten)]
    pub place: Place,
}

/// Out or in.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Component
    #[arg(required_unless_present = "from", requires = "to")]
    pub name: Option<String>,
    /// As checkpoint-list shows it [default: the newest]
    #[arg(value_name = "ID", requires = "name")]
    pub id: Option<Id>,
    /// The file to write; nothing may be there
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// The file to take in, which may be called otherwise meanwhile; it has to be trusted as a program is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "to"])]
    pub from: Option<PathBuf>,
    /// Bytes that its images may have, as 500M or 2G [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = bytes, requires = "from")]
    pub quota: Option<u64>,
    /// Where checkpoints are
    #[command(flatten)]
    pub place: Place,
}

/// As a component file and the supervisor's options say a size.
fn bytes(text: &str) -> Result<u64, String> {
    yakiros_core::component::size(text).ok_or_else(|| "write bytes, as 500M or 2G".to_owned())
}

/// As many as a component file may say.
fn hours(text: &str) -> Result<Duration, String> {
    const MOST: u64 = 876_600;
    let hours = text.parse().ok().filter(|hours| *hours <= MOST);
    hours
        .map(|hours: u64| Duration::from_secs(hours * 3600))
        .ok_or_else(|| format!("write hours, from 0 to {MOST}"))
}
