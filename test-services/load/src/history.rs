//! What happened, in the order in which the client saw it.
//!
//! A history file is [`MAGIC`] and then records of [`RECORD_BYTES`] bytes, all numbers
//! little-endian: the kind (4 bytes), the connection (4), the number that belongs to the kind (8),
//! and the time on `CLOCK_MONOTONIC` in nanoseconds (8). The last record of a client that was
//! killed may be cut short; it is left out.

use std::io::{self, Read, Write};

use nix::time::{ClockId, clock_gettime};

/// The first bytes of a history file: a name, and the version of this form.
pub const MAGIC: [u8; 8] = *b"ykhist01";
/// Bytes of a record.
pub const RECORD_BYTES: usize = 24;

/// Something that happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What.
    pub kind: Kind,
    /// The connection; each has a number of its own within a history.
    pub connection: u32,
    /// When, in nanoseconds on `CLOCK_MONOTONIC`.
    pub at: u64,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The connection is established.
    Opened,
    /// It could not be established: the error's number.
    Refused(u64),
    /// The request of this number was given to the kernel, or, with an open loop, was due.
    Sent(u64),
    /// The intact reply to the request of this number came.
    Received(u64),
    /// An intact reply came that belongs to this other connection.
    Stranger(u64),
    /// A reply came that is not what was sent; this reply was due.
    Damaged(u64),
    /// The other side has closed the connection, while the client had not ended it.
    Closed,
    /// The connection broke: the error's number.
    Broken(u64),
    /// The client has ended the connection, and the other side has confirmed it.
    Ended,
}

impl Kind {
    fn code(self) -> (u32, u64) {
        match self {
            Self::Opened => (1, 0),
            Self::Refused(number) => (2, number),
            Self::Sent(number) => (3, number),
            Self::Received(number) => (4, number),
            Self::Stranger(number) => (5, number),
            Self::Damaged(number) => (6, number),
            Self::Closed => (7, 0),
            Self::Broken(number) => (8, number),
            Self::Ended => (9, 0),
        }
    }

    fn from_code(kind: u32, number: u64) -> Option<Self> {
        Some(match kind {
            1 => Self::Opened,
            2 => Self::Refused(number),
            3 => Self::Sent(number),
            4 => Self::Received(number),
            5 => Self::Stranger(number),
            6 => Self::Damaged(number),
            7 => Self::Closed,
            8 => Self::Broken(number),
            9 => Self::Ended,
            _ => return None,
        })
    }
}

/// The time of now, in nanoseconds on `CLOCK_MONOTONIC`.
pub fn now() -> u64 {
    // The clock always exists.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC");
    let seconds = u64::try_from(time.tv_sec()).expect("not negative");
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).expect("not negative")
}

/// Write the beginning of a history.
pub fn begin(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&MAGIC)
}

/// Append a record.
pub fn write(to: &mut impl Write, record: Record) -> io::Result<()> {
    let (kind, number) = record.kind.code();
    let mut bytes = [0; RECORD_BYTES];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..8].copy_from_slice(&record.connection.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..].copy_from_slice(&record.at.to_le_bytes());
    to.write_all(&bytes)
}

/// Read all records, one after the other.
pub fn read(mut from: impl Read, mut each: impl FnMut(Record)) -> io::Result<()> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(invalid("not a history of this version".to_owned()));
    }
    for number in 0_u64.. {
        let mut bytes = [0; RECORD_BYTES];
        match from.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            result => result?,
        }
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let whole = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let kind = Kind::from_code(half(0), whole(8))
            .ok_or_else(|| invalid(format!("record {number} is of the unknown kind {}", half(0))))?;
        each(Record { kind, connection: half(4), at: whole(16) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_cut_record_is_left_out() {
        let kinds = (1..10).map(|kind| Kind::from_code(kind, 7 * u64::from(kind)).expect("a kind"));
        let records: Vec<_> =
            kinds.zip(0..).map(|(kind, connection)| Record { kind, connection, at: u64::MAX }).collect();
        let mut bytes = Vec::new();
        begin(&mut bytes).expect("memory");
        for record in &records {
            write(&mut bytes, *record).expect("memory");
        }
        for cut in 0..RECORD_BYTES {
            let mut found = Vec::new();
            read(&bytes[..bytes.len() - cut], |record| found.push(record)).expect("a history");
            assert_eq!(found, records[..records.len() - usize::from(cut > 0)]);
        }
    }

    #[test]
    fn what_is_no_history_is_refused() {
        let error = |bytes: &[u8]| read(bytes, |_| ()).expect_err("no history").to_string();
        assert_eq!(error(b"ykhist02"), "not a history of this version");
        let unknown = [MAGIC.as_slice(), &[99; RECORD_BYTES]].concat();
        assert_eq!(error(&unknown), "record 0 is of the unknown kind 1667457891");
    }
}
