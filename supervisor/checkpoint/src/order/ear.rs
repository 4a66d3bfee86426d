//! Where orders come from.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use super::{Go, ORDER_LIMIT, Order};

/// One order, and the word to go on, each a line.
#[derive(Debug)]
pub struct Ear(BufReader<File>);

impl Ear {
    /// Of this file, a pipe or whatever can be waited for.
    pub fn new(from: File) -> Self {
        Self(BufReader::new(from))
    }

    /// What is to be done: a line, or all there is.
    pub fn order(&mut self) -> Result<Order, String> {
        self.line().map_err(|error| format!("no order: {error}"))
    }

    /// Wait for the word to go on, so long.
    pub fn go(&mut self, limit: Duration) -> Result<Go, String> {
        if self.0.buffer().is_empty() {
            let heard = await_word(self.0.get_ref(), limit).map_err(|error| error.to_string())?;
            if !heard {
                return Err(format!("there was no word to go on within {} s", limit.as_secs_f64()));
            }
        }
        self.line().map_err(|error| format!("no word to go on: {error}"))
    }

    fn line<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let mut bytes = Vec::new();
        let read = self.0.by_ref().take(ORDER_LIMIT + 1).read_until(b'\n', &mut bytes);
        read.map_err(|error| error.to_string())?;
        if bytes.is_empty() {
            return Err("nobody is there".to_owned());
        }
        if bytes.len() as u64 > ORDER_LIMIT {
            return Err(format!("it has more than {ORDER_LIMIT} bytes"));
        }
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }
}

/// Whether there is something to be read, or the end, within the time.
fn await_word(from: &File, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;

    fn heard(text: &[u8], is_over: bool) -> Result<Go, String> {
        let (from, to) = rustix::pipe::pipe().expect("a pipe");
        let mut to = File::from(to);
        to.write_all(text).expect("room");
        let kept = (!is_over).then_some(to);
        let said = Ear::new(from.into()).go(Duration::from_millis(1));
        drop(kept);
        said
    }

    #[test]
    fn a_word_is_a_line_and_is_not_waited_for_for_ever() {
        let group = Some(PathBuf::from("/g"));
        assert_eq!(heard(b"{\"group\":\"/g\"}\n", false), Ok(Go { group: group.clone() }));
        assert_eq!(heard(b"{\"group\":\"/g\"}", true), Ok(Go { group }));
        assert_eq!(heard(b"", true), Err("no word to go on: nobody is there".to_owned()));
        assert_eq!(heard(b"", false), Err("there was no word to go on within 0.001 s".to_owned()));
        assert!(heard(b"what?\n", false).is_err());
    }

    #[test]
    fn what_is_too_long_is_no_order() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![b' '; ORDER_LIMIT as usize + 1]).expect("room");
        io::Seek::rewind(&mut file).expect("it begins again");
        let said = Ear::new(file).order().expect_err("refused");
        assert_eq!(said, format!("no order: it has more than {ORDER_LIMIT} bytes"));
    }
}
