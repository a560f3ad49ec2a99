//! Pid 1 of the job: sets the namespaces up, starts the builder, inherits and reaps, and ends when the root has ended.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::mount::{MsFlags, mount};
use node_agent_image::model::FileKind;

use super::board::Board;
use super::error::RestartError;
use super::sys::{self, Kinship};
use super::tree::{Role, Tree};
use super::{RestartPlan, builder, tree};

/// Never returns.
pub fn run(plan: &RestartPlan<'_>, board: Board) -> ! {
    let tree = tree::plan(plan.model);
    if let Err(error) = set_up(plan, board).and_then(|()| start(plan, board, &tree)) {
        board.fail(&error.to_string());
        sys::exit(1);
    }
    board.head().ready.store(1, Ordering::Release);
    sys::futex_wake(&board.head().ready);
    let _ = sys::close_range(0, 2);
    let guardian = tree.nodes.iter().find(|it| it.role == Role::Guardian).map_or(0, |it| it.pid);
    let builder = tree.nodes.first().map_or(0, |it| it.pid);
    loop {
        match sys::wait(-1) {
            Ok((pid, status)) if pid == builder && status != 0 => {
                board.fail(&format!("the process that makes the job's processes ended with status {status:#x}"));
                sys::exit(1);
            }
            Ok((pid, _)) if pid == guardian => sys::exit(0),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(_) => sys::exit(0),
        }
    }
}

fn start(plan: &RestartPlan<'_>, board: Board, tree: &Tree) -> Result<(), RestartError> {
    let pid = tree.nodes.first().map(|it| it.pid);
    match sys::fork(Kinship::Child, pid).map_err(RestartError::system("fork", "with a chosen pid"))? {
        None => builder::run(plan, board, tree),
        Some(_) => Ok(()),
    }
}

fn set_up(plan: &RestartPlan<'_>, board: Board) -> Result<(), RestartError> {
    // Whatever becomes of the guardian, the job does not outlive it.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)
        .map_err(RestartError::system("tie", "the job's life to its guardian's"))?;
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
        .map_err(|error| RestartError::system("make", "the job's mounts its own")(error.into()))?;
    let own = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if mount(Some("proc"), "/proc", Some("proc"), own, None::<&str>).is_err() {
        board.head().degraded.store(1, Ordering::Release);
    }
    let memory = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), memory, Some("mode=1777"))
        .map_err(|error| RestartError::system("mount", "/dev/shm")(error.into()))?;
    if plan.model.files.iter().any(|it| matches!(it.kind, FileKind::Pty { .. })) {
        terminals().map_err(RestartError::system("mount", "/dev/pts"))?;
    }
    nix::unistd::sethostname(&plan.model.machine.host)
        .map_err(|error| RestartError::system("set", "the host's name")(error.into()))?;
    job_folder(plan).map_err(RestartError::system("make", format!("the job's folder {}", plan.model.job.folder)))
}

/// A devpts of the job's own, so that its ptys get their numbers.
fn terminals() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some("newinstance,ptmxmode=0666,mode=0600"))?;
    mount(Some("/dev/pts/ptmx"), "/dev/ptmx", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// The old folder's path is in every environment: there it is again, only for the job, with what its programs open.
fn job_folder(plan: &RestartPlan<'_>) -> io::Result<()> {
    let folder = Path::new(&plan.model.job.folder);
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0700"))?;
    crate::job::put_library(&plan.library, folder)?;
    crate::job::put_launcher(folder)?;
    // Every process of the job sees pid 1 under this name; without a /proc of its own, the host's number is the right one.
    let own = fs::read_link("/proc/self")?;
    symlink(format!("/proc/{}/fd/{}", own.display(), plan.segment), folder.join(hijack_abi::SEGMENT_FILE))
}

/// Makes the path on which the job's folder is mounted; in the guardian, where other uids still exist.
///
/// # Errors
/// Of mkdir.
pub fn make_mount_point(folder: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
