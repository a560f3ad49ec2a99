//! Spans and moments as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds in `90s`, `30m`, `4h`, `1d`, or a bare number of seconds.
///
/// # Errors
/// A text for the user.
pub fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => return Err(format!("{other} is no unit of time: say s, m, h or d, as in 30m")),
    };
    let number: u64 = digits.parse().map_err(|_| "a time is a number and a unit, as in 90s, 30m or 4h".to_owned())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(|| "a time is at least 1s".to_owned())
}

/// ns since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// `3d 4h`, `2h 5m`, `1m 12s`, `9s`: two units, no more.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A moment as RFC 3339 writes it, in UTC: `2026-03-01T12:00:00Z`.
pub fn moment(ns_since_1970: u64) -> String {
    let seconds = ns_since_1970 / 1_000_000_000;
    let (year, month, day) = date((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days since 1970-01-01. Years begin in March here, so that a leap day is the last.
fn date(days: i64) -> (i64, i64, i64) {
    const FROM_YEAR_0: i64 = 719_468;
    const ERA: i64 = 146_097; // days in 400 years
    let days = days + FROM_YEAR_0;
    let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!([seconds("90s"), seconds("30m"), seconds("4h"), seconds("7")], [Ok(90), Ok(1800), Ok(14400), Ok(7)]);
        for bad in ["", "m", "0s", "5x", "-3s", "99999999999999999999s", "1.5h", "ü"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_and_moments() {
        let text = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([text(9), text(72), text(7500), text(273_600)], ["9s", "1m 12s", "2h 5m", "3d 4h"]);
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(moment(1_772_366_399_000_000_000), "2026-03-01T11:59:59Z");
    }
}
