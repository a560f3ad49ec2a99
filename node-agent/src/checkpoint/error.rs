//! Why there is no new generation.

use std::collections::BTreeSet;
use std::io;

use thiserror::Error;

use crate::files::refill::RefillError;
use crate::files::{DrainError, FilesError};
use crate::memory::{MemoryError, WriteError};
use crate::objects::ObjectsError;
use crate::preflight::Offence;
use crate::quiesce::QuiesceError;
use crate::snapshot::SnapshotError;

/// Why there is no new generation. The job runs on.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// Seen before anybody was stopped.
    #[error("the job cannot be checkpointed:\n{}", .0.iter().map(|it| format!("  {it}")).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Offence>),
    /// A twin could not be kept.
    #[error(
        "too little memory for copy-on-write twins: the job has {} MiB of its own and {} MiB are free: checkpoint with --stop",
        .private >> 20, .free >> 20
    )]
    TooLittleMemory {
        /// Bytes of private memory of all processes.
        private: u64,
        /// Bytes that are left on the node or in the cgroup.
        free: u64,
    },
    #[allow(missing_docs)]
    #[error(transparent)]
    Quiesce(#[from] QuiesceError),
    #[allow(missing_docs)]
    #[error(transparent)]
    Drain(#[from] DrainError),
    #[allow(missing_docs)]
    #[error(transparent)]
    Files(#[from] FilesError),
    #[allow(missing_docs)]
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[allow(missing_docs)]
    #[error(transparent)]
    Ipc(#[from] crate::ipc::IpcError),
    #[allow(missing_docs)]
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[allow(missing_docs)]
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Bytes in flight could not be put back.
    #[error("{0}; the job may miss them")]
    Refill(#[from] RefillError),
    /// pagemap refuses.
    #[error("cannot find out which pages of pid {pid} are its own: {source}")]
    Pages {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        source: io::Error,
    },
    #[allow(missing_docs)]
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The guardian took this agent for dead.
    #[error("the job was let go before all of it was remembered")]
    Void,
    /// Committed, but.
    #[error("generation {generation} is committed, but these processes do not end: {left:?}")]
    NotEnded {
        #[allow(missing_docs)]
        generation: u64,
        #[allow(missing_docs)]
        left: BTreeSet<u32>,
    },
}
