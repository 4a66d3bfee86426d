//! What checkpoints can hold on this machine: asked of CRIU and of the kernel by trying, once for each of both.
//!
//! A verdict that checkpoints can be made is kept until the kernel, its modules, the boot, the rights, CRIU or the programs
//! that it calls are others. What is missing is looked for again each time: somebody may be about to help.

mod cache;
mod diagnosis;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use cache::{Key, load, save};

use crate::child;
use crate::criu::{Criu, CriuError, has_nf_tables};
use crate::preflight::Socket;
use crate::store::Version;

/// For one question to CRIU: 0.1 s where it is quick, several seconds in emulated machines without a random number
/// instruction.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);
/// The CRIU that does not ask internet sockets for SO_PASSCRED.
const KNOWS_NEW_SOCKETS: Version = Version { major: 4, minor: 2, patch: 0 };

/// The module that keeps peers of connections waiting.
const NETWORK_LOCK: &str = "nf_tables";
/// What CRIU calls it that the kernel tells which memory has changed.
const DIRTY_TRACKING: &str = "mem_dirty_track";

/// Where the verdict is kept: nobody else can write there, and it is empty after the next boot.
pub const KEPT: &str = "/run/graph-criu.json";
/// What CRIU keeps files in memory by, and addresses and routes.
const TAR: &str = "tar";
const IP: &str = "ip";

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Under which it was found.
    pub key: Key,
    /// CRIU, if there is one.
    pub criu: Option<Found>,
    /// What can be done, in the order of need.
    pub features: Vec<Feature>,
}

/// A CRIU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// Something that a process may need of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// In a word, for programs.
    pub name: String,
    /// What it is good for.
    pub purpose: String,
    /// Without it there are no checkpoints at all.
    pub required: bool,
    /// Whether it is there.
    pub verdict: Verdict,
}

/// Whether something is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is.
    Supported,
    /// It is not.
    Missing {
        /// How that is known.
        why: String,
        /// What would help.
        help: Help,
    },
}

/// What would make a feature come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Help {
    /// A kernel module, to be loaded.
    Module(String),
    /// An option that the kernel was built without.
    Option(String),
    /// A package, with the version if an older one will not do.
    Package(String),
    /// A right.
    Right(String),
}

/// What is known before CRIU is asked: the answer, or what is missing.
pub(crate) type Answer = Result<(), (String, Help)>;

/// Something to ask for.
struct Question {
    name: &'static str,
    purpose: &'static str,
    required: bool,
    ask: Ask,
}

/// How.
enum Ask {
    /// The kernel, by trying.
    Kernel(fn() -> Answer),
    /// The kernel, for what this CRIU makes of it.
    Pair(fn(Version) -> Answer),
    /// `criu check`, alone or with the name of a feature; with what would help.
    Criu(Option<&'static str>, fn() -> Help),
    /// The kernel, by trying, and then `criu check` with the name of a feature.
    Both(fn() -> Answer, &'static str, fn() -> Help),
}

/// In the order of need. A feature that CRIU can check is asked of it; kernel modules are known better by trying.
const QUESTIONS: [Question; 16] = [
    Question {
        name: "rights",
        purpose: "to look into other processes and make them again",
        required: true,
        ask: Ask::Kernel(diagnosis::rights),
    },
    Question {
        name: "checkpoint-restore",
        purpose: "that the kernel gives a process the number it had",
        required: true,
        ask: Ask::Kernel(diagnosis::checkpoint_restore),
    },
    Question {
        name: "netfilter-netlink",
        purpose: "CRIU does not start without it",
        required: true,
        ask: Ask::Kernel(diagnosis::netfilter),
    },
    Question {
        name: "basics",
        purpose: "whatever CRIU itself cannot do without",
        required: true,
        ask: Ask::Criu(None, || Help::Option("CONFIG_CHECKPOINT_RESTORE".to_owned())),
    },
    Question {
        name: "unix-sockets",
        purpose: "processes with unix sockets",
        required: false,
        ask: Ask::Kernel(|| diagnosis::sockets(diagnosis::UNIX)),
    },
    Question {
        name: "tcp-sockets",
        purpose: "processes with TCP sockets",
        required: false,
        ask: Ask::Kernel(|| diagnosis::sockets(diagnosis::TCP)),
    },
    Question {
        name: "udp-sockets",
        purpose: "processes with UDP sockets",
        required: false,
        ask: Ask::Kernel(|| diagnosis::sockets(diagnosis::UDP)),
    },
    Question {
        name: "packet-sockets",
        purpose: "processes with packet sockets",
        required: false,
        ask: Ask::Kernel(|| diagnosis::sockets(diagnosis::PACKET)),
    },
    Question {
        name: "netlink-sockets",
        purpose: "processes with netlink sockets",
        required: false,
        ask: Ask::Kernel(|| diagnosis::sockets(diagnosis::NETLINK)),
    },
    Question {
        name: "socket-options",
        purpose: "internet sockets under Linux 6.16 and later",
        required: false,
        ask: Ask::Pair(|version| diagnosis::socket_options(version >= KNOWS_NEW_SOCKETS)),
    },
    Question {
        name: "network-lock",
        purpose: "that peers of connections wait while the process is not there",
        required: false,
        // CRIU keeps what it once found, and modules go.
        ask: Ask::Both(has_network_lock, "network_lock_nftables", || Help::Module(NETWORK_LOCK.to_owned())),
    },
    Question {
        name: "dirty-tracking",
        purpose: "rounds of memory before the dump, so that processes are frozen for less time",
        required: false,
        ask: Ask::Criu(Some(DIRTY_TRACKING), || Help::Option("CONFIG_MEM_SOFT_DIRTY".to_owned())),
    },
    Question {
        name: "pid-namespaces",
        purpose: "processes in pid namespaces, each with the number it had",
        required: false,
        ask: Ask::Criu(Some("clone3_set_tid"), || Help::Option("Linux 5.5 or later".to_owned())),
    },
    Question {
        name: "mount-namespaces",
        purpose: "processes with file systems of their own",
        required: false,
        ask: Ask::Criu(Some("move_mount_set_group"), || Help::Option("Linux 5.15 or later".to_owned())),
    },
    Question {
        name: "private-files",
        purpose: "the files in file systems of their own, as in a private /tmp",
        required: false,
        ask: Ask::Kernel(tar),
    },
    Question {
        name: "network-namespaces",
        purpose: "processes with a network of their own",
        required: false,
        ask: Ask::Kernel(ip),
    },
];

impl Report {
    /// What was found before, as far as it was kept there and holds, or everything anew.
    pub fn known(path: &Path, kept: &Path) -> Self {
        if let Some(report) = load(kept, path) {
            return report;
        }
        let report = Self::make(path, |_| true);
        if report.is_usable() {
            // All that it is good for is to be quicker the next time.
            let _ = save(kept, &report);
        }
        report
    }

    /// The same, or only what any process needs. Nothing is kept.
    pub fn required(path: &Path, kept: &Path) -> Self {
        load(kept, path).unwrap_or_else(|| Self::make(path, |question| question.required))
    }

    /// Ask what is to be asked.
    fn make(path: &Path, is_asked: impl Fn(&Question) -> bool) -> Self {
        let criu = Criu::find(path);
        let features = QUESTIONS.iter().filter(|question| is_asked(question)).map(|question| Feature {
            name: question.name.to_owned(),
            purpose: question.purpose.to_owned(),
            required: question.required,
            verdict: answer(&question.ask, &criu).into(),
        });
        let features = features.collect();
        let criu = criu.ok().map(|Criu { path, version }| Found { path, version });
        Self { key: Key::now(criu.as_ref().map_or(path, |found| &found.path)), criu, features }
    }

    /// Whether there can be checkpoints of any process.
    pub fn is_usable(&self) -> bool {
        let missing = |feature: &&Feature| feature.required && feature.verdict != Verdict::Supported;
        self.criu.is_some() && !self.features.iter().any(|feature| missing(&feature))
    }
}

fn answer(ask: &Ask, criu: &Result<Criu, CriuError>) -> Answer {
    let criu = || criu.as_ref().map_err(|error| (error.to_string(), Help::Package("criu".to_owned())));
    match ask {
        Ask::Kernel(ask) => ask(),
        Ask::Pair(ask) => ask(criu()?.version),
        Ask::Criu(feature, help) => check(criu()?, *feature).map_err(|why| (why, help())),
        Ask::Both(ask, feature, help) => {
            ask()?;
            check(criu()?, Some(feature)).map_err(|why| (why, help()))
        }
    }
}

/// CRIU keeps files in memory by a program, with options that others of its name do not have.
pub(crate) fn tar() -> Answer {
    program(TAR, "--version", "GNU tar")
}

/// The same for addresses and routes.
pub(crate) fn ip() -> Answer {
    program(IP, "-V", "iproute2")
}

/// Whether a program is that of a package, by what it says of itself.
fn program(name: &str, flag: &str, package: &str) -> Answer {
    let help = || Help::Package(package.to_owned());
    match child::run(Command::new(name).arg(flag), QUESTION_LIMIT) {
        Ok(ended) if ended.output.contains(package) => Ok(()),
        Ok(_) => Err((format!("the program {name} is not that of {package}"), help())),
        Err(error) => Err((format!("{name}: {error}"), help())),
    }
}

/// Whether the kernel has now what keeps packets back.
fn has_network_lock() -> Answer {
    let help = || Help::Module(NETWORK_LOCK.to_owned());
    if has_nf_tables() { Ok(()) } else { Err(("the kernel has no nf_tables".to_owned(), help())) }
}

/// Whether memory can be copied in several rounds here.
pub(crate) fn tracks_memory(criu: &Criu) -> bool {
    check(criu, Some(DIRTY_TRACKING)).is_ok()
}

/// What the kernel lacks for these sockets, each with what would help. CRIU says of it that something failed, and nothing of
/// modules.
pub(crate) fn lacks(sockets: &BTreeSet<Socket>) -> Vec<String> {
    let kind = |socket: &Socket| match socket {
        Socket::TcpConnected | Socket::TcpListening | Socket::Tcp => Some(diagnosis::TCP),
        Socket::Udp => Some(diagnosis::UDP),
        Socket::Unix => Some(diagnosis::UNIX),
        Socket::Packet => Some(diagnosis::PACKET),
        Socket::Netlink => Some(diagnosis::NETLINK),
        Socket::Raw => None,
    };
    let mut lacks: Vec<_> = sockets
        .iter()
        .filter_map(|socket| diagnosis::sockets(kind(socket)?).err())
        .map(|(why, help)| format!("the kernel does not list such sockets ({why}): {help}"))
        .collect();
    if sockets.contains(&Socket::TcpConnected) && !has_nf_tables() {
        let help = Help::Module(NETWORK_LOCK.to_owned());
        lacks.push(format!("peers of its connections cannot be kept waiting: {help}"));
    }
    lacks.dedup();
    lacks
}

/// `criu check`; why not.
fn check(criu: &Criu, feature: Option<&str>) -> Result<(), String> {
    let mut command = Command::new(&criu.path);
    command.args(["check", "--no-default-config"]);
    if let Some(feature) = feature {
        command.args(["--feature", feature]);
    }
    let ended = child::run(&mut command, QUESTION_LIMIT).map_err(|error| error.to_string())?;
    match ended.status {
        Some(status) if status.success() => Ok(()),
        Some(_) => {
            let reasons = crate::criu::reasons(&ended.output);
            let said = ended.output.lines().last().unwrap_or("it says nothing");
            // `Warn  (criu/cr-check.c:824): text`.
            let said = said.split_once("): ").map_or(said, |(_, text)| text).trim().to_owned();
            Err(reasons.into_iter().next().unwrap_or(said))
        }
        None => Err(format!("CRIU did not answer within {} s", QUESTION_LIMIT.as_secs())),
    }
}

impl From<Answer> for Verdict {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(()) => Self::Supported,
            Err((why, help)) => Self::Missing { why, help },
        }
    }
}

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(name) => write!(f, "load the kernel module {name}"),
            Self::Option(name) => write!(f, "a kernel with {name}"),
            Self::Package(name) => write!(f, "install {name}"),
            Self::Right(name) => write!(f, "run it with {name}"),
        }
    }
}

/// In words, with what it means here.
fn said(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[(bool, bool)]) -> Report {
        let features = verdicts.iter().map(|(required, supported)| Feature {
            name: "x".to_owned(),
            purpose: "tests".to_owned(),
            required: *required,
            verdict: if *supported {
                Verdict::Supported
            } else {
                Verdict::Missing { why: "none".to_owned(), help: Help::Module("x_diag".to_owned()) }
            },
        });
        let features = features.collect();
        let version = Version { major: 4, minor: 2, patch: 1 };
        let criu = Some(Found { path: "/usr/sbin/criu".into(), version });
        Report { key: Key::now(Path::new("/usr/sbin/criu")), criu, features }
    }

    #[test]
    fn only_what_is_required_makes_it_unusable() {
        assert!(report(&[(true, true), (false, false)]).is_usable());
        assert!(!report(&[(true, false), (false, true)]).is_usable());
        assert!(!Report { criu: None, ..report(&[]) }.is_usable());
    }

    #[test]
    fn without_criu_the_kernel_is_judged_all_the_same() {
        let report = Report::make(Path::new("/nowhere/criu"), |_| true);
        assert!(report.criu.is_none() && !report.is_usable());
        assert_eq!(report.features.len(), QUESTIONS.len());
        for (feature, question) in report.features.iter().zip(&QUESTIONS) {
            let about_criu = matches!(
                &feature.verdict,
                Verdict::Missing { why, help: Help::Package(_) } if why.contains("/nowhere/criu")
            );
            assert_eq!(about_criu, !matches!(question.ask, Ask::Kernel(_)), "{feature:?}");
        }
    }
}
