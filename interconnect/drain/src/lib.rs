//! When a byte stream is drained: a decision per look, no IO, no clock.
//!
//! ```text
//! PEEK ── nothing is unacknowledged: all lies in the receiver's buffer ──────────────→ DONE (nothing to put back)
//!   │ no movement for STALL_MS, and the receiver's buffer is what is in the way
//!   ▼
//! READ OUT ── take all that is there, again and again; nothing unread, nothing unacknowledged ──→ DONE (refill)
//! ```
//!
//! A direction that has begun to be read out is read out to its end: peeked and read bytes are never mixed, because a
//! refill could only put them back in the wrong order.
#![forbid(unsafe_code)]

/// Without movement for this long, a stream whose receiver has unread bytes is taken to be full. On one machine bytes
/// move in microseconds; what this saves is reading out streams that would have emptied by themselves.
pub const STALL_MS: u64 = 5;

/// One direction of a connection whose ends are both parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    reading_out: bool,
    last: Option<(Observation, u64)>,
}

/// What the kernel tells of a direction at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Bytes that the sender's kernel holds: not sent, or not acknowledged.
    pub unacknowledged: u64,
    /// Bytes in the receiver's buffer.
    pub unread: u64,
    /// The sender can still send: what is read out can be put back through it.
    pub refillable: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All bytes are where they can be captured.
    Done,
    /// Look again a little later.
    Wait,
    /// Take this many bytes out of the receiver's buffer, safely kept, then look again.
    ReadOut(u64),
}

impl Direction {
    /// Whether bytes have been, or are to be, read out.
    pub fn reading_out(&self) -> bool {
        self.reading_out
    }

    /// Handles a look at `now_ms` (any monotonic clock).
    pub fn handle_observation(&mut self, now_ms: u64, seen: Observation) -> Step {
        if self.reading_out {
            return match seen {
                Observation { unread: 1.., .. } => Step::ReadOut(seen.unread),
                Observation { unacknowledged: 0, .. } => Step::Done,
                _ => Step::Wait,
            };
        }
        if seen.unacknowledged == 0 {
            return Step::Done;
        }
        let since_ms = match self.last {
            Some((last, since_ms)) if last == seen => since_ms,
            _ => now_ms,
        };
        self.last = Some((seen, since_ms));
        let stalled = now_ms.saturating_sub(since_ms) >= STALL_MS;
        if stalled && seen.unread > 0 && seen.refillable {
            self.reading_out = true;
            return Step::ReadOut(seen.unread);
        }
        Step::Wait
    }
}

/// How many of the bytes of a chunk were taken out of the receiver's buffer before whoever did it died: the receiver's own
/// count of consumed bytes tells. `None`: neither all nor nothing, which a single take cannot bring about.
pub fn taken(consumed_before: u64, consumed_now: u64, chunk: u64) -> Option<u64> {
    match consumed_now.checked_sub(consumed_before)? {
        0 => Some(0),
        difference if difference == chunk => Some(chunk),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(unacknowledged: u64, unread: u64) -> Observation {
        Observation { unacknowledged, unread, refillable: true }
    }

    #[test]
    fn what_empties_by_itself_is_only_peeked() {
        let mut direction = Direction::default();
        assert_eq!(direction.handle_observation(0, seen(10, 5)), Step::Wait);
        assert_eq!(direction.handle_observation(STALL_MS, seen(8, 7)), Step::Wait);
        assert_eq!(direction.handle_observation(STALL_MS + 1, seen(0, 15)), Step::Done);
        assert!(!direction.reading_out());
    }

    #[test]
    fn a_full_one_is_read_out_to_its_end() {
        let mut direction = Direction::default();
        assert_eq!(direction.handle_observation(0, seen(10, 5)), Step::Wait);
        assert_eq!(direction.handle_observation(STALL_MS, seen(10, 5)), Step::ReadOut(5));
        // Acknowledged does not mean read: what it has begun, it ends.
        assert_eq!(direction.handle_observation(STALL_MS, seen(0, 10)), Step::ReadOut(10));
        assert_eq!(direction.handle_observation(STALL_MS, seen(3, 0)), Step::Wait);
        assert_eq!(direction.handle_observation(STALL_MS, seen(0, 0)), Step::Done);
    }

    #[test]
    fn nothing_is_taken_that_could_not_be_put_back() {
        let mut direction = Direction::default();
        let closed = Observation { refillable: false, ..seen(10, 5) };
        for now_ms in 0..10 * STALL_MS {
            assert_eq!(direction.handle_observation(now_ms, closed), Step::Wait);
        }
    }

    #[test]
    fn a_chunk_was_taken_or_not() {
        assert_eq!(taken(7, 7, 4), Some(0));
        assert_eq!(taken(7, 11, 4), Some(4));
        assert_eq!(taken(7, 9, 4), None);
        assert_eq!(taken(7, 6, 4), None);
    }
}
