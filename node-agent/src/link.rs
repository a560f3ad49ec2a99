//! What a node is told when it becomes one of a job's: which job, and how to reach its coordinator.

use std::fs;
use std::io;
use std::path::Path;

use coordinator_transport::JoinFile;
use serde::{Deserialize, Serialize};

use coordinator_protocol::node::Place;

use crate::job::{JOIN_FILE, JobRecord};

/// A join file. It is a secret: who has it can be a node of the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    /// The job as this node is to know it; pids are filled in there.
    pub record: JobRecord,
    /// Where the coordinator is, and keys.
    pub reach: JoinFile,
}

impl Join {
    /// Writes it into a job's folder, only for its owner; it appears with all its bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let fresh = folder.join(format!(".{JOIN_FILE}"));
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(self)?)?;
        fs::rename(fresh, folder.join(JOIN_FILE))
    }

    /// The one in a job's folder; None where there is none.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(JOIN_FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where all virtual nodes of a restarted job are; written by the agent, read by the guardian.
const PLACES: &str = "places.json";

/// Notes where all virtual nodes of a restarted job are.
///
/// # Errors
/// When it cannot be written.
pub fn write_places(folder: &Path, places: &[Place]) -> io::Result<()> {
    let fresh = folder.join(format!(".{PLACES}"));
    fs::write(&fresh, serde_json::to_vec(places)?)?;
    fs::rename(fresh, folder.join(PLACES))
}

/// Where all virtual nodes of a restarted job are.
///
/// # Errors
/// When it cannot be read.
pub fn read_places(folder: &Path) -> io::Result<Vec<Place>> {
    Ok(serde_json::from_slice(&fs::read(folder.join(PLACES))?)?)
}
