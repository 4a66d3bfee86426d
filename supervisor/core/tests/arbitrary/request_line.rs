//! What holds for any bytes that are given as a request line.

use yakiros_core::control::{Answer, AnswerLine, decode_request, encode_answer, encode_request};

/// Panics if something does not hold.
pub fn check(bytes: &[u8]) {
    match decode_request(bytes) {
        Ok(request) => {
            let line = encode_request(request.clone()).expect("a request can be written");
            assert_eq!(decode_request(&line), Ok(request.clone()), "read, written and read again");
            let again = encode_request(request).expect("a request can be written");
            assert_eq!(line, again);
        }
        Err(answer) => {
            assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
            let line = encode_answer(answer.clone());
            let read: AnswerLine = serde_json::from_slice(&line).expect("a refusal can be read");
            assert_eq!(read.answer, answer);
        }
    }
}
