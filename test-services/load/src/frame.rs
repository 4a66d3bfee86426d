//! A request, and the reply of a server that sends back what it gets.
//!
//! All frames of a run have one length. A frame is a line: the connection, the sequence number and
//! the checksum of both in hexadecimal, then filler that follows from the checksum. A changed byte
//! is seen for certain: no other numbers have that checksum if they differ in one byte, and all the
//! rest is compared.

/// The shortest frame, in bytes: three numbers, a separator after each, and the line's end.
pub const SHORTEST: usize = HEAD + CHECKSUM_DIGITS + 2;
/// The longest frame, in bytes, so that a datagram of UDP holds it.
pub const LONGEST: usize = 60_000;

const CONNECTION_DIGITS: usize = 8;
const SEQUENCE_DIGITS: usize = 16;
const CHECKSUM_DIGITS: usize = 16;
/// Bytes of connection and sequence number, with their separators.
const HEAD: usize = CONNECTION_DIGITS + SEQUENCE_DIGITS + 2;

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
        let numbers = format!("{:08x} {:016x} ", self.connection, self.sequence);
        let checksum = checksum(numbers.as_bytes());
        let head = format!("{numbers}{checksum:016x} ");
        let (begin, filler) = buffer.split_at_mut(head.len());
        begin.copy_from_slice(head.as_bytes());
        let (end, filler) = filler.split_last_mut().expect("longer than its head");
        *end = b'\n';
        // Of zero nothing else would follow.
        let mut state = checksum | 1;
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

/// FNV-1a, 64 bits: each step is a bijection of the state for every byte, so texts of one length that
/// differ in a single byte never have the same.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
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
        fn a_frame_of_another_length_is_none(connection: u32, sequence: u64, length in SHORTEST..300, cut in 1..300_usize) {
            let mut buffer = vec![0; length];
            Frame { connection, sequence }.encode(&mut buffer);
            prop_assert_eq!(Frame::decode(&buffer[..length.saturating_sub(cut)]), None);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let _ = Frame::decode(&bytes);
        }
    }
}
