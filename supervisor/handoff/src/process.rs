//! The process's side: it starts, serves, gives, takes.

mod channel;
pub mod identity;
mod socket;
mod state;
mod successor;
mod transfer;

use std::fmt;
use std::io;

pub use channel::{Channel, Loan, Merge, Offer, Request, Rest, Verdict};
pub use socket::DESCRIPTORS_PER_MESSAGE;
pub use state::State;
pub use successor::{Ready, Start, Successor, start, start_in_parts};
pub use transfer::{DESCRIPTORS_LIMIT, Inheritance, Item, NAME_LIMIT};

/// The environment variable that names the channel's descriptor.
pub const VARIABLE: &str = "HANDOFF_FD";

/// Why a hand-over does not go on.
#[derive(Debug)]
pub enum Error {
    /// `HANDOFF_FD` does not name a usable descriptor, or was used before.
    Environment(String),
    /// The supervisor said what does not belong there.
    Protocol(String),
    /// The upgrade was called off, for this reason. A successor has nothing to do but to end.
    Aborted(String),
    /// A step failed: which one, to complete "failed to …", and why.
    Failed(&'static str, io::Error),
}

impl Error {
    fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Failed(what, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(what) => write!(f, "{VARIABLE}: {what}"),
            Self::Protocol(what) => write!(f, "unexpected from the supervisor: {what}"),
            Self::Aborted(why) => write!(f, "the upgrade was called off: {why}"),
            Self::Failed(what, error) => write!(f, "failed to {what}: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(_, error) => Some(error),
            _ => None,
        }
    }
}
