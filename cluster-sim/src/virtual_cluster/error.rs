//! What can go wrong with a virtual cluster.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why a cluster could not be brought up, or a deed on it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Namespaces of this kind, mounts and cgroups are for root.
    #[error("a virtual cluster needs root, and this is uid {uid}")]
    NotRoot {
        /// Who asks.
        uid: u32,
    },
    /// A program of the system is not there.
    #[error("{program} is not installed (Debian has it in the package {package})")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Who brings it.
        package: &'static str,
    },
    /// [`Options`](super::Options) cannot be met.
    #[error("{what}")]
    Options {
        /// Which, and why.
        what: String,
    },
    /// Another live cluster has this scratch folder.
    #[error("another virtual cluster is up in {}", scratch.display())]
    Busy {
        /// The folder.
        scratch: PathBuf,
    },
    /// A file could not be read, written, made or removed.
    #[error("cannot {deed} {}: {source}", path.display())]
    File {
        /// What was to be done.
        deed: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// What the system says.
        source: io::Error,
    },
    /// A program of the system did not do what it was asked for.
    #[error("`{command}` ended with {status}: {said}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard error.
        said: String,
    },
    /// Something took too long.
    #[error("{what} not within {limit:?}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A node ended while it was starting.
    #[error("node {node} did not start: {said}")]
    NodeDidNotStart {
        /// Its name.
        node: String,
        /// The end of its log.
        said: String,
    },
    /// There is no node with that number.
    #[error("there is no node {node}: they are 1 to {nodes}")]
    NoSuchNode {
        /// The number asked for.
        node: u32,
        /// How many there are.
        nodes: u32,
    },
    /// The node was killed or powered off and not booted since.
    #[error("node n{node} is down")]
    NodeIsDown {
        /// Its number.
        node: u32,
    },
    /// The cluster's passwd has no such user.
    #[error("the nodes have no user {user}")]
    NoSuchUser {
        /// The name asked for.
        user: String,
    },
    /// No cgroup hierarchy that can freeze is writable here.
    #[error("nodes cannot be frozen here: {why}")]
    CannotFreeze {
        /// What was found.
        why: String,
    },
    /// Processes outlived SIGKILL.
    #[error("still there {limit:?} after SIGKILL: {left}")]
    ProcessesLeft {
        /// Pids and names.
        left: String,
        /// How long they were given.
        limit: Duration,
    },
}

impl ClusterError {
    /// For `map_err` after a file operation.
    pub(super) fn file(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
        let path = path.to_path_buf();
        move |source| ClusterError::File { deed, path, source }
    }
}
