//! The folder of generations: names, modes, what is there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use node_agent_image::names;

use super::error::WriteError;

/// Only for their owner: a generation is the job's memory.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The folder of an unfinished generation. Goes away with this value unless it was kept.
#[derive(Debug)]
pub struct Folder {
    /// `.gen-000007.part`, absolute.
    pub path: PathBuf,
    kept: bool,
}

impl Folder {
    /// Makes `.gen-N.part` in `dir`.
    pub fn create(dir: &Path, generation: u64) -> Result<Self, WriteError> {
        let path = dir.join(names::unfinished(generation));
        DirBuilder::new().mode(FOLDER_MODE).create(&path).map_err(WriteError::file("make the folder", &path))?;
        Ok(Self { path, kept: false })
    }

    /// It has its final name.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is by the next checkpoint.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Makes `dir` and its parents where they are missing; its absolute path.
pub fn prepare(dir: &Path) -> Result<PathBuf, WriteError> {
    let made = match fs::metadata(dir) {
        Ok(about) if about.is_dir() => Ok(()),
        Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
        Err(_) => DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir),
    };
    made.map_err(WriteError::file("make the folder", dir))?;
    dir.canonicalize().map_err(WriteError::file("find the folder", dir))
}

/// A new file for reading and writing.
pub fn create(path: &Path) -> Result<File, WriteError> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path);
    file.map_err(WriteError::file("make", path))
}

/// Makes names in a folder durable.
pub fn sync(path: &Path) -> Result<(), WriteError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(WriteError::file("sync the folder", path))
}

/// Numbers of committed generations, ascending.
pub fn committed(dir: &Path) -> Result<Vec<u64>, WriteError> {
    let entries = fs::read_dir(dir).map_err(WriteError::file("read the folder", dir))?;
    let mut numbers: Vec<u64> =
        entries.flatten().filter_map(|it| names::generation_of(it.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes what checkpoints that were cut off have left in `dir`. What cannot be removed stays for the next time.
pub fn clear_unfinished(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(names::is_unfinished) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes all but the newest `keep` committed generations of `dir`; the newest stays in any case. What cannot be removed
/// stays for the next time.
pub fn retain(dir: &Path, keep: u32) {
    let numbers = committed(dir).unwrap_or_default();
    let superfluous = numbers.len().saturating_sub(keep.max(1) as usize);
    for number in &numbers[..superfluous] {
        // Its name first: a crash in between must not leave half a generation with a name that counts.
        let unfinished = dir.join(names::unfinished(*number));
        if fs::rename(dir.join(names::committed(*number)), &unfinished).is_ok() {
            let _ = fs::remove_dir_all(&unfinished);
        }
    }
}
