//! Parking: every thread of a job stands in the library's handler, says where it is, and waits.
//!
//! ```text
//! quiesce   park       epoch, list, signal, wait, list again            no thread of the job runs
//!           sources    FACTS, PENDING                                   what the snapshot needs to know
//!           twins      TWIN                                             copies to be read after the resume
//!           capture    OPEN → CAPTURED                                  all is remembered: the capture counts
//! resume               stopped processes are stopped again, gate = epoch, RESUME
//! ```
//!
//! Whatever happens, nobody stays parked: what holds the job lets it go when it is dropped, and when this whole process
//! dies its guardian does. Only one thing is lost with an agent: processes that job control had stopped run on.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::Phase;
use hijack_abi::{Segment, Slot, captured, command};

use crate::guardian::board::Progress;
use crate::guardian::control::Control;
use crate::guardian::sys::kill;
use crate::segment::{tell, wake};
use crate::tasks::Job;

mod error;
mod laggard;
mod orders;
mod park;
mod sources;
mod sys;
mod twins;

pub use error::QuiesceError;
pub use laggard::Laggard;
pub use twins::Twins;

use park::{Attempt, Stop};

/// After an attempt that failed since somebody was in vfork the job runs for this long, then twice as long, and so on.
const RUN_BETWEEN: Duration = Duration::from_millis(20);
const RUN_BETWEEN_MAX: Duration = Duration::from_millis(500);

/// A job whose threads are all parked. Dropping it lets them go.
pub struct ParkedJob {
    held: Held,
    job: Job,
    /// Of pid namespaces, from this process's /proc to the job's.
    depth: usize,
    processes: Vec<ParkedProcess>,
    zombies: Vec<(u32, u32)>,
}

/// A process whose threads are all parked.
struct ParkedProcess {
    host_pid: u32,
    pid: u32,
    /// The leader first, where it lives; at least one.
    threads: Vec<ParkedThread>,
}

struct ParkedThread {
    host_tid: u32,
    tid: u32,
    slot: &'static Slot,
}

/// Parks a job: when this returns, no thread of it runs. `control` is its segment.
///
/// # Errors
/// Who does not park within `deadline`, or never will, and why; everybody runs on then.
pub fn quiesce(
    control: &Control,
    job: Job,
    deadline: Duration,
    progress: &Progress,
) -> Result<ParkedJob, QuiesceError> {
    progress.enter(Phase::Quiesce);
    let until = Instant::now() + deadline;
    let mut pause = RUN_BETWEEN;
    loop {
        match Attempt::begin(control.segment(), job).run(until, deadline) {
            Ok(parked) => return Ok(parked),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::InVfork(error)) if Instant::now() + pause >= until => return Err(error),
            Err(Stop::InVfork(_)) => thread::sleep(pause),
        }
        pause = RUN_BETWEEN_MAX.min(pause * 2);
    }
}

impl ParkedJob {
    /// The park's number, which an image keeps.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.held.epoch
    }

    /// Processes that have ended and that their parents have not asked for yet: pid as this process sees it, pid as the
    /// job does.
    #[must_use]
    pub fn zombies(&self) -> &[(u32, u32)] {
        &self.zombies
    }

    /// Said once all is remembered that would be lost when threads run. False: the guardian has let everybody go
    /// meanwhile, and what was captured is void.
    #[must_use]
    pub fn capture(&self) -> bool {
        let (open, captured) = (captured::OPEN, captured::CAPTURED);
        let word = &self.held.segment.capture;
        word.compare_exchange(open, captured, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Lets everybody go.
    pub fn resume(self) {
        drop(self);
    }
}

/// What has been parked and stopped in an epoch, perhaps not all of a job yet. Dropping it lets everybody go.
struct Held {
    segment: &'static Segment,
    epoch: u32,
    slots: Vec<&'static Slot>,
    /// Processes that job control had stopped, as this process sees their pids.
    stopped: Mutex<BTreeSet<u32>>,
}

impl Held {
    fn new(segment: &'static Segment, epoch: u32) -> Self {
        Self { segment, epoch, slots: Vec::new(), stopped: Mutex::default() }
    }

    fn stopped(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // They stop where they are parked, or at the latest when the handler gives their signal mask back: no
        // instruction of the program's comes before that.
        self.stopped().iter().for_each(|pid| kill(*pid, libc::SIGSTOP));
        self.segment.gate.store(self.epoch, Ordering::Release);
        wake(&self.segment.gate);
        for slot in &self.slots {
            tell(slot, command::RESUME);
        }
    }
}
