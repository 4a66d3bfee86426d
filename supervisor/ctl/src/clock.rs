//! Times of day, as RFC 3339 in UTC with milliseconds: the same form as in the logs, so that lines
//! of both can be put side by side.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// A time as people and programs read it.
pub fn rfc3339(unix_ms: i64) -> String {
    DateTime::from_timestamp_millis(unix_ms)
        .map_or_else(|| format!("{unix_ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A point in time from what a user wrote: an age (`90`, `90s`, `10m`, `2h`, `1d`) or a time of
/// RFC 3339. In milliseconds of Unix time.
pub fn parse_since(text: &str) -> Result<i64, String> {
    if let Some(age) = age(text) {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        return Ok(Utc::now().timestamp_millis().saturating_sub(age));
    }
    let usage = "write an age, as 90s, 10m, 2h or 1d, or a time, as 2026-01-31T08:00:00Z";
    parse_rfc3339(text).ok_or_else(|| usage.to_owned())
}

/// Milliseconds of Unix time from a time of RFC 3339.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis())
}

fn age(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_times_are_understood() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)]
        {
            assert_eq!(age(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_since("2026-11-21T12:00:00.250Z"), Ok(1_795_262_400_250));
        assert_eq!(parse_since("2026-11-21T13:00:00.250+01:00"), Ok(1_795_262_400_250));
        for text in ["", "m", "10x", "-5m", "1.5h", "yesterday", "2026-11-21", "99999999999999999999d"] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = rfc3339(1_795_262_400_250);
        assert_eq!(text, "2026-11-21T12:00:00.250Z");
        assert_eq!(parse_since(&text), Ok(1_795_262_400_250));
    }
}
