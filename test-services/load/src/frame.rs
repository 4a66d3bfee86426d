//! A request, and the reply of a server that sends back what it gets.
//!
//! All frames of a run have one length. A frame is a line: the connection and the sequence number
//! in hexadecimal, then filler that follows from both, so any byte that is changed, missing or of
//! another frame is seen.

/// The shortest frame, in bytes: both numbers, two separators, a byte of filler, the line's end.
pub const SHORTEST: usize = CONNECTION_DIGITS + SEQUENCE_DIGITS + 4;
/// The longest frame, in bytes, so that a datagram of UDP holds it.
pub const LONGEST: usize = 60_000;

const CONNECTION_DIGITS: usize = 8;
const SEQUENCE_DIGITS: usize = 16;

/// What a frame says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The connection that it was sent on.
    pub connection: u32,
    /// Its number on that connection, from 0.
    pub sequence: u64,
}

impl Frame {
    /// Write it over all of `buffer`.
    ///
    /// # Panics
    ///
    /// When the buffer is shorter than [`SHORTEST`].
    pub fn encode(self, buffer: &mut [u8]) {
        assert!(buffer.len() >= SHORTEST, "a frame has at least {SHORTEST} bytes");
        let head = format!("{:08x} {:016x} ", self.connection, self.sequence);
        let (begin, filler) = buffer.split_at_mut(head.len());
        begin.copy_from_slice(head.as_bytes());
        let (end, filler) = filler.split_last_mut().expect("longer than its head");
        *end = b'\n';
        let mut state = u64::from(self.connection) << 32 ^ self.sequence ^ 0x9e37_79b9_7f4a_7c15;
        for byte in filler {
            // Xorshift (Marsaglia 2003): neighbours differ in every part.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = b'a' + (state >> 32) as u8 % 26;
        }
    }

    /// Read one; nothing if a single byte is not as it was sent.
    pub fn decode(buffer: &[u8]) -> Option<Self> {
        if buffer.len() < SHORTEST {
            return None;
        }
        let text = |from: usize, digits: usize| str::from_utf8(buffer.get(from..from + digits)?).ok();
        let connection = u32::from_str_radix(text(0, CONNECTION_DIGITS)?, 16).ok()?;
        let sequence = u64::from_str_radix(text(CONNECTION_DIGITS + 1, SEQUENCE_DIGITS)?, 16).ok()?;
        let frame = Self { connection, sequence };
        let mut sent = vec![0; buffer.len()];
        frame.encode(&mut sent);
        (sent == buffer).then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_read(connection: u32, sequence: u64, length in SHORTEST..300) {
            let frame = Frame { connection, sequence };
            let mut buffer = vec![0; length];
            frame.encode(&mut buffer);
            prop_assert_eq!(Frame::decode(&buffer), Some(frame));
        }

        #[test]
        fn any_changed_byte_is_seen(connection: u32, sequence: u64, length in SHORTEST..300, at: prop::sample::Index,
                                    change in 1_u8..) {
            let mut buffer = vec![0; length];
            Frame { connection, sequence }.encode(&mut buffer);
            let at = at.index(length);
            buffer[at] ^= change;
            prop_assert_eq!(Frame::decode(&buffer), None);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let _ = Frame::decode(&bytes);
        }
    }
}
