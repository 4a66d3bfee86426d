//! What `log` asks and answers.
//!
//! A log is one stream of bytes in two files at most: when the newer one is full it takes the
//! older one's place. Readers hold a position in the stream, not in a file, so that following it
//! neither skips nor repeats anything when that happens.

use serde::{Deserialize, Serialize};

/// A place in a component's log. The default is the beginning of all that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Inode number of the file.
    pub inode: u64,
    /// When the file was made, in nanoseconds of Unix time: an inode's number is used again.
    pub born_ns: u64,
    /// Bytes into the file.
    pub offset: u64,
}

/// A piece of a component's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogText {
    /// Lines with their newlines, each with its time of day as RFC 3339 and a blank before it. The
    /// last one is without a newline while the component has not ended it. Bytes that are not
    /// UTF-8 are replaced; the beginning of a character at the end of a log is left out until the
    /// rest of it has come, or something else.
    pub text: String,
    /// Where the next piece begins.
    pub next: LogPosition,
    /// There is a next piece already.
    pub more: bool,
    /// Something that was asked for is not here: it is no longer kept, or, at the end of a log,
    /// fewer lines than asked for fit into an answer.
    pub lost: bool,
    /// When the newest line was written that is no longer kept, in milliseconds of Unix time;
    /// `None` while everything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<i64>,
}
