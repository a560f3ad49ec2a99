//! What can go wrong with contents.

use std::io;
use std::path::{Path, PathBuf};

use node_agent_image::FormatError;
use node_agent_image::contents::Owner;
use thiserror::Error;

/// Why contents cannot be read.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The process has vanished, or has no such page.
    #[error("cannot read the memory of pid {pid} at {address:#x}: {source}")]
    Process {
        /// As the agent sees it.
        pid: u32,
        #[allow(missing_docs)]
        address: u64,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// What is behind an object.
    #[error("cannot read {owner} at {offset:#x}: {source}")]
    File {
        #[allow(missing_docs)]
        owner: Owner,
        #[allow(missing_docs)]
        offset: u64,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

/// Why there is no new generation. What there was of it is cleared away.
#[derive(Debug, Error)]
pub enum WriteError {
    /// A call on a file or folder.
    #[error("cannot {deed} {path}: {source}")]
    File {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// No workers.
    #[error("cannot start threads to write with: {0}")]
    Threads(String),
    #[allow(missing_docs)]
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// More of something than the format allows.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What was written does not read back.
    #[error("what was written does not read back: {0}")]
    ReadBack(#[source] ImageError),
    /// Written elsewhere, said to be complete, and not to be seen here.
    #[error(
        "a file of node {node} ({host}) is not as that node has written it: {source}; do all nodes see the same folder?"
    )]
    Missing {
        /// Virtual node number.
        node: u32,
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        source: Box<ImageError>,
    },
    /// Written by a node that is not of this checkpoint, or by somebody else.
    #[error("{path} is in the unfinished generation and belongs to none of its nodes")]
    Stranger {
        #[allow(missing_docs)]
        path: PathBuf,
    },
    /// Good, and another one.
    #[error("{path} does not read back as it was written")]
    OtherManifest {
        #[allow(missing_docs)]
        path: PathBuf,
    },
}

/// Why a generation cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A call on a file.
    #[error("cannot {deed} {path}: {source}")]
    File {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// Damaged, or not ours.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A restarted process has vanished, or has no such page.
    #[error("cannot write the memory of pid {pid} at {address:#x}: {source}")]
    Process {
        /// As the agent sees it.
        pid: u32,
        #[allow(missing_docs)]
        address: u64,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// The generation is of other nodes.
    #[error("{path}: no node {node} in it, only {}", .there.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))]
    NoNode {
        #[allow(missing_docs)]
        path: PathBuf,
        /// Virtual node number.
        node: u32,
        #[allow(missing_docs)]
        there: Vec<u32>,
    },
    /// The restart has not made what contents belong to.
    #[error("the image has contents for {0}, and the restart has no such thing")]
    NoTarget(Owner),
}

impl WriteError {
    /// For map_err.
    pub(super) fn file(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { deed, path, source }
    }
}

impl ImageError {
    /// For map_err.
    pub(super) fn file(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { deed, path, source }
    }
}
