//! The supervisor's control socket, for programs that ask it a lot.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use yakiros_core::control::ANSWER_LIMIT;

/// For the supervisor to answer. One that takes so long does not answer at all.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A connection of its own, for one request after the other.
pub struct Conversation {
    stream: BufReader<UnixStream>,
}

impl Conversation {
    /// Connects to the socket at this place.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn begin(socket: &Path) -> io::Result<Self> {
        let stream = BufReader::new(UnixStream::connect(socket)?);
        stream.get_ref().set_read_timeout(Some(ANSWER_TIME))?;
        Ok(Self { stream })
    }

    /// Sends an encoded request, and waits for the line that answers it.
    ///
    /// # Errors
    /// That the connection has ended, or that there was no answer within a minute.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.get_mut().write_all(request)?;
        let mut answer = Vec::new();
        self.stream.by_ref().take(ANSWER_LIMIT as u64).read_until(b'\n', &mut answer)?;
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    }
}
