//! The connection to the supervisor: one request, one answer, with time limits.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde::Serialize;
use yakiros_core::control::{
    ANSWER_LIMIT, Answer, AnswerLine, ComponentStatus, EventsPage, GraphNode, RejectedFile, Request, Summary,
    Until, VERSION, WhyPage, encode_request,
};

/// Time for the supervisor to answer what needs no waiting, and the margin beyond a wait's own
/// limit. A supervisor under full load answers in milliseconds.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// How often the graph is read anew when it changes between two pages. A change takes far less
/// time than the pages of a large graph, but a machine that boots has many of them.
const GRAPH_ATTEMPTS: usize = 8;

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

    /// Another connection to the same supervisor.
    pub fn another(&self) -> Self {
        Self::new(&self.socket)
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

    /// The process that listens on the socket, as this one sees it.
    pub fn supervisor(&mut self) -> Result<i32, ClientError> {
        let stream = self.connect()?.get_ref();
        let peer = getsockopt(stream, PeerCredentials).map_err(|errno| ClientError::Broken(errno.into()))?;
        Ok(peer.pid())
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
                    // Of the first page: whoever waits for something newer misses nothing that
                    // changed before the last.
                    if all.revision == 0 {
                        all.revision = page.revision;
                    }
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

    /// Every page of `graph`, all of one state of affairs. When it changes faster than it can be
    /// read, the last attempt counts and a note says so.
    pub fn graph(&mut self) -> Result<Vec<GraphNode>, crate::Failure> {
        let mut all = Vec::new();
        for _ in 0..GRAPH_ATTEMPTS {
            let changed;
            (all, changed) = self.graph_once()?;
            if !changed {
                return Ok(all);
            }
        }
        crate::Output::note(&format!(
            "the graph changed while it was read, {GRAPH_ATTEMPTS} times in a row; parts of this answer may be \
             older than others"
        ));
        Ok(all)
    }

    /// Every page of `graph`, and whether it changed between two of them.
    fn graph_once(&mut self) -> Result<(Vec<GraphNode>, bool), crate::Failure> {
        let (mut all, mut after) = (Vec::new(), None);
        let mut first = None;
        let mut changed = false;
        loop {
            match self.ask(Request::Graph { after }, Duration::ZERO)? {
                Answer::Graph(page) => {
                    let state = (page.revision, page.edits);
                    changed |= *first.get_or_insert(state) != state;
                    all.extend(page.components);
                    after = page.next;
                }
                other => return Err(crate::unexpected(other)),
            }
            if after.is_none() {
                return Ok((all, changed));
            }
        }
    }

    /// One page of `events`.
    pub fn events(&mut self, since: u64) -> Result<EventsPage, crate::Failure> {
        match self.ask(Request::Events { since }, Duration::ZERO)? {
            Answer::Events(page) => Ok(page),
            other => Err(crate::unexpected(other)),
        }
    }

    /// Every page of `why` in one.
    pub fn why(&mut self, name: &str) -> Result<WhyPage, crate::Failure> {
        let mut all = self.why_once(name, None)?;
        while let Some(from) = all.next {
            let page = self.why_once(name, Some(from))?;
            all.records.extend(page.records);
            (all.next, all.lost) = (page.next, page.lost);
        }
        Ok(all)
    }

    fn why_once(&mut self, name: &str, from: Option<u64>) -> Result<WhyPage, crate::Failure> {
        let name = name.to_owned();
        match self.ask(Request::Why { name, from }, Duration::ZERO)? {
            Answer::Why(page) => Ok(page),
            other => Err(crate::unexpected(other)),
        }
    }

    /// Return when a record (of `name`, if given) is newer than `since`, or after `limit`.
    pub fn wait_for_change(
        &mut self,
        name: Option<&str>,
        since: u64,
        limit: Option<Duration>,
    ) -> Result<(), crate::Failure> {
        let until = Until::Changed { name: name.map(str::to_owned), since };
        let timeout_ms = limit.map(crate::milliseconds);
        match self.ask(Request::Wait { until, timeout_ms }, limit.unwrap_or(NO_LIMIT))? {
            // The supervisor ends the waits of others than root after an hour.
            Answer::Done { .. } | Answer::TimedOut { .. } => Ok(()),
            other => Err(crate::unexpected(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;
    use yakiros_core::control::{CapabilityStatus, GraphPage, encode_answer};
    use yakiros_core::journal::State;

    fn node(name: &str) -> GraphNode {
        GraphNode {
            name: name.into(),
            state: State::Active,
            level: CapabilityStatus::Up,
            held: false,
            provides: Vec::new(),
            requires: Vec::new(),
            optional: Vec::new(),
        }
    }

    /// The names that a client gets from a supervisor that gives these pages, one after the other,
    /// and how many of them it took.
    fn graph_of(pages: Vec<GraphPage>) -> (Vec<String>, usize) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = directory.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("socket");
        let pages: Vec<_> = pages.into_iter().map(|page| encode_answer(Answer::Graph(page))).collect();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut requests = BufReader::new(stream.try_clone().expect("its stream")).lines();
            let mut stream = stream;
            let mut taken = 0;
            for page in pages {
                let Some(Ok(_)) = requests.next() else { break };
                stream.write_all(&page).expect("an answer");
                taken += 1;
            }
            taken
        });
        let mut client = Client::new(&socket);
        let nodes = client.graph().unwrap_or_else(|_| panic!("no graph"));
        drop(client);
        let names = nodes.iter().map(|node| node.name.to_string()).collect();
        (names, server.join().expect("the server"))
    }

    fn page(state: (u64, u64), name: &str, more: bool) -> GraphPage {
        let next = more.then(|| name.to_owned());
        GraphPage { revision: state.0, edits: state.1, components: vec![node(name)], next }
    }

    #[test]
    fn pages_that_do_not_belong_together_are_read_again() {
        for other in [(8, 1), (7, 2)] {
            let pages = vec![
                page((7, 1), "old", true),
                page(other, "new", false),
                page(other, "a", true),
                page(other, "b", false),
            ];
            assert_eq!(graph_of(pages), (vec!["a".to_owned(), "b".to_owned()], 4), "{other:?}");
        }
        assert_eq!(graph_of(vec![page((7, 1), "a", true), page((7, 1), "b", false)]).1, 2);
    }

    #[test]
    fn a_graph_that_never_rests_is_given_up_after_some_attempts() {
        let pages = (0..100).map(|n| page((n, 1), "a", n % 2 == 0)).collect();
        assert_eq!(graph_of(pages).1, 2 * GRAPH_ATTEMPTS);
    }
}
