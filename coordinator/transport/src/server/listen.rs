//! The door: strangers have to prove their address, then their key, and may neither crowd it nor stand in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Endpoint, Incoming};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::attach;
use super::refusals::Refusals;
use super::registry::Hub;
use crate::limits::{DROP_TIMEOUT, HANDSHAKE_GRACE};
use crate::session::Code;
use crate::tls::{handshake_failure, is_refusal};

/// How often counted refusals are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Takes connections until it is told to stop.
pub(super) async fn run(hub: Arc<Hub>, endpoint: Endpoint, mut stop: oneshot::Receiver<()>) {
    let door = Arc::new(Door::default());
    let mut bucket = Bucket::new(hub.options.handshakes_per_second_max, Instant::now());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(&hub, &door, &mut bucket, incoming),
                None => break,
            },
            _ = tick.tick() => hub.refusals.tick(Instant::now()),
            _ = &mut stop => break,
        }
    }
    endpoint.close(Code::Gone.into(), b"");
    let _ = timeout(DROP_TIMEOUT, endpoint.wait_idle()).await;
}

/// Handshakes that are under way, oldest first.
#[derive(Default)]
struct Door(Mutex<Standing>);

#[derive(Default)]
struct Standing {
    tasks: BTreeMap<u64, (AbortHandle, SocketAddr, Instant)>,
    last: u64,
}

impl Door {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another one may stand here. One that has idled has to go; when all are busy, the new one comes again.
    fn make_room(&self, most: usize, refusals: &Refusals) -> bool {
        let mut standing = self.standing();
        if standing.tasks.len() < most {
            return true;
        }
        match standing.tasks.first_entry() {
            Some(oldest) if oldest.get().2.elapsed() >= HANDSHAKE_GRACE => {
                let (task, from, _) = oldest.remove();
                task.abort();
                refusals.note("its handshake was not done when others wanted in", from);
                true
            }
            _ => false,
        }
    }
}

/// How many may still come in this second.
struct Bucket {
    per_second: u32,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: f64::from(per_second), filled: now }
    }

    /// One of them, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        let full = f64::from(self.per_second);
        self.left = passed.mul_add(full, self.left).min(full);
        self.filled = now;
        let some = self.left >= 1.0;
        self.left -= if some { 1.0 } else { 0.0 };
        some
    }
}

fn admit(hub: &Arc<Hub>, door: &Arc<Door>, bucket: &mut Bucket, incoming: Incoming) {
    let from = incoming.remote_address();
    if !incoming.remote_address_validated() {
        // Costs us no memory, an honest client one round trip, and a forger his disguise. It can fail only for one that
        // was validated.
        let _ = incoming.retry();
        return;
    }
    if !bucket.take(Instant::now()) {
        incoming.ignore();
        return hub.refusals.note("too many connect in one second", from);
    }
    if !door.make_room(hub.options.handshakes_at_once_max, &hub.refusals) {
        incoming.ignore();
        return hub.refusals.note("too many connect at once", from);
    }
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(cause) => return hub.refusals.note(&handshake_failure(&cause), from),
    };
    let mut standing = door.standing();
    standing.last += 1;
    let number = standing.last;
    let (hub, shared_door) = (Arc::clone(hub), Arc::clone(door));
    let task = tokio::spawn(async move {
        let shaken = timeout(hub.options.handshake_timeout, connecting).await;
        shared_door.standing().tasks.remove(&number);
        match shaken {
            Ok(Ok(connection)) => attach::serve(hub, connection).await,
            Ok(Err(cause)) if is_refusal(&cause) => hub.refusals.note(&handshake_failure(&cause), from),
            Ok(Err(_)) => {}
            Err(_) => hub.refusals.note("its handshake took too long", from),
        }
    });
    // The thread is one, and this does not wait: the task has not begun yet.
    standing.tasks.insert(number, (task.abort_handle(), from, Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_second_and_not_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        let mut taken = |after_ms| (0..100).filter(|_| bucket.take(start + Duration::from_millis(after_ms))).count();
        assert_eq!(taken(0), 10);
        assert_eq!(taken(1), 0);
        assert_eq!(taken(501), 5);
        assert_eq!(taken(60_000), 10);
    }
}
