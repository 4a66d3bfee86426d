//! Why a checkpoint, or what claims to be one, is not used.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::metadata::{FILE, FORMAT};

/// One reason; the first that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// `metadata.json` is not there, cannot be read, or says what cannot be.
    Metadata(String),
    /// It was written by a version that did it otherwise.
    Format(u32),
    /// It was made on machines of another kind.
    Architecture {
        /// What it says.
        found: String,
        /// What this machine is.
        here: String,
    },
    /// It is about another component, or has another name, than the place where it lies.
    Foreign(String),
    /// An image is listed and not there.
    Missing(String),
    /// Something is there and not listed.
    Unexpected(String),
    /// It is no regular file; links lead out of the directory.
    Kind(String),
    /// An image has more or fewer bytes than when it was written.
    Size {
        /// Its name.
        name: String,
        /// In bytes, as listed.
        listed: u64,
        /// In bytes, as it is.
        found: u64,
    },
    /// An image has other bytes than when it was written.
    Content(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(why) => write!(f, "its {FILE} cannot be used: {why}"),
            Self::Format(found) => write!(f, "it has format {found}; this version reads format {FORMAT}"),
            Self::Architecture { found, here } => {
                write!(f, "it was made on {found}, and this machine is {here}")
            }
            Self::Foreign(what) => write!(f, "it does not belong here: {what}"),
            Self::Missing(name) => write!(f, "its image {name} is missing"),
            Self::Unexpected(name) => write!(f, "it has {name:?}, which is not in its list"),
            Self::Kind(name) => write!(f, "its {name:?} is no regular file"),
            Self::Size { name, listed, found } => {
                write!(f, "its image {name} has {found} bytes and was written with {listed}")
            }
            Self::Content(name) => write!(f, "its image {name} was changed after it had been written"),
        }
    }
}

impl std::error::Error for Damage {}
