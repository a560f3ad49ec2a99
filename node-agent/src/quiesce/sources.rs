//! What parked threads tell of themselves and of their processes.

use std::collections::VecDeque;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hijack_abi::{PARK_SIGNAL, command};
use node_agent_proc::timers;

use super::error::QuiesceError;
use super::orders::Order;
use super::{ParkedJob, ParkedProcess};
use crate::segment::{self, Information};
use crate::snapshot::{Source, SourceThread};
use crate::tasks::TaskStatus;

/// A process's own pending signals, and those of its threads.
type Pending = (Vec<Information>, Vec<Vec<Information>>);

impl ParkedJob {
    /// All that the control segment tells of the job's living processes.
    ///
    /// # Errors
    /// Who has ended, does not answer within `deadline`, or has too many pending signals.
    pub fn sources(&self, deadline: Duration) -> Result<Vec<Source>, QuiesceError> {
        let mut queues = Vec::new();
        let mut asked = Vec::new();
        for process in &self.processes {
            let waiting = waiting(process)?;
            queues.push(orders(process, &waiting));
            asked.push(waiting);
        }
        self.obey(queues, deadline)?;
        self.processes.iter().zip(asked).map(|(process, waiting)| self.source(process, &waiting)).collect()
    }

    fn source(&self, process: &ParkedProcess, waiting: &[Option<u64>]) -> Result<Source, QuiesceError> {
        let (pending, of_threads) = pending(process, waiting)?;
        let threads = process.threads.iter().zip(of_threads);
        let thread = |(thread, pending): (&super::ParkedThread, _)| {
            let state = segment::thread(thread.slot);
            // Nobody but this agent lets it go.
            let is_there = segment::is_parked(thread.slot, self.held.epoch) && state.tid == thread.tid;
            let source = SourceThread { host_tid: thread.host_tid, state, pending };
            if is_there { Ok(source) } else { Err(QuiesceError::Gone(process.host_pid)) }
        };
        Ok(Source {
            host_pid: process.host_pid,
            pid: process.pid,
            stopped: self.held.stopped().contains(&process.host_pid),
            facts: segment::facts(process.threads[0].slot),
            pending,
            threads: threads.map(thread).collect::<Result<_, _>>()?,
        })
    }
}

/// For each thread that has to be asked for pending signals the set that waits for it alone. Signals of the process are
/// asked for once, of the first thread.
fn waiting(process: &ParkedProcess) -> Result<Vec<Option<u64>>, QuiesceError> {
    let mut sets = Vec::new();
    for (at, thread) in process.threads.iter().enumerate() {
        let status = TaskStatus::read(process.host_pid, thread.host_tid).filter(|it| !it.has_ended());
        let status = status.ok_or(QuiesceError::Gone(process.host_pid))?;
        let any = status.pending != 0 || (at == 0 && status.pending_process != 0);
        sets.push(any.then_some(status.pending));
    }
    Ok(sets)
}

fn orders(process: &ParkedProcess, waiting: &[Option<u64>]) -> VecDeque<Order> {
    let text = fs::read_to_string(format!("/proc/{}/timers", process.host_pid)).unwrap_or_default();
    let ids: Vec<i32> = timers::parse(&text).iter().map(|it| it.id).collect();
    let first = &process.threads[0];
    segment::set_timers(first.slot, &ids);
    let mut orders = VecDeque::from([Order::new(process, first, command::FACTS)]);
    for (thread, set) in process.threads.iter().zip(waiting) {
        if let Some(set) = set {
            // Which of them are the thread's own: the kernel hands both out alike.
            thread.slot.argument[0].store(*set, Ordering::Release);
            orders.push_back(Order::new(process, thread, command::PENDING));
        }
    }
    orders
}

fn pending(process: &ParkedProcess, waiting: &[Option<u64>]) -> Result<Pending, QuiesceError> {
    let (mut of_process, mut of_threads) = (Vec::new(), Vec::new());
    for (at, (thread, set)) in process.threads.iter().zip(waiting).enumerate() {
        let [mut own, mut shared] = match set {
            Some(_) => segment::pending(thread.slot).ok_or(QuiesceError::Pending(process.host_pid))?,
            None => [Vec::new(), Vec::new()],
        };
        // The parking signal itself, where it was sent twice, is no business of the next life.
        own.retain(|it| it[0] as i32 != PARK_SIGNAL);
        shared.retain(|it| it[0] as i32 != PARK_SIGNAL);
        if at == 0 {
            of_process = shared;
        }
        of_threads.push(own);
    }
    Ok((of_process, of_threads))
}
