//! The connection to the supervisor: one request, one answer, with time limits.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use yakiros_core::control::{
    ANSWER_LIMIT, Answer, AnswerLine, ComponentStatus, GraphNode, RejectedFile, Request, Summary, VERSION,
    encode_request,
};
use yakiros_core::journal::Record;

/// Time for the supervisor to answer what needs no waiting, and the margin beyond a wait's own
/// limit. A supervisor under full load answers in milliseconds.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// For a wait without a limit.
pub const NO_LIMIT: Duration = Duration::MAX;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens on the socket.
    Absent {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The conversation broke off.
    Broken(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { socket, source } => write!(
                f,
                "no supervisor answers on {}: {source}; choose another with --socket or GRAPHCTL_SOCKET",
                socket.display()
            ),
            Self::Broken(source) if source.kind() == io::ErrorKind::WouldBlock => {
                f.write_str("the supervisor gave no answer in time")
            }
            Self::Broken(source) => write!(f, "the connection broke off: {source}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// All pages of `status` in one. This is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Version of this format.
    pub version: u32,
    /// Journal revision.
    pub revision: u64,
    /// Sorted by name.
    pub components: Vec<ComponentStatus>,
    /// Counts.
    pub summary: Summary,
    /// Files that are not used.
    pub rejected: Vec<RejectedFile>,
}

/// A connection, opened with the first request.
pub struct Client {
    socket: PathBuf,
    stream: Option<BufReader<UnixStream>>,
}

impl Client {
    /// A client of the supervisor that listens on `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf(), stream: None }
    }

    /// Send a request that the supervisor may answer after `wait` at the latest.
    pub fn ask(&mut self, request: Request, wait: Duration) -> Result<Answer, ClientError> {
        let broken = ClientError::Broken;
        let line = encode_request(request).map_err(|e| broken(e.into()))?;
        let stream = self.connect()?;
        let limit = wait.checked_add(ANSWER_TIME);
        stream.get_ref().set_read_timeout(limit).map_err(broken)?;
        stream.get_mut().write_all(&line).map_err(broken)?;
        let mut answer = Vec::new();
        let mut bounded = stream.take(ANSWER_LIMIT as u64);
        bounded.read_until(b'\n', &mut answer).map_err(broken)?;
        if answer.is_empty() {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice::<AnswerLine>(&answer)
            .map(|line| line.answer)
            .map_err(|error| broken(error.into()))
    }

    fn connect(&mut self) -> Result<&mut BufReader<UnixStream>, ClientError> {
        if self.stream.is_none() {
            let stream = UnixStream::connect(&self.socket).map_err(|source| {
                let socket = self.socket.clone();
                ClientError::Absent { socket, source }
            })?;
            let limit = Some(ANSWER_TIME);
            stream.set_write_timeout(limit).map_err(ClientError::Broken)?;
            self.stream = Some(BufReader::new(stream));
        }
        let missing = || ClientError::Broken(io::ErrorKind::NotConnected.into());
        self.stream.as_mut().ok_or_else(missing)
    }

    /// Every page of `status`.
    pub fn status(&mut self, name: Option<&str>) -> Result<Status, crate::Failure> {
        let mut all = Status {
            version: VERSION,
            revision: 0,
            components: Vec::new(),
            summary: Summary::default(),
            rejected: Vec::new(),
        };
        let mut after = None;
        loop {
            let name = name.map(str::to_owned);
            match self.ask(Request::Status { name, after }, Duration::ZERO)? {
                Answer::Status(page) => {
                    all.revision = page.revision;
                    all.summary = page.summary;
                    all.components.extend(page.components);
                    all.rejected.extend(page.rejected);
                    after = page.next;
                }
                other => return Err(crate::unexpected(other)),
            }
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Every page of `graph`.
    pub fn graph(&mut self) -> Result<Vec<GraphNode>, crate::Failure> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            match self.ask(Request::Graph { after }, Duration::ZERO)? {
                Answer::Graph(page) => {
                    all.extend(page.components);
                    after = page.next;
                }
                other => return Err(crate::unexpected(other)),
            }
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Every page of `events`, one after the other.
    pub fn events(&mut self, mut since: u64, mut show: impl FnMut(&[Record])) -> Result<(), crate::Failure> {
        loop {
            match self.ask(Request::Events { since }, Duration::ZERO)? {
                Answer::Events(page) => {
                    show(&page.records);
                    match page.next {
                        Some(next) => since = next,
                        None => return Ok(()),
                    }
                }
                other => return Err(crate::unexpected(other)),
            }
        }
    }
}
