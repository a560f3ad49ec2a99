//! Why a restart cannot be done.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a restart cannot be done. Nothing of the job runs after any of these.
#[derive(Debug, Error)]
pub enum RestartError {
    /// Another machine type.
    #[error("the image was taken on {was} and this node is {is}: restart it on a node of its own architecture")]
    Architecture {
        #[allow(missing_docs)]
        was: String,
        #[allow(missing_docs)]
        is: String,
    },
    /// The library in the image speaks another version.
    #[error(
        "the image was taken with version {was} of the preload library's protocol and this is version {is}: restart it with the Slackwater that took it"
    )]
    Abi {
        #[allow(missing_docs)]
        was: u32,
        #[allow(missing_docs)]
        is: u32,
    },
    /// The job may use instructions that this CPU has not.
    #[error("this node's CPU lacks {}: restart on a node that has them, or start the job with a lower --cpu-baseline", .0.join(", "))]
    CpuFeatures(Vec<String>),
    /// The vDSO has other entry points or another size.
    #[error(
        "the image was taken on kernel {was} and this is {is}, whose vDSO differs: restart on a node with the same kernel"
    )]
    Kernel {
        #[allow(missing_docs)]
        was: String,
        #[allow(missing_docs)]
        is: String,
    },
    /// User namespaces are switched off or do not give the capabilities that are needed.
    #[error("cannot {deed} as uid {uid} ({source}): {remedy}")]
    Namespaces {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        uid: u32,
        #[allow(missing_docs)]
        remedy: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// The restorer's file is not what it should be.
    #[error("cannot load the restorer {path}: {reason}")]
    Restorer {
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
        reason: String,
    },
    /// A program, library or data file is not what it was.
    #[error("{path} is mapped by the job and {reason}: put the old one back, or restart where it is")]
    Changed {
        #[allow(missing_docs)]
        path: String,
        #[allow(missing_docs)]
        reason: String,
    },
    /// A system call on behalf of the whole restart.
    #[error("cannot {deed} {object}: {source}")]
    System {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        object: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// Said by a process of the new tree.
    #[error("{0}")]
    Inside(String),
    /// The restorer could not do one of its steps.
    #[error("pid {pid} cannot {step} ({argument:#x}): {source}")]
    Restore {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        step: &'static str,
        /// Address, number or id that the step was about.
        argument: u64,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// A process ended while it was being restored.
    #[error("pid {pid} ended while it was being restored (stage {stage} of 4)")]
    Ended {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        stage: u32,
    },
    /// A deadline passed.
    #[error("after {seconds} s still waiting for {whom} to {what}")]
    Deadline {
        #[allow(missing_docs)]
        seconds: u64,
        #[allow(missing_docs)]
        whom: String,
        #[allow(missing_docs)]
        what: &'static str,
    },
    /// Contents could not be put back.
    #[error("cannot fill the job's memory: {0}")]
    Fill(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Descriptors could not be opened again.
    #[error(transparent)]
    Files(#[from] crate::files::FilesError),
    /// Semaphores or message queues.
    #[error(transparent)]
    Ipc(#[from] crate::ipc::IpcError),
    /// The model does not hold together.
    #[error("the image is inconsistent: {0}")]
    Model(String),
}

impl RestartError {
    /// For map_err.
    pub(crate) fn system(deed: &'static str, object: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let object = object.into();
        move |source| Self::System { deed, object, source }
    }
}
