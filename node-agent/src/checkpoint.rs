//! One round: quiesce → drain → snapshot → resume → write → commit.

use std::path::Path;

use coordinator_protocol::Committed;
use thiserror::Error;

use crate::agent::CheckpointContext;

/// Why there is no new generation. The job runs on.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The phases exist, the round that calls them does not.
    #[error("this build takes no checkpoints")]
    NotBuilt,
}

/// Takes one checkpoint.
///
/// # Errors
/// Whatever goes wrong before the commit; the job runs on as if nobody had asked.
pub fn take(_context: &CheckpointContext<'_>) -> Result<Committed, CheckpointError> {
    Err(CheckpointError::NotBuilt)
}

/// Clears away what a checkpoint that was cut off has left in `dir`.
pub fn clear_unfinished(_dir: &Path) {}
