//! Copy-on-write twins: the memory of parked processes as it is, to be read while they run on.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hijack_abi::{Segment, command};

use super::ParkedJob;
use super::error::QuiesceError;
use super::orders::Order;
use crate::guardian::sys::kill;
use crate::job::start_of;
use crate::segment::wake;
use crate::tasks::{Lister, TaskStatus};

/// How long twins that may go have to end: the memory of a big one takes a while to be given back.
const ENDING: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// A listing may leave a process out while another one ends: so many are tried.
const LISTINGS: usize = 100;

/// Twins of a job's processes. They end when this is dropped.
pub struct Twins {
    segment: &'static Segment,
    epoch: u32,
    /// Pids as this process sees them, and when the twins were made: a pid may belong to another process some day.
    pids: Vec<u32>,
    starts: Vec<Option<u64>>,
}

impl ParkedJob {
    /// A copy-on-write twin of each living process, in the order of [`ParkedJob::sources`].
    ///
    /// # Errors
    /// Whose twin could not be made within `deadline`. Those that were made end.
    pub fn twins(&self, deadline: Duration) -> Result<Twins, QuiesceError> {
        let segment = self.held.segment;
        segment.twins_gone.store(0, Ordering::Release);
        let mut twins = Twins { segment, epoch: self.held.epoch, pids: Vec::new(), starts: Vec::new() };
        let order = |process| VecDeque::from([Order::new(process, &process.threads[0], command::TWIN)]);
        self.obey(self.processes.iter().map(order).collect(), deadline)?;
        let mut seen = HashMap::new();
        for process in &self.processes {
            let failed = |source| QuiesceError::Twin { pid: process.host_pid, source };
            let result = process.threads[0].slot.result.load(Ordering::Acquire);
            let inner = u32::try_from(result).map_err(|_| failed(io::Error::from_raw_os_error(-result as i32)))?;
            let pid = self.as_seen_here(inner, &mut seen).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            twins.pids.push(pid);
            twins.starts.push(start_of(pid));
        }
        Ok(twins)
    }

    /// The process that the job sees as `inner`: a child of its subreaper. `seen` holds what earlier listings told.
    fn as_seen_here(&self, inner: u32, seen: &mut HashMap<u32, u32>) -> Option<u32> {
        if self.depth == 1 {
            return Some(inner);
        }
        for _ in 0..LISTINGS {
            if let Some(pid) = seen.get(&inner) {
                return Some(*pid);
            }
            for member in Lister::new(self.job).list() {
                let status = TaskStatus::read(member.pid, member.pid).filter(|it| it.depth == self.depth);
                seen.extend(status.map(|it| (it.pid, member.pid)));
            }
        }
        None
    }
}

impl Twins {
    /// Their pids as this process sees them.
    #[must_use]
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Those that still live.
    fn living(&self) -> Vec<u32> {
        let twins = self.pids.iter().zip(&self.starts);
        twins.filter(|(pid, start)| start.is_some() && start_of(**pid) == **start).map(|(pid, _)| *pid).collect()
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        self.segment.twins_gone.store(self.epoch, Ordering::Release);
        wake(&self.segment.twins_gone);
        let until = Instant::now() + ENDING;
        while !self.living().is_empty() {
            if Instant::now() > until {
                self.living().into_iter().for_each(|pid| kill(pid, libc::SIGKILL));
                return;
            }
            thread::sleep(LOOK);
        }
    }
}
