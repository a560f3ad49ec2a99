//! The sequence of a restart, once, with nothing in it.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use super::sys;
use crate::guardian::sys::{Forked, exit_now, fork};

/// A pid that is surely not the next one of an empty namespace.
const CHOSEN_PID: u32 = 4242;
/// CLOCK_MONOTONIC and BOOTTIME of the new time namespace are put ahead by this, s.
const AHEAD_S: u64 = 1000;

/// What a restart does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// fork(2), pipe(2).
    Begin,
    #[allow(missing_docs)]
    UserNamespace,
    #[allow(missing_docs)]
    MapIds,
    /// Ubuntu 24.04 stops here: the namespace is there, its capabilities are not.
    OtherNamespaces,
    #[allow(missing_docs)]
    SetClocks,
    /// MS_REC | MS_SLAVE on /.
    OwnMounts,
    #[allow(missing_docs)]
    MountProc,
    /// clone3 with set_tid.
    SetTid,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Begin,
        Self::UserNamespace,
        Self::MapIds,
        Self::OtherNamespaces,
        Self::SetClocks,
        Self::OwnMounts,
        Self::MountProc,
        Self::SetTid,
    ];

    const fn deed(self) -> &'static str {
        match self {
            Self::Begin => "start a process",
            Self::UserNamespace => "make a user namespace",
            Self::MapIds => "map uid and gid in it",
            Self::OtherNamespaces => "make pid, mount, ipc, uts and time namespaces in it",
            Self::SetClocks => "set the clocks of the time namespace",
            Self::OwnMounts => "separate the mounts from the machine's",
            Self::MountProc => "mount /proc of the pid namespace",
            Self::SetTid => "make a process with a chosen pid (clone3 set_tid)",
        }
    }
}

/// Where the sequence ended too early.
#[derive(Debug)]
pub struct Obstacle {
    #[allow(missing_docs)]
    pub step: Step,
    #[allow(missing_docs)]
    pub source: io::Error,
}

impl Obstacle {
    /// The kernel's answer.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.step.deed(), self.source)
    }
}

/// Goes through the sequence in a child.
///
/// # Errors
/// The first step that fails.
pub fn examine() -> Result<(), Obstacle> {
    let begin = |source| Obstacle { step: Step::Begin, source };
    let (mut reader, writer) = io::pipe().map_err(begin)?;
    match fork().map_err(begin)? {
        Forked::Child => {
            tell(&writer, in_new_namespaces(&writer));
            exit_now(0)
        }
        Forked::Parent(pid) => {
            drop(writer);
            // Its descendants hold the pipe, so the end of it is the end of them all.
            let mut said = Vec::new();
            let read = reader.read_to_end(&mut said);
            sys::wait(pid);
            read.map_err(begin)?;
            understand(&said)
        }
    }
}

/// Number of the step and errno, nothing when all went well.
fn tell(mut writer: &io::PipeWriter, done: Result<(), (Step, io::Error)>) {
    if let Err((step, error)) = done {
        let errno = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
        let _ = writer.write_all(&[&[step as u8], errno.as_slice()].concat());
    }
}

fn understand(said: &[u8]) -> Result<(), Obstacle> {
    let Some((step, errno)) = said.split_first() else { return Ok(()) };
    let step = Step::ALL.get(usize::from(*step)).copied().unwrap_or(Step::Begin);
    let errno = errno.first_chunk::<4>().map_or(libc::EIO, |it| i32::from_ne_bytes(*it));
    Err(Obstacle { step, source: io::Error::from_raw_os_error(errno) })
}

fn in_new_namespaces(writer: &io::PipeWriter) -> Result<(), (Step, io::Error)> {
    let at = |step| move |error: io::Error| (step, error);
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from).map_err(at(Step::UserNamespace))?;
    fs::write("/proc/self/setgroups", "deny").map_err(at(Step::MapIds))?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(at(Step::MapIds))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(at(Step::MapIds))?;
    let namespaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | sys::CLONE_NEWTIME;
    unshare(namespaces).map_err(io::Error::from).map_err(at(Step::OtherNamespaces))?;
    let offsets = format!("monotonic {AHEAD_S} 0\nboottime {AHEAD_S} 0\n");
    fs::write("/proc/self/timens_offsets", offsets).map_err(at(Step::SetClocks))?;
    match fork().map_err(at(Step::OtherNamespaces))? {
        Forked::Child => {
            tell(writer, as_first_process());
            exit_now(0)
        }
        Forked::Parent(pid) => sys::wait(pid),
    }
    Ok(())
}

fn as_first_process() -> Result<(), (Step, io::Error)> {
    let at = |step| move |error: nix::Error| (step, io::Error::from(error));
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(at(Step::OwnMounts))?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).map_err(at(Step::MountProc))?;
    sys::process_with_pid(CHOSEN_PID).map_err(|error| (Step::SetTid, error))
}
