//! An unfinished generation and how it becomes a committed one: see the table in docs/image-format.md.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use node_agent_image::manifest::{Cost, Manifest};
use node_agent_image::names;
use node_agent_image::receipt::Receipt;

use super::error::WriteError;
use super::folder::{self, OpenFolder};
use super::generation::read_manifest_file;
use super::late;

/// The folder `.gen-N.part`, into which every node writes its [`super::Part`]. Unless it is committed, it goes away with
/// this value.
#[derive(Debug)]
pub struct Unfinished {
    dir: PathBuf,
    generation: u64,
    folder: OpenFolder,
    committed: bool,
}

/// A committed generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    #[allow(missing_docs)]
    pub generation: u64,
    /// Its folder, absolute.
    pub path: PathBuf,
    /// Bytes of memory that were looked at.
    pub bytes_read: u64,
    /// Bytes of all its files.
    pub bytes_stored: u64,
}

impl Unfinished {
    /// Clears away what was left unfinished in `dir`, makes `dir` where it is missing, and in it the folder of the next
    /// generation: the newest one's number and 1, or 1.
    ///
    /// # Errors
    /// When `dir` cannot be made or written to; names the folder.
    pub fn begin(dir: &Path) -> Result<Self, WriteError> {
        let dir = folder::prepare(dir)?;
        folder::clear_unfinished(&dir);
        let generation = folder::committed(&dir)?.last().map_or(1, |newest| newest + 1);
        let folder = OpenFolder::create(dir.join(names::unfinished(generation)))?;
        Ok(Self { dir, generation, folder, committed: false })
    }

    /// Where the parts go, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// The number that it will have.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Gives it its final name, when every file that the nodes say they have written is here, no other is, and the manifest
    /// is on disk and reads back. Each receipt is what [`super::Part::finish`] gave one node. Of `cost` the caller says
    /// `job` and `stall_ms`; the rest is filled in. Files of other hosts may be seen late and are waited for: five seconds.
    ///
    /// # Errors
    /// When a file is missing, too short or nobody's, or something cannot be written; then there is no such generation.
    pub fn commit(mut self, mut receipts: Vec<Receipt>, cost: Cost) -> Result<Written, WriteError> {
        receipts.sort_by_key(|it| it.node);
        let cost = full_cost(cost, &receipts);
        let manifest = Manifest { generation: self.generation, cost, nodes: receipts };
        // Before a name that a receipt has is taken for a file's: this checks them.
        let bytes = manifest.encode(&self.path().join(names::MANIFEST).display().to_string())?;
        late::wait_for_files(self.path(), &manifest.nodes)?;
        let strangers = strangers(self.path(), &manifest).map_err(WriteError::file("read the folder", self.path()))?;
        if let Some(path) = strangers.into_iter().next() {
            return Err(WriteError::Stranger { path });
        }
        let file = self.folder.write(names::MANIFEST, &bytes)?;
        folder::sync(&self.folder, &[file])?;
        read_back(self.path(), &bytes)?;
        let path = self.dir.join(names::committed(self.generation));
        give_name(&self.dir, self.path(), &path)?;
        self.committed = true;
        let Cost { bytes_read, bytes_stored, .. } = manifest.cost;
        Ok(Written { generation: self.generation, path, bytes_read, bytes_stored: bytes_stored + bytes.len() as u64 })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed now is by the next checkpoint.
            let _ = fs::remove_dir_all(self.path());
        }
    }
}

/// What lies in a generation's folder and is not in its manifest; ascending.
pub fn strangers(folder: &Path, manifest: &Manifest) -> io::Result<Vec<PathBuf>> {
    let known: HashSet<&str> = manifest.nodes.iter().flat_map(Receipt::lengths).map(|(name, _)| name).collect();
    let mut strangers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| name == names::MANIFEST || known.contains(name)) {
            strangers.push(entry.path());
        }
    }
    strangers.sort_unstable();
    Ok(strangers)
}

/// Compared as bytes: a number with a fraction may be another one after it was written as text and read.
fn read_back(folder: &Path, written: &[u8]) -> Result<(), WriteError> {
    let path = folder.join(names::MANIFEST);
    let again = read_manifest_file(folder).map_err(WriteError::ReadBack)?;
    if again != written {
        return Err(WriteError::OtherManifest { path });
    }
    let decoded = Manifest::decode(&path.display().to_string(), &again);
    decoded.map(drop).map_err(|error| WriteError::ReadBack(error.into()))
}

fn full_cost(cost: Cost, nodes: &[Receipt]) -> Cost {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Numbers of other hosts: whatever they are, they must not end the coordinator.
    let sum = |of: fn(&Receipt) -> u64| nodes.iter().fold(0, |sum: u64, it| sum.saturating_add(of(it)));
    Cost {
        job: cost.job,
        committed_at_ns: now.as_nanos() as u64,
        // JSON has no other numbers.
        stall_ms: if cost.stall_ms.is_finite() { cost.stall_ms } else { 0.0 },
        bytes_read: sum(|it| it.bytes_read),
        bytes_stored: sum(|it| it.bytes_stored),
        files: sum(|it| it.files),
        processes: sum(|it| it.processes),
        threads: sum(|it| it.threads),
    }
}

/// The commit.
fn give_name(dir: &Path, unfinished: &Path, committed: &Path) -> Result<(), WriteError> {
    fs::rename(unfinished, committed).map_err(WriteError::file("give its final name to", unfinished))?;
    folder::sync_names(dir).inspect_err(|_| {
        // A name that may or may not survive a crash is none: the caller is told that there is no such generation.
        let _ = fs::rename(committed, unfinished);
    })
}
