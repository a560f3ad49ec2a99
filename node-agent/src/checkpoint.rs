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
use crate::files::{FilesError, refill};
use crate::memory::{self, Draft, Owner, Source, pages};
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

/// Pauses before a refused job is parked again: a connection to a name service, say, is there for a moment only.
const REFUSED_PAUSES: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(250)];

/// Takes one checkpoint.
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
    let mut draft = Draft::begin(&context.life.record.dir)?;
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
    write(context, &mut draft, &captured, twins.pids())?;
    drop(twins);
    commit(context, draft, &captured, stall, begun)
}

/// The job stands still until all is written.
fn while_parked(context: &CheckpointContext<'_>, begun: Instant) -> Result<Committed, CheckpointError> {
    let mut draft = Draft::begin(&context.life.record.dir)?;
    let stalled = Instant::now();
    let parked = park(context)?;
    let captured = freeze(context, &parked, None)?;
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
    draft: &mut Draft,
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
    let cost = memory::Cost {
        job: model.job.id.clone(),
        stall_ms: milliseconds(stall),
        files,
        processes,
        threads,
        ..memory::Cost::default()
    };
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
