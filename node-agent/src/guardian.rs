//! The guardian: parent and subreaper of a job's processes, one thread, one loop.
//!
//! ```text
//! signals    from a process → to the root; those of the terminal reach the job by its process group
//! SIGCHLD    root ended → end the rest, exit with its code
//!            agent died → what it drained goes back, everybody is let go, another agent
//! ranks      announced → watched; one that dies by a signal makes the end a failure
//! ```
//!
//! The agent is forked, not executed, so that a job starts in milliseconds; the guardian therefore never has a second thread.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{AccessFlags, access};
use thiserror::Error;

use crate::files::Ledger;
use crate::job::{JobError, JobFolder, JobRecord, SOCKET};

pub mod board;
pub mod control;
pub mod daemons;
mod ending;
mod life;
pub mod members;
mod ranks;
mod root;
pub(crate) mod sys;
mod watch;

pub use life::{Life, Namespace, NextLife, Root};
pub use root::AGENT_VARIABLES;

use board::{Board, Comeback};
use control::Control;
use sys::Inherited;
use watch::Guardian;

/// Why a job cannot be started.
#[derive(Debug, Error)]
pub enum LaunchError {
    #[allow(missing_docs)]
    #[error(transparent)]
    Job(#[from] JobError),
    /// A system call.
    #[error("cannot {deed}: {source}")]
    Io {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// The job does not come back.
    #[error("cannot restart the job: {0}")]
    Restart(Box<dyn Error>),
    /// The same, and the agent has said why.
    #[error("the job was not restarted")]
    NotRestarted,
    /// Another job writes there, and generations of two jobs must not mix.
    #[error("{dir} is where job {job} ({name}) puts its generations: choose another --dir")]
    DirInUse {
        #[allow(missing_docs)]
        dir: PathBuf,
        #[allow(missing_docs)]
        job: String,
        #[allow(missing_docs)]
        name: String,
    },
    /// Generations cannot be written there: better known now than after the first hours.
    #[error("cannot write generations to {dir}: {source}: choose another --dir")]
    Dir {
        #[allow(missing_docs)]
        dir: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

impl LaunchError {
    fn io(deed: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { deed, source }
    }
}

/// In the job's folder: why the job's processes could not be made, for the agent.
pub const FAILURE: &str = "failure";

/// What a guardian is given by the command that it is.
#[derive(Clone, Copy, Debug)]
pub struct Tool<'a> {
    /// What its messages begin with.
    pub name: &'static str,
    /// The preload library.
    pub library: &'a Path,
    /// All of a coordinator's life, in a process that is forked for it.
    pub coordinate: fn(&Life) -> !,
}

/// Runs `command` as a new job until it ends; the exit code of `ckpt-run`.
///
/// # Errors
/// When it cannot be started.
pub fn run(tool: Tool<'_>, record: JobRecord, command: &[OsString]) -> Result<i32, LaunchError> {
    refuse_shared_dir(&record)?;
    refuse_unwritable_dir(&record.dir)?;
    let inherited = sys::block_signals();
    let control = Control::create().map_err(LaunchError::io("make the control segment"))?;
    let mut life = prepare(tool, record, control)?;
    match root::start(tool.name, command, life.folder.path(), &inherited) {
        Ok(pid) => life.root = Root::Child(pid),
        Err(error) => {
            life.folder.remove();
            return Err(LaunchError::io("start the program")(error));
        }
    }
    guard(life, None, &inherited)
}

/// Guards one of a job's other nodes until the job is over there; the exit code of `ckpt agent`. What runs there is started by
/// the coordinator's orders. `ready` is called with the job's folder when the node can be used.
///
/// # Errors
/// When it cannot be made ready.
pub fn serve(
    tool: Tool<'_>,
    record: JobRecord,
    ready: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<i32, LaunchError> {
    let inherited = sys::block_signals();
    let control = Control::create().map_err(LaunchError::io("make the control segment"))?;
    let mut life = prepare(tool, record, control)?;
    life.root = Root::Elsewhere;
    if let Err(error) = ready(life.folder.path()) {
        life.folder.remove();
        return Err(LaunchError::io("make the node ready")(error));
    }
    guard(life, None, &inherited)
}

/// Goes into the background: true in the new process, of a session of its own. Only in a process of one thread.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn detach() -> io::Result<bool> {
    let forked = sys::fork()?;
    if forked == sys::Forked::Child {
        nix::unistd::setsid()?;
    }
    Ok(forked == sys::Forked::Child)
}

/// Runs the next life of a job, or of one of its nodes, until it ends; the exit code of `ckpt-restart`. `ready` is called with
/// the job's folder before anything is begun.
///
/// # Errors
/// When it cannot be restarted.
pub fn restart(
    tool: Tool<'_>,
    record: JobRecord,
    next: &dyn NextLife,
    ready: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<i32, LaunchError> {
    if record.node == 0 {
        refuse_shared_dir(&record)?;
        // An archive need not be writable, where its job goes on elsewhere or takes no checkpoint.
        if record.generation.as_deref().and_then(Path::parent) != Some(&record.dir) {
            refuse_unwritable_dir(&record.dir)?;
        }
    }
    let inherited = sys::block_signals();
    let control = Control::carrying(next.epoch()).map_err(LaunchError::io("make the control segment"))?;
    let mut life = prepare(tool, record, control)?;
    life.board.set_comeback(Comeback::Underway);
    life.record.restarted_from.into_iter().for_each(|generation| life.board.set_newest(generation));
    if life.record.node != 0 {
        life.root = Root::Elsewhere;
    }
    if life.record.nodes > 1 {
        life.board.want_coordinator();
    }
    if let Err(error) = next.prepare(&life).and_then(|()| Ok(ready(life.folder.path())?)) {
        life.folder.remove();
        return Err(LaunchError::Restart(error));
    }
    guard(life, Some(next), &inherited)
}

/// Everything of a life but its processes.
fn prepare(tool: Tool<'_>, record: JobRecord, control: Control) -> Result<Life, LaunchError> {
    sys::become_subreaper().map_err(LaunchError::io("become the parent of orphans"))?;
    let folder = JobFolder::create(&record, tool.library)?;
    let made = (|| {
        folder.link_segment(std::process::id(), control.number())?;
        let ledger = Ledger::create().map_err(LaunchError::io("make room for what is drained"))?;
        let board = sys::share::<Board>().map_err(LaunchError::io("share memory with the agent"))?;
        let socket = folder.path().join(SOCKET);
        let listener = UnixListener::bind(&socket)
            .and_then(|listener| fs::set_permissions(&socket, Permissions::from_mode(0o600)).map(|()| listener))
            .map_err(LaunchError::io("make the socket"))?;
        Ok((ledger, board, listener, event()?, event()?))
    })();
    match made {
        Ok((ledger, board, listener, to_guardian, to_agent)) => {
            let (root, coordinate, tool) = (Root::Child(0), tool.coordinate, tool.name);
            Ok(Life { tool, record, folder, control, ledger, board, listener, to_guardian, to_agent, root, coordinate })
        }
        Err(error) => {
            folder.remove();
            Err(error)
        }
    }
}

fn event() -> Result<EventFd, LaunchError> {
    EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| LaunchError::io("make an eventfd")(errno.into()))
}

/// A descriptor from which signals are read; they have been blocked by the guardian. For its coordinator.
///
/// # Errors
/// No descriptor left.
pub fn signals() -> io::Result<OwnedFd> {
    sys::signal_descriptor()
}

/// The next signal that waits in [`signals`].
#[must_use]
pub fn next_signal(descriptor: BorrowedFd<'_>) -> Option<i32> {
    sys::next_signal(descriptor).map(|it| it.signal)
}

/// What becomes readable when a process ends.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn handle_of(pid: u32) -> io::Result<OwnedFd> {
    sys::pidfd_open(pid)
}

/// Generations of two jobs in one folder would be taken for one job's.
fn refuse_shared_dir(record: &JobRecord) -> Result<(), LaunchError> {
    match crate::job::list()?.into_iter().find(|job| job.record.dir == record.dir && job.record.job != record.job) {
        Some(other) => {
            Err(LaunchError::DirInUse { dir: other.record.dir, job: other.record.job, name: other.record.name })
        }
        None => Ok(()),
    }
}

/// Looks at the folder for generations, or at the nearest one above it that is there: it is made by the first checkpoint.
fn refuse_unwritable_dir(dir: &Path) -> Result<(), LaunchError> {
    let nearest = dir.ancestors().find(|it| it.exists()).unwrap_or(dir);
    let refuse = |source: io::Error| LaunchError::Dir { dir: dir.to_path_buf(), source };
    if !nearest.is_dir() {
        return Err(refuse(io::ErrorKind::NotADirectory.into()));
    }
    access(nearest, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| refuse(errno.into()))
}

/// Guards a life that has begun until it ends; its exit code.
fn guard(life: Life, next: Option<&dyn NextLife>, inherited: &Inherited) -> Result<i32, LaunchError> {
    let signals = sys::signal_descriptor().map_err(LaunchError::io("receive signals"));
    let ended = signals.and_then(|signals| {
        let mut guardian = Guardian::new(&life, next, inherited);
        guardian.start_agent(next);
        guardian.watch(signals.as_fd()).map(|status| guardian.end(status)).map_err(LaunchError::io("wait for the job"))
    });
    if ended.is_err() {
        let _ = ending::end_the_rest(&[]);
    }
    life.folder.remove();
    match life.board.comeback() {
        Comeback::Done => ended,
        Comeback::Underway | Comeback::Failed => Err(LaunchError::NotRestarted),
    }
}
