//! Processes of a parked job → model: all but descriptors and page contents.

use std::io;

use thiserror::Error;

mod flags;
mod machine;
mod memory;
mod process;
mod threads;

pub use flags::{FlagsAhead, WHOLE, flags_now, settle};
pub use machine::{Clocks, clocks, cpu_flags, machine};
pub use memory::{MappedObjects, belongs_in_image, hash_file, identify};
pub use process::{Source, SourceThread, process, zombie};

/// Why a process cannot be saved. Nothing was changed.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// /proc refuses, or the process is gone.
    #[error("cannot read {what} of pid {pid}: {source}")]
    Read {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        what: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// /proc says something that this version does not understand.
    #[error("{what} of pid {pid} is not understood")]
    Text {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        what: &'static str,
    },
    /// Something that no checkpoint can keep.
    #[error("pid {pid} cannot be checkpointed: {reason}")]
    Refused {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        reason: String,
    },
}

/// Reads a file of /proc/HOST.
fn read(host: u32, pid: u32, name: &str) -> Result<Vec<u8>, SnapshotError> {
    let path = format!("/proc/{host}/{name}");
    std::fs::read(path).map_err(|source| SnapshotError::Read { pid, what: name.into(), source })
}

fn read_text(host: u32, pid: u32, name: &str) -> Result<String, SnapshotError> {
    read(host, pid, name).map(|it| String::from_utf8_lossy(&it).into_owned())
}
