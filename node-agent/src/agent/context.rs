//! What one checkpoint is given.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::{Deadlines, Mode};

use crate::guardian::board::Progress;
use crate::guardian::members::descendants;
use crate::guardian::{Life, sys};

/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A checkpoint's job, wishes and limits.
#[derive(Clone, Copy)]
pub struct CheckpointContext<'life> {
    /// The job: its record (`dir`, `keep`, names), its segment (`control`), its ledger, its root.
    pub life: &'life Life,
    /// Pid of the guardian as the agent sees it.
    pub guardian: u32,
    /// Number of the virtual node; the head's is 0.
    pub node: u32,
    /// With twins, or parked until all is written.
    pub mode: Mode,
    /// The job is not let go after the commit but ended: see [`CheckpointContext::end_job`].
    pub kill: bool,
    #[allow(missing_docs)]
    pub deadlines: Deadlines,
    /// To be told how far it is.
    pub progress: &'life Progress,
}

impl CheckpointContext<'_> {
    /// The job's processes as the agent sees them: descendants of the guardian but for agent and coordinator, zombies left out.
    #[must_use]
    pub fn members(&self) -> BTreeSet<u32> {
        descendants(self.guardian, &[std::process::id(), self.life.board.coordinator()])
    }

    /// After the commit of `generation`: kills every process of the job, parked as it is, and waits until all are gone.
    /// Those that are left after ten seconds.
    #[must_use]
    pub fn end_job(&self, generation: u64) -> BTreeSet<u32> {
        self.life.board.end_after(generation);
        let until = Instant::now() + KILLED;
        loop {
            let left = self.members();
            if left.is_empty() || Instant::now() > until {
                return left;
            }
            left.iter().for_each(|pid| sys::kill(*pid, libc::SIGKILL));
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// The agent holds no stream of its caller but standard error: a reader of the job's output must see it end.
pub(super) fn leave_streams() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
