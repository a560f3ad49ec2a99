//! What a deputy does when it hears nothing any more.

use std::time::Duration;

use super::{Deed, Deputy};
use crate::node::{Report, Stage, Welcome};
use crate::round::ALONE;

/// The session with the coordinator, and what runs out without it.
#[derive(Debug)]
pub(super) struct Link {
    /// Since when there is none.
    down_since: Option<Duration>,
    agent_timeout: Duration,
    /// Since when streams that were begun wait for their ends.
    unsettled_since: Option<Duration>,
}

impl Link {
    pub(super) const fn down(now: Duration) -> Self {
        let agent_timeout = Duration::from_secs(30);
        Self { down_since: Some(now), agent_timeout, unsettled_since: None }
    }

    pub(super) const fn up(&mut self, _now: Duration, welcome: &Welcome) {
        self.down_since = None;
        self.agent_timeout = Duration::from_millis(welcome.agent_timeout_ms);
    }

    pub(super) fn broken(&mut self, now: Duration) {
        self.down_since.get_or_insert(now);
    }
}

impl Deputy {
    /// When [`Deputy::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        [self.streams.resend_at, self.alone_until(), self.unsettled_until()].into_iter().flatten().min()
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.streams.resend_at.is_some_and(|at| now >= at) {
            self.resend(now);
        }
        if self.alone_until().is_some_and(|at| now >= at) {
            self.go_alone(now);
        }
        if self.unsettled_until().is_some_and(|at| now >= at) {
            self.link.unsettled_since = None;
            self.streams.resend_at = None;
            return self.give_up();
        }
        self.note_unsettled(now);
    }

    /// Called whenever the stage may have changed.
    pub(super) fn note_unsettled(&mut self, now: Duration) {
        let waits = self.standing.stage == Stage::Freeing && !self.streams.is_settled();
        self.link.unsettled_since = waits.then(|| self.link.unsettled_since.unwrap_or(now));
    }

    fn alone_until(&self) -> Option<Duration> {
        let since = self.link.down_since?;
        match self.standing.stage {
            Stage::Parking | Stage::Flushing | Stage::Flushed | Stage::Capturing | Stage::Captured => {
                Some(since + ALONE)
            }
            Stage::Writing if self.stays_parked() => Some(since + ALONE),
            Stage::Written if self.stays_parked() && !self.released => Some(since + ALONE),
            _ => None,
        }
    }

    fn unsettled_until(&self) -> Option<Duration> {
        Some(self.link.unsettled_since? + self.link.agent_timeout * 2)
    }

    fn go_alone(&mut self, now: Duration) {
        if self.standing.stage == Stage::Written {
            self.released = true;
            return self.deed(Deed::Resume(self.standing.round));
        }
        self.fail(now, "it lost the coordinator".into());
    }

    /// Bytes of a stream are on another node that is not heard of any more, and nor is the coordinator. A stream with a hole
    /// in it would be worse than the end.
    fn give_up(&mut self) {
        let reason =
            "bytes that were read out of a stream for a checkpoint cannot be brought back: the other node is gone";
        self.send(Report::Failed { round: self.standing.round, reason: reason.into() });
        self.deed(Deed::End(reason.into()));
    }
}
