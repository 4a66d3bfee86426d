//! Frames on the agent channel.
//!
//! Each frame starts with a magic number, and a reader that has lost its place skips to the next one. A machine is only
//! saved while no request is open, so that a restored one holds no half frame that was meant for an earlier host. Which frames are meant for *this* host is settled by the greeting's nonce, see [`crate::protocol`].
//!
//! ```text
//! 0        4      5          8         12        16
//! | "YKG1" | kind | reserved | stream  | length  | payload …
//! ```
//! Numbers are little endian. A stream is one request with everything that belongs to it.

/// First bytes of each frame; the digit is the version of the framing.
pub const MAGIC: [u8; 4] = *b"YKG1";
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;
/// Largest payload. Small enough that one stream's data does not delay another's for long, large enough that the
/// header costs nothing.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Host to guest: a JSON [`crate::protocol::Request`] that opens a stream.
    Open,
    /// Guest to host: the request is under way; a JSON [`crate::protocol::Started`].
    Started,
    /// Bytes: standard input or file content to the guest; standard output, file content or socket data to the host.
    Data,
    /// Guest to host: bytes of standard error.
    ErrorData,
    /// Host to guest: no more [`Kind::Data`] will come.
    End,
    /// Host to guest: the terminal's new size, a JSON [`crate::protocol::WindowSize`].
    Resize,
    /// Host to guest: give up; the guest still answers with [`Kind::Done`].
    Cancel,
    /// Guest to host: the last frame of a stream, a JSON `Result<Reply, GuestError>`.
    Done,
}

const KINDS: [Kind; 8] = [
    Kind::Open,
    Kind::Started,
    Kind::Data,
    Kind::ErrorData,
    Kind::End,
    Kind::Resize,
    Kind::Cancel,
    Kind::Done,
];

impl Kind {
    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Option<Self> {
        KINDS.get(usize::from(code)).copied()
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// The request it belongs to.
    pub stream: u32,
    /// At most [`MAX_PAYLOAD_BYTES`].
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame as it goes over the wire.
    ///
    /// # Panics
    /// If the payload is longer than [`MAX_PAYLOAD_BYTES`]: the sender has to cut it.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.payload.len() <= MAX_PAYLOAD_BYTES, "frame payload over the limit");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[self.kind.code(), 0, 0, 0]);
        bytes.extend_from_slice(&self.stream.to_le_bytes());
        bytes.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// Takes bytes as they arrive and gives whole frames.
///
/// Holds at most one frame plus what was pushed last.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    skipped: u64,
}

impl Decoder {
    /// Appends bytes that were read from the channel.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes thrown away so far because they belonged to no frame.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next whole frame, or `None` until more bytes have come.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            self.skip_to_magic();
            let header = self.buffer.get(..HEADER_BYTES)?;
            let kind = Kind::from_code(header[4]);
            let stream = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
            let length = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
            let (Some(kind), true) = (kind, length <= MAX_PAYLOAD_BYTES) else {
                self.skip(1); // the magic by chance, inside other bytes
                continue;
            };
            let payload = self.buffer.get(HEADER_BYTES..HEADER_BYTES + length)?.to_vec();
            self.buffer.drain(..HEADER_BYTES + length);
            return Some(Frame { kind, stream, payload });
        }
    }

    fn skip_to_magic(&mut self) {
        let start = (0..self.buffer.len())
            .find(|&at| {
                let rest = &self.buffer[at..];
                rest.starts_with(&MAGIC) || MAGIC.starts_with(rest)
            })
            .unwrap_or(self.buffer.len());
        if start > 0 {
            self.skip(start);
        }
    }

    fn skip(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.skipped += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let kind = prop::sample::select(KINDS.to_vec());
        let payload = prop::collection::vec(any::<u8>(), 0..300);
        let frame =
            (kind, any::<u32>(), payload).prop_map(|(kind, stream, payload)| Frame { kind, stream, payload });
        prop::collection::vec(frame, 0..8)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(frames in frames(), cut in 1_usize..50) {
            let wire: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                got.extend(std::iter::from_fn(|| decoder.next_frame()));
            }
            prop_assert_eq!(got, frames);
            prop_assert_eq!(decoder.skipped(), 0);
        }

        #[test]
        fn a_reader_finds_its_place_after_garbage(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(!garbage.windows(4).any(|w| w == MAGIC));
            let frame = Frame { kind: Kind::Done, stream: 7, payload: b"{}".to_vec() };
            let mut decoder = Decoder::default();
            decoder.push(&garbage);
            decoder.push(&frame.encode());
            prop_assert_eq!(decoder.next_frame(), Some(frame));
            prop_assert_eq!(decoder.skipped(), garbage.len() as u64);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_not_believed() {
        let good = Frame { kind: Kind::Data, stream: 1, payload: vec![1, 2, 3] };
        let mut bad = good.encode();
        bad[15] = 0xff;
        let mut decoder = Decoder::default();
        decoder.push(&bad);
        decoder.push(&good.encode());
        assert_eq!(decoder.next_frame(), Some(good));
    }
}
