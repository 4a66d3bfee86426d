//! `[environment]`: what the program finds around it.

use serde::{Deserialize, Serialize};

use super::reader::Reader;
use super::sockets::mode;
use super::values::{absolute_path, variables};

/// What the supervisor gives a process of which nothing is said.
const UMASK: u32 = 0o022;

/// The section.
const S: &str = "environment";

/// `[environment]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Variables for the process, as `NAME=VALUE`, or `NAME` to pass the supervisor's own on.
    pub variables: Vec<String>,
    /// Where it starts; `None` for `/`.
    pub working_directory: Option<String>,
    /// Permissions that files it makes do not get; `None` for 022.
    pub umask: Option<u32>,
}

/// The section.
pub(super) fn environment(r: &mut Reader<'_>) -> Environment {
    Environment {
        variables: r.get(S, "variables", variables).unwrap_or_default(),
        working_directory: r.get(S, "working_directory", absolute_path).filter(|path| path != "/"),
        umask: r.get(S, "umask", mode).filter(|mask| *mask != UMASK),
    }
}
