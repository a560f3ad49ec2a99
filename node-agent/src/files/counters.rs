//! eventfd, timerfd, signalfd: fdinfo tells all of them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use node_agent_image::model::FileKind;
use node_agent_proc::fdinfo::Extra;

use super::{FilesError, sys};

/// From fdinfo; nothing is read through the descriptor, which would consume it.
pub fn capture(extra: &Extra) -> FileKind {
    match *extra {
        Extra::Eventfd { count, semaphore } => FileKind::Eventfd { count, semaphore },
        Extra::Timerfd { clock, ticks, settime_flags, value_ns, interval_ns } => {
            FileKind::Timerfd { clock, ticks, settime_flags, value_ns, interval_ns }
        }
        Extra::Signalfd { mask } => FileKind::Signalfd { mask },
        _ => FileKind::Nothing,
    }
}

/// Opens an eventfd, timerfd or signalfd. `realtime_ns`: CLOCK_REALTIME of the checkpoint.
pub fn open(kind: &FileKind, realtime_ns: u64) -> Result<OwnedFd, FilesError> {
    match *kind {
        FileKind::Eventfd { count, semaphore } => {
            sys::eventfd(count, semaphore).map_err(FilesError::restore("make", "an eventfd"))
        }
        FileKind::Signalfd { mask } => sys::signalfd(mask).map_err(FilesError::restore("make", "a signalfd")),
        FileKind::Timerfd { clock, ticks, settime_flags, value_ns, interval_ns } => {
            timerfd(clock, ticks, settime_flags, (value_ns, interval_ns), realtime_ns)
                .map_err(FilesError::restore("make", "a timerfd"))
        }
        _ => Err(FilesError::Model("a counter of no known kind".into())),
    }
}

/// CLOCK_MONOTONIC goes on in the job's time namespace, so what was left then is left now. A date is a date: an absolute
/// timer of CLOCK_REALTIME fires when it was meant to, at once if that is past.
fn timerfd(
    clock: i32,
    ticks: u64,
    settime_flags: u32,
    (value_ns, interval_ns): (u64, u64),
    realtime_ns: u64,
) -> io::Result<OwnedFd> {
    let timer = sys::timerfd(clock)?;
    let dated = clock == libc::CLOCK_REALTIME && settime_flags & libc::TFD_TIMER_ABSTIME as u32 != 0;
    if value_ns > 0 && dated {
        sys::set_timerfd(timer.as_raw_fd(), settime_flags as i32, realtime_ns.saturating_add(value_ns), interval_ns)?;
    } else if value_ns > 0 {
        sys::set_timerfd(timer.as_raw_fd(), 0, value_ns, interval_ns)?;
    } else if ticks > 0 && interval_ns > 0 {
        // It has fired; the kernel arms it again only when it is read, which nobody has done.
        sys::set_timerfd(timer.as_raw_fd(), 0, interval_ns, interval_ns)?;
    }
    if ticks > 0 {
        sys::set_ticks(timer.as_raw_fd(), ticks)?;
    }
    Ok(timer)
}
