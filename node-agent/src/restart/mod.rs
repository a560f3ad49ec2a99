//! A generation becomes a running job again.
//!
//! ```text
//! begin     (guardian)   check · board · new namespaces                             check, board, namespaces
//!           (pid 1)      mounts, host name, job folder; reaps                       init
//!           (builder)    objects, open files, mapped files; makes the tree          objects, mapped, builder, tree
//!           (each)       session, group, descriptors, folder → restorer             become_process, write_orders, loader
//! complete  (agent)      all mapped → contents → all parked → restorer gone → gate  complete
//! ```
//!
//! Nothing is executed: the new processes are forks of the guardian that take their old shape.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use node_agent_image::model::NodeModel;

use crate::files::FilePolicy;
use crate::files::pairing::Meeting;

mod become_process;
mod board;
mod builder;
mod check;
mod complete;
mod connections;
mod error;
mod init;
mod loader;
mod mapped;
mod namespaces;
mod objects;
mod stand_in;
mod sys;
mod tree;
mod write_orders;

pub use complete::{RestartCost, Targets, complete};
pub use connections::{Ends, moved_connections};
pub use error::RestartError;

use board::Board;
use loader::Restorer;

/// All that a restart has to know.
#[derive(Debug)]
pub struct RestartPlan<'a> {
    /// What is to come back.
    pub model: &'a NodeModel,
    /// The restorer, see [`RestartPlan::new`].
    restorer: Restorer,
    /// What `libckpt_hijack.so` in the job's folder leads to.
    pub library: PathBuf,
    /// The new control segment (a memfd).
    pub segment: RawFd,
    /// What takes the place of the old standard streams.
    pub stdio: [RawFd; 3],
    /// What becomes of files that have grown.
    pub policy: FilePolicy,
    /// Where connections to other virtual nodes are made anew; None where there are none.
    pub meeting: Option<&'a Meeting>,
}

impl<'a> RestartPlan<'a> {
    /// Loads the restorer (`lib/slackwater/ckpt-restorer`).
    ///
    /// # Errors
    /// When it is not what it should be.
    pub fn new(model: &'a NodeModel, restorer: &Path, library: &Path, segment: RawFd) -> Result<Self, RestartError> {
        let restorer = Restorer::load(restorer)?;
        let library = library.to_path_buf();
        Ok(Self { model, restorer, library, segment, stdio: [0, 1, 2], policy: FilePolicy::Cut, meeting: None })
    }
}

/// See [`prepare`]. Copies name the same memory.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    board: Board,
}

impl Prepared {
    /// The restart that another process has begun, as it sees pid 1 and the root.
    #[must_use]
    pub fn begun(self, init: u32, root: u32) -> Begun {
        Begun { init, root, board: self.board }
    }
}

/// A restart that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// Pid 1 of the job as the guardian sees it; its child. Kill it to end everything.
    pub init: u32,
    /// The job's root as the guardian sees it; 0 when it is on another node.
    pub root: u32,
    board: Board,
}

impl Begun {
    /// Wait status of the job's root, once it has ended.
    pub fn root_status(&self) -> Option<i32> {
        use std::sync::atomic::Ordering::Acquire;
        let head = self.board.head();
        (head.root_ended.load(Acquire) == 1).then(|| head.root_status.load(Acquire))
    }

    /// True when the job has no /proc of its own and sees the host's numbers there.
    pub fn degraded(&self) -> bool {
        self.board.head().degraded.load(std::sync::atomic::Ordering::Acquire) == 1
    }
}

/// Memory that guardian, agent and new processes share; made before the agent is forked.
///
/// # Errors
/// When this node cannot run the image, or has no memory for it.
pub fn prepare(model: &NodeModel) -> Result<Prepared, RestartError> {
    check::check(model)?;
    let orders: Vec<u64> = model.processes.iter().map(become_process::orders_bytes).collect();
    let board = Board::new(model.objects.len(), &orders)
        .map_err(RestartError::system("map", "memory shared with the new processes"))?;
    Ok(Prepared { board })
}

/// Makes the namespaces and lets the job's processes come to be. Only in a process of one thread.
///
/// # Errors
/// When this node refuses namespaces, or when a file cannot be opened or a process not be made; nothing is left then. Later
/// failures are reported by [`complete`].
pub fn begin(plan: &RestartPlan<'_>, prepared: Prepared) -> Result<Begun, RestartError> {
    init::make_mount_point(&plan.model.job.folder)
        .map_err(RestartError::system("make", format!("the job's folder {}", plan.model.job.folder)))?;
    let board = prepared.board;
    let init = namespaces::enter(plan, board)?;
    match complete::find_root(plan.model, init, board) {
        Ok(root) => Ok(Begun { init, root, board }),
        Err(error) => {
            // It is our child and has not been reaped; it takes all of the job with it.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(init as i32), nix::sys::signal::SIGKILL);
            let _ = sys::wait(init as i32);
            Err(error)
        }
    }
}
