//! What guardian and agents of one life tell each other: shared memory, so that it outlives an agent.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use coordinator_protocol::Phase;

use super::Namespace;

/// Shared by a guardian and its agents.
#[derive(Debug, Default)]
pub struct Board {
    /// How far the checkpoint is that is being taken.
    pub progress: Progress,
    /// Newest generation, plus one; 0 = none.
    newest: AtomicU64,
    /// The generation after which the agent has ended the job on request, plus one; 0 = it has not.
    ended_after: AtomicU64,
    /// A rank that died by a signal: its pid, and the signal; 0 = none.
    lost_rank: AtomicU32,
    lost_signal: AtomicU32,
    /// See [`Comeback`].
    comeback: AtomicU32,
    /// A restarted job's namespaces: pid 1 (0 = they are not there yet) and root as the guardian sees them.
    init: AtomicU32,
    root: AtomicU32,
    /// 1: the guardian is to make the job's processes.
    begin_wanted: AtomicU32,
    /// Agents that there have been, this one included.
    agents: AtomicU32,
    /// Pid of the coordinator as the guardian sees it; 0 = there is none.
    coordinator: AtomicU32,
    /// 1: other nodes are wanted, so there has to be a coordinator.
    wants_coordinator: AtomicU32,
    /// 1: another node is lost, so the job cannot go on.
    node_lost: AtomicU32,
    /// 1: the job is over on this node, whatever runs here.
    over: AtomicU32,
}

/// How far a restart is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Comeback {
    /// The job runs.
    #[default]
    Done,
    /// The agent is filling its memory.
    Underway,
    /// The agent could not, and has said why.
    Failed,
}

/// How far a checkpoint is. Writers: the threads that take it. Readers: those that wait for it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU32,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// A phase begins.
    pub fn enter(&self, phase: Phase) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// So many bytes in all.
    pub fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::from_number(self.phase.load(Ordering::Acquire) as u8)
    }

    /// Bytes done, bytes in all.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

impl Board {
    /// Newest generation of this job that this life knows.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.newest.load(Ordering::Acquire).checked_sub(1)
    }

    /// A generation has been committed, or this life began from it.
    pub fn set_newest(&self, generation: u64) {
        self.newest.store(generation + 1, Ordering::Release);
    }

    /// Said before the job's processes are killed on request.
    pub fn end_after(&self, generation: u64) {
        self.ended_after.store(generation + 1, Ordering::Release);
    }

    /// The generation after which the job was ended on request.
    #[must_use]
    pub fn ended_after(&self) -> Option<u64> {
        self.ended_after.load(Ordering::Acquire).checked_sub(1)
    }

    /// A rank died by a signal. The first one counts: the launcher kills the others for its sake.
    pub fn lose_rank(&self, pid: u32, signal: u32) {
        if self.lost_rank.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.lost_signal.store(signal, Ordering::Release);
        }
    }

    /// The guardian is to make the job's processes; the caller then wakes it.
    pub fn want_begin(&self) {
        self.begin_wanted.store(1, Ordering::Release);
    }

    /// Whether it is to, and has not.
    #[must_use]
    pub fn begin_is_due(&self) -> bool {
        let due = self.comeback() == Comeback::Underway && self.namespace().is_none();
        due && self.begin_wanted.load(Ordering::Acquire) == 1
    }

    /// They are there.
    pub fn set_namespace(&self, it: Namespace) {
        self.root.store(it.root, Ordering::Release);
        self.init.store(it.init, Ordering::Release);
    }

    /// A restarted job's namespaces.
    #[must_use]
    pub fn namespace(&self) -> Option<Namespace> {
        let init = self.init.load(Ordering::Acquire);
        (init != 0).then(|| Namespace { init, root: self.root.load(Ordering::Acquire) })
    }

    /// One more agent is started.
    pub fn count_agent(&self) {
        self.agents.fetch_add(1, Ordering::AcqRel);
    }

    /// How many agents there were before the one that asks.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.agents.load(Ordering::Acquire).saturating_sub(1)
    }

    /// Other nodes are wanted; the caller then wakes the guardian.
    pub fn want_coordinator(&self) {
        self.wants_coordinator.store(1, Ordering::Release);
    }

    /// Whether there has to be a coordinator.
    #[must_use]
    pub fn wants_coordinator(&self) -> bool {
        self.wants_coordinator.load(Ordering::Acquire) == 1
    }

    /// The coordinator's pid.
    pub fn set_coordinator(&self, pid: u32) {
        self.coordinator.store(pid, Ordering::Release);
    }

    /// Pid of the coordinator as the guardian sees it; 0 = there is none.
    #[must_use]
    pub fn coordinator(&self) -> u32 {
        self.coordinator.load(Ordering::Acquire)
    }

    /// Another node is lost; the caller then wakes the guardian.
    pub fn lose_node(&self) {
        self.node_lost.store(1, Ordering::Release);
    }

    /// Whether one is.
    #[must_use]
    pub fn node_is_lost(&self) -> bool {
        self.node_lost.load(Ordering::Acquire) == 1
    }

    /// The job is over on this node; the caller then wakes the guardian.
    pub fn end(&self) {
        self.over.store(1, Ordering::Release);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) == 1
    }

    /// A restart begins, is done or has failed.
    pub fn set_comeback(&self, now: Comeback) {
        self.comeback.store(now as u32, Ordering::Release);
    }

    /// How far a restart is.
    #[must_use]
    pub fn comeback(&self) -> Comeback {
        match self.comeback.load(Ordering::Acquire) {
            0 => Comeback::Done,
            1 => Comeback::Underway,
            _ => Comeback::Failed,
        }
    }

    /// Pid and signal of the rank that died first.
    #[must_use]
    pub fn lost_rank(&self) -> Option<(u32, u32)> {
        match self.lost_rank.load(Ordering::Acquire) {
            0 => None,
            pid => Some((pid, self.lost_signal.load(Ordering::Acquire))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_zero_is_one() {
        let board = Board::default();
        assert_eq!((board.newest(), board.ended_after(), board.lost_rank()), (None, None, None));
        board.set_newest(0);
        board.end_after(0);
        assert_eq!(board.comeback(), Comeback::Done);
        board.set_comeback(Comeback::Failed);
        assert_eq!(board.comeback(), Comeback::Failed);
        board.lose_rank(7, 9);
        board.lose_rank(8, 15);
        assert_eq!((board.newest(), board.ended_after(), board.lost_rank()), (Some(0), Some(0), Some((7, 9))));
    }
}
