//! One round: quiesce → drain → snapshot → resume → write → commit.
//!
//! ```text
//! with twins     quiesce · drain · snapshot · refill · twins · resume · write from the twins   · commit
//! --stop         quiesce · drain · snapshot · refill ·                  write from the parked · commit · resume
//! --kill                                    the same, and in place of the resume the job's end
//! ```
//!
//! Whatever fails before the commit: what was drained goes back, everybody is let go, the draft is removed, and the job
//! runs on as if nobody had asked.

use std::path::Path;
use std::time::{Duration, Instant};

use coordinator_protocol::{Committed, Mode, Phase};
use node_agent_image::model::NodeModel;

use crate::agent::CheckpointContext;
use crate::files::refill;
use crate::memory::{self, Draft, Owner, Source};
use crate::preflight;
use crate::quiesce::{self, ParkedJob};

mod error;
mod headroom;
mod model;

pub use error::CheckpointError;

/// What the parked phase has found.
struct Captured {
    model: NodeModel,
    /// Host pids of the living processes, in the model's order.
    hosts: Vec<u32>,
    /// Contents that a twin does not freeze, copied.
    held: Vec<Source>,
}

/// Takes one checkpoint.
///
/// # Errors
/// Whatever goes wrong before the commit; the job runs on as if nobody had asked.
pub fn take(context: &CheckpointContext<'_>) -> Result<Committed, CheckpointError> {
    let begun = Instant::now();
    let members = context.members();
    let offences = preflight::check(members.iter().copied());
    if !offences.is_empty() {
        return Err(CheckpointError::Refused(offences));
    }
    let with_twins = context.mode == Mode::Twin && !context.kill;
    if with_twins {
        headroom::check(&members)?;
    }
    let mut draft = Draft::begin(&context.life.record.dir)?;
    let stalled = Instant::now();
    context.progress.enter(Phase::Quiesce);
    let parked = quiesce::quiesce(context)?;
    let captured = freeze(context, &parked)?;
    if with_twins {
        let twins = parked.twins(command_deadline(context))?;
        if !parked.capture() {
            return Err(CheckpointError::Void);
        }
        context.progress.enter(Phase::Resume);
        parked.resume();
        let stall = stalled.elapsed();
        write(context, &mut draft, &captured, twins.pids())?;
        drop(twins);
        commit(context, draft, &captured, stall, begun)
    } else {
        if !parked.capture() {
            return Err(CheckpointError::Void);
        }
        write(context, &mut draft, &captured, &captured.hosts)?;
        let committed = commit(context, draft, &captured, stalled.elapsed(), begun)?;
        if context.kill {
            let left = context.end_job(committed.generation);
            if !left.is_empty() {
                return Err(CheckpointError::NotEnded { generation: committed.generation, left });
            }
        }
        parked.resume();
        Ok(Committed { stall_ms: milliseconds(stalled.elapsed()), ..committed })
    }
}

/// Clears away what a checkpoint that was cut off has left in `dir`.
pub fn clear_unfinished(dir: &Path) {
    memory::clear_unfinished(dir);
}

/// Drains and remembers; what was drained goes back whatever comes of it.
fn freeze(context: &CheckpointContext<'_>, parked: &ParkedJob) -> Result<Captured, CheckpointError> {
    let captured = model::capture(context, parked);
    let refilled = refill::from_ledger(&context.life.ledger);
    let captured = captured?;
    refilled?;
    Ok(captured)
}

/// Reads pages from `readers` (twins, or the parked processes themselves) and writes them.
fn write(
    context: &CheckpointContext<'_>,
    draft: &mut Draft,
    captured: &Captured,
    readers: &[u32],
) -> Result<(), CheckpointError> {
    context.progress.enter(Phase::Write);
    let mut sources = Vec::new();
    for (index, reader) in readers.iter().copied().enumerate() {
        let vmas = &captured.model.processes[index].memory.vmas;
        let vmas: Vec<_> = vmas.iter().filter(|it| !memory::not_in_twin(it)).cloned().collect();
        let stretches = memory::private(reader, &vmas)
            .map_err(|source| CheckpointError::Pages { pid: captured.model.processes[index].pid, source })?;
        sources.push(Source { owner: Owner::Process(index), bytes: memory::Bytes::Memory { pid: reader, base: 0 }, stretches });
    }
    draft.write(&captured.held, context.progress)?;
    draft.write(&sources, context.progress)?;
    Ok(())
}

fn commit(
    context: &CheckpointContext<'_>,
    draft: Draft,
    captured: &Captured,
    stall: Duration,
    begun: Instant,
) -> Result<Committed, CheckpointError> {
    context.progress.enter(Phase::Commit);
    let model = &captured.model;
    let (files, processes) = (model.files.len() as u64, model.processes.len() as u64);
    let threads = model.processes.iter().map(|it| it.threads.len() as u64).sum();
    let cost = memory::Cost { stall_ms: milliseconds(stall), files, processes, threads };
    let written = draft.commit(model, cost)?;
    memory::retain(&context.life.record.dir, context.life.record.keep);
    Ok(Committed {
        generation: written.generation,
        path: written.path.display().to_string(),
        stall_ms: milliseconds(stall),
        total_ms: milliseconds(begun.elapsed()),
        bytes_read: written.bytes_read,
        bytes_stored: written.bytes_stored,
        files,
        processes,
        threads,
        mode: context.mode,
    })
}

fn command_deadline(context: &CheckpointContext<'_>) -> Duration {
    Duration::from_millis(context.deadlines.command_ms)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
