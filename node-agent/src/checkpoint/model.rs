//! What is remembered of a parked job: drained streams, descriptors, processes, shared memory, and who stands around it.

use std::fs;
use std::time::Duration;

use coordinator_protocol::Phase;
use node_agent_image::model::{JobModel, NodeModel, Outsider, Pid, Process, Remote};

use super::CheckpointError;
use super::round::Captured;
use crate::agent::CheckpointContext;
use crate::files::{self, ProcessRef};
use crate::guardian::daemons::{self, Start};
use crate::guardian::{Root, members};
use crate::memory::{self, Bytes, Owner, Source, pages};
use crate::objects::Objects;
use crate::quiesce::ParkedJob;
use crate::snapshot::{self, FlagsAhead};

/// Drains, then remembers everything that a twin does not keep by itself. The ledger may hold bytes afterwards.
pub(super) fn capture(
    context: &CheckpointContext<'_>,
    parked: &ParkedJob,
    flags: Option<&FlagsAhead>,
    remotes: &[Remote],
) -> Result<Captured, CheckpointError> {
    let life = context.life;
    context.progress.enter(Phase::Drain);
    let sources = parked.sources(Duration::from_millis(context.deadlines.command_ms))?;
    let references: Vec<ProcessRef> =
        sources.iter().map(|it| ProcessRef { host_pid: it.host_pid, pid: it.pid }).collect();
    let hosts: Vec<u32> = sources.iter().map(|it| it.host_pid).collect();
    files::drain(&references, context.guardian, &life.ledger, Duration::from_millis(context.deadlines.drain_ms))?;
    context.progress.enter(Phase::Snapshot);
    let mut objects = Objects::new(&hosts, flags.cloned())?;
    let captured = files::capture(&references, context.guardian, &mut objects, &life.ledger, remotes)?;
    let mut processes = Vec::with_capacity(sources.len());
    for (source, descriptors) in sources.iter().zip(captured.descriptors) {
        let process = snapshot::process(source, &mut objects)?;
        processes.push(Process { descriptors, ..process });
    }
    let mut held = memory::hold(objects.sources()?)?;
    held.extend(memory::hold(areas_without_twin(&processes, &hosts)?)?);
    for (host, pid) in parked.zombies() {
        processes.push(snapshot::zombie(*host, *pid)?);
    }
    let root = life.root().pid();
    let since = life.root().init().is_none().then_some(life.record.started_at_ns / 1_000_000_000);
    let ipc = hosts.first().map(|host| crate::ipc::capture(*host, since)).transpose()?.unwrap_or_default();
    let clock = life.root().init().unwrap_or(if root == 0 { context.guardian } else { root });
    let model = NodeModel {
        abi_version: hijack_abi::VERSION,
        epoch: parked.epoch(),
        node: context.node,
        machine: snapshot::machine(clock, &life.record.addresses),
        job: job(context, &sources, root),
        outsiders: outsiders(guardian_of(life.root(), context.guardian, life.record.stand_in), &processes),
        processes,
        files: captured.files,
        objects: objects.objects(),
        semaphores: ipc.semaphores,
        queues: ipc.queues,
    };
    Ok(Captured { model, hosts, held })
}

/// Private memory that a fork does not hand on is copied while its process is parked.
fn areas_without_twin(processes: &[Process], hosts: &[u32]) -> Result<Vec<Source>, CheckpointError> {
    let mut sources = Vec::new();
    for (index, (process, host)) in processes.iter().zip(hosts).enumerate() {
        let vmas: Vec<_> = process.memory.vmas.iter().filter(|it| pages::not_in_twin(it)).cloned().collect();
        if !vmas.is_empty() {
            let stretches =
                pages::private(*host, &vmas).map_err(|source| CheckpointError::Pages { pid: process.pid, source })?;
            sources.push(Source {
                owner: Owner::Process(index),
                bytes: Bytes::Memory { pid: *host, base: 0 },
                stretches,
            });
        }
    }
    Ok(sources)
}

fn job(context: &CheckpointContext<'_>, sources: &[snapshot::Source], root: u32) -> JobModel {
    let record = &context.life.record;
    JobModel {
        id: record.job.clone(),
        name: record.name.clone(),
        command: record.command.clone(),
        folder: crate::job::parent().join(&record.job).display().to_string(),
        root: sources.iter().find(|it| it.host_pid == root).map_or(root, |it| it.pid),
        ranks: context.life.control.ranks_after(0),
        keep: record.keep,
        every_s: record.every_s,
        launches: launches(context, sources),
    }
}

/// Daemons that live, by the pids that the job knows.
fn launches(context: &CheckpointContext<'_>, sources: &[snapshot::Source]) -> Vec<(u64, Pid)> {
    let inner = |host: u32| sources.iter().find(|it| it.host_pid == host).map(|it| it.pid);
    let daemons = daemons::list(context.life.folder.path()).into_iter().filter(|it| it.ended.is_none());
    daemons
        .filter_map(|it| match it.start {
            Start::Pid(pid) => Some((it.id, inner(pid)?)),
            Start::Refused(_) => None,
        })
        .collect()
}

/// The process that the job knows as its guardian: in a later life that is a stand-in, which the job knows as `stand_in`.
fn guardian_of(root: Root, guardian: u32, stand_in: Pid) -> u32 {
    match root {
        Root::Child(_) | Root::Elsewhere => guardian,
        Root::Namespace(namespace) => members::with_inner_pid(namespace.init, stand_in).unwrap_or(guardian),
    }
}

/// The guardian, and the leaders of its caller's session and group, unless they are of the job.
fn outsiders(guardian: u32, processes: &[Process]) -> Vec<Outsider> {
    let status = fs::read_to_string(format!("/proc/{guardian}/status")).unwrap_or_default();
    let inner = |key: &str| -> Pid {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|it| it.split_whitespace().last()?.parse().ok()).unwrap_or(0)
    };
    let (pid, sid, pgid) = (inner("NSpid:"), inner("NSsid:"), inner("NSpgid:"));
    let mut outsiders = vec![Outsider { pid, sid, pgid, guardian: true }];
    for leader in [sid, pgid] {
        let known = outsiders.iter().any(|it| it.pid == leader) || processes.iter().any(|it| it.pid == leader);
        if leader != 0 && !known {
            outsiders.push(Outsider { pid: leader, sid, pgid: leader, guardian: false });
        }
    }
    outsiders
}
