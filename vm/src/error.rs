//! What can go wrong with a machine, and whose fault it is.

use std::fmt;
use std::io;
use std::time::Duration;

use yakiros_guest::protocol::GuestError;

use crate::console::Finding;
use crate::qmp::ShutdownCause;

/// A machine that did not do what it was asked to.
#[derive(Debug)]
pub struct VmError {
    /// What was attempted; the message reads "failed to {attempt}: {kind}".
    pub attempt: String,
    /// What happened.
    pub kind: VmErrorKind,
}

/// Kinds of [`VmError`].
#[derive(Debug)]
pub enum VmErrorKind {
    /// The host's system refused something.
    Host(io::Error),
    /// QEMU ended when it should not have.
    QemuEnded {
        /// Exit code or signal, in words.
        status: String,
        /// The last lines it printed.
        stderr: String,
    },
    /// The guest powered off, reset or stopped itself when it should have stayed.
    GuestEnded(ShutdownCause),
    /// QEMU refused a QMP command, or broke the protocol.
    Qmp(String),
    /// The guest's kernel has failed.
    GuestKernel(Finding),
    /// The agent's channel has closed, or the agent broke the protocol.
    AgentLost(String),
    /// The agent answered with an error.
    Guest(GuestError),
    /// The guest answers nothing at all, though its QEMU runs.
    Silent {
        /// For how long.
        limit: Duration,
        /// The last lines of the console.
        console: String,
    },
    /// Something took longer than its limit.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The last lines of the console: what the guest was doing.
        console: String,
    },
}

/// Who has to look into a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The machine this runs on.
    Host,
    /// QEMU.
    Vmm,
    /// The kernel in the guest.
    GuestKernel,
    /// What runs as PID 1: the guest ended because PID 1 did, or told it to.
    Init,
    /// The agent, or what ended it while QEMU ran on.
    Agent,
    /// The request: a file that is not there, a program that cannot be run.
    Request,
    /// Somebody used up the time.
    Budget,
}

impl VmError {
    /// An error of `kind` that happened in `attempt`.
    pub fn new(attempt: impl Into<String>, kind: VmErrorKind) -> Self {
        Self { attempt: attempt.into(), kind }
    }

    /// For `map_err` on results of the host's system.
    pub fn host(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |error| Self { attempt, kind: VmErrorKind::Host(error) }
    }

    /// Who has to look into it.
    pub fn blame(&self) -> Blame {
        match self.kind {
            VmErrorKind::Host(_) => Blame::Host,
            VmErrorKind::QemuEnded { .. } | VmErrorKind::Qmp(_) => Blame::Vmm,
            VmErrorKind::AgentLost(_) => Blame::Agent,
            VmErrorKind::GuestKernel(ref finding) if finding.is_end_of_init() => Blame::Init,
            VmErrorKind::GuestKernel(_) | VmErrorKind::Silent { .. } => Blame::GuestKernel,
            VmErrorKind::GuestEnded(_) => Blame::Init,
            VmErrorKind::Guest(_) => Blame::Request,
            VmErrorKind::TimedOut { .. } => Blame::Budget,
        }
    }
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.attempt, self.kind)
    }
}

impl fmt::Display for VmErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::QemuEnded { status, stderr } if stderr.is_empty() => write!(f, "QEMU ended ({status})"),
            Self::QemuEnded { status, stderr } => write!(f, "QEMU ended ({status}): {stderr}"),
            Self::GuestEnded(cause) => write!(f, "the guest ended by itself ({})", cause.describe()),
            Self::Qmp(message) => write!(f, "QMP: {message}"),
            Self::GuestKernel(finding) if finding.is_end_of_init() => {
                write!(f, "PID 1 of the guest ended: {}", finding.title)
            }
            Self::GuestKernel(finding) => write!(f, "the guest's kernel failed: {}", finding.title),
            Self::AgentLost(message) => write!(f, "the agent is lost: {message}"),
            Self::Guest(error) => error.fmt(f),
            Self::Silent { limit, console } => {
                write!(
                    f,
                    "the guest is stuck: for {limit:.0?} its agent, which stands beside process 1, has answered nothing; \
                     the console's last lines:\n{console}"
                )
            }
            Self::TimedOut { limit, console } if console.is_empty() => {
                write!(f, "no answer in {limit:.1?}, and nothing on the console")
            }
            Self::TimedOut { limit, console } => {
                write!(f, "no answer in {limit:.1?}; the console's last lines:\n{console}")
            }
        }
    }
}

impl std::error::Error for VmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            VmErrorKind::Host(error) => Some(error),
            VmErrorKind::Guest(error) => Some(error),
            _ => None,
        }
    }
}
