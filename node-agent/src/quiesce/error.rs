//! Why a job could not be parked.

use std::io;

use thiserror::Error;

use super::laggard::Laggard;

/// Why a job is not parked. Everybody runs on.
#[derive(Debug, Error)]
pub enum QuiesceError {
    /// Somebody did not park in time.
    #[error("not parked within {milliseconds} ms: {laggard}{}", others(*.more))]
    Deadline {
        #[allow(missing_docs)]
        milliseconds: u64,
        #[allow(missing_docs)]
        laggard: Box<Laggard>,
        /// Threads that are late besides.
        more: usize,
    },
    /// Somebody will never park.
    #[error("cannot be parked: {0}")]
    Hopeless(Box<Laggard>),
    /// The control segment is full.
    #[error("the job has too many threads on this node: no slot in the control segment for thread {tid} of pid {pid}")]
    Slots {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        tid: u32,
    },
    /// A parked thread does not do what it is told.
    #[error("pid {pid}, thread {tid} did not {what} within {milliseconds} ms")]
    Command {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        tid: u32,
        /// In words.
        what: &'static str,
        #[allow(missing_docs)]
        milliseconds: u64,
    },
    /// It died while it was parked: somebody has killed it.
    #[error("pid {0} ended while it was parked")]
    Gone(u32),
    /// More pending signals than an image keeps.
    #[error("pid {0} has more than {max} pending signals in one queue", max = hijack_abi::PENDING)]
    Pending(u32),
    /// No copy of it could be made.
    #[error("cannot make a copy-on-write twin of pid {pid}: {source}")]
    Twin {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        1 => " (and one more thread)".into(),
        more => format!(" (and {more} more threads)"),
    }
}
