//! What a component says about itself: one message of sd_notify(3).
//!
//! [`parse`] takes the bytes of one datagram. A field that makes no sense is left out and the rest
//! counts, as with systemd: a component must not fail for what it says. Texts are bounded, and
//! control characters in them are replaced, for they are shown on terminals.
//!
//! Left out on purpose: `MAINPID` (the supervisor's process is the one that it started; following
//! another would be a word of the component's against the kernel's), `BARRIER` (answered by
//! closing its descriptor, where the socket is) and everything that begins with `X_`. Not part of
//! this version, for it has no hot swap: `FDSTORE`, `FDSTOREREMOVE` and `FDNAME`; what is sent to be
//! kept is closed.

use std::time::Duration;

/// The longest message that is read, in bytes: systemd's own limit (`NOTIFY_BUFFER_MAX`). Of a longer
/// one nothing counts: its last line would be torn, and say something else.
pub const MESSAGE_LIMIT: usize = 4096;

/// The longest `STATUS=` text that is kept, in bytes: two lines of a terminal.
pub const STATUS_LIMIT: usize = 160;

/// What one message says. Nothing said is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`: the start, if that is how readiness is declared to be told, or a reload is complete.
    pub ready: bool,
    /// `RELOADING=1`, with `MONOTONIC_USEC` when it is given: the time at which the reload began.
    pub reloading: Option<Option<Duration>>,
    /// `STOPPING=1`: it is about to end by itself.
    pub stopping: bool,
    /// `STATUS=`: a text for people; an empty one takes back what was said before.
    pub status: Option<String>,
    /// `ERRNO=`: the error for which it fails.
    pub errno: Option<i32>,
    /// `WATCHDOG=`.
    pub watchdog: Option<Watchdog>,
    /// `WATCHDOG_USEC=`: the interval from now on; zero means that it is no longer watched.
    pub watchdog_interval: Option<Duration>,
    /// `EXTEND_TIMEOUT_USEC=`: the limit under way is not to end before this time from now.
    pub extend_timeout: Option<Duration>,
}

/// The two meanings of `WATCHDOG=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// `1`: it is alive.
    Beat,
    /// `trigger`: it has found itself to be broken.
    Trigger,
}

/// Read one message. One above [`MESSAGE_LIMIT`] says nothing.
pub fn parse(message: &[u8]) -> Notification {
    let mut found = Notification::default();
    let mut since = None;
    if message.len() > MESSAGE_LIMIT {
        return found;
    }
    for line in message.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (key, value) = (&line[..at], &line[at + 1..]);
        match (key, value) {
            (b"READY", b"1") => found.ready = true,
            (b"RELOADING", b"1") => found.reloading = Some(None),
            (b"MONOTONIC_USEC", _) => since = microseconds(value),
            (b"STOPPING", b"1") => found.stopping = true,
            (b"STATUS", _) => found.status = Some(shown(value)),
            (b"ERRNO", _) => found.errno = number(value).and_then(|n| i32::try_from(n).ok()),
            (b"WATCHDOG", b"1") => found.watchdog = Some(Watchdog::Beat),
            (b"WATCHDOG", b"trigger") => found.watchdog = Some(Watchdog::Trigger),
            (b"WATCHDOG_USEC", _) => found.watchdog_interval = microseconds(value),
            (b"EXTEND_TIMEOUT_USEC", _) => found.extend_timeout = microseconds(value),
            _ => {}
        }
    }
    if let Some(reloading) = &mut found.reloading {
        *reloading = since;
    }
    found
}

fn number(value: &[u8]) -> Option<u64> {
    str::from_utf8(value).ok()?.parse().ok()
}

fn microseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_micros)
}

/// A text for a terminal: bounded, one line, nothing that moves the cursor.
fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let mut shown = String::new();
    for letter in text.chars() {
        // The replacement may be longer than what it stands for.
        let letter = if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
        if shown.len() + letter.len_utf8() > STATUS_LIMIT {
            break;
        }
        shown.push(letter);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read() {
        let said = parse(
            b"READY=1\nSTATUS=serving 3 sites\nERRNO=13\nWATCHDOG=1\nWATCHDOG_USEC=2500000\n\
              EXTEND_TIMEOUT_USEC=1000\nSTOPPING=1\nMONOTONIC_USEC=7\nRELOADING=1\nMAINPID=1\nX_MY=1\n",
        );
        let expected = Notification {
            ready: true,
            reloading: Some(Some(Duration::from_micros(7))),
            stopping: true,
            status: Some("serving 3 sites".to_owned()),
            errno: Some(13),
            watchdog: Some(Watchdog::Beat),
            watchdog_interval: Some(Duration::from_millis(2500)),
            extend_timeout: Some(Duration::from_millis(1)),
        };
        assert_eq!(said, expected);
        assert_eq!(parse(b"WATCHDOG=trigger").watchdog, Some(Watchdog::Trigger));
        assert_eq!(parse(b"RELOADING=1").reloading, Some(None));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for message in [
            &b""[..],
            b"\n\n=\n==\n",
            b"READY",
            b"READY=0",
            b"READY=1 ",
            b"ready=1",
            b"ERRNO=x",
            b"ERRNO=99999999999",
            b"WATCHDOG_USEC=-1",
            b"WATCHDOG_USEC=18446744073709551616",
            b"MONOTONIC_USEC=7",
            b"\xff=\xff",
        ] {
            assert_eq!(parse(message), Notification::default(), "{}", String::from_utf8_lossy(message));
        }
        // The rest of such a message counts.
        assert!(parse(b"ERRNO=x\nREADY=1").ready);
    }

    #[test]
    fn a_status_is_bounded_and_harmless() {
        let status = |message: &[u8]| parse(message).status.expect("a status");
        assert_eq!(status(b"STATUS=\x1b[2Jgone\x07"), "\u{fffd}[2Jgone\u{fffd}");
        assert_eq!(status(b"STATUS="), "");
        let mut long = b"STATUS=".to_vec();
        long.extend("ä".repeat(STATUS_LIMIT).bytes());
        let long = status(&long);
        assert_eq!(long, "ä".repeat(STATUS_LIMIT / 2));
    }

    #[test]
    fn of_too_long_a_message_nothing_counts() {
        let long = |length: usize| {
            let end = b"\nWATCHDOG_USEC=60000000";
            let mut message = b"X_PAD=".to_vec();
            message.resize(length - end.len(), b'x');
            message.extend(end);
            message
        };
        let longest = parse(&long(MESSAGE_LIMIT));
        assert_eq!(longest.watchdog_interval, Some(Duration::from_secs(60)));
        let torn = long(MESSAGE_LIMIT + 7);
        assert!(torn[..MESSAGE_LIMIT].ends_with(b"=6"), "cut there it would mean 6 microseconds");
        assert_eq!(parse(&torn[..=MESSAGE_LIMIT]), Notification::default());
    }
}
