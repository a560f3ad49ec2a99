//! Descriptors of all kinds: taken from outside while the job is parked, put back at a restart.
//!
//! ```text
//! drain    → bytes in flight lie in receivers' buffers or in the ledger        (drain.rs, ledger.rs)
//! snapshot → every open file description once, every descriptor that names it  (table.rs, snapshot.rs)
//! refill   → what the ledger holds goes back through the senders               (refill.rs)
//! restart  → every description is opened once, at high numbers;                (restart.rs)
//!            each process moves them to its own numbers                        (install.rs)
//! ```
//!
//! One file per kind holds both its saving and its restoring.

use std::io;

use node_agent_image::model::{ObjectIndex, ObjectKind};
use thiserror::Error;

mod across;
mod counters;
pub mod drain;
mod epoll;
mod inotify;
mod install;
pub(crate) mod keeper;
pub mod ledger;
pub mod listeners;
mod netlink;
pub mod pairing;
mod path;
mod pipe;
mod ports;
mod pty;
pub mod refill;
pub mod restart;
pub mod snapshot;
mod socket;
pub(crate) mod sys;
pub(crate) mod sys_socket;
mod table;
mod tcp;
mod typed;
mod udp;
mod unix;

pub use across::{Across, Unsent};
pub use drain::{DrainError, drain};
pub use install::install;
pub use ledger::Ledger;
pub use ports::TIME_WAIT;
pub use restart::{FilePolicy, cut_back, open_all};
pub use snapshot::{CapturedFiles, capture};

/// A process of the job: its pid as the agent sees it and as the job sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRef {
    /// Pid in the agent's pid namespace.
    pub host_pid: u32,
    /// Pid in the job's.
    pub pid: u32,
}

/// Where files whose contents belong in the image are entered: the table of shared memory and deleted files.
pub trait FileObjects {
    /// The object that is this inode, where it is known already.
    fn find(&self, device: u64, inode: u64) -> Option<ObjectIndex>;

    /// Enters an open file whose contents have to be in the image. `file` is readable.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    fn add_file(&mut self, file: std::os::fd::OwnedFd, kind: ObjectKind) -> io::Result<ObjectIndex>;
}

/// A descriptor that cannot be saved, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("pid {pid}, descriptor {number} ({file}): {reason}")]
pub struct Offence {
    /// As the job sees it.
    pub pid: u32,
    #[allow(missing_docs)]
    pub number: i32,
    /// Text of /proc/PID/fd/N.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why descriptors cannot be saved or put back.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The job holds what no checkpoint can keep; nothing was changed.
    #[error("these descriptors cannot be checkpointed:\n{}", lines(.0))]
    Refused(Vec<Offence>),
    /// /proc or pidfd_open refuses.
    #[error("cannot list the descriptors of pid {pid}: {source}")]
    Process {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// One descriptor cannot be looked at.
    #[error("cannot {deed} descriptor {number} of pid {pid} ({file}): {source}")]
    Descriptor {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        number: i32,
        #[allow(missing_docs)]
        file: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// sock_diag or /proc/net refuses.
    #[error("cannot read the list of {what} sockets: {source}")]
    Sockets {
        #[allow(missing_docs)]
        what: &'static str,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// At a restart: a file is gone.
    #[error("{path} was open in the job and is missing: put it back, or restart an older generation")]
    Missing {
        #[allow(missing_docs)]
        path: String,
    },
    /// At a restart: a file is shorter than the checkpoint knew it.
    #[error("{path} had {was} bytes at the checkpoint and has {is} now: put it back, or restart an older generation")]
    Shrunk {
        #[allow(missing_docs)]
        path: String,
        #[allow(missing_docs)]
        was: u64,
        #[allow(missing_docs)]
        is: u64,
    },
    /// At a restart: something cannot be opened or set.
    #[error("cannot {deed} {what}: {source}")]
    Restore {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        what: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// At a restart: the model does not hold together.
    #[error("the image is inconsistent: {0}")]
    Model(String),
}

impl FilesError {
    /// For map_err at a restart.
    pub(crate) fn restore(deed: &'static str, what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Restore { deed, what, source }
    }
}

fn lines(offences: &[Offence]) -> String {
    offences.iter().map(|it| format!("  {it}")).collect::<Vec<_>>().join("\n")
}
