//! Times of day, as RFC 3339 in UTC with milliseconds.

use chrono::{DateTime, SecondsFormat};

/// A time as people and programs read it.
pub fn rfc3339(unix_ms: i64) -> String {
    DateTime::from_timestamp_millis(unix_ms)
        .map_or_else(|| format!("{unix_ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_of_day_has_milliseconds() {
        assert_eq!(super::rfc3339(1_795_262_400_250), "2026-11-21T12:00:00.250Z");
        assert_eq!(super::rfc3339(i64::MAX), "9223372036854775807 ms");
    }
}
