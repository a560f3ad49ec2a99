//! Watching MPI ranks: one that dies by a signal makes the job's end a failure, even where mpirun says 0.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::board::Board;
use super::members::{with_inner_pid, zombie_status};
use super::sys::{exit_status, pidfd_open};

/// The ranks of one node that are alive, and how many were ever announced.
#[derive(Debug, Default)]
pub struct Ranks {
    announced: usize,
    watched: Vec<Rank>,
}

#[derive(Debug)]
struct Rank {
    /// As the job sees it.
    inner: u32,
    /// As we see it.
    pid: u32,
    pidfd: OwnedFd,
}

impl Ranks {
    /// How many were announced so far.
    #[must_use]
    pub fn announced(&self) -> usize {
        self.announced
    }

    /// Begins to watch processes that were announced. `namespace` is the first process of their pid namespace, where
    /// that is not ours.
    pub fn watch(&mut self, announced: &[u32], namespace: Option<u32>) {
        self.announced += announced.len();
        for inner in announced.iter().copied() {
            let pid = namespace.map_or(Some(inner), |init| with_inner_pid(init, inner));
            // One that is gone already was its launcher's to notice: it cannot be asked any more.
            let rank = pid.and_then(|pid| Some(Rank { inner, pid, pidfd: pidfd_open(pid).ok()? }));
            self.watched.extend(rank);
        }
    }

    /// What becomes readable when one ends.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.watched.iter().map(|rank| rank.pidfd.as_fd())
    }

    /// Takes note of those that have ended: `ended` holds positions in [`Ranks::descriptors`].
    pub fn note(&mut self, ended: &[usize], board: &Board) {
        for at in ended.iter().rev().copied() {
            let Rank { inner, pid, pidfd } = self.watched.swap_remove(at);
            // A zombie is asked in /proc, one that its parent has reaped through its pidfd.
            let status = zombie_status(pid).or_else(|| exit_status(pidfd.as_fd()));
            if let Some(status) = status.filter(|status| libc::WIFSIGNALED(*status)) {
                board.lose_rank(inner, libc::WTERMSIG(status) as u32);
            }
        }
    }
}
