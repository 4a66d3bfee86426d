//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use yakiros_core::component::Strategy;
use yakiros_core::control::SOCKET;

use crate::checkpoints::arguments::CheckpointCommand;
use crate::files::arguments::FileCommand;
use crate::graph::arguments::Question;
use crate::kexec::arguments::{self as kexec, Kexec};
use crate::manual::Shell;
use crate::top::Top;

const EXAMPLES: &str = "\
Examples:
  graphctl status                         all components and a summary
  graphctl status web --json              one, for a program
  graphctl status --watch                 all, again whenever something changes
  graphctl tree web                       what web needs, down to the kernel
  graphctl restart web                    returns when web runs again
  graphctl wait web --state ACTIVE --timeout 10
  graphctl wait --settled && echo up      after changes to /etc/graph.d
  graphctl events --since 120             what changed since revision 120, and why
  graphctl events -f                      what changes from now on, after all that is remembered
  graphctl log web -f --since 10m         what web wrote, and what it goes on to write
  graphctl why web                        from web's newest change back to where it began
  graphctl top --sort memory              what each uses, now and again
  graphctl inspect web                    what the kernel says of web's process, next to its file
  graphctl audit                          how exposed each component is, and how to close it
  graphctl freeze web                     nothing of web runs until graphctl thaw web
  graphctl simulate remove network        what would go down with it
  graphctl check-cycles                   1 if components wait for each other for ever
  graphctl dot | dot -Tsvg > graph.svg    a picture, drawn by Graphviz
  graphctl lint                           check /etc/graph.d, without a supervisor
  graphctl explain Y0102                  what a code in its findings means
  graphctl checkpoint --check             whether processes can be written down here, and what would help
  graphctl checkpoint web                 write web's processes down; graphctl restore web has them again

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no supervisor.";

/// Look at and command the components that graph-resolver supervises.
#[derive(Debug, Parser)]
#[command(name = "graphctl", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    /// Socket of the supervisor
    #[arg(
        long,
        global = true,
        env = "GRAPHCTL_SOCKET",
        default_value = SOCKET,
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    /// Write JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// [`Strategy`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum StrategyArgument {
    /// Everything.
    AllAtOnce,
    /// New connections first, everything else when it has served those for a time.
    Canary,
}

impl From<StrategyArgument> for Strategy {
    fn from(argument: StrategyArgument) -> Self {
        match argument {
            StrategyArgument::AllAtOnce => Self::AllAtOnce,
            StrategyArgument::Canary => Self::Canary,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the state of all components, or of one
    Status {
        /// Component
        name: Option<String>,
        /// Show it again whenever something changes; with SECONDS also that often
        #[arg(long, value_name = "SECONDS", value_parser = pace, num_args = 0..=1, default_missing_value = "")]
        watch: Option<Pace>,
    },
    /// Show all capabilities, whether they are up, and who provides them
    #[command(alias = "capabilities")]
    Caps,
    /// Show what a component needs, and what that needs, down to the kernel
    Tree {
        /// Component
        name: String,
    },
    /// Show the components that wait, and for which capabilities
    Pending,
    /// Start a component, and return when it runs
    Start {
        /// Component
        name: String,
        /// Seconds to wait for it
        #[arg(long, value_parser = seconds, default_value = "60", value_name = "SECONDS")]
        timeout: Duration,
    },
    /// Stop a component until it is started again, and return when it is stopped
    Stop {
        /// Component
        name: String,
        /// Seconds to wait for it
        #[arg(long, value_parser = seconds, default_value = "60", value_name = "SECONDS")]
        timeout: Duration,
    },
    /// Stop and start a component, and return when it runs again
    Restart {
        /// Component
        name: String,
        /// Seconds to wait for it
        #[arg(long, value_parser = seconds, default_value = "60", value_name = "SECONDS")]
        timeout: Duration,
    },
    /// Replace a component's process in the best way that it declares, and return when the new runs
    ///
    /// Several are upgraded one after the other, what others need before those that need it; the first failure ends
    /// that, and what was and was not done is said.
    Upgrade {
        /// Components
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Every component that is up, but for those that have done their work
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Wait for an upgrade of the component that is under way, in place of being refused
        #[arg(long)]
        queue: bool,
        /// Refuse if it would be done in a lesser way than declared
        #[arg(long)]
        no_fallback: bool,
        /// How much the new process takes over at once [default: that of hotswap.strategy]
        ///
        /// canary: only new connections for the time of hotswap.probation, while the old one serves those that it has;
        /// then everything else, or nothing if the new one did badly.
        #[arg(long, value_enum, value_name = "STRATEGY")]
        strategy: Option<StrategyArgument>,
        /// Seconds to wait for each
        #[arg(long, value_parser = seconds, default_value = "60", value_name = "SECONDS")]
        timeout: Duration,
    },
    /// Keep components from running until they are thawed, and return when they stand still
    ///
    /// Everything of a component stands still where it is: its memory, its descriptors and its connections stay, and who
    /// asks it for something waits. What it provides stays up; it is neither probed nor expected to say that it is alive.
    Freeze {
        /// Components
        #[arg(required = true)]
        names: Vec<String>,
        /// Seconds for each, 10 at most; one that does not stand still by then is thawed again
        #[arg(long, value_parser = seconds, default_value = "10", value_name = "SECONDS")]
        timeout: Duration,
    },
    /// Let components run again that were frozen, and return when they do
    Thaw {
        /// Components
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Show how components say that they are ready, and whether they have
    #[command(alias = "check-readiness")]
    Readiness {
        /// Component; all without one
        name: Option<String>,
    },
    /// Send a component its reload signal; without a name read all component files again
    Reload {
        /// Component
        name: Option<String>,
    },
    /// Try everything again that waits, backs off or has failed
    Resolve,
    /// Show the last lines that a component wrote, each with the time at which it began
    Log(Log),
    /// Return when a component is in a state, when all rest, or when a file is rejected
    Wait(Wait),
    /// Show the changes of state that the supervisor remembers, with their causes
    Events {
        /// Component; all without one
        name: Option<String>,
        /// Only those newer than this revision
        #[arg(long, default_value_t = 0, value_name = "REV")]
        since: u64,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Show what led to the newest change of a component, back to a request, a file or an exit
    Why {
        /// Component; may be one that is no longer declared
        name: String,
    },
    /// Compare what a component asks for with what the kernel says of its process: namespaces, mounts, limits,
    /// capabilities, system calls
    Inspect {
        /// Component
        name: String,
    },
    /// Show what each component uses: processor, memory, disks, processes, and how much it is held up by the lack of them
    Top(Top),
    /// Show the slices, what they are limited to, and how much is in them
    Slices,
    /// Judge what somebody gets who takes a component's program over, and say what would close it
    Audit {
        /// Component; all without one
        name: Option<String>,
        /// Fail if one is more exposed than this, from 0 to 10
        #[arg(long, value_parser = exposure, value_name = "EXPOSURE")]
        threshold: Option<f64>,
    },
    /// About the graph as a whole
    #[command(flatten)]
    Graph(Question),
    /// About component files
    #[command(flatten)]
    Files(FileCommand),
    /// About checkpoints
    #[command(flatten)]
    Checkpoints(CheckpointCommand),
    /// Go on under another kernel, with every service as it is
    #[command(after_help = kexec::EXAMPLES)]
    Kexec(Kexec),
    /// Stop everything and switch the machine off
    Poweroff,
    /// Execute the supervisor's program again, as it is on the disk now: an upgrade of process 1 in
    /// place. Components notice nothing; if the program is unusable, nothing happens at all
    Reexec,
    /// Stop everything and restart the machine
    Reboot,
    /// Print a script that completes commands, options and names
    Completions {
        /// Shell
        shell: Shell,
    },
    /// Print the manual page of graphctl, or write those of all commands
    Man {
        /// Write NAME.1 of every command to this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the names of all components, for completions
    #[command(hide = true)]
    Names,
}

/// Which lines `log` shows.
#[derive(Debug, Args)]
pub struct Log {
    /// Component
    pub name: String,
    /// Number of lines; 20 if neither it nor a time is given
    #[arg(conflicts_with = "count")]
    pub lines: Option<u32>,
    /// The same
    #[arg(short = 'n', long = "lines", id = "count", value_name = "LINES")]
    pub count: Option<u32>,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines that began since then: an age, as 90s, 10m, 2h or 1d, or a time of RFC 3339
    #[arg(long, value_parser = crate::clock::parse_since, value_name = "TIME")]
    pub since: Option<i64>,
}

/// Conditions of `wait`. All are level-triggered: what holds already returns at once.
#[derive(Debug, Args)]
pub struct Wait {
    /// Component; need not be declared yet
    #[arg(requires = "state", conflicts_with_all = ["settled", "rejected"])]
    pub name: Option<String>,
    /// State to wait for, for example ACTIVE, FAILED or REMOVED
    #[arg(long, value_name = "STATE", requires = "name")]
    pub state: Option<String>,
    /// Only count a change newer than this revision
    #[arg(long, value_name = "REV", requires = "state")]
    pub since: Option<u64>,
    /// Wait until every component is at rest
    #[arg(long, conflicts_with = "rejected")]
    pub settled: bool,
    /// Wait until this component file is rejected
    #[arg(long, value_name = "FILE")]
    pub rejected: Option<String>,
    /// Give up after this many seconds
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    pub timeout: Option<Duration>,
}

/// A non-negative number of seconds, at most a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 86_400.0;
    let number = text.parse::<f64>().ok();
    let number = number.filter(|seconds| (0.0..=LONGEST).contains(seconds));
    number.map(Duration::from_secs_f64).ok_or_else(|| "write seconds, as 5 or 0.5, at most a day".to_owned())
}

/// A number of [`crate::audit`]'s scale.
fn exposure(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=10.0).contains(number));
    number.ok_or_else(|| "write a number from 0 to 10".to_owned())
}

/// When `status --watch` shows it again.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// When something changes.
    Changes,
    /// Also that long after the last time.
    AtLeast(Duration),
}

impl Pace {
    /// The longest wait for a change.
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::Changes => None,
            Self::AtLeast(every) => Some(every),
        }
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    if text.is_empty() {
        return Ok(Pace::Changes);
    }
    let usage = || "write seconds, as 5 or 0.5, from 0.1 to a day".to_owned();
    let every = seconds(text).ok().filter(|every| *every >= SHORTEST).ok_or_else(usage)?;
    Ok(Pace::AtLeast(every))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        super::Arguments::command().debug_assert();
        crate::manual::command().debug_assert();
    }
}
