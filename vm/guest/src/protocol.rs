//! Requests of the host and replies of the agent, version 1.
//!
//! The host opens a stream by [`Request`]; the agent answers with at most one [`Started`], any number of data frames
//! and exactly one `Result<Reply, GuestError>`. Streams are independent of each other.
//!
//! The first request on a channel is [`Request::Hello`] with a nonce that was never used before. The host drops
//! everything until the reply that repeats it; the agent ends all older streams. So neither side can take an answer
//! that belongs to a machine's life before it was saved and restored.

use serde::{Deserialize, Serialize};

/// Version of requests and replies. Host and agent are built together, so there is no negotiation: other versions are
/// refused.
pub const VERSION: u32 = 1;
/// Name of the virtio-serial port, as given to QEMU and found in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "org.yakiros.agent";
/// Streams open at once; more are refused with [`ErrorKind::Busy`], so that a runaway host cannot exhaust the guest.
pub const MAX_STREAMS: usize = 256;

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Greets; answered by [`Reply::Hello`] with the same nonce.
    Hello {
        /// The host's [`VERSION`].
        version: u32,
        /// Never used before on any channel.
        nonce: u64,
        /// For a guest that was restored: what it must not share with other clones. It is in force before the reply,
        /// and before any other request is looked at.
        fresh: Option<Fresh>,
    },
    /// Runs a program; standard output and error arrive as data. Answered by [`Reply::Exited`].
    Exec(Exec),
    /// Writes what arrives as data until the stream's end. Answered by [`Reply::Written`].
    WriteFile {
        /// Absolute; missing parent folders are made.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Write beside it under a hidden name, then rename, so that no reader sees half a file.
        atomic: bool,
    },
    /// Sends a file's content as data. Answered by [`Reply::Read`].
    ReadFile {
        /// Absolute.
        path: String,
        /// Stop after so many bytes.
        limit_bytes: u64,
    },
    /// Waits until a path exists, or is gone. Answered by [`Reply::Waited`].
    WaitPath {
        /// Absolute.
        path: String,
        /// Wait for it to be gone instead.
        absent: bool,
        /// Give up with [`ErrorKind::TimedOut`] after this time.
        timeout_ms: u64,
    },
    /// Sends a signal. Answered by [`Reply::Signalled`].
    Signal {
        /// Process, or process group when negative, as in kill(2).
        pid: i32,
        /// Number; 0 only asks whether the process is there.
        signal: i32,
    },
    /// Connects from inside the guest; data is relayed both ways until either side closes. [`Started`] says that the
    /// connection stands. Answered by [`Reply::Closed`].
    TcpConnect {
        /// `host:port`.
        address: String,
        /// For the connection to be made.
        timeout_ms: u64,
    },
    /// Reads the clocks, after setting the wall clock if asked. Answered by [`Reply::Clock`].
    Clock {
        /// Nanoseconds since 1970.
        set_realtime_ns: Option<u64>,
    },
    /// Counts what there is: a [`crate::ledger::Ledger`] in JSON arrives as data. Answered by [`Reply::Counted`].
    Ledger,
    /// Ends the machine. Answered by [`Reply::ShuttingDown`] before it is done.
    Shutdown(Shutdown),
}

/// What a clone gets of its own. All clones of a saved machine are born with the same clock and the same generator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// 32 to 64 bytes of the host's entropy, in hexadecimal: mixed into the kernel's generator, which is reseeded.
    pub entropy: String,
    /// The wall clock, in nanoseconds since 1970.
    pub realtime_ns: u64,
}

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; the program is looked up on the guest's PATH. No shell.
    pub argv: Vec<String>,
    /// Added to the agent's environment.
    pub env: Vec<(String, String)>,
    /// Working directory, `/` if none.
    pub cwd: Option<String>,
    /// Standard input arrives as data; otherwise it is /dev/null.
    pub stdin: bool,
    /// Kill the whole session with SIGKILL after this time; none means that the host keeps the time.
    pub timeout_ms: Option<u64>,
    /// Give it a terminal: standard input, output and error are one data stream.
    pub terminal: Option<WindowSize>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// How to end the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// SIGTERM to PID 1: the orderly way, as far as the init under test knows one.
    Init,
    /// sync(2), then reboot(2) by the agent itself, whatever PID 1 does.
    Forced,
}

/// A request has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// The program runs.
    Exec {
        /// Its pid, which is also its session and process group.
        pid: i32,
    },
    /// The connection stands.
    Connected,
}

/// The good end of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// As asked.
        nonce: u64,
        /// Kernel release, as `uname -r`.
        kernel_release: String,
    },
    /// To [`Request::Exec`].
    Exited(ExitStatus),
    /// To [`Request::WriteFile`].
    Written {
        /// Size of the file.
        bytes: u64,
    },
    /// To [`Request::ReadFile`].
    Read {
        /// Bytes sent.
        bytes: u64,
        /// There was more than the limit.
        truncated: bool,
    },
    /// To [`Request::WaitPath`].
    Waited {
        /// How long it took.
        elapsed_ms: u64,
    },
    /// To [`Request::Signal`].
    Signalled,
    /// To [`Request::TcpConnect`].
    Closed {
        /// Bytes that came from the connection.
        received_bytes: u64,
    },
    /// To [`Request::Clock`]: nanoseconds of CLOCK_REALTIME, CLOCK_MONOTONIC and CLOCK_BOOTTIME.
    Clock {
        /// Since 1970.
        realtime_ns: u64,
        /// Does not count time in suspension.
        monotonic_ns: u64,
        /// Since boot.
        boottime_ns: u64,
    },
    /// To [`Request::Ledger`].
    Counted {
        /// Bytes sent.
        bytes: u64,
    },
    /// To [`Request::Shutdown`].
    ShuttingDown,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed because its time was over.
    TimedOut,
    /// It was killed because the host cancelled the request.
    Cancelled,
}

/// The bad end of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people; completes "failed to …".
    pub message: String,
}

/// Kinds of [`GuestError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A path or process is not there.
    NotFound,
    /// The kernel said no.
    Refused,
    /// The request's own time-out ran out.
    TimedOut,
    /// The request makes no sense.
    Invalid,
    /// Too many streams are open.
    Busy,
    /// Another error of the guest's system.
    System,
}

impl std::fmt::Display for GuestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for GuestError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_fixed() {
        let request = Request::Signal { pid: 1, signal: 9 };
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"signal":{"pid":1,"signal":9}}"#);
        let done: Result<Reply, GuestError> = Ok(Reply::Exited(ExitStatus::Code(3)));
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"Ok":{"exited":{"code":3}}}"#);
    }
}
