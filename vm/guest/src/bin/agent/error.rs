//! Errors as the host gets them.

use std::io;

use nix::libc;
use yakiros_guest::protocol::{ErrorKind, GuestError};

/// An error of a request that makes no sense.
pub fn invalid(message: String) -> GuestError {
    GuestError { kind: ErrorKind::Invalid, message }
}

/// An error of the system, with a kind that the host can act on.
pub fn system(what: &str, error: &io::Error) -> GuestError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ if error.raw_os_error() == Some(libc::ESRCH) => ErrorKind::NotFound,
        _ => ErrorKind::System,
    };
    GuestError { kind, message: format!("{what}: {error}") }
}
