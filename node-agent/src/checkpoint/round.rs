//! The steps of a checkpoint on one node. Whoever drops a round lets everybody go.

use std::path::Path;
use std::time::{Duration, Instant};

use coordinator_protocol::{Mode, Phase};
use node_agent_image::model::{NodeModel, Remote};
use node_agent_image::receipt::Receipt;

use super::{CheckpointError, headroom, milliseconds, model};
use crate::agent::CheckpointContext;
use crate::files::{Across, ProcessRef, refill};
use crate::memory::{self, Owner, Part, Source, pages};
use crate::preflight;
use crate::quiesce::{self, ParkedJob, Twins};
use crate::snapshot::{self, FlagsAhead};
use crate::tasks::Job;

/// A checkpoint of one node, at any of its steps.
pub struct Round<'a> {
    context: &'a CheckpointContext<'a>,
    /// Looked up while the job ran; only where there will be twins.
    flags: Option<FlagsAhead>,
    stalled: Option<Instant>,
    stall: Duration,
    parked: Option<ParkedJob>,
    captured: Option<Captured>,
    twins: Option<Twins>,
}

/// What the parked phase has found.
pub(super) struct Captured {
    pub model: NodeModel,
    /// Host pids of the living processes, in the model's order.
    pub hosts: Vec<u32>,
    /// Contents that a twin does not freeze, copied.
    pub held: Vec<Source>,
}

impl<'a> Round<'a> {
    /// Looks at the running job: whether it can be checkpointed at all.
    ///
    /// # Errors
    /// What is in the way.
    pub fn begin(context: &'a CheckpointContext<'a>) -> Result<Self, CheckpointError> {
        let members = Job::of(context.life).pids();
        let offences = preflight::check(members.iter().copied());
        if !offences.is_empty() {
            return Err(CheckpointError::Refused(offences));
        }
        // Whoever is ended after the commit may as well stand still until then.
        let flags = if context.mode == Mode::Twin && !context.kill {
            headroom::check(&members)?;
            let hosts: Vec<u32> = members.into_iter().collect();
            Some(FlagsAhead::look(&hosts))
        } else {
            None
        };
        Ok(Self { context, flags, stalled: None, stall: Duration::ZERO, parked: None, captured: None, twins: None })
    }

    /// Whether the job runs on as soon as its twins are made, or stands still until all is written.
    #[must_use]
    pub fn runs_on(&self) -> bool {
        self.flags.is_some()
    }

    /// How long the job has stood still, ms.
    #[must_use]
    pub fn stall_ms(&self) -> f64 {
        milliseconds(self.stall)
    }

    /// Parks every thread.
    ///
    /// # Errors
    /// Who does not park, and why.
    pub fn park(&mut self) -> Result<(), CheckpointError> {
        self.stalled = Some(Instant::now());
        let deadline = Duration::from_millis(self.context.deadlines.quiesce_ms);
        let (control, job) = (&self.context.life.control, Job::of(self.context.life));
        self.parked = Some(quiesce::quiesce(control, job, deadline, self.context.progress)?);
        Ok(())
    }

    /// The parked job's connections to other nodes.
    ///
    /// # Errors
    /// When its sockets cannot be looked at.
    pub fn across(&self) -> Result<Across, CheckpointError> {
        let sources = self.parked()?.sources(self.command_deadline())?;
        let references: Vec<ProcessRef> =
            sources.iter().map(|it| ProcessRef { host_pid: it.host_pid, pid: it.pid }).collect();
        Ok(Across::list(&references, self.context.guardian)?)
    }

    /// Drains and remembers all that would be lost when threads run; `remotes`: the connections to other nodes. What was
    /// drained goes back whatever comes of it.
    ///
    /// # Errors
    /// What cannot be remembered.
    pub fn capture(&mut self, remotes: &[Remote]) -> Result<(), CheckpointError> {
        let parked = self.parked()?;
        let captured = model::capture(self.context, parked, self.flags.as_ref(), remotes);
        let refilled = refill::from_ledger(&self.context.life.ledger);
        let captured = captured?;
        refilled?;
        let twins = if self.runs_on() { Some(parked.twins(self.command_deadline())?) } else { None };
        if !parked.capture() {
            return Err(CheckpointError::Void);
        }
        (self.captured, self.twins) = (Some(captured), twins);
        Ok(())
    }

    /// Lets everybody go.
    pub fn resume(&mut self) {
        self.context.progress.enter(Phase::Resume);
        if let Some(parked) = self.parked.take() {
            parked.resume();
        }
        if let Some(stalled) = self.stalled.take() {
            self.stall = stalled.elapsed();
        }
    }

    /// Writes this node's part into the unfinished generation `folder`.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn write(&mut self, folder: &Path) -> Result<Receipt, CheckpointError> {
        let mut captured = self.captured.take().ok_or(CheckpointError::Void)?;
        let twins = self.twins.take();
        let readers = twins.as_ref().map_or(captured.hosts.as_slice(), Twins::pids).to_vec();
        if let Some(twins) = &twins {
            settle(&mut captured, twins)?;
        }
        self.context.progress.enter(Phase::Write);
        let mut part = Part::begin(folder, self.context.node)?;
        part.write(&captured.held, self.context.progress)?;
        part.write(&sources(&captured, &readers)?, self.context.progress)?;
        drop(twins);
        let receipt = part.finish(&captured.model)?;
        if let Some(stalled) = self.stalled {
            self.stall = stalled.elapsed();
        }
        Ok(receipt)
    }

    /// After the commit of `generation`: who still stands is let go, or ended where that was asked for.
    ///
    /// # Errors
    /// Who does not end.
    pub fn end(&mut self, generation: u64) -> Result<(), CheckpointError> {
        if self.context.kill {
            let left = self.context.end_job(generation);
            if !left.is_empty() {
                return Err(CheckpointError::NotEnded { generation, left });
            }
        }
        self.resume();
        Ok(())
    }

    fn parked(&self) -> Result<&ParkedJob, CheckpointError> {
        self.parked.as_ref().ok_or(CheckpointError::Void)
    }

    fn command_deadline(&self) -> Duration {
        Duration::from_millis(self.context.deadlines.command_ms)
    }
}

/// What was only assumed of memory while the job stood still is looked up in the twins.
fn settle(captured: &mut Captured, twins: &Twins) -> Result<(), CheckpointError> {
    for (process, twin) in captured.model.processes.iter_mut().zip(twins.pids()) {
        snapshot::settle(process, *twin)?;
    }
    Ok(())
}

/// Private pages, to be read from `readers` (twins, or the parked processes themselves).
fn sources(captured: &Captured, readers: &[u32]) -> Result<Vec<Source>, CheckpointError> {
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
    Ok(sources)
}
