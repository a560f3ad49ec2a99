//! What parked threads tell of themselves and of their processes.

use std::collections::VecDeque;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hijack_abi::{PARK_SIGNAL, ProcessFacts, command};
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
        // A timer runs on: what it has sent must be asked for after how far it is, or it would be in neither answer.
        let before = self.processes.iter().map(waiting).collect::<Result<Vec<_>, _>>()?;
        self.obey(self.processes.iter().map(facts_order).collect(), deadline)?;
        let after = self.processes.iter().map(waiting).collect::<Result<Vec<_>, _>>()?;
        let queues = self.processes.iter().zip(&after).map(|(process, waiting)| pending_orders(process, waiting));
        self.obey(queues.collect(), deadline)?;
        let sources = self.processes.iter().zip(before.iter().zip(&after));
        sources.map(|(process, (before, after))| self.source(process, before, after)).collect()
    }

    fn source(&self, process: &ParkedProcess, before: &[Waiting], after: &[Waiting]) -> Result<Source, QuiesceError> {
        let (pending, of_threads) = pending(process, after)?;
        let mut facts = segment::facts(process.threads[0].slot);
        let all_before = before.iter().fold(0, |set, it| set | it.of_thread | it.of_process);
        for signal in pending.iter().chain(of_threads.iter().flatten()).filter(|it| all_before & bit(it) == 0) {
            expire(&mut facts, signal);
        }
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
            facts,
            pending,
            threads: threads.map(thread).collect::<Result<_, _>>()?,
        })
    }
}

/// Signals that wait for a thread: bit N - 1 is signal N.
#[derive(Clone, Copy, Default)]
struct Waiting {
    of_thread: u64,
    /// Of its process. Told of the first thread only, which is asked for them.
    of_process: u64,
}

impl Waiting {
    fn any(self) -> bool {
        self.of_thread | self.of_process != 0
    }
}

/// What waits for each thread.
fn waiting(process: &ParkedProcess) -> Result<Vec<Waiting>, QuiesceError> {
    let mut sets = Vec::new();
    for (at, thread) in process.threads.iter().enumerate() {
        let status = TaskStatus::read(process.host_pid, thread.host_tid).filter(|it| !it.has_ended());
        let status = status.ok_or(QuiesceError::Gone(process.host_pid))?;
        let of_process = if at == 0 { status.pending_process } else { 0 };
        sets.push(Waiting { of_thread: status.pending, of_process });
    }
    Ok(sets)
}

fn facts_order(process: &ParkedProcess) -> VecDeque<Order> {
    let text = fs::read_to_string(format!("/proc/{}/timers", process.host_pid)).unwrap_or_default();
    let ids: Vec<i32> = timers::parse(&text).iter().map(|it| it.id).collect();
    let first = &process.threads[0];
    segment::set_timers(first.slot, &ids);
    VecDeque::from([Order::new(process, first, command::FACTS)])
}

fn pending_orders(process: &ParkedProcess, waiting: &[Waiting]) -> VecDeque<Order> {
    let mut orders = VecDeque::new();
    for (thread, waiting) in process.threads.iter().zip(waiting).filter(|(_, waiting)| waiting.any()) {
        // Which of them are the thread's own: the kernel hands both out alike.
        thread.slot.argument[0].store(waiting.of_thread, Ordering::Release);
        orders.push_back(Order::new(process, thread, command::PENDING));
    }
    orders
}

fn bit(signal: &Information) -> u64 {
    1_u64.checked_shl((signal[0] as u32).wrapping_sub(1)).unwrap_or(0)
}

/// A signal came after its timer had said what is left: as the image has the signal, the timer has fired. One that fires
/// once is over, ITIMER_REAL stands still until its signal is taken; other timers have gone on to the next time.
fn expire(facts: &mut ProcessFacts, signal: &Information) {
    const SI_TIMER: i32 = -2;
    const SI_KERNEL: i32 = 0x80;
    match (signal[0] as i32, signal[1] as i32) {
        (libc::SIGALRM, SI_KERNEL) => facts.itimers[0][2..].fill(0),
        (_, SI_TIMER) => {
            let id = u64::from(signal[2] as u32);
            let timer = facts.timers.iter_mut().find(|it| it[0] == id && it[1..3] == [0, 0]);
            timer.into_iter().for_each(|it| it[3..].fill(0));
        }
        _ => {}
    }
}

fn pending(process: &ParkedProcess, waiting: &[Waiting]) -> Result<Pending, QuiesceError> {
    let (mut of_process, mut of_threads) = (Vec::new(), Vec::new());
    for (at, (thread, set)) in process.threads.iter().zip(waiting).enumerate() {
        let [mut own, mut shared] = match set.any() {
            true => segment::pending(thread.slot).ok_or(QuiesceError::Pending(process.host_pid))?,
            false => [Vec::new(), Vec::new()],
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_fired_meanwhile_is_not_to_fire_again() {
        let segment = crate::guardian::control::Control::create().unwrap().segment();
        let mut facts = segment::facts(segment::claim(segment, 7, |_| false).unwrap());
        facts.itimers[0] = [0, 5, 0, 3];
        facts.timers[0] = [0, 0, 0, 0, 9];
        facts.timers[1] = [1, 0, 8, 0, 9];
        let signal = |number: u64, code: i32, id: u64| {
            let mut information = [0; 16];
            information[..3].copy_from_slice(&[number, u64::from(code as u32), id]);
            information
        };
        expire(&mut facts, &signal(libc::SIGALRM as u64, 0, 0));
        assert_eq!(facts.itimers[0], [0, 5, 0, 3], "kill(2) is no timer");
        expire(&mut facts, &signal(libc::SIGALRM as u64, 0x80, 0));
        expire(&mut facts, &signal(40, -2, 0));
        expire(&mut facts, &signal(40, -2, 1));
        assert_eq!(facts.itimers[0], [0, 5, 0, 0]);
        assert_eq!((facts.timers[0], facts.timers[1]), ([0, 0, 0, 0, 0], [1, 0, 8, 0, 9]));
        assert_eq!((bit(&signal(1, 0, 0)), bit(&signal(64, 0, 0)), bit(&signal(0, 0, 0))), (1, 1 << 63, 0));
    }
}
