//! Clients that ask all the time, and count what they got.
//!
//! The servers they ask are upgraded and moved, never killed: each request has to be answered, on the connection that was
//! made at the beginning and on new ones alike, and the counter of the moved one counts on.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::short;

const ECHO: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const WEB: ([u8; 4], u16) = ([127, 0, 0, 1], 8088);
const STATEFUL: ([u8; 4], u16) = ([127, 0, 0, 1], 8081);
/// For one answer. A move through a checkpoint keeps clients waiting meanwhile.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two rounds while something is upgraded.
const HOT_PAUSE: Duration = Duration::from_millis(20);
/// An answer is never longer.
const ANSWER_BYTES: u64 = 64 << 10;
/// Complaints kept between two samples; the rest is only counted.
const COMPLAINTS: usize = 10;

/// The clients.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    hot: AtomicBool,
    counts: Mutex<Counts>,
    /// Held by who asks the server that is moved, and by who wants it to have no connection.
    door: Mutex<()>,
    /// Told when the pace changes.
    paced: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// Nothing is asked before the machine is up.
    begun: bool,
    replies: u64,
    failures: u64,
    /// The longest that anybody waited since the last sample, in microseconds.
    longest_us: u64,
    complaints: Vec<String>,
}

impl Load {
    /// Clients with so long a pause between two rounds. They begin with [`Self::steady`].
    pub fn begin(pause: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || Clients::default().ask_on(&of_thread, pause));
        Self { shared }
    }

    /// As often as asked for.
    pub fn steady(&self) {
        self.shared.hot.store(false, Ordering::Relaxed);
        self.shared.counts().begun = true;
        self.shared.paced.notify_all();
    }

    /// Without a pause to speak of.
    pub fn hot(&self) {
        self.shared.hot.store(true, Ordering::Relaxed);
        self.shared.paced.notify_all();
    }

    /// Nobody has a connection to the server that is moved, for as long as the value lives.
    pub fn closed(&self) -> MutexGuard<'_, ()> {
        self.shared.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what there is to a sample. The longest wait begins anew.
    pub fn take(&self, values: &mut BTreeMap<&'static str, i64>) {
        let mut counts = self.shared.counts();
        let longest = std::mem::take(&mut counts.longest_us);
        let all = [
            ("load_replies", counts.replies),
            ("load_failures", counts.failures),
            ("load_longest_us", longest),
        ];
        values.extend(all.map(|(name, number)| (name, number as i64)));
    }

    /// What went wrong since the last time.
    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.counts().complaints)
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the clients remember.
#[derive(Debug, Default)]
struct Clients {
    echo: Option<BufReader<TcpStream>>,
    said: u64,
    /// What the moved server's counter is at.
    counter: Option<u64>,
}

impl Clients {
    fn ask_on(&mut self, shared: &Shared, pause: Duration) {
        loop {
            let hot = shared.hot.load(Ordering::Relaxed);
            let counts = shared.counts();
            if counts.begun {
                let pause = if hot { HOT_PAUSE } else { pause };
                drop(shared.paced.wait_timeout(counts, pause));
            } else {
                drop(shared.paced.wait(counts));
                continue;
            }
            self.count(shared, "echo", Self::echo);
            self.count(shared, "web", |_| http("GET", "/index.html", WEB).map(drop));
            // Who holds the door lets nobody in.
            if let Ok(_open) = shared.door.try_lock() {
                self.count(shared, "stateful", Self::increment);
            }
        }
    }

    fn count(&mut self, shared: &Shared, who: &str, ask: impl FnOnce(&mut Self) -> io::Result<()>) {
        let begun = Instant::now();
        let outcome = ask(self);
        let mut counts = shared.counts();
        counts.longest_us = counts.longest_us.max(begun.elapsed().as_micros() as u64);
        match outcome {
            Ok(()) => counts.replies += 1,
            Err(error) => {
                counts.failures += 1;
                if counts.complaints.len() < COMPLAINTS {
                    counts.complaints.push(short(&format!("{who}: {error}")));
                }
            }
        }
    }

    /// A line on the connection that is kept for ever.
    fn echo(&mut self) -> io::Result<()> {
        let mut connection = match self.echo.take() {
            Some(connection) => connection,
            None => BufReader::new(connect(ECHO)?),
        };
        self.said += 1;
        let line = format!("{}\n", self.said);
        connection.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        (&mut connection).take(ANSWER_BYTES).read_line(&mut answer)?;
        if answer != line {
            return Err(io::Error::other(format!("to {line:?} came back {answer:?}")));
        }
        self.echo = Some(connection);
        Ok(())
    }

    fn increment(&mut self) -> io::Result<()> {
        let body = http("POST", "/increment", STATEFUL)?;
        let value: serde_json::Value = serde_json::from_str(&body)?;
        let counter = value["counter"].as_u64();
        let expected = self.counter.map(|before| before + 1);
        self.counter = counter;
        match counter {
            Some(counter) if expected.is_none_or(|expected| expected == counter) => Ok(()),
            _ => Err(io::Error::other(format!("after {expected:?} it counted to {counter:?}"))),
        }
    }
}

fn connect(address: ([u8; 4], u16)) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(address), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// A request on a connection of its own; the body of an answer that says yes.
fn http(method: &str, path: &str, address: ([u8; 4], u16)) -> io::Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200") && !body.is_empty() {
        return Ok(body.to_owned());
    }
    Err(io::Error::other(format!("{method} {path} was answered with {:?}", short(&answer))))
}
