//! The time of a line: UTC, RFC 3339 with milliseconds. The part down to the second is kept and reused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of `2026-01-02T03:04:05`.
const SECOND_BYTES: usize = 19;
const DAY_SECONDS: u64 = 86_400;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment taken apart, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year of the common era.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
}

impl Civil {
    /// Takes `seconds` since 1970 apart (proleptic Gregorian calendar, eras of 400 years that begin in March).
    pub fn of(seconds: u64) -> Civil {
        let (days, rest) = (seconds / DAY_SECONDS + 719_468, seconds % DAY_SECONDS);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Civil {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

/// Now, since 1970; zero for a clock before that.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Writes times; keeps the text of the second it wrote last.
pub struct Stamp {
    second: u64,
    text: [u8; SECOND_BYTES],
}

impl Default for Stamp {
    fn default() -> Stamp {
        let mut stamp = Stamp { second: 0, text: *b"1970-01-01T00:00:00" };
        stamp.refresh(0);
        stamp
    }
}

impl Stamp {
    /// Appends `2026-01-02T03:04:05.678Z`.
    pub fn write(&mut self, at: Duration, out: &mut Vec<u8>) {
        if at.as_secs() != self.second {
            self.refresh(at.as_secs());
        }
        out.extend_from_slice(&self.text);
        let millis = at.subsec_millis();
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }

    fn refresh(&mut self, second: u64) {
        let civil = Civil::of(second);
        self.second = second;
        two(&mut self.text[0..2], civil.year / 100);
        two(&mut self.text[2..4], civil.year % 100);
        two(&mut self.text[5..7], civil.month);
        two(&mut self.text[8..10], civil.day);
        two(&mut self.text[11..13], civil.hour);
        two(&mut self.text[14..16], civil.minute);
        two(&mut self.text[17..19], civil.second);
    }
}

/// Appends `[02/Jan/2026:03:04:05 +0000]`, the form of gunicorn's `%(t)s`.
pub fn write_clf(at: Duration, out: &mut Vec<u8>) {
    let civil = Civil::of(at.as_secs());
    let mut text = *b"[00/Jan/0000:00:00:00 +0000]";
    two(&mut text[1..3], civil.day);
    text[4..7].copy_from_slice(MONTHS[(civil.month as usize - 1) % 12].as_bytes());
    two(&mut text[8..10], civil.year / 100);
    two(&mut text[10..12], civil.year % 100);
    two(&mut text[13..15], civil.hour);
    two(&mut text[16..18], civil.minute);
    two(&mut text[19..21], civil.second);
    out.extend_from_slice(&text);
}

fn two(place: &mut [u8], value: u64) {
    place[0] = digit((value / 10) as u32);
    place[1] = digit(value as u32);
}

fn digit(value: u32) -> u8 {
    b'0' + (value % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, millis: u64) -> String {
        let mut out = Vec::new();
        Stamp::default().write(Duration::from_millis(seconds * 1000 + millis), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn moments_read_as_the_calendar_says() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(text(1_709_251_199, 999), "2024-02-29T23:59:59.999Z");
        assert_eq!(text(1_795_509_934, 120), "2026-11-24T08:45:34.120Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_kept_second_is_refreshed_also_backwards() {
        let mut stamp = Stamp::default();
        let mut out = Vec::new();
        stamp.write(Duration::from_secs(100), &mut out);
        stamp.write(Duration::from_secs(99), &mut out);
        assert!(out.ends_with(b"1970-01-01T00:01:39.000Z"));
    }

    #[test]
    fn the_common_log_form() {
        let mut out = Vec::new();
        write_clf(Duration::from_secs(1_795_509_934), &mut out);
        assert_eq!(out, b"[24/Nov/2026:08:45:34 +0000]");
    }
}
