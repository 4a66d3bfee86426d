//! Names of checkpoints, and of components as directories.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Serialize};

/// Longest name of a component, in bytes: a file name of 255 with room for what is put before it.
pub const COMPONENT_LIMIT: usize = 200;

/// As chrono writes and reads it: UTC, to the microsecond.
const TIME: &str = "%Y%m%dT%H%M%S%.6fZ";
/// The last microsecond of the year 9999: later ones are not written with four digits.
const LATEST: i64 = 253_402_300_799_999_999;
/// Of the part with the time.
const TIME_LENGTH: usize = 23;
/// Random digits after it.
const RANDOM_LENGTH: usize = 8;

/// The name of a checkpoint among those of its component: when it was begun, and something random, as
/// `20261122T081530.123456Z-9f3a61c2`. Names sort as they were made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// What is wrong with a name that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl Id {
    /// One for a checkpoint that begins now, in microseconds since 1970: later than the newest there is, also when the
    /// clock was set back meanwhile.
    pub fn next(now: i64, newest: Option<&Self>, random: u32) -> Self {
        let micros = newest.map_or(now, |newest| now.max(newest.micros() + 1)).clamp(0, LATEST);
        let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
        Self(format!("{}-{random:08x}", time.format(TIME)))
    }

    /// When it was begun, in microseconds since 1970.
    pub fn micros(&self) -> i64 {
        let time = NaiveDateTime::parse_from_str(&self.0[..TIME_LENGTH], TIME);
        time.map_or(0, |time| time.and_utc().timestamp_micros())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let usage = || {
            NameError(format!(
                "{text:?} is no checkpoint's name; one is written as 20261122T081530.123456Z-9f3a61c2"
            ))
        };
        let (time, random) = text.split_once('-').ok_or_else(usage)?;
        let hexadecimal = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let fits = time.len() == TIME_LENGTH
            && random.len() == RANDOM_LENGTH
            && random.bytes().all(hexadecimal)
            // Written again it is the same: chrono reads more than it writes.
            && NaiveDateTime::parse_from_str(time, TIME)
                .is_ok_and(|parsed| parsed.and_utc().format(TIME).to_string() == time);
        if fits { Ok(Self(text.to_owned())) } else { Err(usage()) }
    }
}

/// Whether a component's name can be that of a directory here.
pub fn check_component(name: &str) -> Result<(), NameError> {
    let fits = !name.is_empty()
        && name.len() <= COMPONENT_LIMIT
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c.is_control());
    if fits {
        return Ok(());
    }
    Err(NameError(format!(
        "{name:?} cannot be a component's name here: it becomes a directory, so it has 1 to {COMPONENT_LIMIT} bytes, \
         does not begin with a dot, and has no slash and no control characters"
    )))
}

impl TryFrom<String> for Id {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Microseconds from 1970 to 9999.
    const TIMES: std::ops::Range<i64> = 0..253_402_300_799_000_000;

    proptest! {
        #[test]
        fn names_sort_by_time_and_are_read_back(now in TIMES, before in TIMES, one in any::<u32>(), two in any::<u32>()) {
            let first = Id::next(before, None, one);
            let second = Id::next(now, Some(&first), two);
            prop_assert!(second > first, "{second} after {first}");
            prop_assert_eq!(second.as_str().parse::<Id>(), Ok(second.clone()));
            prop_assert_eq!(second.micros(), now.max(before + 1));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9TZ.]{20,24}-[0-9a-f]{8}") {
            if let Ok(id) = text.parse::<Id>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", ".hidden", "a/b", "a\n", &"x".repeat(COMPONENT_LIMIT + 1)] {
            assert!(check_component(name).is_err(), "{name:?}");
        }
        assert_eq!(check_component("web-1.example_é"), Ok(()));
        for id in ["", "..", "20261122T081530.123456Z-9F3A61C2", "20261322T081530.123456Z-9f3a61c2"] {
            assert!(id.parse::<Id>().is_err(), "{id:?}");
        }
    }
}
