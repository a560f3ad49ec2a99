//! One round: quiesce → drain → snapshot → resume → write → commit.
//!
//! ```text
//! with twins     quiesce · drain · snapshot · refill · twins · resume · write from the twins   · commit
//! --stop         quiesce · drain · snapshot · refill ·                  write from the parked · commit · resume
//! --kill                                    the same, and in place of the resume the job's end
//! ```
//!
//! Whatever fails before the commit: what was drained goes back, everybody is let go, the unfinished generation is removed, and the job
//! runs on as if nobody had asked.

use std::path::Path;
use std::time::{Duration, Instant};

use coordinator_protocol::{Committed, Mode, Phase};
use node_agent_image::model::NodeModel;

use crate::agent::CheckpointContext;
use crate::files::refill;
use crate::memory::{self, Owner, Part, Source, Unfinished, pages};
use crate::preflight;
use crate::quiesce::{self, ParkedJob, Twins};
use crate::snapshot::{self, FlagsAhead};
use crate::tasks::Job;

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
    let members = Job::of(context.life).pids();
    let offences = preflight::check(members.iter().copied());
    if !offences.is_empty() {
        return Err(CheckpointError::Refused(offences));
    }
    // Whoever is ended after the commit may as well stand still until then.
    if context.mode == Mode::Twin && !context.kill {
        headroom::check(&members)?;
        let hosts: Vec<u32> = members.into_iter().collect();
        with_twins(context, &FlagsAhead::look(&hosts), begun)
    } else {
        while_parked(context, begun)
    }
}

/// The job runs on as soon as its twins are made.
fn with_twins(
    context: &CheckpointContext<'_>,
    flags: &FlagsAhead,
    begun: Instant,
) -> Result<Committed, CheckpointError> {
    let (unfinished, mut part) = begin(context)?;
    let stalled = Instant::now();
    let parked = park(context)?;
    let mut captured = freeze(context, &parked, Some(flags))?;
    let twins = parked.twins(command_deadline(context))?;
    if !parked.capture() {
        return Err(CheckpointError::Void);
    }
    context.progress.enter(Phase::Resume);
    parked.resume();
    let stall = stalled.elapsed();
    settle(&mut captured, &twins)?;
    write(context, &mut part, &captured, twins.pids())?;
    drop(twins);
    commit(context, unfinished, part, &captured, stall, begun)
}

/// The job stands still until all is written.
fn while_parked(context: &CheckpointContext<'_>, begun: Instant) -> Result<Committed, CheckpointError> {
    let (unfinished, mut part) = begin(context)?;
    let stalled = Instant::now();
    let parked = park(context)?;
    let captured = freeze(context, &parked, None)?;
    if !parked.capture() {
        return Err(CheckpointError::Void);
    }
    write(context, &mut part, &captured, &captured.hosts)?;
    let committed = commit(context, unfinished, part, &captured, stalled.elapsed(), begun)?;
    if context.kill {
        let left = context.end_job(committed.generation);
        if !left.is_empty() {
            return Err(CheckpointError::NotEnded { generation: committed.generation, left });
        }
    }
    parked.resume();
    Ok(Committed { stall_ms: milliseconds(stalled.elapsed()), ..committed })
}

/// The folder of the next generation, and this node's part of it: here that is all.
fn begin(context: &CheckpointContext<'_>) -> Result<(Unfinished, Part), CheckpointError> {
    let unfinished = Unfinished::begin(&context.life.record.dir)?;
    let part = Part::begin(unfinished.path(), context.node)?;
    Ok((unfinished, part))
}

fn park(context: &CheckpointContext<'_>) -> Result<ParkedJob, CheckpointError> {
    let deadline = Duration::from_millis(context.deadlines.quiesce_ms);
    Ok(quiesce::quiesce(&context.life.control, Job::of(context.life), deadline, context.progress)?)
}

/// What was only assumed of memory while the job stood still is looked up in the twins.
fn settle(captured: &mut Captured, twins: &Twins) -> Result<(), CheckpointError> {
    for (process, twin) in captured.model.processes.iter_mut().zip(twins.pids()) {
        snapshot::settle(process, *twin)?;
    }
    Ok(())
}

/// Clears away what a checkpoint that was cut off has left in `dir`.
pub fn clear_unfinished(dir: &Path) {
    memory::clear_unfinished(dir);
}

/// Drains and remembers; what was drained goes back whatever comes of it.
fn freeze(
    context: &CheckpointContext<'_>,
    parked: &ParkedJob,
    flags: Option<&FlagsAhead>,
) -> Result<Captured, CheckpointError> {
    let captured = model::capture(context, parked, flags);
    let refilled = refill::from_ledger(&context.life.ledger);
    let captured = captured?;
    refilled?;
    Ok(captured)
}

/// Reads pages from `readers` (twins, or the parked processes themselves) and writes them.
fn write(
    context: &CheckpointContext<'_>,
    part: &mut Part,
    captured: &Captured,
    readers: &[u32],
) -> Result<(), CheckpointError> {
    context.progress.enter(Phase::Write);
    let mut sources = Vec::new();
    for (index, reader) in readers.iter().copied().enumerate() {
        let vmas = &captured.model.processes[index].memory.vmas;
        let vmas: Vec<_> = vmas.iter().filter(|it| !pages::not_in_twin(it)).cloned().collect();
        let stretches = pages::private(reader, &vmas)
            .map_err(|source| CheckpointError::Pages { pid: captured.model.processes[index].pid, source })?;
        sources.push(Source {
            owner: Owner::Process(index),
            bytes: memory::Bytes::Memory { pid: reader, base: 0 },
            stretches,
        });
    }
    part.write(&captured.held, context.progress)?;
    part.write(&sources, context.progress)?;
    Ok(())
}

fn commit(
    context: &CheckpointContext<'_>,
    unfinished: Unfinished,
    part: Part,
    captured: &Captured,
    stall: Duration,
    begun: Instant,
) -> Result<Committed, CheckpointError> {
    context.progress.enter(Phase::Commit);
    let receipt = part.finish(&captured.model)?;
    let (files, processes, threads) = (receipt.files, receipt.processes, receipt.threads);
    let job = captured.model.job.id.clone();
    let cost = memory::Cost { job, stall_ms: milliseconds(stall), ..memory::Cost::default() };
    let written = unfinished.commit(vec![receipt], cost)?;
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
