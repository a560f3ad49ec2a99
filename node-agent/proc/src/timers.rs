//! /proc/PID/timers.

/// A POSIX timer, without what is left of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    #[allow(missing_docs)]
    pub id: i32,
    #[allow(missing_docs)]
    pub signal: i32,
    /// sigev_value.
    pub value: u64,
    /// SIGEV_SIGNAL 0, SIGEV_NONE 1, with SIGEV_THREAD_ID 4.
    pub notify: i32,
    /// For SIGEV_THREAD_ID, as the reader numbers it.
    pub tid: u32,
    #[allow(missing_docs)]
    pub clock: i32,
}

/// Parses the whole file; lines that are not understood are passed over.
pub fn parse(text: &str) -> Vec<Timer> {
    let mut timers: Vec<Timer> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if key == "ID" {
            timers.push(Timer { id: value.parse().unwrap_or(-1), ..Timer::default() });
            continue;
        }
        let Some(timer) = timers.last_mut() else { continue };
        match key {
            "signal" => {
                let (signal, pointer) = value.split_once('/').unwrap_or((value, "0"));
                timer.signal = signal.parse().unwrap_or(0);
                timer.value = u64::from_str_radix(pointer.trim_start_matches("0x"), 16).unwrap_or(0);
            }
            "notify" => {
                let (kind, whom) = value.split_once('/').unwrap_or((value, ""));
                let kind = match kind {
                    "none" => 1,
                    "thread" => 2,
                    _ => 0,
                };
                let (word, id) = whom.split_once('.').unwrap_or(("", "0"));
                timer.notify = kind | if word == "tid" { 4 } else { 0 };
                timer.tid = id.parse().unwrap_or(0);
            }
            "ClockID" => timer.clock = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    timers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_timers() {
        let text = "ID: 0\nsignal: 14/00000000deadbeef\nnotify: signal/pid.7\nClockID: 1\n\
                    ID: 3\nsignal: 34/0\nnotify: signal/tid.9\nClockID: -2\n";
        let first = Timer { id: 0, signal: 14, value: 0xdead_beef, notify: 0, tid: 7, clock: 1 };
        let second = Timer { id: 3, signal: 34, value: 0, notify: 4, tid: 9, clock: -2 };
        assert_eq!(parse(text), [first, second]);
    }
}
