//! The time before each line of a log: RFC 3339 in UTC with milliseconds, and a blank.

use std::time::Duration;

use crate::sys;

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 25;

/// The last stamp made. A flood of lines makes thousands in a second; of these only the
/// milliseconds differ.
pub struct Stamp {
    second: Option<u64>,
    text: [u8; STAMP_BYTES],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: None, text: *b"0000-00-00T00:00:00.000Z " }
    }
}

impl Stamp {
    /// The stamp of a time since 1970.
    pub fn at(&mut self, time: Duration) -> &[u8; STAMP_BYTES] {
        if self.second != Some(time.as_secs()) {
            self.second = Some(time.as_secs());
            let date = sys::utc(time.as_secs());
            let fields = [
                (0..4, date.tm_year + 1900),
                (5..7, date.tm_mon + 1),
                (8..10, date.tm_mday),
                (11..13, date.tm_hour),
                (14..16, date.tm_min),
                (17..19, date.tm_sec),
            ];
            for (place, number) in fields {
                put(&mut self.text[place], u32::try_from(number).unwrap_or(0));
            }
        }
        put(&mut self.text[20..23], time.subsec_millis());
        &self.text
    }
}

/// Write a number with leading zeros.
fn put(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_time_in_utc() {
        let mut stamp = Stamp::default();
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z "),
            (951_827_696_007, "2000-02-29T12:34:56.007Z "),
            (951_827_696_999, "2000-02-29T12:34:56.999Z "),
            (1_795_262_400_250, "2026-11-21T12:00:00.250Z "),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z "),
        ] {
            let made = stamp.at(Duration::from_millis(ms));
            assert_eq!(std::str::from_utf8(made), Ok(text));
        }
    }
}
