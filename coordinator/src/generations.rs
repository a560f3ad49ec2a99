//! The folder of a job's generations: `gen-000007` is one, `.gen-000007.part` is what a crash left of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use node_agent::memory::{self, ImageError, Manifest};
use node_agent_image::names;
use thiserror::Error;

/// Why there is no generation to look at.
#[derive(Debug, Error)]
pub enum GenerationError {
    /// The folder itself.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// Nothing was ever committed there.
    #[error("{dir} holds no committed generation")]
    Empty {
        #[allow(missing_docs)]
        dir: PathBuf,
    },
    /// Not this one.
    #[error("{dir} holds no generation {number}, only {}", .there.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))]
    Missing {
        #[allow(missing_docs)]
        dir: PathBuf,
        #[allow(missing_docs)]
        number: u64,
        #[allow(missing_docs)]
        there: Vec<u64>,
    },
    /// A file of it is damaged, or not ours.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A committed generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    #[allow(missing_docs)]
    pub number: u64,
    /// Absolute.
    pub path: PathBuf,
}

/// Committed generations of `dir`, oldest first. What is unfinished is said on standard error.
///
/// # Errors
/// [`GenerationError::Unreadable`].
pub fn list(tool: &str, dir: &Path) -> Result<Vec<Generation>, GenerationError> {
    let unreadable = |source| GenerationError::Unreadable { path: dir.to_path_buf(), source };
    let entries = fs::read_dir(dir).map_err(unreadable)?;
    let absolute = dir.canonicalize().map_err(unreadable)?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        match names::generation_of(&name) {
            Some(number) => found.push(Generation { number, path: absolute.join(&name) }),
            None if names::is_unfinished(&name) => {
                eprintln!("{tool}: {}: not finished, passed over", dir.join(name).display());
            }
            None => {}
        }
    }
    found.sort_by_key(|it| it.number);
    Ok(found)
}

/// The newest generation of `dir`, or the one with a number.
///
/// # Errors
/// When it is not there.
pub fn find(tool: &str, dir: &Path, number: Option<u64>) -> Result<Generation, GenerationError> {
    let all = list(tool, dir)?;
    let there = all.iter().map(|it| it.number).collect();
    let wanted = all.into_iter().rfind(|it| number.is_none_or(|number| it.number == number));
    wanted.ok_or_else(|| match number {
        Some(number) if !Vec::is_empty(&there) => GenerationError::Missing { dir: dir.to_path_buf(), number, there },
        _ => GenerationError::Empty { dir: dir.to_path_buf() },
    })
}

impl Generation {
    /// When it was committed, ns since 1970.
    pub fn committed_ns(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let about = fs::metadata(self.path.join(names::MANIFEST)).or_else(|_| fs::metadata(&self.path));
        about.map_or(0, |it| (it.mtime() * 1_000_000_000 + it.mtime_nsec()).max(0) as u64)
    }

    /// Bytes of its files.
    pub fn bytes_stored(&self) -> u64 {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum()
    }

    /// All its nodes, their hosts and files, and what it cost.
    ///
    /// # Errors
    /// When the manifest is damaged or missing.
    pub fn manifest(&self) -> Result<Manifest, GenerationError> {
        Ok(memory::read_manifest(&self.path)?)
    }

    /// Opens one virtual node's part: the model is read and checked, the contents are not.
    ///
    /// # Errors
    /// When a file is damaged or missing, or there is no such node.
    pub fn open(&self, node: u32) -> Result<memory::Generation, GenerationError> {
        Ok(memory::Generation::open(&self.path, node)?)
    }

    /// Reads every byte back; a line for each damaged file, its path first.
    pub fn damage(&self) -> Vec<String> {
        memory::Generation::damage(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_final_names_count() {
        let place = tempfile::tempdir().unwrap();
        for name in ["gen-000002", "gen-000010", ".gen-000011.part", "gen-+3", "gen-", "other"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let numbers: Vec<u64> = list("test", place.path()).unwrap().iter().map(|it| it.number).collect();
        assert_eq!(numbers, [2, 10]);
        assert_eq!(find("test", place.path(), None).unwrap().number, 10);
        assert_eq!(find("test", place.path(), Some(2)).unwrap().number, 2);
        let error = find("test", place.path(), Some(11)).unwrap_err().to_string();
        assert!(error.contains("no generation 11, only 2, 10"), "{error}");
    }

    #[test]
    fn an_empty_folder_is_named() {
        let place = tempfile::tempdir().unwrap();
        let error = find("test", place.path(), None).unwrap_err().to_string();
        assert!(error.contains(&place.path().display().to_string()), "{error}");
    }
}
