//! The command line of `graph-resolver`. A few flags do not need a library in PID 1.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use yakiros_core::control::SOCKET;

/// Shown by `--help`.
pub const HELP: &str = "\
graph-resolver - starts and looks after the components declared in a directory

Usage: graph-resolver [OPTIONS]

As process 1 it mounts the early file systems, and powers off or restarts the
machine at the end. With any other process id it runs in user mode: the same
supervision, no mounts, no reboot.

Options:
  --config-dir DIR       component files, *.toml    [default: /etc/graph.d]
  --control-socket PATH  socket for graphctl        [default: /run/graph-resolver.sock]
  --control-group NAME|GID
                         only root and this group may connect to the socket;
                         what changes things is root's alone all the same
                                                   [default: everybody may]
  --state-dir DIR        logs and readiness sockets [default: /run/graph]
  --cgroup-root PATH     cgroup v2 directory; components go to PATH/graph, and
                         the supervisor, if it is in PATH itself, to
                         PATH/supervisor
                                                    [default: /sys/fs/cgroup]
  --checkpoints DIR      where checkpoints are kept
                                     [default: /var/lib/graph/checkpoints]
  --checkpoint-quota BYTES
                         what all of them may take, as 500M or 2G: the oldest
                         that is not in use goes for a new one
                                                           [default: no limit]
  --checkpoint-program PATH
                         makes them  [default: graph-checkpoint beside this one]
  --criu PATH            CRIU, as a path or a name in PATH       [default: criu]
  --log kmsg|stderr      where messages go    [default: kmsg as process 1, else stderr]
  --help                 this text
  --version              name and version

Signals: TERM power off (user mode: exit), INT restart, USR1 read the
declarations again, USR2 write all states to the log.

Examples:
  graph-resolver --config-dir ./graph.d --control-socket ./sock --state-dir ./state
  GRAPHCTL_SOCKET=./sock graphctl status
";

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// The kernel's log.
    Kmsg,
    /// Standard error.
    Stderr,
}

/// The parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory of component files.
    pub config_dir: PathBuf,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// The group that may connect, by name or number; everybody when absent.
    pub control_group: Option<String>,
    /// Directory of logs and readiness sockets.
    pub state_dir: PathBuf,
    /// Mount point of cgroup v2, or a directory in it that is ours.
    pub cgroup_root: PathBuf,
    /// Directory of checkpoints.
    pub checkpoints: PathBuf,
    /// Bytes that all of them may take together.
    pub checkpoint_quota: Option<u64>,
    /// The program that makes them; the one beside this one when absent.
    pub checkpoint_program: Option<PathBuf>,
    /// CRIU, as a path or a name.
    pub criu: PathBuf,
    /// Where messages go; by mode when absent.
    pub log: Option<LogTarget>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config_dir: yakiros_files::DIRECTORY.into(),
            control_socket: SOCKET.into(),
            control_group: None,
            state_dir: "/run/graph".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            checkpoints: yakiros_checkpoint::store::KEPT.into(),
            checkpoint_quota: None,
            checkpoint_program: None,
            criu: yakiros_checkpoint::criu::NAME.into(),
            log: None,
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, until the command line is read")]
pub enum Command {
    /// Run.
    Run(Options),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// A command line that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Read the arguments after the program's name. `--flag value` and `--flag=value` are the same.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if let Some(other) = take(&mut options, &arg, &mut args)? {
            return Ok(other);
        }
    }
    Ok(Command::Run(options))
}

/// The same for process 1, which must start whatever it is given: the kernel passes words of its
/// own command line that it does not know. What makes no sense is returned, the rest holds.
pub fn parse_as_init(args: impl IntoIterator<Item = OsString>) -> (Options, Vec<UsageError>) {
    let mut options = Options::default();
    let mut mistakes = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match take(&mut options, &arg, &mut args) {
            Ok(None) => {}
            Ok(Some(_)) => mistakes.push(UsageError(format!("process 1 cannot do {}", arg.display()))),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    (options, mistakes)
}

/// Take one argument, and its value from those that follow. A command other than to run ends it.
fn take(
    options: &mut Options,
    arg: &OsString,
    rest: &mut impl Iterator<Item = OsString>,
) -> Result<Option<Command>, UsageError> {
    let text = arg.to_string_lossy().into_owned();
    let (flag, inline) = match text.split_once('=') {
        Some((flag, value)) => (flag.to_owned(), Some(OsString::from(value))),
        None => (text.clone(), None),
    };
    let mut value = || {
        inline
            .clone()
            .or_else(|| rest.next())
            .filter(|value| !value.is_empty())
            .ok_or_else(|| UsageError(format!("{flag} needs a value; see --help")))
    };
    match flag.as_str() {
        "--help" | "-h" => return Ok(Some(Command::Help)),
        "--version" | "-V" => return Ok(Some(Command::Version)),
        "--config-dir" => options.config_dir = value()?.into(),
        "--control-socket" => options.control_socket = value()?.into(),
        "--control-group" => options.control_group = Some(value()?.to_string_lossy().into_owned()),
        "--state-dir" => options.state_dir = value()?.into(),
        "--cgroup-root" => options.cgroup_root = value()?.into(),
        "--checkpoints" => options.checkpoints = value()?.into(),
        "--checkpoint-quota" => options.checkpoint_quota = Some(bytes(&value()?)?),
        "--checkpoint-program" => options.checkpoint_program = Some(value()?.into()),
        "--criu" => options.criu = value()?.into(),
        "--log" => options.log = Some(log_target(&value()?)?),
        _ => return Err(UsageError(format!("unknown argument {text:?}; see --help"))),
    }
    Ok(None)
}

fn bytes(value: &OsString) -> Result<u64, UsageError> {
    value.to_str().and_then(yakiros_core::component::size).ok_or_else(|| {
        UsageError(format!("--checkpoint-quota is a size like 500M or 2G, not {}", value.display()))
    })
}

fn log_target(value: &OsString) -> Result<LogTarget, UsageError> {
    match value.to_str() {
        Some("kmsg") => Ok(LogTarget::Kmsg),
        Some("stderr") => Ok(LogTarget::Stderr),
        _ => Err(UsageError(format!("--log is kmsg or stderr, not {}", value.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Command, UsageError> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn the_help_names_the_places_that_are_taken() {
        assert!(HELP.contains(&format!("[default: {}]", yakiros_checkpoint::store::KEPT)));
        assert!(HELP.contains(&format!("[default: {SOCKET}]")));
    }

    #[test]
    fn flags_take_their_value_either_way() {
        let Ok(Command::Run(options)) = read(&["--config-dir=/a", "--state-dir", "/b"]) else {
            panic!("refused");
        };
        assert_eq!(options.config_dir, PathBuf::from("/a"));
        assert_eq!(options.state_dir, PathBuf::from("/b"));
        assert_eq!(options.cgroup_root, Options::default().cgroup_root);
    }

    #[test]
    fn process_one_keeps_what_makes_sense() {
        let args =
            ["quiet", "--config-dir=/a", "--help", "--log", "syslog", "--state-dir", "/b", "--cgroup-root"];
        let (options, mistakes) = parse_as_init(args.map(OsString::from));
        let good = Options { config_dir: "/a".into(), state_dir: "/b".into(), ..Options::default() };
        assert_eq!(options, good);
        let mistakes: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        for (mistake, part) in mistakes.iter().zip(["\"quiet\"", "--help", "syslog", "--cgroup-root needs"]) {
            assert!(mistake.contains(part), "{mistakes:?}");
        }
        assert_eq!(mistakes.len(), 4);
    }

    #[test]
    fn a_quota_is_a_size() {
        for (text, bytes) in [("500", 500), ("2G", 2 << 30)] {
            let Ok(Command::Run(options)) = read(&["--checkpoint-quota", text]) else { panic!("{text}") };
            assert_eq!(options.checkpoint_quota, Some(bytes));
        }
        let error = read(&["--checkpoint-quota=much"]).expect_err("no size").to_string();
        assert_eq!(error, "--checkpoint-quota is a size like 500M or 2G, not much");
    }

    #[test]
    fn mistakes_name_the_argument() {
        for (args, part) in [
            (&["--config-dir"][..], "--config-dir needs a value"),
            (&["--conf"][..], "\"--conf\""),
            (&["--log", "syslog"][..], "kmsg or stderr"),
        ] {
            let error = read(args).expect_err("accepted").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
