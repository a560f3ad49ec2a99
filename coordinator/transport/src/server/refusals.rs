//! Strangers are reported, but not as often as they come: what is the same is counted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::ServerEvent;
use crate::events::Outlet;
use crate::limits::{REFUSAL_INTERVAL, REFUSALS_MAX};

/// What was refused since it was last reported.
#[derive(Debug)]
pub(crate) struct Refusals {
    events: Outlet<ServerEvent>,
    counted: Mutex<HashMap<String, Counted>>,
}

/// One reason.
#[derive(Debug)]
struct Counted {
    /// Since the last report.
    count: u64,
    reported: Instant,
    from: SocketAddr,
}

impl Refusals {
    pub(crate) fn new(events: Outlet<ServerEvent>) -> Self {
        Self { events, counted: Mutex::default() }
    }

    /// Somebody was refused. The first of a kind is reported at once, the others are counted.
    pub(crate) fn note(&self, reason: &str, from: SocketAddr) {
        let from = canonical(from);
        let mut counted = self.lock();
        // Texts of other people's making may vary without end: what is one too many counts as something else.
        let known = counted.contains_key(reason) || counted.len() < REFUSALS_MAX;
        let reason = if known { reason } else { "another reason" };
        if let Some(counted) = counted.get_mut(reason) {
            counted.count += 1;
            counted.from = from;
            return;
        }
        counted.insert(reason.to_owned(), Counted { count: 0, reported: Instant::now(), from });
        self.report(reason, from, 1);
    }

    /// Reports what was counted for long enough; forgets what has ceased.
    pub(crate) fn tick(&self, now: Instant) {
        self.lock().retain(|reason, counted| {
            if now.saturating_duration_since(counted.reported) < REFUSAL_INTERVAL {
                return true;
            }
            if counted.count == 0 {
                return false;
            }
            self.report(reason, counted.from, counted.count);
            (counted.count, counted.reported) = (0, now);
            true
        });
    }

    fn report(&self, reason: &str, from: SocketAddr, count: u64) {
        self.events.put(ServerEvent::Refused { from, reason: reason.to_owned(), count });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An IPv4 address that came over an IPv6 socket, as people know it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::channel;

    #[test]
    fn the_first_is_reported_and_then_one_sum_in_a_minute() {
        let (events, receiver) = channel();
        let refusals = Refusals::new(events);
        let from = SocketAddr::from(([10, 0, 0, 1], 9));
        let start = Instant::now();
        (0..5).for_each(|_| refusals.note("no key", from));
        refusals.note("garbage", "[::ffff:10.0.0.2]:9".parse().expect("an address"));
        refusals.tick(start + REFUSAL_INTERVAL / 2);
        let report = |from: [u8; 4], reason: &str, count| ServerEvent::Refused {
            from: SocketAddr::from((from, 9)),
            reason: reason.to_owned(),
            count,
        };
        let all = || std::iter::from_fn(|| receiver.try_recv().ok()).collect::<Vec<_>>();
        assert_eq!(all(), [report([10, 0, 0, 1], "no key", 1), report([10, 0, 0, 2], "garbage", 1)]);
        let later = Instant::now() + REFUSAL_INTERVAL;
        refusals.tick(later);
        assert_eq!(all(), [report([10, 0, 0, 1], "no key", 4)]);
        refusals.tick(later + REFUSAL_INTERVAL - Duration::from_secs(1));
        assert_eq!(all(), []);
        refusals.tick(later + REFUSAL_INTERVAL);
        refusals.note("no key", from);
        assert_eq!(all(), [report([10, 0, 0, 1], "no key", 1)], "what had ceased is news again");
    }

    #[test]
    fn reasons_without_end_are_one_reason() {
        let (events, receiver) = channel();
        let refusals = Refusals::new(events);
        (0..1000).for_each(|number| refusals.note(&format!("reason {number}"), SocketAddr::from(([10, 0, 0, 1], 9))));
        assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).count(), REFUSALS_MAX + 1);
    }
}
