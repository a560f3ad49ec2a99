//! The guardian has died (kill -9): nobody reaps the job's processes, takes their exit code or frees them after a crash
//! of ours. So the job ends, all of it.

use std::time::{Duration, Instant};

use crate::guardian::members::{descendants, of_folder};
use crate::guardian::{Life, sys};

/// How long the kernel may take to end what was killed.
const KILLED: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Kills the job, removes its folder, ends the agent.
pub(super) fn end_job(life: &Life) -> ! {
    let until = Instant::now() + KILLED;
    loop {
        let mut left = of_folder(life.folder.path(), std::process::id());
        if let Some(init) = life.root().init() {
            left.extend(descendants(init, &[]));
            // Takes its whole namespace with it.
            sys::kill(init, libc::SIGKILL);
        }
        if left.is_empty() || Instant::now() > until {
            break;
        }
        left.iter().for_each(|pid| sys::kill(*pid, libc::SIGKILL));
        std::thread::sleep(LOOK_AGAIN);
    }
    if life.record.node == 0 {
        crate::checkpoint::clear_unfinished(&life.record.dir);
    }
    life.folder.remove();
    sys::exit_now(1)
}
