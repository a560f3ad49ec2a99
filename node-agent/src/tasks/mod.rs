//! Who is in a job: every process below its guardian but the agent, without what only stands in for somebody.
//!
//! ```text
//! first life   guardian ─┬─ agent                     not of the job, nor what is below it
//!                        └─ root ── …                 the job; orphans of it are the guardian's children
//! restarted    guardian ─┬─ agent
//!                        └─ pid 1 ── stand-ins ── …   pid 1 and the stand-ins are not of the job, what is below them is
//! ```
//!
//! The tree is walked by /proc/PID/task/TID/children. The kernel may leave a child out while another one ends at the same
//! moment, so one walk proves nothing about running processes; a walk over processes that are parked is complete.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::guardian::{Life, Root, members};

mod status;

pub use status::{TaskStatus, call_of};

/// Every signal but SIGKILL and SIGSTOP, which nobody can block: what a stand-in blocks.
const ALL_SIGNALS: u64 = !(1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1));
/// Where a stand-in is to be found: pause(2), wait4(2).
const WAITS: [u64; 2] = [libc::SYS_pause as u64, libc::SYS_wait4 as u64];

/// Which processes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Pid of the guardian as this process sees it.
    pub guardian: u32,
    /// Pids of its agent and of the coordinator, which are not of the job, nor are their children.
    pub apart: [u32; 2],
    #[allow(missing_docs)]
    pub root: Root,
}

impl Job {
    /// The job of a life, as its agent sees it, which is this process.
    #[must_use]
    pub fn of(life: &Life) -> Self {
        Self {
            guardian: life.record.guardian,
            apart: [std::process::id(), life.board.coordinator()],
            root: life.root(),
        }
    }

    /// Its processes as this process sees their pids, zombies too.
    #[must_use]
    pub fn pids(&self) -> BTreeSet<u32> {
        Lister::new(*self).list().into_iter().map(|it| it.pid).collect()
    }

    /// The process below which it is.
    fn top(&self) -> u32 {
        self.root.init().unwrap_or(self.guardian)
    }
}

/// A process of a job, alive or a zombie, with pids as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    #[allow(missing_docs)]
    pub pid: u32,
    #[allow(missing_docs)]
    pub parent: u32,
    /// Its threads, also a leader that has ended before them.
    pub tids: Vec<u32>,
}

/// Lists a job again and again; what never changes about a process is looked at once.
#[derive(Debug)]
pub struct Lister {
    job: Job,
    /// How many pid namespaces deep the job is, as /proc tells it.
    depth: usize,
    /// Device and inode of this program, which stand-ins are forks of.
    program: Option<(u64, u64)>,
    stand_ins: BTreeMap<u32, bool>,
    /// Kernels without CONFIG_PROC_CHILDREN: all of /proc is read.
    without_children: bool,
}

impl Lister {
    #[allow(missing_docs)]
    #[must_use]
    pub fn new(job: Job) -> Self {
        let depth = TaskStatus::read(job.top(), job.top()).map_or(1, |it| it.depth);
        let program = identity(std::process::id());
        let without_children = !Path::new("/proc/thread-self/children").exists();
        Self { job, depth, program, stand_ins: BTreeMap::new(), without_children }
    }

    /// How many pid namespaces the job's own numbers lie below those of this /proc, plus one.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// All processes, parents before their children.
    #[must_use]
    pub fn list(&mut self) -> Vec<Member> {
        let table = if self.without_children { members::children() } else { BTreeMap::new() };
        let top = self.job.top();
        let mut rest = VecDeque::from([Member { pid: top, parent: 0, tids: tids(top) }]);
        let mut seen = BTreeSet::from([top, self.job.apart[0], self.job.apart[1]]);
        let mut found = Vec::new();
        while let Some(member) = rest.pop_front() {
            let children = if self.without_children {
                table.get(&member.pid).cloned().unwrap_or_default()
            } else {
                member.tids.iter().flat_map(|tid| children_of(member.pid, *tid)).collect()
            };
            for pid in children.into_iter().filter(|pid| seen.insert(*pid)) {
                rest.push_back(Member { pid, parent: member.pid, tids: tids(pid) });
            }
            if member.pid != top && !member.tids.is_empty() && !self.is_stand_in(member.pid) {
                found.push(member);
            }
        }
        found
    }

    /// The restart makes processes that only have to exist: forks of our own program that block every signal and wait in
    /// pause(2) or for children. A `ckpt` that the job itself runs blocks them all only while it is parked, in futex(2).
    fn is_stand_in(&mut self, pid: u32) -> bool {
        if self.job.root.init().is_none() {
            return false;
        }
        if let Some(known) = self.stand_ins.get(&pid) {
            return *known;
        }
        let Some(status) = TaskStatus::read(pid, pid) else { return false };
        if status.blocked & ALL_SIGNALS != ALL_SIGNALS || self.program.is_none() || identity(pid) != self.program {
            self.stand_ins.insert(pid, false);
            return false;
        }
        let call = call_of(pid, pid);
        let waits = call.valid == 1 && WAITS.contains(&call.number);
        // One that is doing something just now is looked at again: it is not parked, so there will be another listing.
        if waits {
            self.stand_ins.insert(pid, true);
        }
        waits
    }
}

/// Device and inode of a process's program.
fn identity(pid: u32) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/exe")).ok().map(|it| (it.dev(), it.ino()))
}

/// Threads of a process; none when it is gone.
fn tids(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|it| it.file_name().to_str()?.parse().ok()).collect()
}

fn children_of(pid: u32, tid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|it| it.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn children_and_their_children() {
        let mut shell = Command::new("sh").args(["-c", "cat; exit"]).stdin(Stdio::piped()).spawn().unwrap();
        let job = Job { guardian: std::process::id(), apart: [0; 2], root: Root::Child(shell.id()) };
        let mut lister = Lister::new(job);
        let found = loop {
            let found = lister.list();
            if found.iter().any(|it| it.parent == shell.id()) {
                break found;
            }
        };
        let root = found.iter().find(|it| it.pid == shell.id()).unwrap();
        assert_eq!((root.parent, root.tids.as_slice()), (std::process::id(), [shell.id()].as_slice()));
        lister.without_children = true;
        assert_eq!(lister.list().into_iter().map(|it| it.pid).collect::<BTreeSet<_>>(), job.pids());
        let but_the_shell = Job { apart: [shell.id(), 0], ..job };
        assert!(!but_the_shell.pids().contains(&shell.id()));
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
