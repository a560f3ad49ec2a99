//! Commands to parked threads: those of one process one after another, all processes at once.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hijack_abi::{Slot, command};

use super::error::QuiesceError;
use super::{Held, ParkedJob, ParkedProcess, ParkedThread};
use crate::guardian::sys::kill;
use crate::segment;
use crate::tasks::TaskStatus;

/// Without an answer for so long we look whether there is anybody left to give it.
const LOOK: Duration = Duration::from_millis(10);

/// What one thread is told.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pid: u32,
    tid: u32,
    slot: &'static Slot,
    command: u32,
}

impl Order {
    pub(super) fn new(process: &ParkedProcess, thread: &ParkedThread, command: u32) -> Self {
        Self { pid: process.host_pid, tid: thread.host_tid, slot: thread.slot, command }
    }

    fn send(&self) {
        segment::tell(self.slot, self.command);
    }

    fn in_words(&self) -> &'static str {
        match self.command {
            command::FACTS => "tell about its process",
            command::PENDING => "tell which signals wait for it",
            _ => "make a twin",
        }
    }
}

impl ParkedJob {
    /// Gives each queue's orders in turn, and waits until all are done.
    pub(super) fn obey(&self, queues: Vec<VecDeque<Order>>, deadline: Duration) -> Result<(), QuiesceError> {
        let until = Instant::now() + deadline;
        let acks = &self.held.segment.acks;
        let mut queues: Vec<_> = queues.into_iter().filter(|queue| !queue.is_empty()).collect();
        queues.iter().filter_map(VecDeque::front).for_each(Order::send);
        loop {
            let count = acks.load(Ordering::Acquire);
            queues.retain_mut(|queue| {
                while queue.front().is_some_and(|it| segment::has_done(it.slot)) {
                    queue.pop_front();
                    queue.front().into_iter().for_each(Order::send);
                }
                !queue.is_empty()
            });
            let Some(first) = queues.first().and_then(VecDeque::front) else { return Ok(()) };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let milliseconds = deadline.as_millis() as u64;
                return Err(QuiesceError::Command {
                    pid: first.pid,
                    tid: first.tid,
                    what: first.in_words(),
                    milliseconds,
                });
            }
            segment::wait(acks, count, left.min(LOOK));
            if acks.load(Ordering::Acquire) == count {
                queues.iter().filter_map(VecDeque::front).try_for_each(|order| self.held.look_after(order))?;
            }
        }
    }
}

impl Held {
    /// Somebody may have killed it, or stopped it.
    fn look_after(&self, order: &Order) -> Result<(), QuiesceError> {
        let status = TaskStatus::read(order.pid, order.tid).filter(|it| !it.has_ended());
        let status = status.ok_or(QuiesceError::Gone(order.pid))?;
        if status.state == 'T' {
            self.stopped().insert(order.pid);
            kill(order.pid, libc::SIGCONT);
        }
        Ok(())
    }
}
