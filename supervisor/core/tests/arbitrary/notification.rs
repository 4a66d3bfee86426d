//! What holds for any bytes that are sent to a component's notification socket.

use yakiros_core::notify::{STATUS_LIMIT, parse};

/// Panics if something does not hold.
pub fn check(bytes: &[u8]) {
    let said = parse(bytes);
    assert_eq!(parse(bytes), said, "the same bytes say the same");
    if let Some(status) = said.status {
        assert!(status.len() <= STATUS_LIMIT, "{} bytes are kept", status.len());
        assert!(!status.contains(char::is_control), "{status:?} moves the cursor");
    }
}
