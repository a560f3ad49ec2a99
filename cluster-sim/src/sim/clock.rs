//! Monotonic clocks that do not agree.

use std::time::Duration;

/// One machine's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// What it showed at the beginning, µs.
    pub(super) zero_us: u64,
    /// How much faster than the others' time it runs, millionths; slower if negative.
    pub(super) drift_ppm: i64,
}

impl Clock {
    /// What it shows at a moment of the simulation's time.
    pub(super) fn show(self, now_us: u64) -> Duration {
        Duration::from_micros(self.zero_us + scale(now_us, 1_000_000 + self.drift_ppm, 1_000_000))
    }

    /// When it will show that, not earlier.
    pub(super) fn when(self, shows: Duration) -> u64 {
        let since = (shows.as_micros() as u64).saturating_sub(self.zero_us);
        let mut at = scale(since, 1_000_000, 1_000_000 + self.drift_ppm);
        while self.show(at) < shows {
            at += 1;
        }
        at
    }
}

fn scale(value: u64, by: i64, of: i64) -> u64 {
    (i128::from(value) * i128::from(by) / i128::from(of)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_asked_for() {
        for drift_ppm in [-20_000, -1, 0, 7, 20_000] {
            let clock = Clock { zero_us: 12_345, drift_ppm };
            for at in [0, 1, 999_999, 123_456_789] {
                let shows = clock.show(at);
                let when = clock.when(shows);
                assert!(clock.show(when) >= shows && when <= at + 1, "{drift_ppm} {at} {when}");
            }
        }
    }
}
