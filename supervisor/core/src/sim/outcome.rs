//! How a run ends.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::Options;

/// What a run that kept every promise did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Events handled by the engine.
    pub steps: u64,
    /// Effects that it wanted.
    pub effects: u64,
    /// Virtual time that passed.
    pub time: Duration,
    /// Digest of every event and every effect, after each step.
    pub digests: Rc<[u64]>,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A checker saw a promise broken.
    Broken {
        /// Which.
        checker: &'static str,
        /// How.
        message: String,
    },
    /// Faults had ended, and after the time that everything may take to come up something had not.
    Stuck {
        /// What, and what stands in its way.
        message: String,
    },
    /// The engine never comes to rest.
    Endless,
    /// The engine panicked.
    Panicked {
        /// With this message.
        message: String,
    },
    /// The same seed gave another run.
    Differs,
}

impl Reason {
    /// The checker, or the kind of failure.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Broken { checker, .. } => checker,
            Self::Stuck { .. } => "convergence",
            Self::Endless => "rest",
            Self::Panicked { .. } => "panic",
            Self::Differs => "determinism",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { message, .. } | Self::Stuck { message } => f.write_str(message),
            Self::Endless => f.write_str("it does not come to rest"),
            Self::Panicked { message } => write!(f, "the engine panicked: {message}"),
            Self::Differs => f.write_str("the same seed gave another run from here on"),
        }
    }
}

/// Part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Anything may fail, anybody may ask for anything.
    Safety,
    /// Nothing fails any more: everything must come up that can.
    Liveness,
    /// Everything is stopped.
    Shutdown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safety => "safety phase",
            Self::Liveness => "liveness phase",
            Self::Shutdown => "shutdown",
        })
    }
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Shows it again.
    pub seed: u64,
    /// Everything that was drawn from the seed.
    pub options: Options,
    /// Where it was.
    pub phase: Phase,
    /// Events handled until then.
    pub step: u64,
    /// Virtual time.
    pub time: Duration,
    /// Why.
    pub reason: Reason,
    /// The last events and effects before it, oldest first.
    pub history: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "options: {}", self.options)?;
        for line in &self.history {
            writeln!(f, "{line}")?;
        }
        let Self { seed, phase, step, time, reason, .. } = self;
        write!(f, "seed {seed}, {phase}, step {step}, {time:?}: {}: {reason}", reason.name())
    }
}

impl std::error::Error for Failure {}
