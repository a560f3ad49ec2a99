//! One checkpoint: quiesce → drain → snapshot → resume → write → commit.
//!
//! ```text
//! with twins     park · capture (drain · snapshot · refill · twins) · resume · write from the twins   · commit
//! --stop         park · capture (drain · snapshot · refill)         ·          write from the parked · commit · resume
//! --kill                                    the same, and in place of the resume the job's end
//! ```
//!
//! The steps are a [`Round`]'s. On one node they follow each other here; on many each waits for the coordinator's word.
//!
//! Whatever fails before the commit: what was drained goes back, everybody is let go, the unfinished generation is removed,
//! and the job runs on as if nobody had asked.

use std::path::Path;
use std::time::{Duration, Instant};

use coordinator_protocol::{Committed, Phase};

use crate::agent::CheckpointContext;
use crate::files::FilesError;
use crate::memory::{self, Unfinished};

mod error;
mod headroom;
mod model;
mod round;

pub use error::CheckpointError;
pub use round::Round;

/// Pauses before a refused job is parked again: a connection to a name service, say, is there for a moment only.
const REFUSED_PAUSES: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(250)];

/// Takes one checkpoint of a job on one node.
///
/// # Errors
/// Whatever goes wrong before the commit; the job runs on as if nobody had asked.
pub fn take(context: &CheckpointContext<'_>) -> Result<Committed, CheckpointError> {
    let begun = Instant::now();
    for pause in REFUSED_PAUSES {
        match attempt(context, begun) {
            Err(CheckpointError::Files(FilesError::Refused(_))) => std::thread::sleep(pause),
            done => return done,
        }
    }
    attempt(context, begun)
}

fn attempt(context: &CheckpointContext<'_>, begun: Instant) -> Result<Committed, CheckpointError> {
    let mut round = Round::begin(context)?;
    let unfinished = Unfinished::begin(&context.life.record.dir)?;
    round.park()?;
    round.capture(&[])?;
    if round.runs_on() {
        round.resume();
    }
    let receipt = round.write(unfinished.path())?;
    context.progress.enter(Phase::Commit);
    let (files, processes, threads) = (receipt.files, receipt.processes, receipt.threads);
    let (job, stall_ms) = (context.life.record.job.clone(), round.stall_ms());
    let written = unfinished.commit(vec![receipt], memory::Cost { job, stall_ms, ..memory::Cost::default() })?;
    memory::retain(&context.life.record.dir, context.life.record.keep);
    round.end(written.generation)?;
    Ok(Committed {
        generation: written.generation,
        path: written.path.display().to_string(),
        stall_ms: round.stall_ms(),
        total_ms: milliseconds(begun.elapsed()),
        bytes_read: written.bytes_read,
        bytes_stored: written.bytes_stored,
        files,
        processes,
        threads,
        mode: context.mode,
    })
}

/// Clears away what a checkpoint that was cut off has left in `dir`.
pub fn clear_unfinished(dir: &Path) {
    memory::clear_unfinished(dir);
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
