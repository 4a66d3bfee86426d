//! What a component says about itself: one message of sd_notify(3).
//!
//! [`parse`] takes the bytes of one datagram. A field that makes no sense is left out and the rest
//! counts, as with systemd: a component must not fail for what it says. Texts are bounded, and
//! control characters in them are replaced, for they are shown on terminals.
//!
//! Left out on purpose: `MAINPID` (the supervisor's process is the one that it started; following
//! another would be a word of the component's against the kernel's), `BARRIER` (answered by
//! closing its descriptor, where the socket is), `FDPOLL` (nothing that is stored is polled, so all of it
//! is kept as `FDPOLL=0` asks for) and everything that begins with `X_`.

use std::time::Duration;

use crate::descriptors::{UNNAMED, is_name};

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
    /// `FDSTORE=1` or `FDSTOREREMOVE=1`.
    pub store: Option<Store>,
}

/// What is to become of stored descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// Keep what comes with the message under this name.
    Keep(String),
    /// Keep none of this name any more.
    Remove(String),
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
    let (mut stores, mut removes, mut name) = (false, false, None);
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
            (b"FDSTORE", b"1") => stores = true,
            (b"FDSTOREREMOVE", b"1") => removes = true,
            (b"FDNAME", _) => name = Some(value).filter(|name| is_name(name)),
            _ => {}
        }
    }
    if let Some(reloading) = &mut found.reloading {
        *reloading = since;
    }
    // A valid name is ASCII.
    let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
    found.store = match (removes, stores) {
        // Nothing says which.
        (true, _) => name.map(Store::Remove),
        (false, true) => Some(Store::Keep(name.unwrap_or_else(|| UNNAMED.to_owned()))),
        (false, false) => None,
    };
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
            store: None,
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
    fn a_bad_name_stores_without_one_and_removes_nothing() {
        let store = |message: &[u8]| parse(message).store;
        let keep = |name: &str| Some(Store::Keep(name.to_owned()));
        assert_eq!(store(b"FDSTORE=1"), keep("stored"));
        assert_eq!(store(b"FDNAME=http\nFDSTORE=1\nFDPOLL=0"), keep("http"));
        assert_eq!(store(b"FDSTORE=1\nFDNAME=a:b"), keep("stored"));
        assert_eq!(store(b"FDSTOREREMOVE=1\nFDNAME=http"), Some(Store::Remove("http".to_owned())));
        assert_eq!(store(b"FDSTOREREMOVE=1"), None);
        assert_eq!(store(b"FDSTOREREMOVE=1\nFDNAME=\xff"), None);
        assert_eq!(store(b"FDNAME=http"), None);
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
