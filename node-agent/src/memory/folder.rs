//! The folder of generations: names, modes, what is there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use node_agent_image::names;

use super::error::WriteError;

/// Only for their owner: a generation is the job's memory.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// An unfinished generation's folder, held open: a file that comes late goes into this very folder or nowhere, never into
/// a later one that has got its name.
#[derive(Debug)]
pub struct OpenFolder {
    /// `.gen-000007.part`, absolute.
    pub path: PathBuf,
    handle: File,
}

impl OpenFolder {
    /// Makes it.
    pub fn create(path: PathBuf) -> Result<Self, WriteError> {
        DirBuilder::new().mode(FOLDER_MODE).create(&path).map_err(WriteError::file("make the folder", &path))?;
        Self::open(&path)
    }

    /// One that is there.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        let handle = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
        let handle = handle.map_err(WriteError::file("open the folder", path))?;
        Ok(Self { path: path.to_path_buf(), handle })
    }

    /// A new file in it, for reading and writing, and its path.
    pub fn make(&self, name: &str) -> Result<(PathBuf, File), WriteError> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        match openat(&self.handle, name, flags, Mode::from_bits_truncate(FILE_MODE)) {
            Ok(file) => Ok((path, file.into())),
            Err(error) => Err(WriteError::file("make", &path)(error.into())),
        }
    }

    /// A new file in it with such bytes, and its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(PathBuf, File), WriteError> {
        let (path, mut file) = self.make(name)?;
        file.write_all(bytes).map_err(WriteError::file("write", &path))?;
        Ok((path, file))
    }
}

/// Makes files and their names in a folder durable. All at once: a file system that has to flush its journal for each does so
/// once for all.
pub fn sync(folder: &OpenFolder, files: &[(PathBuf, File)]) -> Result<(), WriteError> {
    thread::scope(|scope| {
        let sync = |(path, file): &(PathBuf, File)| file.sync_all().map_err(WriteError::file("sync", path));
        let threads: Vec<_> = files.iter().map(|it| scope.spawn(move || sync(it))).collect();
        let mut results = vec![folder.handle.sync_all().map_err(WriteError::file("sync the folder", &folder.path))];
        results
            .extend(threads.into_iter().map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        results.into_iter().collect()
    })
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

/// Makes names in a folder durable.
pub fn sync_names(path: &Path) -> Result<(), WriteError> {
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
