//! What a history proves.
//!
//! Per connection: each request has exactly one reply, intact and in the order of the requests;
//! nobody but the client ends the connection. Across all: how long requests took, and the longest
//! **silence**, the time in which a client that waited for a reply heard nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::history::{Kind, Record};

/// The most faults that are described one by one; all are counted.
pub const DESCRIBED: usize = 20;
/// Longer times than this, in nanoseconds, are counted as this: an hour.
const LONGEST: u64 = 3_600_000_000_000;
/// Significant decimal digits of the times.
const DIGITS: u8 = 3;

/// Judges a history record by record. What it needs in memory is bounded by the requests that are
/// waiting for their replies, by the connections that are open, and by the windows.
#[derive(Debug)]
pub struct Checker {
    connections: HashMap<u32, Connection>,
    counts: Counts,
    faults: Vec<Fault>,
    latency: Histogram<u64>,
    silence: Silence,
    windows: Vec<Window>,
    first: Option<u64>,
    last: u64,
}

/// A connection that has not ended.
#[derive(Debug, Default)]
struct Connection {
    next: u64,
    /// Requests without a reply, and when they were sent.
    waiting: BTreeMap<u64, u64>,
    /// When the last reply came.
    heard: u64,
}

/// The longest silence and where it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// Its length, in nanoseconds.
    pub ns: u64,
    /// The connection that heard nothing.
    pub connection: u32,
    /// When it began, in nanoseconds on `CLOCK_MONOTONIC`.
    pub since: u64,
}

/// A part of the time, such as that of an upgrade, for which the silence is wanted on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Begin, in nanoseconds on `CLOCK_MONOTONIC`.
    pub from: u64,
    /// End.
    pub to: u64,
    /// The longest silence that overlaps it.
    pub silence: Silence,
}

/// Something that must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What.
    pub what: What,
    /// On which connection.
    pub connection: u32,
    /// The number of the request, or of the error.
    pub number: u64,
    /// When it was seen, in nanoseconds on `CLOCK_MONOTONIC`.
    pub at: u64,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A request has no reply.
    Lost,
    /// A second reply to one request.
    Duplicated,
    /// A reply before the reply to an earlier request.
    Reordered,
    /// A reply that is not what was sent.
    Damaged,
    /// A reply to a request of another connection.
    Stranger,
    /// A reply to a request that was never sent.
    Invented,
    /// A connection could not be established.
    Refused,
    /// The other side has ended a connection.
    Closed,
    /// A connection broke.
    Broken,
    /// The history contradicts itself, so it proves nothing.
    Senseless,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections that were established.
    pub connections: u64,
    /// Connections that were still open when the history ended.
    pub unended: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Right replies, in whatever order.
    pub replies: u64,
    /// See [`What::Lost`].
    pub lost: u64,
    /// See [`What::Duplicated`].
    pub duplicated: u64,
    /// See [`What::Reordered`].
    pub reordered: u64,
    /// See [`What::Damaged`].
    pub damaged: u64,
    /// See [`What::Stranger`].
    pub strangers: u64,
    /// See [`What::Invented`].
    pub invented: u64,
    /// See [`What::Refused`].
    pub refused: u64,
    /// See [`What::Closed`].
    pub closed: u64,
    /// See [`What::Broken`].
    pub broken: u64,
    /// See [`What::Senseless`].
    pub senseless: u64,
}

/// The result.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whether nothing was found and anything was asked.
    pub clean: bool,
    /// How many of each.
    pub counts: Counts,
    /// From the first to the last record, in nanoseconds.
    pub duration_ns: u64,
    /// From request to reply.
    pub latency_ns: Times,
    /// The longest time in which a waiting client heard nothing.
    pub silence: Silence,
    /// The longest silence of each window.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// The distribution of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_silence_ns: Option<Times>,
    /// The first [`DESCRIBED`] faults.
    pub faults: Vec<Fault>,
}

/// A distribution of times, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// How many there are.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// Half are at most this.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new([])
    }
}

impl Checker {
    /// Begin, with the windows to look at separately as pairs of begin and end.
    pub fn new(windows: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let window = |(from, to)| Window { from, to, silence: Silence::default() };
        Self {
            connections: HashMap::new(),
            counts: Counts::default(),
            faults: Vec::new(),
            latency: histogram(),
            silence: Silence::default(),
            windows: windows.into_iter().map(window).collect(),
            first: None,
            last: 0,
        }
    }

    /// Look at the next record.
    pub fn add(&mut self, record: Record) {
        let Record { kind, connection, at } = record;
        self.first.get_or_insert(at);
        self.last = self.last.max(at);
        let known = self.connections.contains_key(&connection);
        match kind {
            Kind::Opened if !known => {
                self.counts.connections += 1;
                self.connections.insert(connection, Connection::default());
            }
            Kind::Refused(error) if !known => self.fault(What::Refused, connection, error, at),
            Kind::Sent(number) if known => self.sent(connection, number, at),
            Kind::Received(number) if known => self.received(connection, number, at),
            Kind::Stranger(number) if known => self.fault(What::Stranger, connection, number, at),
            Kind::Damaged(number) if known => self.fault(What::Damaged, connection, number, at),
            Kind::Closed if known => {
                self.fault(What::Closed, connection, 0, at);
                self.end(connection, at);
            }
            Kind::Broken(error) if known => {
                self.fault(What::Broken, connection, error, at);
                self.end(connection, at);
            }
            Kind::Ended if known => self.end(connection, at),
            _ => self.fault(What::Senseless, connection, 0, at),
        }
    }

    /// The history is over.
    pub fn finish(mut self) -> Verdict {
        let mut open: Vec<_> = self.connections.keys().copied().collect();
        open.sort_unstable();
        self.counts.unended = open.len() as u64;
        for connection in open {
            self.end(connection, self.last);
        }
        let mut of_windows = histogram();
        for window in &self.windows {
            of_windows.saturating_record(window.silence.ns);
        }
        let windows_silence_ns = (!self.windows.is_empty()).then(|| times(&of_windows));
        Verdict {
            clean: self.counts.faults() == 0 && self.counts.replies > 0,
            counts: self.counts,
            duration_ns: self.last - self.first.unwrap_or(self.last),
            latency_ns: times(&self.latency),
            silence: self.silence,
            windows: self.windows,
            windows_silence_ns,
            faults: self.faults,
        }
    }

    fn sent(&mut self, connection: u32, number: u64, at: u64) {
        let state = self.connections.get_mut(&connection).expect("looked up before");
        if number != state.next {
            return self.fault(What::Senseless, connection, number, at);
        }
        state.next += 1;
        state.waiting.insert(number, at);
        self.counts.requests += 1;
    }

    fn received(&mut self, connection: u32, number: u64, at: u64) {
        let state = self.connections.get_mut(&connection).expect("looked up before");
        let first = state.waiting.first_key_value().map(|(first, sent)| (*first, *sent));
        let Some(sent) = state.waiting.remove(&number) else {
            let what = if number < state.next { What::Duplicated } else { What::Invented };
            return self.fault(what, connection, number, at);
        };
        let (first, oldest) = first.expect("one was removed");
        let since = oldest.max(state.heard);
        state.heard = at;
        self.counts.replies += 1;
        self.latency.saturating_record(at.saturating_sub(sent));
        self.silent(connection, since, at);
        if number != first {
            self.fault(What::Reordered, connection, number, at);
        }
    }

    /// The connection is over; what has no reply gets none.
    fn end(&mut self, connection: u32, at: u64) {
        let Some(state) = self.connections.remove(&connection) else { return };
        if let Some(oldest) = state.waiting.values().next() {
            self.silent(connection, state.heard.max(*oldest), at);
        }
        for number in state.waiting.into_keys() {
            self.fault(What::Lost, connection, number, at);
        }
    }

    fn silent(&mut self, connection: u32, since: u64, until: u64) {
        let silence = Silence { ns: until.saturating_sub(since), connection, since };
        let longer = |of: &mut Silence| {
            if silence.ns > of.ns {
                *of = silence;
            }
        };
        longer(&mut self.silence);
        for window in &mut self.windows {
            if since < window.to && until > window.from {
                longer(&mut window.silence);
            }
        }
    }

    fn fault(&mut self, what: What, connection: u32, number: u64, at: u64) {
        *self.counts.of(what) += 1;
        if self.faults.len() < DESCRIBED {
            self.faults.push(Fault { what, connection, number, at });
        }
    }
}

impl Counts {
    fn of(&mut self, what: What) -> &mut u64 {
        match what {
            What::Lost => &mut self.lost,
            What::Duplicated => &mut self.duplicated,
            What::Reordered => &mut self.reordered,
            What::Damaged => &mut self.damaged,
            What::Stranger => &mut self.strangers,
            What::Invented => &mut self.invented,
            What::Refused => &mut self.refused,
            What::Closed => &mut self.closed,
            What::Broken => &mut self.broken,
            What::Senseless => &mut self.senseless,
        }
    }

    /// All faults together.
    pub fn faults(&self) -> u64 {
        [self.lost, self.duplicated, self.reordered, self.damaged, self.strangers]
            .into_iter()
            .chain([self.invented, self.refused, self.closed, self.broken, self.senseless])
            .sum()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST, DIGITS).expect("fitting limits")
}

fn times(histogram: &Histogram<u64>) -> Times {
    if histogram.is_empty() {
        return Times::default();
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    Times {
        count: histogram.len(),
        min: histogram.min(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max(),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let ms = |ns: u64| ns as f64 / 1e6;
        writeln!(
            f,
            "{} requests on {} connections in {:.1} s, {} replies",
            counts.requests,
            counts.connections,
            ms(self.duration_ns) / 1e3,
            counts.replies
        )?;
        let Times { p50, p99, p999, max, .. } = self.latency_ns;
        let (p50, p99, p999, max) = (ms(p50), ms(p99), ms(p999), ms(max));
        writeln!(f, "latency: median {p50:.3} ms, p99 {p99:.3} ms, p99.9 {p999:.3} ms, longest {max:.3} ms")?;
        let Silence { ns, connection, .. } = self.silence;
        writeln!(f, "longest silence: {:.3} ms, on connection {connection}", ms(ns))?;
        if let Some(Times { count, p50, p99, max, .. }) = self.windows_silence_ns {
            let (p50, p99, max) = (ms(p50), ms(p99), ms(max));
            writeln!(f, "in {count} windows: median {p50:.3} ms, p99 {p99:.3} ms, longest {max:.3} ms")?;
        }
        for Fault { what, connection, number, at } in &self.faults {
            writeln!(f, "{what}: connection {connection}, number {number}, at {at} ns")?;
        }
        let left = counts.faults() - self.faults.len() as u64;
        if left > 0 {
            writeln!(f, "and {left} more faults")?;
        }
        f.write_str(match (self.clean, counts.replies) {
            (true, _) => "clean",
            (false, 0) => "no reply came at all",
            (false, _) => "not clean",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "no reply",
            Self::Duplicated => "a second reply",
            Self::Reordered => "a reply out of order",
            Self::Damaged => "a damaged reply",
            Self::Stranger => "a reply that belongs to another connection",
            Self::Invented => "a reply to what was never sent",
            Self::Refused => "connection refused, error",
            Self::Closed => "closed by the other side",
            Self::Broken => "broken connection, error",
            Self::Senseless => "the history contradicts itself",
        })
    }
}

#[cfg(test)]
mod tests;
