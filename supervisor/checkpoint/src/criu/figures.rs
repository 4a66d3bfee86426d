//! What CRIU counted, as it leaves it in `stats-dump` and `stats-restore`: two magic numbers, a length, and a message of
//! Protocol Buffers whose fields are those of its `images/stats.proto`.

use serde::{Deserialize, Serialize};

/// Begins each of its service files.
const SERVICE_MAGIC: u32 = 0x5510_5940;
/// Begins figures.
const STATS_MAGIC: u32 = 0x5709_3306;
/// The kind of a field that is a number, and of one that is a message.
const NUMBER: u64 = 0;
const MESSAGE: u64 = 2;

/// What was counted; nothing where it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Of a dump, or of a round before it.
    pub dump: Option<DumpFigures>,
    /// Of a restore.
    pub restore: Option<RestoreFigures>,
}

/// Times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpFigures {
    /// Until the tree stood still.
    pub freezing: u64,
    /// While it stood still.
    pub frozen: u64,
    /// Of that, for taking its memory.
    pub memory: u64,
    /// For writing it, also while it runs again.
    pub writing: u64,
    /// Pages that were looked at.
    pub pages_scanned: u64,
    /// Pages that the round before has.
    pub pages_in_parent: u64,
    /// Pages that were written.
    pub pages_written: u64,
}

/// Times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFigures {
    /// For making the processes.
    pub forking: u64,
    /// For all of it.
    pub restoring: u64,
    /// Pages that were written into them.
    pub pages: u64,
}

impl Figures {
    /// None if it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (magics, rest) = bytes.split_first_chunk::<8>()?;
        let expected = [SERVICE_MAGIC.to_le_bytes(), STATS_MAGIC.to_le_bytes()].concat();
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let message = rest.get(..u32::from_le_bytes(*length) as usize).filter(|_| magics[..] == expected)?;
        let mut figures = Self::default();
        for (field, value) in fields(message)? {
            match (field, value) {
                (1, Value::Message(dump)) => figures.dump = Some(DumpFigures::parse(dump)?),
                (2, Value::Message(restore)) => figures.restore = Some(RestoreFigures::parse(restore)?),
                _ => {}
            }
        }
        Some(figures)
    }
}

impl DumpFigures {
    fn parse(message: &[u8]) -> Option<Self> {
        let mut figures = Self::default();
        for (field, value) in numbers(message)? {
            let place = match field {
                1 => &mut figures.freezing,
                2 => &mut figures.frozen,
                3 => &mut figures.memory,
                4 => &mut figures.writing,
                5 => &mut figures.pages_scanned,
                6 => &mut figures.pages_in_parent,
                7 => &mut figures.pages_written,
                _ => continue,
            };
            *place = value;
        }
        Some(figures)
    }
}

impl RestoreFigures {
    fn parse(message: &[u8]) -> Option<Self> {
        let mut figures = Self::default();
        for (field, value) in numbers(message)? {
            let place = match field {
                3 => &mut figures.forking,
                4 => &mut figures.restoring,
                5 => &mut figures.pages,
                _ => continue,
            };
            *place = value;
        }
        Some(figures)
    }
}

pub(super) enum Value<'a> {
    Number(u64),
    Message(&'a [u8]),
}

fn numbers(message: &[u8]) -> Option<Vec<(u64, u64)>> {
    let number = |(field, value)| match value {
        Value::Number(number) => Some((field, number)),
        Value::Message(_) => None,
    };
    Some(fields(message)?.into_iter().filter_map(number).collect())
}

pub(super) fn fields(mut message: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            NUMBER => Value::Number(varint(&mut message)?),
            MESSAGE => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (inner, rest) = message.split_at_checked(length)?;
                message = rest;
                Value::Message(inner)
            }
            // Its messages have no other.
            _ => return None,
        };
        found.push((tag >> 3, value));
    }
    Some(found)
}

/// Seven bits a byte, the lowest first; the eighth says that more come.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `stats-dump` of CRIU 4.2.1.
    const DUMP: &[u8] =
        b"\x40\x59\x10\x55\x06\x33\x09\x57\x25\0\0\0\x0a\x23\x08\xdd\x10\x10\xd4\xe3\x01\x18\xd7\x75\
        \x20\xe6\x1a\x28\x8d\x10\x30\0\x38\x95\x0f\x40\0\x48\0\x50\x08\x58\x08\x60\0\x68\0\x70\0";

    #[test]
    fn figures_are_read() {
        let dump = DumpFigures {
            freezing: 2141,
            frozen: 29140,
            memory: 15063,
            writing: 3430,
            pages_scanned: 2061,
            pages_in_parent: 0,
            pages_written: 1941,
        };
        assert_eq!(Figures::parse(DUMP), Some(Figures { dump: Some(dump), restore: None }));
        let restore = b"\x40\x59\x10\x55\x06\x33\x09\x57\x0e\0\0\0\x12\x0c\x08\x01\x10\0\x18\xac\x02\x20\x05\x28\x80\x01";
        let restore = Figures::parse(restore).and_then(|figures| figures.restore);
        assert_eq!(restore, Some(RestoreFigures { forking: 300, restoring: 5, pages: 128 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), cut in 0..60_usize) {
            let head = &DUMP[..12];
            let _ = Figures::parse(&[head, &bytes].concat());
            prop_assert!(Figures::parse(&bytes).is_none() || bytes.starts_with(&head[..8]));
            prop_assert!(cut >= DUMP.len() || Figures::parse(&DUMP[..cut]).is_none());
        }
    }
}
