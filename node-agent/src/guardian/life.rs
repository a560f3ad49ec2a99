//! One life of a job: what guardian and agents share of it.

use std::error::Error;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;

use nix::sys::eventfd::EventFd;

use super::board::Board;
use super::control::Control;
use crate::files::Ledger;
use crate::job::{JobFolder, JobRecord};
use crate::restart::Ends;

/// The job's root process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// A child of the guardian, in its process group.
    Child(u32),
    /// In namespaces of its own, after a restart.
    Namespace(Namespace),
    /// On a node that is not the head's: launchers' daemons and what they start are children, none of them is the root.
    Elsewhere,
}

/// A restarted job's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Their first process, a child of the guardian: it ends when the root has ended, and takes all with it.
    pub init: u32,
    /// The root as the guardian sees it.
    pub root: u32,
}

impl Root {
    /// Its pid as the guardian sees it; 0 when it is on another node.
    #[must_use]
    pub fn pid(self) -> u32 {
        match self {
            Self::Child(pid) => pid,
            Self::Namespace(namespace) => namespace.root,
            Self::Elsewhere => 0,
        }
    }

    /// The child of the guardian whose end is the job's end; 0 when nobody's is.
    #[must_use]
    pub(super) fn child(self) -> u32 {
        match self {
            Self::Child(pid) => pid,
            Self::Namespace(namespace) => namespace.init,
            Self::Elsewhere => 0,
        }
    }

    /// The first process of the job's pid namespace, where that is not the guardian's.
    #[must_use]
    pub fn init(self) -> Option<u32> {
        match self {
            Self::Child(_) | Self::Elsewhere => None,
            Self::Namespace(namespace) => Some(namespace.init),
        }
    }
}

/// How a job begins that ran before.
pub trait NextLife: Sync {
    /// The park epoch that its threads hold.
    fn epoch(&self) -> u32;

    /// MPI ranks among its processes, as they see their pids.
    fn ranks(&self) -> Vec<u32>;

    /// Launchers' daemons among its processes: number of the launch, pid as they see it.
    fn launches(&self) -> Vec<(u64, u32)>;

    /// In the guardian, before there is an agent: what both have to share.
    ///
    /// # Errors
    /// For a person.
    fn prepare(&self, life: &Life) -> Result<(), Box<dyn Error>>;

    /// In the guardian, which has one thread, when the agent wants it: makes the namespaces and forks the job's processes.
    ///
    /// # Errors
    /// For a person.
    fn begin(&self, life: &Life) -> Result<Namespace, Box<dyn Error>>;

    /// In the agent: fills memory and lets everybody go, when `ready` says so.
    ///
    /// # Errors
    /// For a person; the job is ended.
    fn complete(&self, life: &Life, ready: &mut dyn FnMut() -> Result<(), String>) -> Result<(), Box<dyn Error>>;

    /// In the agent, when all are in their parks: connections to other nodes, what their ends are and what their programs
    /// remember.
    fn moved_connections(&self, life: &Life) -> Vec<(Ends, Ends)>;

    /// Where the builders of other nodes find this one's, and addresses that the job knows → what they are here; None on
    /// one node.
    fn place(&self) -> Option<(SocketAddr, Vec<(SocketAddr, SocketAddr)>)>;

    /// In the guardian: the root's wait status, once its parent in the namespace knows it.
    fn root_status(&self) -> Option<i32>;
}

/// All that guardian and agent share of one life of a job.
pub struct Life {
    /// ckpt-run or ckpt-restart: what messages begin with.
    pub tool: &'static str,
    #[allow(missing_docs)]
    pub record: JobRecord,
    #[allow(missing_docs)]
    pub folder: JobFolder,
    #[allow(missing_docs)]
    pub control: Control,
    #[allow(missing_docs)]
    pub board: &'static Board,
    /// Bytes drained out of connections; outlives an agent.
    pub ledger: Ledger,
    /// Where `ckpt` asks. Made by the guardian, so that nobody is turned away between two agents.
    pub listener: UnixListener,
    /// An agent writes it when there is something for the guardian to look at: ranks, daemons to start, the end.
    pub to_guardian: EventFd,
    /// The guardian writes it when daemons have been started or have ended.
    pub to_agent: EventFd,
    /// In a first life.
    pub(super) root: Root,
    /// All of a coordinator's life, in the process that the guardian forks for it.
    pub coordinate: fn(&Life) -> !,
}

impl Life {
    /// The job's root, and where it is.
    #[must_use]
    pub fn root(&self) -> Root {
        self.board.namespace().map_or(self.root, Root::Namespace)
    }
}
