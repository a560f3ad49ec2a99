//! Who does not park, and why.

use std::fmt;
use std::fs;
use std::time::Duration;

use hijack_abi::Slot;

use super::error::QuiesceError;
use super::sys;
use crate::preflight;
use crate::segment::MAPPED_AS;
use crate::tasks::{Member, TaskStatus, call_of};

/// System calls that people meet in hung programs, by number.
const CALLS: [(u64, &str); 24] = [
    (0, "read"),
    (1, "write"),
    (7, "poll"),
    (17, "pread64"),
    (18, "pwrite64"),
    (23, "select"),
    (35, "nanosleep"),
    (43, "accept"),
    (45, "recvfrom"),
    (47, "recvmsg"),
    (56, "clone"),
    (58, "vfork"),
    (59, "execve"),
    (61, "wait4"),
    (72, "fcntl"),
    (73, "flock"),
    (74, "fsync"),
    (202, "futex"),
    (230, "clock_nanosleep"),
    (232, "epoll_wait"),
    (247, "waitid"),
    (257, "openat"),
    (262, "newfstatat"),
    (435, "clone3"),
];
/// Those in which a parent waits for a child that has its memory: clone, vfork, clone3.
const VFORKS: [u64; 3] = [56, 58, 435];

/// Why a thread is not parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// It has been signalled.
    #[default]
    Asked,
    /// The signal would end its program.
    NoHandler,
    /// A child of posix_spawn(3) ignores the signal until it executes its program.
    Ignored,
    Blocked,
    /// A debugger has stopped it.
    Traced,
    /// A child of vfork(2): its parent must not find another stack than it has left.
    SharesMemory,
    /// It has a handler, not ours.
    NoSegment,
    /// In a pid namespace of its own.
    Namespace,
    /// It may not be signalled.
    Refused,
}

/// A thread that is not parked, as this process sees its numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Late {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) hindrance: Hindrance,
    pub(super) slot: Option<&'static Slot>,
}

/// A thread that does not park, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// The node's name.
    pub host: String,
    /// As its agent sees it.
    pub pid: u32,
    /// Name of the thread.
    pub name: String,
    #[allow(missing_docs)]
    pub tid: u32,
    /// What it waits for or why it cannot park.
    pub reason: String,
}

impl fmt::Display for Laggard {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, pid, name, tid, reason } = self;
        write!(to, "{host}: pid {pid} ({name}), thread {tid}: {reason}")
    }
}

/// The deadline has passed.
pub(super) fn deadline(first: Late, count: usize, members: &[Member], deadline: Duration) -> QuiesceError {
    QuiesceError::Deadline {
        milliseconds: deadline.as_millis() as u64,
        laggard: Box::new(first.describe(members)),
        more: count.saturating_sub(1),
    }
}

/// Whether a process maps a control segment.
pub(super) fn maps_segment(pid: u32) -> bool {
    maps(pid).is_some_and(|it| it.contains(MAPPED_AS))
}

fn maps(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/maps")).ok()
}

impl Late {
    /// In vfork(2) or the like, as parent or as child.
    pub(super) fn is_in_vfork(&self) -> bool {
        let waits = || {
            TaskStatus::read(self.pid, self.tid).is_some_and(|it| it.state == 'D')
                && VFORKS.contains(&call_of(self.pid, self.tid).number)
        };
        self.hindrance == Hindrance::SharesMemory || (self.hindrance == Hindrance::Asked && waits())
    }

    /// It will never park, however long it is waited for.
    pub(super) fn is_hopeless(&self) -> bool {
        match self.hindrance {
            Hindrance::NoHandler => preflight::unloaded(self.pid).is_some(),
            // One with the library may be about to map it.
            Hindrance::NoSegment => !maps(self.pid).is_some_and(|it| preflight::shows_library(&it)),
            Hindrance::Namespace | Hindrance::Refused => true,
            _ => false,
        }
    }

    pub(super) fn describe(&self, members: &[Member]) -> Laggard {
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let status = TaskStatus::read(self.pid, self.tid).unwrap_or_default();
        let reason = self.reason(&status, members);
        Laggard { host, pid: self.pid, name: status.name, tid: self.tid, reason }
    }

    fn reason(&self, status: &TaskStatus, members: &[Member]) -> String {
        let preflight = || preflight::unloaded(self.pid);
        match self.hindrance {
            Hindrance::NoHandler => preflight().unwrap_or_else(|| {
                "it has no handler of signal 33: its program has only just been executed, or has taken it away".into()
            }),
            Hindrance::NoSegment => preflight().unwrap_or_else(|| {
                "it handles signal 33, but does not map the control segment: its handler is not ours, or it cannot open \
                 the segment (another root folder, another user, no descriptor left)"
                    .into()
            }),
            Hindrance::Ignored => "it ignores signal 33".into(),
            Hindrance::Blocked => format!("it blocks signal 33, {}", self.activity(status)),
            Hindrance::Traced => "it is stopped by a debugger".into(),
            Hindrance::SharesMemory => format!(
                "it is a child of vfork and has its parent's memory until it executes a program or ends, {}",
                self.activity(status)
            ),
            Hindrance::Namespace => "it is in a pid namespace of its own, which cannot be made again".into(),
            Hindrance::Refused => "it may not be signalled: it runs as another user".into(),
            Hindrance::Asked => self.child_of_vfork(status, members).unwrap_or_else(|| self.activity(status)),
        }
    }

    /// What it is doing.
    fn activity(&self, status: &TaskStatus) -> String {
        let call = call_of(self.pid, self.tid);
        let name = CALLS.iter().find(|(number, _)| *number == call.number).map(|(_, name)| format!(" ({name})"));
        let call = match call.valid {
            1 => format!("in system call {}{}", call.number, name.unwrap_or_default()),
            _ => "in no system call".into(),
        };
        let place = fs::read_to_string(format!("/proc/{}/task/{}/wchan", self.pid, self.tid)).unwrap_or_default();
        let place = if matches!(&*place, "" | "0") { String::new() } else { format!(", in the kernel's {place}") };
        match status.state {
            'D' => format!("in uninterruptible sleep {call}{place}"),
            'R' => format!("running, {call}"),
            'T' => format!("stopped by job control {call}"),
            _ => format!("sleeping {call}{place}"),
        }
    }

    /// The child for which it waits in vfork.
    fn child_of_vfork(&self, status: &TaskStatus, members: &[Member]) -> Option<String> {
        if status.state != 'D' || !VFORKS.contains(&call_of(self.pid, self.tid).number) {
            return None;
        }
        let child = members.iter().find(|it| it.parent == self.pid && sys::share_memory(it.pid, self.pid))?;
        let name = TaskStatus::read(child.pid, child.pid).unwrap_or_default().name;
        Some(format!("in vfork until its child, pid {} ({name}), executes a program or ends", child.pid))
    }
}
