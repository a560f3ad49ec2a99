//! One round: quiesce → drain → snapshot → resume → write → commit.

use std::path::Path;

use coordinator_protocol::Committed;
use thiserror::Error;

use crate::agent::CheckpointContext;
use crate::preflight::{self, Offence};

/// Why there is no new generation. The job runs on.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// Seen before anybody was stopped.
    #[error("the job cannot be checkpointed:\n{}", .0.iter().map(|it| format!("  {it}")).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Offence>),
    /// The phases exist, the round that calls them does not.
    #[error("this build takes no checkpoints")]
    NotBuilt,
}

/// Takes one checkpoint.
///
/// # Errors
/// Whatever goes wrong before the commit; the job runs on as if nobody had asked.
pub fn take(context: &CheckpointContext<'_>) -> Result<Committed, CheckpointError> {
    let offences = preflight::check(context.members());
    if !offences.is_empty() {
        return Err(CheckpointError::Refused(offences));
    }
    Err(CheckpointError::NotBuilt)
}

/// Clears away what a checkpoint that was cut off has left in `dir`.
pub fn clear_unfinished(_dir: &Path) {}
