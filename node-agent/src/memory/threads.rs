//! Threads that take turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Work for one more thread: below this a second one is not worth its start, nor the file that it would write.
pub const BYTES_PER_THREAD: u64 = 8 << 20;

/// As many threads as may run at once.
pub fn available() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// How many threads are worth while for so much memory.
pub fn worth(bytes: u64) -> usize {
    available().min(bytes.div_ceil(BYTES_PER_THREAD).max(1) as usize)
}

/// Numbers from 0 on, each given out once.
#[derive(Debug)]
pub struct Turns {
    next: AtomicUsize,
    count: usize,
}

impl Turns {
    pub fn new(count: usize) -> Self {
        Self { next: AtomicUsize::new(0), count }
    }

    /// The next one; None when all are given out or somebody has failed.
    pub fn take(&self) -> Option<usize> {
        // Far from its end: each thread asks at most once more after the last.
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (turn < self.count).then_some(turn)
    }

    /// Gives out no more if `result` is an error.
    pub fn stop_at<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            self.next.store(self.count, Ordering::Relaxed);
        }
        result
    }
}

/// Runs `work` on so many threads, each of which has ended for good when this returns: a scope alone waits for the work
/// and not for its thread, and a process that forks afterwards must have one.
pub fn on_threads<E: Send>(count: usize, work: impl Fn() -> Result<(), E> + Sync) -> Result<(), E> {
    if count <= 1 {
        return work();
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        let results: Vec<_> = threads.into_iter().map(|it| it.join()).collect();
        results.into_iter().try_for_each(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
