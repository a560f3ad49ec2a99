//! The agent's side: contents, threads back in their handlers, restorer gone, gate open.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hijack_abi::orders::{Orders, Step, go, stage};
use hijack_abi::{PROBES, Segment, Slot, command, slot_index, state};
use node_agent_image::model::{NodeModel, Pid};

use super::board::Board;
use super::error::RestartError;
use super::{Begun, sys};

/// A process that has not got there by now hangs.
const DEADLINE: Duration = Duration::from_secs(60);
/// The same until all have found their places: before that the kernel may have to forget connections.
const DEADLINE_OF_PLACES: Duration = crate::files::TIME_WAIT.saturating_add(DEADLINE);
/// Between looks for processes that have died meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Where contents go.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Host pid of each process of the model; None for zombies.
    pub processes: Vec<Option<u32>>,
    /// Host pid of the process that has all objects mapped, writable.
    pub builder: u32,
    /// Address of each object there; 0 = empty object.
    pub objects: Vec<u64>,
}

/// What the phases of a restart took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartCost {
    /// Until every mapping was in its place.
    pub mapped: Duration,
    /// For the contents.
    pub filled: Duration,
    /// Until every thread was back in its handler.
    pub parked: Duration,
}

/// Brings what `begin` has begun to its end: when this returns, the job runs. After an error the caller kills
/// `begun.init`. `segment` is the new control segment, fresh (zero but for its head). `ready` is called when all are back in
/// their parks, and returns when they may go.
///
/// # Errors
/// Names the process and its step.
pub fn complete(
    begun: &Begun,
    model: &NodeModel,
    segment: &Segment,
    fill: impl FnOnce(&Targets) -> Result<(), Box<dyn Error + Send + Sync>>,
    ready: impl FnOnce() -> Result<(), String>,
) -> Result<RestartCost, RestartError> {
    let mut cost = RestartCost::default();
    let start = Instant::now();
    let living: Vec<usize> = (0..model.processes.len()).filter(|it| model.processes[*it].zombie.is_none()).collect();
    prepare(model, segment)?;
    // Stand-ins end at this moment, and a listing may leave somebody out then: for him pid 1 is watched.
    let hosts = descendants(begun.init);
    for index in &living {
        let host = hosts.get(&model.processes[*index].pid).copied();
        wait_for_stage(begun, model, *index, host, stage::MAPPED)?;
    }
    let targets = targets(begun, model)?;
    cost.mapped = start.elapsed();
    fill(&targets).map_err(RestartError::Fill)?;
    cost.filled = start.elapsed() - cost.mapped;
    for index in &living {
        let orders = begun.board.orders(*index);
        orders.go.store(go::FILLED, Ordering::Release);
        sys::futex_wake(&orders.go);
    }
    for index in &living {
        wait_for_threads(begun, model, *index, targets.processes[*index], segment)?;
    }
    unmap_restorers(begun, model, segment, &living)?;
    ready().map_err(RestartError::Inside)?;
    finish(begun)?;
    cost.parked = start.elapsed() - cost.mapped - cost.filled;
    for index in &living {
        if let (true, Some(host)) = (model.processes[*index].stopped, targets.processes[*index]) {
            let stop =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(host as i32), nix::sys::signal::Signal::SIGSTOP);
            stop.map_err(|error| {
                RestartError::system("stop", format!("pid {}", model.processes[*index].pid))(error.into())
            })?;
        }
    }
    open_gate(model, segment);
    Ok(cost)
}

/// Slots for all threads that will find themselves parked in the image's epoch.
fn prepare(model: &NodeModel, segment: &Segment) -> Result<(), RestartError> {
    segment.epoch.store(model.epoch, Ordering::Release);
    segment.gate.store(model.epoch.wrapping_sub(1), Ordering::Release);
    for thread in model.processes.iter().flat_map(|it| &it.threads) {
        let free = (0..PROBES).map(|probe| &segment.slots[slot_index(thread.tid, probe)]).find(|slot| {
            let tid = slot.tid.load(Ordering::Acquire);
            tid == 0 || tid == thread.tid
        });
        let slot = free.ok_or_else(|| RestartError::Model("more threads than the control segment holds".into()))?;
        slot.command.store(command::NONE, Ordering::Relaxed);
        slot.epoch.store(model.epoch, Ordering::Relaxed);
        slot.state.store(state::ASKED, Ordering::Relaxed);
        slot.tid.store(thread.tid, Ordering::Release);
    }
    Ok(())
}

fn slot(segment: &Segment, tid: Pid) -> Result<&Slot, RestartError> {
    (0..PROBES)
        .map(|probe| &segment.slots[slot_index(tid, probe)])
        .find(|slot| slot.tid.load(Ordering::Acquire) == tid)
        .ok_or_else(|| RestartError::Model(format!("thread {tid} has no slot")))
}

/// Waits until a word has a value, or says who hangs or has died.
fn wait_until(
    begun: &Begun,
    whom: (Pid, Option<u32>),
    what: &'static str,
    orders: &Orders,
    word: &AtomicU32,
    done: impl Fn(u32) -> bool,
) -> Result<(), RestartError> {
    let (pid, host) = whom;
    let start = Instant::now();
    loop {
        let value = word.load(Ordering::Acquire);
        if done(value) {
            return Ok(());
        }
        failure(begun, pid, orders)?;
        let process = host.unwrap_or(begun.init);
        if has_ended(process) {
            failure(begun, pid, orders)?;
            return Err(RestartError::Ended { pid, stage: orders.stage.load(Ordering::Acquire) });
        }
        if start.elapsed() > DEADLINE {
            return Err(RestartError::Deadline { seconds: DEADLINE.as_secs(), whom: format!("pid {pid}"), what });
        }
        sys::futex_wait(word, value, LOOK);
    }
}

fn failure(begun: &Begun, pid: Pid, orders: &Orders) -> Result<(), RestartError> {
    if orders.stage.load(Ordering::Acquire) == stage::FAILED {
        return Err(RestartError::Restore {
            pid,
            step: Step::name(orders.failed_step.load(Ordering::Relaxed)),
            argument: orders.failed_argument.load(Ordering::Relaxed),
            source: io::Error::from_raw_os_error(orders.failed_errno.load(Ordering::Relaxed)),
        });
    }
    begun.board.failure().map_or(Ok(()), |text| Err(RestartError::Inside(text)))
}

fn has_ended(host: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{host}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).is_none_or(|state| "ZX".contains(state))
}

fn wait_for_stage(
    begun: &Begun,
    model: &NodeModel,
    index: usize,
    host: Option<u32>,
    stage: u32,
) -> Result<(), RestartError> {
    let orders = begun.board.orders(index);
    let whom = (model.processes[index].pid, host);
    wait_until(begun, whom, "map its memory", orders, &orders.stage, |it| it >= stage && it != stage::FAILED)
}

fn wait_for_threads(
    begun: &Begun,
    model: &NodeModel,
    index: usize,
    host: Option<u32>,
    segment: &Segment,
) -> Result<(), RestartError> {
    let orders = begun.board.orders(index);
    for thread in &model.processes[index].threads {
        let slot = slot(segment, thread.tid)?;
        let whom = (model.processes[index].pid, host);
        wait_until(begun, whom, "come back to its handler", orders, &slot.state, |it| it == state::PARKED)?;
    }
    Ok(())
}

/// Each process unmaps the restorer from its own code.
fn unmap_restorers(begun: &Begun, model: &NodeModel, segment: &Segment, living: &[usize]) -> Result<(), RestartError> {
    for index in living {
        let Some(thread) = model.processes[*index].threads.first() else { continue };
        let slot = slot(segment, thread.tid)?;
        let [start, end] = begun.board.region(*index);
        slot.argument[0].store(start, Ordering::Relaxed);
        slot.argument[1].store(end - start, Ordering::Relaxed);
        slot.command.store(command::UNMAP, Ordering::Release);
        sys::futex_wake(&slot.command);
    }
    for index in living {
        let Some(thread) = model.processes[*index].threads.first() else { continue };
        let orders = begun.board.orders(*index);
        let whom = (model.processes[*index].pid, None);
        let slot = slot(segment, thread.tid)?;
        // The thread sets it back when it has done it; it wakes `acks`, so this looks again by time.
        wait_until(begun, whom, "unmap the restorer", orders, &slot.command, |it| it == command::NONE)?;
    }
    Ok(())
}

/// Lets the builder do what comes last, now that nothing else can fail, and waits for it: nobody may run before.
fn finish(begun: &Begun) -> Result<(), RestartError> {
    let head = begun.board.head();
    head.settled.store(1, Ordering::Release);
    sys::futex_wake(&head.settled);
    let start = Instant::now();
    while head.finished.load(Ordering::Acquire) == 0 {
        if let Some(text) = begun.board.failure() {
            return Err(RestartError::Inside(text));
        }
        if has_ended(begun.init) {
            return Err(RestartError::Ended { pid: 1, stage: stage::LEFT });
        }
        if start.elapsed() > DEADLINE {
            let whom = "the maker of the job's processes".into();
            return Err(RestartError::Deadline { seconds: DEADLINE.as_secs(), whom, what: "finish" });
        }
        sys::futex_wait(&head.finished, 0, LOOK);
    }
    Ok(())
}

fn open_gate(model: &NodeModel, segment: &Segment) {
    segment.gate.store(model.epoch, Ordering::Release);
    sys::futex_wake(&segment.gate);
    for thread in model.processes.iter().flat_map(|it| &it.threads) {
        if let Ok(slot) = slot(segment, thread.tid) {
            slot.command.store(command::RESUME, Ordering::Release);
            sys::futex_wake(&slot.command);
        }
    }
}

/// Waits until every process is there, in its session and group, and finds the root.
pub(super) fn find_root(model: &NodeModel, init: u32, board: Board) -> Result<u32, RestartError> {
    let participants = super::tree::plan(model).nodes.len() as u32 - 1;
    let word = &board.head().meetings[1];
    let start = Instant::now();
    loop {
        let count = word.load(Ordering::Acquire);
        if count >= participants {
            break;
        }
        if let Some(text) = board.failure() {
            return Err(RestartError::Inside(text));
        }
        if has_ended(init) {
            return Err(RestartError::Ended { pid: 1, stage: stage::NONE });
        }
        if start.elapsed() > DEADLINE_OF_PLACES {
            let seconds = DEADLINE_OF_PLACES.as_secs();
            let whom = format!("{} of {participants} processes", participants - count);
            return Err(RestartError::Deadline { seconds, whom, what: "find their places" });
        }
        sys::futex_wait(word, count, LOOK);
    }
    if model.job.root == 0 {
        return Ok(0); // it is on another node
    }
    let root = descendants(init).get(&model.job.root).copied();
    root.ok_or_else(|| RestartError::Model(format!("its root, pid {}, is not among its processes", model.job.root)))
}

/// The new processes as this process's /proc numbers them.
fn targets(begun: &Begun, model: &NodeModel) -> Result<Targets, RestartError> {
    let hosts = descendants(begun.init);
    let mut targets = Targets {
        builder: hosts.get(&super::tree::plan(model).nodes[0].pid).copied().unwrap_or_default(),
        ..Targets::default()
    };
    for process in &model.processes {
        let host = hosts.get(&process.pid).copied();
        if process.zombie.is_none() && host.is_none() {
            return Err(RestartError::Ended { pid: process.pid, stage: stage::MAPPED });
        }
        targets.processes.push(host.filter(|_| process.zombie.is_none()));
    }
    targets.objects = (0..model.objects.len()).map(|it| begun.board.object(it).load(Ordering::Acquire)).collect();
    Ok(targets)
}

/// Pid in the innermost namespace → pid here, of all descendants.
pub(super) fn descendants(init: u32) -> HashMap<Pid, u32> {
    let (mut found, mut rest) = (HashMap::new(), vec![init]);
    while let Some(host) = rest.pop() {
        let status = fs::read_to_string(format!("/proc/{host}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        if let Some(pid) = line.and_then(|line| line.split_whitespace().last()?.parse().ok()) {
            found.insert(pid, host);
        }
        let tasks = fs::read_dir(format!("/proc/{host}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            rest.extend(children.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
        }
    }
    found
}
