//! The end of a job: what its root leaves behind is asked to go, then made to.

use std::time::{Duration, Instant};

use super::members::descendants;
use super::sys;

/// How long processes that outlive the root have to end by themselves after SIGTERM.
const GRACE: Duration = Duration::from_millis(1000);
/// How long the kernel may take to end what was killed.
const KILLED: Duration = Duration::from_millis(2000);
/// How often /proc is looked at: orphans that come to us are children, what is below them is not.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Ends every descendant of this process but those `apart` (agent, coordinator). Those that do not go, in uninterruptible sleep say.
#[must_use]
pub fn end_the_rest(apart: &[u32]) -> Vec<u32> {
    if is_alone_with(apart) {
        return Vec::new();
    }
    let left = signal_until_gone(libc::SIGTERM, GRACE, apart);
    if left.is_empty() { left } else { signal_until_gone(libc::SIGKILL, KILLED, apart) }
}

/// Whether this process, to which all orphans come, has no child but those; false where the kernel does not say. Nothing
/// is missed: none of its children leaves the list until it is reaped here. To look through /proc takes milliseconds.
fn is_alone_with(apart: &[u32]) -> bool {
    while sys::reap().is_some() {}
    let own = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
    children.is_ok_and(|text| text.split_whitespace().all(|pid| apart.iter().any(|it| pid == it.to_string())))
}

/// Signals everyone once, new ones too, until nobody is left or `time` has passed.
fn signal_until_gone(signal: i32, time: Duration, apart: &[u32]) -> Vec<u32> {
    let until = Instant::now() + time;
    let mut told = std::collections::BTreeSet::new();
    loop {
        while sys::reap().is_some() {}
        let left = descendants(std::process::id(), apart);
        if left.is_empty() || Instant::now() > until {
            return left.into_iter().collect();
        }
        for pid in left.iter().copied().filter(|pid| told.insert(*pid) || signal == libc::SIGKILL) {
            sys::kill(pid, signal);
            // A stopped process takes its SIGTERM only when it goes on.
            sys::kill(pid, libc::SIGCONT);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
